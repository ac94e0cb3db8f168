//! Configuration spaces of real machines, and what `lspci` makes of them.
//!
//! The dumps are those of `tests/corpus`, and of the folder that the
//! environment variable `WARMBUS_CORPUS` names, if it is set.

mod broken_lists;
mod dumps;
mod lspci;
mod machines;
mod walk;

use std::path::{Path, PathBuf};
use std::{env, fs};

use lspci::{Decoded, ids_of};
use warmbus_boot::report::{self, CachedBytes};
use warmbus_pci::{
    Capability, CapabilityLists, DumpedConfigSpace, ExtendedCapability, Function, Sbdf, Topology,
};

/// A dump and what was read from it.
struct Dump {
    path: PathBuf,
    recorded: DumpedConfigSpace,
}

impl Dump {
    fn read(path: PathBuf) -> Self {
        let bytes = fs::read(&path).expect("the dump can be read");
        let recorded = DumpedConfigSpace::parse(&String::from_utf8_lossy(&bytes))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path, recorded }
    }
}

fn corpus() -> Vec<Dump> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let folders = [Some(own), env::var_os("WARMBUS_CORPUS").map(PathBuf::from)];
    let mut dumps = Vec::new();
    for folder in folders.into_iter().flatten() {
        let entries = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("the folder {}: {error}", folder.display()));
        let before = dumps.len();
        for entry in entries {
            let path = entry.expect("the folder can be read").path();
            if path.extension().is_some_and(|extension| extension == "txt") {
                dumps.push(Dump::read(path));
            }
        }
        assert!(dumps.len() > before, "no dumps in {}", folder.display());
    }
    dumps
}

/// How `lspci -D` prints an address that `DumpedConfigSpace` folded into a segment.
fn printed_address(function: Sbdf, known: impl Fn(&str) -> bool) -> String {
    let plain = function.to_string();
    if known(&plain) {
        return plain;
    }
    let domain = 0x1_0000 + u32::from(0xffff - function.segment());
    format!("{domain:04x}{}", &plain[4..])
}

/// A file that a dump of our own is put into for `lspci` to read.
fn scratch(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).expect("the scratch folder is writable");
    path
}

/// A topology with what the header alone says about a function: enough to write
/// it out, nothing to fill in.
fn bare(function: Sbdf, bytes: &[u8]) -> Function {
    let dword = |at: usize| {
        bytes[at..at + 4]
            .iter()
            .rfold(0, |value, &byte| value << 8 | u32::from(byte))
    };
    let lists = CapabilityLists::default();
    let mut function = Function::from_header(function, dword(0), dword(8), dword(12), &lists);
    function.bridge = None;
    function
}

fn dump_of(functions: Vec<Function>, space: impl Fn(Sbdf) -> Option<Vec<u8>>) -> String {
    let spaces: Vec<_> = functions
        .iter()
        .filter_map(|function| Some((function.sbdf, space(function.sbdf)?)))
        .collect();
    let topology = Topology::new(Vec::new(), functions);
    let cached = |sbdf| {
        let (_, data) = spaces.iter().find(|(found, _)| *found == sbdf)?;
        Some(CachedBytes {
            size: data.len() as u16,
            data,
            cacheable: 0,
            cached: 0,
        })
    };
    let mut text = String::new();
    report::lspci::write(&topology, &cached, &mut text).expect("a string takes it");
    text
}

/// The capability lists that `lspci` decodes, as enumeration would give them.
fn with_capabilities_of(decoded: &Decoded, mut function: Function) -> Function {
    let (extended, standard): (Vec<_>, Vec<_>) = decoded
        .capabilities
        .iter()
        .partition(|listed| listed.version.is_some());
    function.capabilities = standard
        .into_iter()
        .map(|listed| Capability {
            id: ids_of(listed)[0] as u8,
            offset: listed.offset as u8,
        })
        .collect();
    function.extended_capabilities = extended
        .into_iter()
        .map(|listed| ExtendedCapability {
            id: ids_of(listed)[0],
            version: listed.version.unwrap_or_default(),
            offset: listed.offset,
        })
        .collect();
    function
}

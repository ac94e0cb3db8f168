//! Configuration spaces of real machines, and what `lspci` makes of them.
//!
//! The dumps are those of `tests/corpus`, and of the folder that the
//! environment variable `WARMBUS_CORPUS` names, if it is set.

mod lspci;

use std::path::{Path, PathBuf};
use std::{env, fs};

use lspci::{Decoded, by_function, differences, ids_of, lines_of, lspci};
use warmbus::pci::{
    Capability, ConfigOffset, Counted, ExtendedCapability, Function, Recorded, Sbdf, Topology,
};
use warmbus::pcsc::{Block, Cached, Probe};
use warmbus::report::{self, CachedBytes};

/// A dump and what was read from it.
struct Dump {
    path: PathBuf,
    recorded: Recorded,
}

impl Dump {
    fn read(path: PathBuf) -> Self {
        let bytes = fs::read(&path).expect("the dump can be read");
        let recorded = Recorded::parse(&String::from_utf8_lossy(&bytes))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path, recorded }
    }
}

fn corpus() -> Vec<Dump> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
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

/// How `lspci -D` prints an address that `Recorded` folded into a segment.
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

/// A topology with what the header alone tells of a function: enough to write
/// it out, nothing to fill in.
fn bare(function: Sbdf, bytes: &[u8]) -> Function {
    Function {
        sbdf: function,
        host: 0,
        parent: None,
        vendor_id: u16::from_le_bytes([bytes[0], bytes[1]]),
        device_id: u16::from_le_bytes([bytes[2], bytes[3]]),
        revision: bytes[8],
        class_code: u32::from_le_bytes([bytes[9], bytes[10], bytes[11], 0]),
        header_type: bytes[14] & 0x7f,
        multi_function: bytes[14] & 0x80 != 0,
        port_type: None,
        capabilities: vec![],
        extended_capabilities: vec![],
        bars: vec![],
        bridge: None,
        sriov: None,
        anomalies: vec![],
    }
}

fn dump_of(functions: Vec<Function>, space: impl Fn(Sbdf) -> Option<Vec<u8>>) -> String {
    let spaces: Vec<_> = functions
        .iter()
        .filter_map(|function| Some((function.sbdf, space(function.sbdf)?)))
        .collect();
    let topology = Topology {
        functions,
        ..Topology::default()
    };
    let cached = |sbdf| {
        let (_, data) = spaces.iter().find(|(found, _)| *found == sbdf)?;
        Some(CachedBytes {
            data,
            cacheable: 0,
            cached: 0,
        })
    };
    let mut text = String::new();
    report::lspci::write(&topology, &cached, &mut text).expect("a string takes it");
    text
}

#[test]
fn every_byte_of_every_dump_reads_as_lspci_reads_it() {
    let mut functions = 0;
    let dumps = corpus();
    for dump in &dumps {
        let printed = by_function(&lspci(&dump.path, &["-D", "-n", "-xxxx"]));
        for function in dump.recorded.functions() {
            let address = printed_address(function, |address| printed.contains_key(address));
            let text = printed
                .get(&address)
                .unwrap_or_else(|| panic!("{}: lspci has no {address}", dump.path.display()));
            let (_, lines) = text.split_once('\n').expect("a line, then bytes");
            let ours = lines_of(dump.recorded.bytes(function).expect("recorded"));
            assert_eq!(
                lines.trim_end(),
                ours.trim_end(),
                "{} {address}",
                dump.path.display()
            );
        }
        assert_eq!(
            dump.recorded.functions().count(),
            printed.len(),
            "functions of {}",
            dump.path.display()
        );
        functions += printed.len();
    }
    println!("{} dumps, {functions} functions", dumps.len());
}

#[test]
fn a_dump_of_our_own_decodes_exactly_like_the_one_it_was_made_from() {
    let mut functions = 0;
    for (index, dump) in corpus().iter().enumerate() {
        // What was read without privilege is shorter than anything we write.
        let whole: Vec<_> = dump
            .recorded
            .functions()
            .map(|function| (function, dump.recorded.bytes(function).expect("recorded")))
            .filter(|(_, bytes)| bytes.len() >= 256)
            .collect();
        let ours = dump_of(
            whole
                .iter()
                .map(|(sbdf, bytes)| bare(*sbdf, bytes))
                .collect(),
            |sbdf| dump.recorded.bytes(sbdf).map(<[u8]>::to_vec),
        );
        let path = scratch(&format!("rewritten-{index}.txt"), &ours);
        let options = ["-D", "-vvv", "-nn", "-xxxx"];
        let original = by_function(&lspci(&dump.path, &options));
        let rewritten = by_function(&lspci(&path, &options));
        assert_eq!(rewritten.len(), whole.len());
        for (sbdf, _) in whole {
            let address = printed_address(sbdf, |address| original.contains_key(address));
            assert_eq!(
                rewritten[&sbdf.to_string()],
                original[&address],
                "{} {address}",
                dump.path.display()
            );
            functions += 1;
        }
    }
    println!("{functions} functions");
}

/// The capability lists that `lspci` decodes, as enumeration would give them.
fn with_capabilities_of(decoded: &Decoded, function: Function) -> Function {
    let (extended, standard): (Vec<_>, Vec<_>) = decoded
        .capabilities
        .iter()
        .partition(|listed| listed.version.is_some());
    Function {
        capabilities: standard
            .into_iter()
            .map(|listed| Capability {
                id: ids_of(listed)[0] as u8,
                offset: listed.offset as u8,
            })
            .collect(),
        extended_capabilities: extended
            .into_iter()
            .map(|listed| ExtendedCapability {
                id: ids_of(listed)[0],
                version: listed.version.unwrap_or_default(),
                offset: listed.offset,
            })
            .collect(),
        ..function
    }
}

/// Writes each dump anew with `space` as what is cached of a function, given
/// its recorded bytes, and checks that `lspci` finds every capability.
fn check_that_lspci_finds_its_way(name: &str, space: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let mut capabilities = 0;
    for (index, dump) in corpus().iter().enumerate() {
        let original = by_function(&lspci(&dump.path, &["-D", "-vvv"]));
        let functions: Vec<_> = dump
            .recorded
            .functions()
            .map(|sbdf| {
                let address = printed_address(sbdf, |address| original.contains_key(address));
                let decoded = Decoded::new(&original[&address]);
                let bytes = dump.recorded.bytes(sbdf).expect("recorded");
                with_capabilities_of(&decoded, bare(sbdf, bytes))
            })
            .collect();
        let ours = dump_of(functions.clone(), |sbdf| {
            space(dump.recorded.bytes(sbdf).expect("recorded"))
        });
        let path = scratch(&format!("{name}-{index}.txt"), &ours);
        let printed = by_function(&lspci(&path, &["-D", "-vvv"]));
        for function in functions {
            let decoded = Decoded::new(&printed[&function.sbdf.to_string()]);
            let missing = differences(
                &decoded,
                &function.capabilities,
                &function.extended_capabilities,
            );
            assert!(
                missing.is_empty(),
                "{} {}: {missing:#?}",
                dump.path.display(),
                function.sbdf
            );
            capabilities += decoded.capabilities.len();
        }
    }
    println!("{capabilities} capabilities");
    assert!(capabilities > 100);
}

#[test]
fn lspci_finds_the_capabilities_although_the_status_register_is_not_cached() {
    check_that_lspci_finds_its_way("status", |bytes| {
        let mut bytes = bytes.to_vec();
        bytes[4..8].fill(0);
        Some(bytes)
    });
}

#[test]
fn lspci_finds_the_capabilities_of_a_function_that_was_left_out_of_the_cache() {
    check_that_lspci_finds_its_way("left-out", |_| None);
}

/// A cache in front of a dump that knows all of its functions.
fn cache_of(dump: &Dump) -> Cached<Counted<Recorded>> {
    let mut cache = Cached::new(Counted::new(dump.recorded.clone()));
    for function in dump.recorded.functions() {
        if matches!(cache.probe(function), Probe::Present { .. }) {
            cache.infer(function);
        }
    }
    cache
}

/// What enumeration makes of a function that the cache knows.
fn cached_function(block: &Block, function: Function) -> Function {
    Function {
        capabilities: block.capabilities().to_vec(),
        extended_capabilities: block.extended_capabilities().to_vec(),
        ..function
    }
}

#[test]
fn the_walk_finds_the_capabilities_that_lspci_finds() {
    let (mut functions, mut capabilities, mut absent) = (0, 0, 0);
    for dump in corpus() {
        let printed = by_function(&lspci(&dump.path, &["-D", "-vvv"]));
        let cache = cache_of(&dump);
        for function in dump.recorded.functions() {
            let address = printed_address(function, |address| printed.contains_key(address));
            let decoded = Decoded::new(&printed[&address]);
            let Some(block) = cache.block(function) else {
                // The dump of a function that answered with ones. Its header
                // type says nothing to lspci either.
                assert_eq!(decoded.remarks, ["!!! Unknown header type 7f"], "{address}");
                assert!(decoded.capabilities.is_empty());
                absent += 1;
                continue;
            };
            let found = differences(
                &decoded,
                block.capabilities(),
                block.extended_capabilities(),
            );
            assert!(
                found.is_empty(),
                "{} {address}: {found:#?}",
                dump.path.display()
            );
            functions += 1;
            capabilities += decoded.capabilities.len();
        }
        assert_eq!(cache.access().access().writes(), 0);
    }
    println!("{functions} functions with {capabilities} capabilities, {absent} absent");
}

#[test]
fn a_dump_of_the_cache_has_the_capabilities_and_cached_bytes_of_the_original() {
    let mut bytes = 0;
    for (index, dump) in corpus().iter().enumerate() {
        let mut cache = cache_of(dump);
        let known: Vec<Sbdf> = cache.blocks().map(|(function, _)| function).collect();
        for function in &known {
            cache.capture(*function);
        }
        let functions: Vec<_> = cache
            .blocks()
            .map(|(sbdf, block)| {
                let recorded = dump.recorded.bytes(sbdf).expect("recorded");
                for (offset, value) in recorded.iter().enumerate() {
                    let at = ConfigOffset::new(offset as u16);
                    if block.is_cached(at) {
                        assert_eq!(block.data()[offset], *value, "{sbdf} offset {at}");
                        bytes += 1;
                    }
                }
                cached_function(block, bare(sbdf, recorded))
            })
            .collect();
        let ours = dump_of(functions, |sbdf| Some(cache.block(sbdf)?.data().to_vec()));
        let path = scratch(&format!("cache-{index}.txt"), &ours);
        let original = by_function(&lspci(&dump.path, &["-D", "-vvv"]));
        let printed = by_function(&lspci(&path, &["-D", "-vvv"]));
        for sbdf in known {
            let address = printed_address(sbdf, |address| original.contains_key(address));
            let wanted = with_capabilities_of(
                &Decoded::new(&original[&address]),
                bare(sbdf, dump.recorded.bytes(sbdf).expect("recorded")),
            );
            let found = differences(
                &Decoded::new(&printed[&sbdf.to_string()]),
                &wanted.capabilities,
                &wanted.extended_capabilities,
            );
            assert!(
                found.is_empty(),
                "{} {address}: {found:#?}",
                dump.path.display()
            );
        }
    }
    println!("{bytes} cached bytes");
    assert!(bytes > 10_000);
}

//! What is known of boards beyond what their device trees say.
//!
//! One image runs on all of them: the root `compatible` of the tree tells
//! which board it is. The table is made at build time from
//! `boards/<name>/board.toml`.

mod complete;
#[cfg(test)]
mod tests;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

pub use complete::{OverlayError, complete};

use warmbus_fdt::{FdtWriter, RawTree, Token};
use warmbus_linux::payload::Payload;
use warmbus_memory::MemoryRange;

use crate::options::Options;

/// A board with a description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Board {
    /// The name of its folder below `boards`.
    pub id: &'static str,
    /// What people call it.
    pub name: &'static str,
    /// Entries of the root `compatible` of its tree, each of which names it.
    pub compatible: &'static [&'static str],
    /// Words for Warmbus, ahead of those of the command line.
    pub options: &'static str,
    /// What its tree lacks, as a flattened device tree.
    pub additions: Option<&'static [u8]>,
}

include!(concat!(env!("OUT_DIR"), "/boards.rs"));

/// A boot tree with what the board and the loader have to add to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completed {
    /// The board, if it is known.
    pub board: Option<&'static Board>,
    /// The tree with the additions, where there are any.
    pub tree: Option<Vec<u8>>,
    /// What could not be added, as sentences.
    pub warnings: Vec<String>,
}

impl Board {
    /// The board that the root `compatible` of `tree` names. The entry that
    /// comes first there, the most specific one, counts.
    #[must_use]
    pub fn of(tree: &[u8]) -> Option<&'static Self> {
        root_property(tree, b"compatible")?
            .split(|byte| *byte == 0)
            .find_map(|entry| {
                let is = |name: &&str| name.as_bytes() == entry;
                BOARDS.iter().find(|board| board.compatible.iter().any(&is))
            })
    }
}

impl Completed {
    /// Adds to `tree` what its board says, and what `warmbus.kernel=` and
    /// `warmbus.initrd=` name. What cannot be added is left out.
    #[must_use]
    pub fn new(tree: &[u8]) -> Self {
        let mut completed = Self {
            board: Board::of(tree),
            ..Self::default()
        };
        if let Some(additions) = completed.board.and_then(|board| board.additions) {
            completed.add(tree, additions, "what its board adds");
        }
        if let Some(modules) = module_nodes(&named_modules(tree)) {
            completed.add(tree, &modules, "what the command line names");
        }
        completed
    }

    /// What the board and, above it, the command line `bootargs` ask for.
    #[must_use]
    pub fn options(&self, bootargs: &str) -> Options {
        let board = self.board.map_or("", |board| board.options);
        Options::from_bootargs(&format!("{board} {bootargs}"))
    }

    fn add(&mut self, tree: &[u8], additions: &[u8], what: &str) {
        match complete(self.tree.as_deref().unwrap_or(tree), additions) {
            Ok(tree) => self.tree = Some(tree),
            Err(error) => self
                .warnings
                .push(format!("the device tree stays without {what}: {error}")),
        }
    }
}

/// What the command line of `tree` says is loaded where, unless a node says so
/// already: the kind of module of the "Multiboot on Arm" binding, and where it
/// is.
fn named_modules(tree: &[u8]) -> Vec<(&'static str, MemoryRange)> {
    // After a kernel they are what that one was started with.
    let payload = match Payload::find(tree) {
        Ok(payload) if !payload.from_kexec => payload,
        _ => return Vec::new(),
    };
    let line = core::str::from_utf8(payload.bootargs.unwrap_or_default()).unwrap_or_default();
    let options = Options::from_bootargs(line);
    let kernel = options.kernel.filter(|_| payload.kernel.is_none());
    let initrd = options.initrd.filter(|_| payload.ramdisk.is_none());
    let kernel = kernel.map(|region| ("multiboot,kernel", region));
    let initrd = initrd.map(|region| ("multiboot,ramdisk", region));
    kernel.into_iter().chain(initrd).collect()
}

/// A tree with nothing but the nodes of `modules`.
fn module_nodes(modules: &[(&'static str, MemoryRange)]) -> Option<Vec<u8>> {
    let mut tree = FdtWriter::new();
    tree.begin_node("");
    tree.begin_node("chosen");
    tree.property_u32("#address-cells", 2);
    tree.property_u32("#size-cells", 2);
    for (kind, range) in modules {
        tree.begin_node(&format!("module@{:x}", range.start.0));
        tree.property_strings("compatible", &[kind, "multiboot,module"]);
        let reg = [range.start.0, range.size].map(u64::to_be_bytes);
        tree.property("reg", reg.as_flattened());
        tree.end_node();
    }
    tree.end_node();
    tree.end_node();
    // All that varies are numbers, with which nothing can go wrong.
    tree.finish().ok().filter(|_| !modules.is_empty())
}

/// A property of the root node.
fn root_property<'a>(tree: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let tree = RawTree::new(tree).ok()?;
    let mut depth = 0;
    for token in tree.tokens() {
        match token.ok()?.1 {
            Token::Begin { .. } => depth += 1,
            Token::Property { name, value } if depth == 1 && name == wanted => return Some(value),
            _ if depth > 1 => return None,
            _ => {}
        }
    }
    None
}

//! The boot tree, with the nodes of its board and those that the command line
//! names.

use alloc::format;
use alloc::vec::Vec;

use warmbus_fdt::FdtWriter;
use warmbus_linux::payload::Payload;
use warmbus_machine::board_overlay::FdtWithBoardOverlay;
use warmbus_memory::MemoryRange;

use crate::options::Options;

/// Adds to `tree` the nodes of its board, and modules for the files that
/// `warmbus.kernel=` and `warmbus.initrd=` name and `payload`, that of the tree,
/// does not. Where that fails, the tree stays as it is, with a warning.
#[must_use]
pub fn complete(tree: &[u8], payload: Option<&Payload<'_>>) -> FdtWithBoardOverlay {
    let mut completed = FdtWithBoardOverlay::new(tree);
    if let Some(modules) = module_nodes(named_modules(payload)) {
        completed.add(tree, &modules, "what the command line names");
    }
    completed
}

/// The options of the board of `tree`, overridden by those of the command line
/// `bootargs`.
#[must_use]
pub fn options(tree: &FdtWithBoardOverlay, bootargs: &str) -> Options {
    let board = tree.board.map_or("", |board| board.options);
    Options::from_bootargs(&format!("{board} {bootargs}"))
}

/// The files that the command line of the tree of `payload` names and no node
/// does: the kind of module of the "Multiboot on Arm" binding, and the range.
/// Nothing is allocated for that.
pub fn named_modules(
    payload: Option<&Payload<'_>>,
) -> impl Iterator<Item = (&'static str, MemoryRange)> + use<> {
    // After a kexec they are the files that the previous kernel was started
    // from.
    let payload = payload.filter(|payload| !payload.from_kexec);
    let modules = payload.map(|payload| {
        let line = core::str::from_utf8(payload.bootargs.unwrap_or_default());
        let [kernel, initrd] = Options::modules_in(line.unwrap_or_default());
        [
            (
                "multiboot,kernel",
                kernel.filter(|_| payload.kernel.is_none()),
            ),
            (
                "multiboot,ramdisk",
                initrd.filter(|_| payload.ramdisk.is_none()),
            ),
        ]
    });
    let modules = modules.into_iter().flatten();
    modules.filter_map(|(kind, range)| Some((kind, range?)))
}

/// A tree with nothing but the nodes of `modules`.
fn module_nodes(modules: impl Iterator<Item = (&'static str, MemoryRange)>) -> Option<Vec<u8>> {
    let mut modules = modules.peekable();
    modules.peek()?;
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
    tree.finish().ok()
}

#[cfg(test)]
mod tests;

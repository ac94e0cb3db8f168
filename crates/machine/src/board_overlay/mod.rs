//! What is known of boards beyond their device trees.
//!
//! One image runs on all boards: the root `compatible` of the tree names the
//! board. The table of boards is generated at build time from
//! `boards/<name>/board.toml`.

mod overlay;
#[cfg(test)]
mod tests;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use warmbus_fdt::{DeviceTree, FdtError, tolerate_damage_after};

pub use overlay::{OverlayError, apply_overlay};

/// A board with a description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Board {
    /// The name of its folder below `boards`.
    pub id: &'static str,
    /// The name of the product.
    pub name: &'static str,
    /// Entries of the root `compatible` of its tree; each one names the board.
    pub compatible: &'static [&'static str],
    /// Parameters for Warmbus. Those of the command line override them.
    pub options: &'static str,
    /// Nodes and properties that its tree lacks, as a flattened device tree.
    pub additions: Option<&'static [u8]>,
}

include!(concat!(env!("OUT_DIR"), "/boards.rs"));

impl Board {
    /// The board that the root `compatible` of `tree` names. The first entry
    /// that is known, the most specific one, counts.
    #[must_use]
    pub fn of(tree: &[u8]) -> Option<&'static Self> {
        let compatible = root_compatible(tree).ok().flatten()?;
        compatible.split(|byte| *byte == 0).find_map(|entry| {
            let is_entry = |name: &&str| name.as_bytes() == entry;
            let mut boards = BOARDS.iter();
            boards.find(|board| board.compatible.iter().any(&is_entry))
        })
    }
}

/// The `compatible` of the root node.
fn root_compatible(tree: &[u8]) -> Result<Option<&[u8]>, FdtError> {
    let mut compatible = None;
    let walked = DeviceTree::new(tree)?.walk(&mut |node| {
        compatible = node.property("compatible")?;
        Ok(core::ops::ControlFlow::Break(()))
    });
    tolerate_damage_after(compatible, walked)
}

/// A device tree with the nodes and properties that its board adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FdtWithBoardOverlay {
    /// The board, if it is known.
    pub board: Option<&'static Board>,
    /// The tree with the additions; `None` where nothing was added.
    pub tree: Option<Vec<u8>>,
    /// What could not be added, as sentences.
    pub warnings: Vec<String>,
}

impl FdtWithBoardOverlay {
    /// Adds to `tree` the nodes and properties of its board. Where that fails,
    /// the tree stays as it is, with a warning.
    #[must_use]
    pub fn new(tree: &[u8]) -> Self {
        let mut with_overlay = Self {
            board: Board::of(tree),
            ..Self::default()
        };
        if let Some(additions) = with_overlay.board.and_then(|board| board.additions) {
            with_overlay.add(tree, additions, "what its board adds");
        }
        with_overlay
    }

    /// Adds `overlay` to the tree, which is `tree` where nothing was added so
    /// far. `what` names the overlay in the warning where that fails.
    pub fn add(&mut self, tree: &[u8], overlay: &[u8], what: &str) {
        match apply_overlay(self.tree.as_deref().unwrap_or(tree), overlay) {
            Ok(tree) => self.tree = Some(tree),
            Err(error) => self
                .warnings
                .push(format!("the device tree stays without {what}: {error}")),
        }
    }
}

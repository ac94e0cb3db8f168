//! Handover trees: the root tree, and subtrees that are device trees.
//!
//! Handover trees are flattened device trees, but the kernel stores and loads
//! their numbers in the byte order of the CPU, little endian on arm64, where
//! an ordinary device tree has big-endian cells.

use alloc::vec::Vec;

use warmbus_fdt::{FdtWriter, RawTree, Token};
use warmbus_memory::bytes::le_u64;

/// Adds a u32 property in native byte order, 4 bytes.
pub fn u32(tree: &mut FdtWriter, name: &str, value: u32) {
    tree.property(name, &value.to_le_bytes());
}

/// Adds a u64 property in native byte order, 8 bytes.
pub fn u64(tree: &mut FdtWriter, name: &str, value: u64) {
    tree.property(name, &value.to_le_bytes());
}

/// The value of a u64 property in native byte order, of exactly 8 bytes.
#[must_use]
pub fn number(value: &[u8]) -> Option<u64> {
    le_u64(value, 0).filter(|_| value.len() == 8)
}

/// Looks at a property: the names of the nodes that it is in, that of the root
/// first, its own and its value. `None` where the tree is not to be used.
pub type See<'s> = dyn FnMut(&[&[u8]], &[u8], &[u8]) -> Option<()> + 's;

/// Shows every property of a tree to `see`. `None` where the tree cannot be
/// read, or `see` says so.
pub fn each_property(bytes: &[u8], see: &mut See<'_>) -> Option<()> {
    let mut path = Vec::new();
    for token in RawTree::new(bytes).ok()?.tokens() {
        match token.ok()?.1 {
            Token::Begin { name } => path.push(name),
            Token::End => drop(path.pop()),
            Token::Property { name, value } => see(&path, name, value)?,
        }
    }
    Some(())
}

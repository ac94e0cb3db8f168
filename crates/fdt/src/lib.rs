//! Flattened device trees: one reader, one editor and one writer.
//!
//! Trees come from loaders and may be damaged. Nothing here panics, loops or
//! believes a length that a tree claims; what cannot be read is an
//! [`FdtError`] with the offset or the path at which that shows. "DT" means
//! the Devicetree Specification 0.4.
//!
//! - [`DeviceTree`] reads nodes and properties, over the `fdt` crate.
//! - [`RawTree`] reads token by token with the position of each, which is
//!   what it takes to edit a tree without changing anything else in it;
//!   [`write`](mod@write) has the tokens to add.
//! - [`FdtWriter`] writes a tree from nothing.
//!
//! ```
//! use core::ops::ControlFlow;
//! use warmbus_fdt::{DeviceTree, FdtWriter};
//!
//! let mut tree = FdtWriter::new();
//! tree.begin_node("");
//! tree.begin_node("memory@40000000");
//! tree.property_string("device_type", "memory");
//! tree.end_node();
//! tree.end_node();
//! let bytes = tree.finish()?;
//!
//! let mut memory = Vec::new();
//! DeviceTree::new(&bytes)?.walk_root_children(&mut |node| {
//!     if node.text("device_type")? == Some("memory") {
//!         memory.push(node.path());
//!     }
//!     Ok(ControlFlow::Break(()))
//! })?;
//! assert_eq!(memory, ["/memory@40000000"]);
//! # Ok::<(), warmbus_fdt::FdtError>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::missing_errors_doc)]

extern crate alloc;

mod error;
mod header;
mod reader;
#[cfg(test)]
mod tests;
mod tokens;
pub mod write;
mod writer;

pub use error::FdtError;
pub use reader::{CellCounts, Cells, DeviceTree, FdtNode, Visit, text, tolerate_damage_after};
pub use tokens::{RawTree, Token, Tokens, is_chosen};
pub use writer::FdtWriter;

/// The first four bytes of a flattened device tree, big-endian (DT 5.2).
pub const MAGIC: u32 = 0xd00d_feed;

/// Bytes of the header of a tree of version 17 (DT 5.2).
pub const HEADER_SIZE: usize = 40;

/// Nodes inside nodes, the root included, that are followed; Linux allows as
/// many (`FDT_MAX_DEPTH`). Real trees have fewer than ten.
pub const MAX_DEPTH: usize = 64;

/// Bytes of the longest name of a property or node that is read; DT 2.2.1 and
/// 2.2.4 allow 31 before the unit address.
pub const MAX_NAME: usize = 255;

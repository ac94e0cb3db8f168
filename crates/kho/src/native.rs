//! Numbers in the properties of handover trees.
//!
//! Handover trees are flattened device trees, but the kernel stores and loads
//! their numbers in the byte order of the CPU, little endian on arm64, where
//! an ordinary device tree has big-endian cells.

use warmbus_fdt::FdtWriter;

/// Adds a u32 property in native byte order, 4 bytes.
pub fn u32(tree: &mut FdtWriter, name: &str, value: u32) {
    tree.property(name, &value.to_le_bytes());
}

/// Adds a u64 property in native byte order, 8 bytes.
pub fn u64(tree: &mut FdtWriter, name: &str, value: u64) {
    tree.property(name, &value.to_le_bytes());
}

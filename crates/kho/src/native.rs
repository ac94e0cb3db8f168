//! Numbers in the properties of handover trees.
//!
//! Handover trees are flattened device trees, but the kernel stores and loads
//! their numbers in the byte order of the CPU, little endian on arm64. The
//! boot tree has big-endian cells; [`warmbus_linux::devicetree`] writes those.

use vm_fdt::{Error, FdtWriter};

/// Adds a u32 property in native byte order, 4 bytes.
pub fn u32(tree: &mut FdtWriter, name: &str, value: u32) -> Result<(), Error> {
    tree.property(name, &value.to_le_bytes())
}

/// Adds a u64 property in native byte order, 8 bytes.
pub fn u64(tree: &mut FdtWriter, name: &str, value: u64) -> Result<(), Error> {
    tree.property(name, &value.to_le_bytes())
}

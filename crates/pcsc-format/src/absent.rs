//! The functions that were asked for and are not there, as a property of the
//! `pcsc` tree.
//!
//! `docs/pcsc-format.md` is the description of the format.

use alloc::vec::Vec;

use warmbus_pci::Sbdf;

/// Name of the property.
pub(super) const PROPERTY: &str = "warmbus,absent";

/// Functions that the property has room for. The list makes no claim to be
/// complete, so that the rest is left out.
pub(super) const MAX: usize = 512;

/// Bytes of the header.
const HEADER: usize = 16;
/// Bytes of the property at most.
pub(super) const MAX_BYTES: u64 = (HEADER + 4 * MAX) as u64;

const MAGIC: [u8; 4] = *b"WBAB";
const VERSION: u16 = 1;
/// Where the CRC is.
const CRC: usize = 12;

/// The value of the property for `functions`, in any order; the lowest
/// [`MAX`] of them.
pub(super) fn property(functions: &[Sbdf]) -> Vec<u8> {
    let mut functions = functions.to_vec();
    functions.sort_unstable();
    functions.dedup();
    functions.truncate(MAX);

    let mut bytes = Vec::with_capacity(HEADER + 4 * functions.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(HEADER as u16).to_le_bytes());
    bytes.extend_from_slice(&(functions.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    for function in functions {
        bytes.extend_from_slice(&function.routing_id().to_le_bytes());
        bytes.extend_from_slice(&function.segment().to_le_bytes());
    }
    let crc = warmbus_memory::crc32::checksum(&bytes);
    bytes[CRC..CRC + 4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

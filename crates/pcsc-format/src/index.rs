//! The sorted index of a handover: function to data block by binary search.
//!
//! `docs/pcsc-format.md` is the description of the format.

use alloc::vec::Vec;

use super::FunctionRecord;
use warmbus_memory::PhysAddr;
use warmbus_memory::crc32;

/// Bytes of the header of the index.
pub(super) const INDEX_HEADER_SIZE: u64 = 64;
/// Bytes of a record of the index.
pub(super) const INDEX_RECORD_SIZE: u64 = 16;

const MAGIC: [u8; 4] = *b"WBIX";
const VERSION: u16 = 1;

/// Bytes of the index of `functions` functions.
pub(super) const fn size(functions: usize) -> u64 {
    INDEX_HEADER_SIZE + functions as u64 * INDEX_RECORD_SIZE
}

/// The index of `blocks`, which ascend by function. Their data blocks are at
/// `addresses`, `stride` bytes apart.
pub(super) fn encode(
    blocks: &[FunctionRecord<'_>],
    addresses: &[PhysAddr],
    stride: u64,
    generation: u64,
) -> Vec<u8> {
    let size = size(blocks.len());
    let mut bytes = Vec::with_capacity(size as usize);
    bytes.resize(INDEX_HEADER_SIZE as usize, 0);
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, &MAGIC);
    put(4, &VERSION.to_le_bytes());
    put(6, &(INDEX_HEADER_SIZE as u16).to_le_bytes());
    put(8, &(blocks.len() as u32).to_le_bytes());
    put(16, &size.to_le_bytes());
    put(24, &generation.to_le_bytes());
    put(32, &(INDEX_RECORD_SIZE as u32).to_le_bytes());
    put(40, &stride.to_le_bytes());

    for (block, address) in blocks.iter().zip(addresses) {
        bytes.extend_from_slice(&block.sbdf.routing_id().to_le_bytes());
        bytes.extend_from_slice(&block.sbdf.segment().to_le_bytes());
        bytes.extend_from_slice(&block.size.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&address.0.to_le_bytes());
    }
    let crc = crc32::checksum(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

//! The sorted index of a handover: function to data block by binary search.
//!
//! `docs/pcsc-format.md` is the description of the format.

use super::FunctionRecord;
use warmbus_memory::PhysAddr;
use warmbus_memory::PhysMemoryWrite;
use warmbus_memory::crc32::Crc32;

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

/// Writes the index of `blocks`, which ascend by function, to `address`. Their
/// data blocks lie from `first` on, `stride` bytes apart.
pub(super) fn write(
    blocks: &[FunctionRecord<'_>],
    first: PhysAddr,
    stride: u64,
    generation: u64,
    address: PhysAddr,
    sink: &mut impl PhysMemoryWrite,
) {
    let mut header = [0; INDEX_HEADER_SIZE as usize];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &MAGIC);
    put(4, &VERSION.to_le_bytes());
    put(6, &(INDEX_HEADER_SIZE as u16).to_le_bytes());
    put(8, &(blocks.len() as u32).to_le_bytes());
    put(16, &size(blocks.len()).to_le_bytes());
    put(24, &generation.to_le_bytes());
    put(32, &(INDEX_RECORD_SIZE as u32).to_le_bytes());
    put(40, &stride.to_le_bytes());

    let mut crc = Crc32::new();
    crc.update(&header);
    let mut at = address.0 + INDEX_HEADER_SIZE;
    for (number, block) in blocks.iter().enumerate() {
        let mut record = [0; INDEX_RECORD_SIZE as usize];
        record[0..2].copy_from_slice(&block.sbdf.routing_id().to_le_bytes());
        record[2..4].copy_from_slice(&block.sbdf.segment().to_le_bytes());
        record[4..6].copy_from_slice(&block.size.to_le_bytes());
        record[8..].copy_from_slice(&(first.0 + number as u64 * stride).to_le_bytes());
        crc.update(&record);
        sink.write(PhysAddr(at), &record);
        at += INDEX_RECORD_SIZE;
    }
    header[12..16].copy_from_slice(&crc.finalize().to_le_bytes());
    sink.write(address, &header);
}

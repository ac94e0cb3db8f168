//! A last look at the handover of a cache in memory, before a kernel relies on
//! it.
//!
//! It goes the way of the kernel and of a consumer: from the root tree to the
//! subtree, the index and the blocks. From the writer it uses nothing but what
//! to expect.

use alloc::vec::Vec;

use super::{BLOCK_SIZE, Handover, Layout};
use warmbus_kho::native::{each_property, number};
use warmbus_kho::{Arena, Preserved, VerifyError};
use warmbus_memory::bytes::{le_u32, le_u64};
use warmbus_memory::{MemoryRange, PhysAddr, crc32};

/// Where the extension of a block starts, where it says how much of it is
/// used, where its CRC and where its flags are (`docs/pcsc-format.md`).
const EXTENSION: usize = 5120;
const USED: usize = EXTENSION + 8;
const BLOCK_CRC: usize = EXTENSION + 12;
const FLAGS: usize = EXTENSION + 22;
/// Flag: a virtual function that does not exist now, so that no node leads to
/// it.
const DISABLED: u8 = 1 << 3;
/// Where the CRC of the index is, its records, and the address in a record.
const INDEX_CRC: usize = 12;
const INDEX_RECORDS: usize = 64;
const INDEX_RECORD: usize = 16;
const RECORD_BLOCK: usize = 8;

/// Checks that a handover is in memory as it was written: all that
/// [`warmbus_kho::verify()`] checks, and that subtree and index lead to the
/// same blocks and every checksum of them is right.
///
/// `arena` is what the memory from `base` on, where the handover was written
/// to, holds now. `in_use` is what must not be preserved, because Linux uses
/// it, or because something else is there.
///
/// # Errors
///
/// The first [`VerifyError`] on the way.
pub fn verify(
    layout: &Layout,
    handover: &Handover,
    inherited: &[Preserved],
    base: PhysAddr,
    arena: &[u8],
    in_use: &[(&'static str, MemoryRange)],
) -> Result<(), VerifyError> {
    let arena = Arena::new(base, arena);
    let verified = warmbus_kho::verify(layout.kho(), &handover.kho, inherited, arena, in_use)?;
    verified.check_preserved("index", handover.index)?;
    let index = verified.bytes(handover.index)?;
    check_sealed("index", handover.index.start, index, INDEX_CRC)?;
    let records = index.get(INDEX_RECORDS..).unwrap_or_default();
    let blocks: Vec<u64> = records
        .chunks_exact(INDEX_RECORD)
        .map(|record| le_u64(record, RECORD_BLOCK).unwrap_or_default())
        .collect();
    let subtree = handover.subtree();
    let nodes = blocks_of(verified.bytes(subtree)?).ok_or(VerifyError::Subtree { subtree })?;
    let count = blocks.len() as u64;
    VerifyError::check_equal("number of blocks", layout.functions(), count)?;
    let mut with_node = 0;
    for address in blocks {
        let range = MemoryRange::new(PhysAddr(address), BLOCK_SIZE);
        verified.check_preserved("data block", range)?;
        let block = verified.bytes(range)?;
        let used = EXTENSION.saturating_add(le_u32(block, USED).unwrap_or_default() as usize);
        let block = block
            .get(..used)
            .filter(|block| block.len() >= BLOCK_CRC + 4)
            .ok_or(VerifyError::Outside { range })?;
        check_sealed("data block", range.start, block, BLOCK_CRC)?;
        if block.get(FLAGS).is_some_and(|flags| flags & DISABLED == 0) {
            let node = nodes.get(with_node).copied().unwrap_or(0);
            VerifyError::check_equal("address of a block", address, node)?;
            with_node += 1;
        }
    }
    VerifyError::check_equal("number of nodes", with_node as u64, nodes.len() as u64)
}

/// The addresses of the blocks that the nodes of the subtree lead to.
fn blocks_of(subtree: &[u8]) -> Option<Vec<u64>> {
    let mut blocks = Vec::new();
    each_property(subtree, &mut |path, name, value| {
        if let ([_, _], b"da") = (path, name) {
            blocks.push(number(value)?);
        }
        Some(())
    })?;
    Some(blocks)
}

/// Checks `bytes`, whose CRC-32 is stored at `at` in them and was calculated
/// with zeros in its place.
fn check_sealed(
    what: &'static str,
    address: PhysAddr,
    bytes: &[u8],
    at: usize,
) -> Result<(), VerifyError> {
    let range = MemoryRange::new(address, bytes.len() as u64);
    let computed = crc32::checksum_around(bytes, at).ok_or(VerifyError::Outside { range })?;
    let stored = le_u32(bytes, at).unwrap_or_default();
    VerifyError::check_crc(what, address, stored, computed)
}

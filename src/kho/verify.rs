//! A last look at a handover in memory, before anybody relies on it.

use core::fmt;

use super::block::BLOCK_SIZE;
use super::{Handover, Layout};
use crate::linux::memory::MemoryRange;
use crate::pci::PhysAddr;

/// Where the extension of a block starts, where it says how much of it is
/// used, and where its CRC is (`docs/pcsc-format.md`).
const EXTENSION: usize = 5120;
const USED: usize = EXTENSION + 8;
const BLOCK_CRC: usize = EXTENSION + 12;
/// Where the CRC of the index is.
const INDEX_CRC: usize = 12;

/// Calculates every checksum of a handover again: those of the subtree, of the
/// index and of all data blocks. `arena` is what the memory from `base` on,
/// where the handover was written to, holds now.
pub fn verify(
    layout: &Layout,
    handover: &Handover,
    base: PhysAddr,
    arena: &[u8],
) -> Result<(), VerifyError> {
    let piece = |range: MemoryRange| {
        let outside = VerifyError::Outside { range };
        let start = range.start.0.checked_sub(base.0).ok_or(outside)? as usize;
        let end = start.checked_add(range.size as usize).ok_or(outside)?;
        arena.get(start..end).ok_or(outside)
    };

    let computed = crc32fast::hash(piece(handover.subtree)?);
    let stored = handover.subtree_crc;
    differs("subtree", handover.subtree.start, stored, computed)?;

    let index = piece(handover.index)?;
    sealed("index", handover.index.start, index, INDEX_CRC)?;

    for number in 0..layout.functions() {
        let at = base.0 + layout.blocks.offset + number * layout.block_stride();
        let range = MemoryRange::new(PhysAddr(at), BLOCK_SIZE);
        let block = piece(range)?;
        let used = EXTENSION.saturating_add(u32_at(block, USED) as usize);
        let block = block
            .get(..used)
            .filter(|block| block.len() >= BLOCK_CRC + 4)
            .ok_or(VerifyError::Outside { range })?;
        sealed("data block", range.start, block, BLOCK_CRC)?;
    }
    Ok(())
}

/// Checks `bytes`, whose CRC-32 is stored at `at` in them and was calculated
/// with zeros in its place.
fn sealed(
    what: &'static str,
    address: PhysAddr,
    bytes: &[u8],
    at: usize,
) -> Result<(), VerifyError> {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..at]);
    crc.update(&[0; 4]);
    crc.update(&bytes[at + 4..]);
    differs(what, address, u32_at(bytes, at), crc.finalize())
}

fn differs(
    what: &'static str,
    address: PhysAddr,
    stored: u32,
    computed: u32,
) -> Result<(), VerifyError> {
    if stored == computed {
        return Ok(());
    }
    Err(VerifyError::Crc {
        what,
        address,
        stored,
        computed,
    })
}

/// The u32 at `offset` of a slice that is known to hold it.
fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(raw)
}

/// What is wrong with a handover in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyError {
    /// A piece reaches out of the arena.
    Outside {
        /// Where it is.
        range: MemoryRange,
    },
    /// A checksum does not match.
    Crc {
        /// The piece that it is of.
        what: &'static str,
        /// Where the piece is.
        address: PhysAddr,
        /// The CRC-32 that was written down.
        stored: u32,
        /// The CRC-32 of what is in memory.
        computed: u32,
    },
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside { range } => {
                write!(f, "the piece of the handover at {range} is not whole")
            }
            Self::Crc {
                what,
                address,
                stored,
                computed,
            } => write!(
                f,
                "the {what} at {address} has the CRC-32 {computed:#010x} instead of {stored:#010x}"
            ),
        }
    }
}

impl core::error::Error for VerifyError {}

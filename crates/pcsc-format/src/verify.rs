//! A last look at a handover in memory, before anybody relies on it.
//!
//! It goes the way of the kernel: from the root tree to the preserved-memory
//! map and to the data, and takes nothing from the writer but what to expect.

use alloc::vec::Vec;
use core::fmt;

use super::block::BLOCK_SIZE;
use super::{Handover, Layout};
use warmbus_kho::preserved_map::read::{self, Arena, MapFault, each_property, number, u64_at};
use warmbus_kho::{KhoAbi, preserved_map};
use warmbus_memory::MemoryRange;
use warmbus_memory::PhysAddr;
use warmbus_memory::bytes::le_u32;
use warmbus_memory::crc32;

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

/// Checks that a handover is in memory as it was meant: that the root tree
/// leads to the map and the subtree, that the map preserves every piece once
/// and in whole and nothing else but what is `inherited`, and that every
/// checksum is right.
///
/// `arena` is what the memory from `base` on, where the handover was written
/// to, holds now. `in_use` is what must not be preserved, because Linux uses
/// it, or because something else is there.
pub fn verify(
    layout: &Layout,
    handover: &Handover,
    inherited: &[preserved_map::Preserved],
    base: PhysAddr,
    arena: &[u8],
    in_use: &[(&'static str, MemoryRange)],
) -> Result<(), VerifyError> {
    let arena = Arena { base, bytes: arena };
    let subtree = piece(arena, handover.subtree)?;
    let (start, stored) = (handover.subtree.start, handover.subtree_crc);
    differs("subtree", start, stored, crc32::checksum(subtree))?;

    let root = piece(arena, handover.root)?;
    let (start, stored) = (handover.root.start, handover.root_crc);
    differs("root tree", start, stored, crc32::checksum(root))?;
    let root = Root::read(root, layout.abi()).ok_or(VerifyError::Root {
        root: handover.root,
    })?;
    same(
        "address of the subtree",
        handover.subtree.start.0,
        root.subtree,
    )?;
    if let Some(size) = root.subtree_size {
        same("size of the subtree", handover.subtree.size, size)?;
    }

    let (map, page_size) = (PhysAddr(root.map), layout.page_size());
    let map = read::entries(&arena, layout.abi(), page_size, map, handover.entries);
    let map = map.map_err(VerifyError::map)?;
    let (preserved, others) = map
        .entries
        .into_iter()
        .partition(|range| arena.get(*range).is_some());
    let inherited = inherited.iter().map(|entry| {
        let size = page_size.bytes() << entry.order;
        MemoryRange::new(entry.address, size)
    });
    inherits(others, inherited.collect())?;
    let preserved = Preserved(preserved);
    preserved.check(handover, in_use)?;
    preserved.holds("root tree", handover.root)?;
    preserved.holds("subtree", handover.subtree)?;
    preserved.holds("index", handover.index)?;

    let index = piece(arena, handover.index)?;
    sealed("index", handover.index.start, index, INDEX_CRC)?;
    let records = index.get(INDEX_RECORDS..).unwrap_or_default();
    let blocks: Vec<u64> = records
        .chunks_exact(INDEX_RECORD)
        .map(|record| u64_at(record, RECORD_BLOCK))
        .collect();
    let nodes = blocks_of(subtree).ok_or(VerifyError::Subtree {
        subtree: handover.subtree,
    })?;
    same("number of blocks", layout.functions(), blocks.len() as u64)?;
    let mut with_node = 0;
    for address in blocks {
        let range = MemoryRange::new(PhysAddr(address), BLOCK_SIZE);
        preserved.holds("data block", range)?;
        let block = piece(arena, range)?;
        let used = EXTENSION.saturating_add(le_u32(block, USED).unwrap_or_default() as usize);
        let block = block
            .get(..used)
            .filter(|block| block.len() >= BLOCK_CRC + 4)
            .ok_or(VerifyError::Outside { range })?;
        sealed("data block", range.start, block, BLOCK_CRC)?;
        if block.get(FLAGS).is_some_and(|flags| flags & DISABLED == 0) {
            let node = nodes.get(with_node).copied().unwrap_or(0);
            same("address of a block", address, node)?;
            with_node += 1;
        }
    }
    same("number of nodes", with_node as u64, nodes.len() as u64)
}

fn piece(arena: Arena<'_>, range: MemoryRange) -> Result<&[u8], VerifyError> {
    arena.get(range).ok_or(VerifyError::Outside { range })
}

/// What the root tree leads to.
#[derive(Default)]
struct Root {
    map: u64,
    subtree: u64,
    subtree_size: Option<u64>,
}

impl Root {
    /// Reads it as a kernel with `abi` does; `None` where that refuses it.
    fn read(page: &[u8], abi: KhoAbi) -> Option<Self> {
        let versions: &[&[u8]] = match abi {
            KhoAbi::V1 => &[b"kho-v1"],
            KhoAbi::V3 | KhoAbi::V4 => &[b"kho-v3", b"kho-v4"],
        };
        let has_size = abi != KhoAbi::V1;
        let mut root = Self::default();
        let mut is_compatible = false;
        each_property(page, &mut |path, name, value| {
            match (path, name, has_size) {
                ([_], b"compatible", _) => {
                    let has =
                        |version: &&[u8]| value.split(|byte| *byte == 0).any(|one| one == *version);
                    is_compatible = versions.iter().all(has);
                }
                ([_], b"preserved-memory-map", _) => root.map = number(value)?,
                ([_, b"pcsc"], b"fdt", false) | ([_, b"pcsc"], b"preserved-data", true) => {
                    root.subtree = number(value)?;
                }
                ([_, b"pcsc"], b"blob-size", true) => root.subtree_size = Some(number(value)?),
                _ => {}
            }
            Some(())
        })?;
        let is_whole =
            root.map != 0 && root.subtree != 0 && root.subtree_size.is_some() == has_size;
        (is_compatible && is_whole).then_some(root)
    }
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

/// That the map preserves of what is not in the arena what it should: `found`
/// is what it does.
fn inherits(found: Vec<MemoryRange>, mut expected: Vec<MemoryRange>) -> Result<(), VerifyError> {
    expected.sort_by_key(|range| range.start);
    let (most, count) = (expected.len() as u64, found.len() as u64);
    same("number of inherited entries", most, count)?;
    for (expected, found) in expected.into_iter().zip(found) {
        let (wanted, start) = (expected.start.0, found.start.0);
        same("address of an inherited entry", wanted, start)?;
        same("size of an inherited entry", expected.size, found.size)?;
    }
    Ok(())
}

/// The entries of the map that are in the arena, ascending.
struct Preserved(Vec<MemoryRange>);

impl Preserved {
    /// Nothing twice, nothing in use, and all of the handover.
    fn check(
        &self,
        handover: &Handover,
        in_use: &[(&'static str, MemoryRange)],
    ) -> Result<(), VerifyError> {
        for pair in self.0.windows(2) {
            if pair[0].overlaps(pair[1]) {
                return Err(VerifyError::InUse {
                    range: pair[0],
                    what: "another preserved range",
                    other: pair[1],
                });
            }
        }
        for &range in &self.0 {
            for &(what, other) in in_use {
                if range.overlaps(other) {
                    return Err(VerifyError::InUse { range, what, other });
                }
            }
        }
        let bytes = self.0.iter().map(|range| range.size).sum();
        same("number of preserved bytes", handover.preserved_bytes, bytes)
    }

    /// That Linux can take `range` over: it starts an entry and does not reach
    /// out of it.
    fn holds(&self, what: &'static str, range: MemoryRange) -> Result<(), VerifyError> {
        let found = self
            .0
            .binary_search_by_key(&range.start, |entry| entry.start);
        let entry = found.ok().and_then(|at| self.0.get(at));
        if entry.is_some_and(|entry| entry.contains(range)) {
            return Ok(());
        }
        Err(VerifyError::NotPreserved { what, range })
    }
}

/// Checks `bytes`, whose CRC-32 is stored at `at` in them and was calculated
/// with zeros in its place.
fn sealed(
    what: &'static str,
    address: PhysAddr,
    bytes: &[u8],
    at: usize,
) -> Result<(), VerifyError> {
    let range = MemoryRange::new(address, bytes.len() as u64);
    let computed = crc32::checksum_around(bytes, at).ok_or(VerifyError::Outside { range })?;
    differs(
        what,
        address,
        le_u32(bytes, at).unwrap_or_default(),
        computed,
    )
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

fn same(what: &'static str, expected: u64, found: u64) -> Result<(), VerifyError> {
    if expected == found {
        return Ok(());
    }
    Err(VerifyError::Differs {
        what,
        expected,
        found,
    })
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
    /// A kernel would not take the root tree.
    Root {
        /// Where it is.
        root: MemoryRange,
    },
    /// The subtree cannot be read.
    Subtree {
        /// Where it is.
        subtree: MemoryRange,
    },
    /// A number in memory is another one than was written.
    Differs {
        /// What the number is.
        what: &'static str,
        /// What was written.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// A page of the preserved-memory map leads astray.
    Map {
        /// Where the page is.
        page: PhysAddr,
    },
    /// The preserved-memory map has more entries than were written.
    MapTooLong,
    /// A piece is not preserved, or only in part.
    NotPreserved {
        /// The piece.
        what: &'static str,
        /// Where it is.
        range: MemoryRange,
    },
    /// Memory is preserved that something else is in.
    InUse {
        /// What is preserved.
        range: MemoryRange,
        /// What is there.
        what: &'static str,
        /// Where that is.
        other: MemoryRange,
    },
}

impl VerifyError {
    const fn map(fault: MapFault) -> Self {
        match fault {
            MapFault::Page(page) | MapFault::Entry(page) => Self::Map { page },
            MapFault::TooMany(_) => Self::MapTooLong,
        }
    }
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
            Self::Root { root } => write!(f, "no kernel takes the root tree at {root}"),
            Self::Subtree { subtree } => write!(f, "the subtree at {subtree} cannot be read"),
            Self::Differs {
                what,
                expected,
                found,
            } => write!(
                f,
                "the {what} in the handover is {found:#x} instead of {expected:#x}"
            ),
            Self::Map { page } => write!(
                f,
                "the preserved-memory map leads astray at its page {page}"
            ),
            Self::MapTooLong => {
                f.write_str("the preserved-memory map has more entries than were written")
            }
            Self::NotPreserved { what, range } => {
                write!(f, "the {what} at {range} is not preserved as a whole")
            }
            Self::InUse { range, what, other } => {
                write!(f, "{range} is preserved, but {what} is at {other}")
            }
        }
    }
}

impl core::error::Error for VerifyError {}

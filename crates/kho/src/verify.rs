//! A last check of a handover in memory, before a kernel relies on it.
//!
//! It goes the way of the kernel: from the root tree to the preserved-memory
//! map and to the data. From the writer it uses nothing but what to expect.

use alloc::vec::Vec;

use thiserror::Error;
use warmbus_memory::{MemoryRange, PhysAddr, crc32};

use crate::layout::PieceKind;
use crate::native::{each_property, number};
use crate::preserved_map::read::{self, MapFault};
use crate::{Arena, Handover, KhoAbi, Layout, Preserved};

/// Checks that a handover is in memory as it was written: that the root tree
/// leads to the map and the subtrees, that the map preserves every piece once
/// and in whole and nothing else but what is `inherited`, and that the
/// checksums of the trees are right.
///
/// `arena` is what the memory holds now that `handover` was written to.
/// `in_use` is what must not be preserved, because Linux uses it, or because
/// something else is there; the texts are for the error.
///
/// ```
/// # use warmbus_kho::*;
/// # let layout = Layout::builder(KhoAbi::V4, PageSize::K4).subtree("example", 64).build()?;
/// # let base = PhysAddr(0x4800_0000);
/// # let mut memory = vec![0; layout.size() as usize];
/// # let scratch = [MemoryRange::new(PhysAddr(0x8000_0000), 64 << 20)];
/// # let target = MappedRange::new(base, &mut memory);
/// # let mut writer = layout.writer(base, &scratch, InheritedState::default(), target)?;
/// # writer.write_subtree("example", b"data")?;
/// # let handover = writer.finish()?;
/// let in_use = [("scratch memory", scratch[0])];
/// let arena = Arena::new(base, &memory);
/// let verified = verify(&layout, &handover, &[], arena, &in_use)?;
///
/// // Code that knows the data of the subtree checks what it points to.
/// let data = verified.bytes(handover.subtrees[0].range)?;
/// assert_eq!(data, b"data");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// The first [`VerifyError`] in the order of the checks: checksums, the root
/// tree, the map, the ranges that it preserves.
pub fn verify<'a>(
    layout: &Layout,
    handover: &Handover,
    inherited: &[Preserved],
    arena: Arena<'a>,
    in_use: &[(&'static str, MemoryRange)],
) -> Result<Verified<'a>, VerifyError> {
    let mut verified = Verified {
        arena,
        preserved: Vec::new(),
    };
    for subtree in &handover.subtrees {
        let (start, computed) = (
            subtree.range.start,
            crc32::checksum(verified.bytes(subtree.range)?),
        );
        VerifyError::check_crc("subtree", start, subtree.crc, computed)?;
    }
    let root = verified.bytes(handover.root)?;
    let (start, stored) = (handover.root.start, handover.root_crc);
    VerifyError::check_crc("root tree", start, stored, crc32::checksum(root))?;
    let map = check_root(root, layout, handover)?;

    let page_size = layout.page_size();
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
    check_inherited(others, inherited.collect())?;
    verified.preserved = preserved;
    verified.check_entries(handover, in_use)?;
    verified.check_preserved("root tree", handover.root)?;
    for subtree in &handover.subtrees {
        verified.check_preserved("subtree", subtree.range)?;
    }
    for piece in layout.pieces() {
        if matches!(piece.kind, PieceKind::Memory | PieceKind::Metadata) {
            for number in 0..piece.runs {
                let start = piece.run_at(arena.base(), number);
                verified.check_preserved(piece.name, MemoryRange::new(start, piece.size))?;
            }
        }
    }
    Ok(verified)
}

/// Where the root tree says that the data of a subtree is.
#[derive(Clone, Default)]
struct Location {
    start: Option<u64>,
    size: Option<u64>,
}

/// Reads the root tree as the kernel of `layout` does, and returns where the
/// preserved-memory map is.
fn check_root(page: &[u8], layout: &Layout, handover: &Handover) -> Result<PhysAddr, VerifyError> {
    let name = layout.name().map(str::as_bytes);
    let versions: &[&[u8]] = match (&name, layout.abi()) {
        (Some(name), _) => core::slice::from_ref(name),
        (None, KhoAbi::V1) => &[b"kho-v1"],
        (None, KhoAbi::V3 | KhoAbi::V4) => &[b"kho-v3", b"kho-v4"],
    };
    let has_size = layout.abi() != KhoAbi::V1;
    let mut is_compatible = false;
    let mut map = 0;
    let mut found = alloc::vec![Location::default(); handover.subtrees.len()];
    let read = each_property(page, &mut |path, name, value| {
        let [_, node] = path else {
            match (path, name) {
                ([_], b"compatible") => {
                    let has =
                        |version: &&[u8]| value.split(|byte| *byte == 0).any(|one| one == *version);
                    is_compatible = versions.iter().all(has);
                }
                ([_], b"preserved-memory-map") => map = number(value)?,
                _ => {}
            }
            return Some(());
        };
        let mut subtrees = handover.subtrees.iter();
        if let Some(at) = subtrees.position(|subtree| subtree.name.as_bytes() == *node) {
            match (name, has_size) {
                (b"fdt", false) | (b"preserved-data", true) => {
                    found[at].start = Some(number(value)?);
                }
                (b"blob-size", true) => found[at].size = Some(number(value)?),
                _ => {}
            }
        }
        Some(())
    });
    let is_whole = |location: &Location| {
        location.start.is_some_and(|start| start != 0) && location.size.is_some() == has_size
    };
    if read.is_none() || !is_compatible || map == 0 || !found.iter().all(is_whole) {
        let root = handover.root;
        return Err(VerifyError::Root { root });
    }
    for (subtree, found) in handover.subtrees.iter().zip(found) {
        let range = subtree.range;
        let start = found.start.unwrap_or_default();
        VerifyError::check_equal("address of the subtree", range.start.0, start)?;
        if let Some(size) = found.size {
            VerifyError::check_equal("size of the subtree", range.size, size)?;
        }
    }
    Ok(PhysAddr(map))
}

/// That the map preserves of what is not in the arena what it should: `found`
/// is what it does.
fn check_inherited(
    found: Vec<MemoryRange>,
    mut expected: Vec<MemoryRange>,
) -> Result<(), VerifyError> {
    expected.sort_by_key(|range| range.start);
    let (most, count) = (expected.len() as u64, found.len() as u64);
    VerifyError::check_equal("number of inherited entries", most, count)?;
    for (expected, found) in expected.into_iter().zip(found) {
        let (wanted, start) = (expected.start.0, found.start.0);
        VerifyError::check_equal("address of an inherited entry", wanted, start)?;
        VerifyError::check_equal("size of an inherited entry", expected.size, found.size)?;
    }
    Ok(())
}

/// A handover that was verified up to its subtrees, for the check of what they
/// point to.
#[derive(Clone, Debug)]
pub struct Verified<'a> {
    arena: Arena<'a>,
    /// The entries of the map that are in the arena, ascending.
    preserved: Vec<MemoryRange>,
}

impl<'a> Verified<'a> {
    /// The bytes of `range`.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Outside`] if they are not all in the arena.
    pub fn bytes(&self, range: MemoryRange) -> Result<&'a [u8], VerifyError> {
        let bytes = self.arena.get(range);
        bytes.ok_or(VerifyError::Outside { range })
    }

    /// That Linux can restore `range`: it starts an entry of the map and does
    /// not exceed it. `what` is for the error.
    ///
    /// # Errors
    ///
    /// [`VerifyError::NotPreserved`] if that is not so.
    pub fn check_preserved(
        &self,
        what: &'static str,
        range: MemoryRange,
    ) -> Result<(), VerifyError> {
        let entries = &self.preserved;
        let found = entries.binary_search_by_key(&range.start, |entry| entry.start);
        let entry = found.ok().and_then(|at| entries.get(at));
        if entry.is_some_and(|entry| entry.contains(range)) {
            return Ok(());
        }
        Err(VerifyError::NotPreserved { what, range })
    }

    /// Nothing twice, nothing in use, and all of the handover.
    fn check_entries(
        &self,
        handover: &Handover,
        in_use: &[(&'static str, MemoryRange)],
    ) -> Result<(), VerifyError> {
        for pair in self.preserved.windows(2) {
            if pair[0].overlaps(pair[1]) {
                return Err(VerifyError::InUse {
                    range: pair[0],
                    what: "another preserved range",
                    other: pair[1],
                });
            }
        }
        for &range in &self.preserved {
            for &(what, other) in in_use {
                if range.overlaps(other) {
                    return Err(VerifyError::InUse { range, what, other });
                }
            }
        }
        let bytes = self.preserved.iter().map(|range| range.size).sum();
        VerifyError::check_equal("number of preserved bytes", handover.preserved_bytes, bytes)
    }
}

/// What is wrong with a handover in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A piece is not all in the arena.
    #[error("the piece of the handover at {range} is not whole")]
    Outside {
        /// Where it is.
        range: MemoryRange,
    },
    /// A checksum does not match.
    #[error("the {what} at {address} has the CRC-32 {computed:#010x} instead of {stored:#010x}")]
    Crc {
        /// The piece that it is of.
        what: &'static str,
        /// Where the piece is.
        address: PhysAddr,
        /// The CRC-32 that was written.
        stored: u32,
        /// The CRC-32 of what is in memory.
        computed: u32,
    },
    /// A kernel would not accept the root tree.
    #[error("no kernel accepts the root tree at {root}")]
    Root {
        /// Where it is.
        root: MemoryRange,
    },
    /// A subtree cannot be read.
    #[error("the subtree at {subtree} cannot be read")]
    Subtree {
        /// Where it is.
        subtree: MemoryRange,
    },
    /// A number in memory is another one than was written.
    #[error("the {what} in the handover is {found:#x} instead of {expected:#x}")]
    Differs {
        /// What the number is.
        what: &'static str,
        /// What was written.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// A page of the preserved-memory map is damaged.
    #[error("the preserved-memory map is damaged at its page {page}")]
    Map {
        /// Where the page is.
        page: PhysAddr,
    },
    /// The preserved-memory map has more entries than were written.
    #[error("the preserved-memory map has more entries than were written")]
    MapTooLong,
    /// A piece is not preserved, or only in part.
    #[error("the {what} at {range} is not preserved as a whole")]
    NotPreserved {
        /// The piece.
        what: &'static str,
        /// Where it is.
        range: MemoryRange,
    },
    /// Memory is preserved that something else is in.
    #[error("{range} is preserved, but {what} is at {other}")]
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
    /// Compares the CRC-32 that was `stored` for the piece `what` at `address`
    /// with the one that was `computed` of what is there.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Crc`] if they differ.
    pub const fn check_crc(
        what: &'static str,
        address: PhysAddr,
        stored: u32,
        computed: u32,
    ) -> Result<(), Self> {
        if stored == computed {
            return Ok(());
        }
        Err(Self::Crc {
            what,
            address,
            stored,
            computed,
        })
    }

    /// Compares the number `what` in memory with the one that was written.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Differs`] if they differ.
    pub const fn check_equal(what: &'static str, expected: u64, found: u64) -> Result<(), Self> {
        if expected == found {
            return Ok(());
        }
        Err(Self::Differs {
            what,
            expected,
            found,
        })
    }

    const fn map(fault: MapFault) -> Self {
        match fault {
            MapFault::Page(page) | MapFault::Entry(page) => Self::Map { page },
            MapFault::TooMany(_) => Self::MapTooLong,
        }
    }
}

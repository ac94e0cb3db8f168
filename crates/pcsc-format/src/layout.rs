//! How the pieces of a handover lie in their arena.

use alloc::vec::Vec;
use core::fmt;

use super::absent;
use super::block::BLOCK_SIZE;
use super::index::{INDEX_HEADER_SIZE, INDEX_RECORD_SIZE};
use core::cmp::Reverse;
use warmbus_kho::preserved_map::{Preserved, max_pages, split};
use warmbus_kho::{ARENA_BLOCK, InheritedState, KhoAbi, METADATA, preserved_map};
use warmbus_memory::PageSize;
use warmbus_memory::PhysAddr;

/// Bytes of a function's node in the subtree: begin and end token, a name of
/// 16 characters, one property of 8 bytes.
const NODE_SIZE: u64 = 48;

/// More than the subtree takes without its nodes.
const SUBTREE_FIXED: u64 = 512 + absent::MAX_BYTES;

/// Sizes and offsets in the arena for a number of functions.
///
/// Pieces are naturally aligned runs of `2^order` pages, the large ones first,
/// so that nothing is lost between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    abi: KhoAbi,
    page_size: PageSize,
    functions: u64,
    block_order: u32,
    align: u64,
    preserved_size: u64,
    map_pages: u64,
    pub(super) subtree: Piece,
    pub(super) index: Piece,
    pub(super) blocks: Piece,
    pub(super) root: Piece,
    pub(super) metadata: Option<Piece>,
    /// Not preserved: Linux reserves the array by itself.
    pub(super) scratch: Piece,
    /// Not preserved: Linux reads the map once.
    pub(super) map: u64,
}

/// A piece of the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) offset: u64,
    /// Bytes of one run.
    pub(super) run: u64,
    pub(super) runs: u64,
}

impl Piece {
    const fn size(self) -> u64 {
        self.run * self.runs
    }
}

impl Layout {
    /// The layout for `functions` functions.
    pub fn new(functions: usize, abi: KhoAbi, page_size: PageSize) -> Result<Self, LayoutError> {
        let too_many = LayoutError { functions };
        let count = functions as u64;
        if count > ARENA_BLOCK / BLOCK_SIZE {
            return Err(too_many);
        }
        let page = page_size.bytes();
        let piece = |bytes: u64, runs: u64| Piece {
            offset: 0,
            run: bytes.next_power_of_two().max(page),
            runs,
        };
        let mut layout = Self {
            abi,
            page_size,
            functions: count,
            block_order: 0,
            align: page,
            preserved_size: 0,
            map_pages: 0,
            subtree: piece(SUBTREE_FIXED + NODE_SIZE * count, 1),
            index: piece(INDEX_HEADER_SIZE + INDEX_RECORD_SIZE * count, 1),
            blocks: piece(BLOCK_SIZE, count),
            root: piece(page, 1),
            metadata: abi.has_radix_tree().then(|| piece(page, 1)),
            scratch: piece(page, 1),
            map: 0,
        };
        layout.block_order = (layout.blocks.run / page).ilog2();
        let largest = page << page_size.max_order();
        if layout.subtree.run > largest || layout.index.run > largest {
            return Err(too_many);
        }
        layout.place();
        if layout.size() > ARENA_BLOCK {
            return Err(too_many);
        }
        Ok(layout)
    }

    /// The same with room for what goes on from an earlier handover.
    pub fn with_inherited(mut self, inherited: InheritedState<'_>) -> Result<Self, LayoutError> {
        // Who handed over to us has said already who it is.
        if inherited.subtrees.iter().any(|tree| tree.name == METADATA) {
            self.metadata = None;
            self.place();
        }
        if !inherited.entries.is_empty() {
            self.map_pages += preserved_map::radix::pages(self.page_size, inherited.entries);
        }
        if self.size() > ARENA_BLOCK {
            return Err(LayoutError {
                functions: self.functions as usize,
            });
        }
        Ok(self)
    }

    /// Gives every piece its offset: the largest runs first.
    fn place(&mut self) {
        let mut pieces: Vec<&mut Piece> = [
            &mut self.subtree,
            &mut self.index,
            &mut self.blocks,
            &mut self.root,
        ]
        .into_iter()
        .chain(self.metadata.as_mut())
        .collect();
        // The longest first.
        pieces.sort_by_key(|piece| Reverse(piece.run));
        self.align = pieces[0].run;
        let mut offset = 0;
        for piece in pieces {
            piece.offset = offset;
            offset += piece.size();
        }
        self.preserved_size = offset;
        self.scratch.offset = offset;
        self.map = offset + self.scratch.size();
        self.map_pages = max_pages(self.abi, self.page_size, self.extents().into_iter());
    }

    /// The orders of all preserved blocks, each with the bytes from the first
    /// to the end of the last block of that order.
    fn extents(&self) -> Vec<(u32, u64)> {
        let mut extents: Vec<(u32, u64, u64)> = Vec::new();
        for piece in self.preserved_pieces() {
            let order = (piece.run / self.page_size.bytes()).ilog2();
            let end = piece.offset + piece.size();
            match extents.iter_mut().find(|extent| extent.0 == order) {
                Some((_, first, last)) => {
                    *first = (*first).min(piece.offset);
                    *last = (*last).max(end);
                }
                None => extents.push((order, piece.offset, end)),
            }
        }
        extents
            .into_iter()
            .map(|(order, first, last)| (order, last - first))
            .collect()
    }

    fn preserved_pieces(&self) -> impl Iterator<Item = Piece> {
        [self.subtree, self.index, self.blocks, self.root]
            .into_iter()
            .chain(self.metadata)
    }

    /// The entries of the preserved-memory map for an arena at `base`, which
    /// is aligned: every run as one entry of its own order, ascending.
    pub(super) fn entries(&self, base: PhysAddr) -> Vec<Preserved> {
        let mut entries = Vec::with_capacity(self.functions as usize + 4);
        for piece in self.preserved_pieces() {
            let pages = piece.run / self.page_size.bytes();
            for run in 0..piece.runs {
                let start = PhysAddr(base.0 + piece.offset + run * piece.run);
                entries.extend(split(start, pages, self.page_size));
            }
        }
        entries.sort_by_key(|entry| (entry.order, entry.address));
        entries
    }

    pub(super) fn map_pages(&self, base: PhysAddr) -> preserved_map::PageAllocator {
        preserved_map::PageAllocator::new(
            PhysAddr(base.0 + self.map),
            self.map_pages,
            self.page_size,
        )
    }

    /// Bytes of the arena.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.map + self.map_pages * self.page_size.bytes()
    }

    /// Alignment of the arena, in bytes; a power of two.
    #[must_use]
    pub const fn align(&self) -> u64 {
        self.align
    }

    /// Bytes of the arena that stay preserved in Linux.
    #[must_use]
    pub const fn preserved_size(&self) -> u64 {
        self.preserved_size
    }

    /// Functions that the arena has room for.
    #[must_use]
    pub const fn functions(&self) -> u64 {
        self.functions
    }

    /// The version of the handover.
    #[must_use]
    pub const fn abi(&self) -> KhoAbi {
        self.abi
    }

    /// The page size of the kernel that receives the handover.
    #[must_use]
    pub const fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// Bytes from one data block to the next.
    #[must_use]
    pub const fn block_stride(&self) -> u64 {
        self.blocks.run
    }
}

/// There are more functions than one handover can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutError {
    /// How many there are.
    pub functions: usize,
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} functions are more than the {} MiB of one handover can carry",
            self.functions,
            ARENA_BLOCK >> 20
        )
    }
}

impl core::error::Error for LayoutError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_is_naturally_aligned_and_none_overlap() {
        for page_size in PageSize::ALL {
            for abi in KhoAbi::ALL {
                for functions in [0, 1, 9, 65, 2819, 4096, 12_000] {
                    let layout = Layout::new(functions, abi, page_size).unwrap();
                    let base = PhysAddr(0x1_c000_0000);
                    assert!(base.0.is_multiple_of(layout.align()));
                    let mut entries = layout.entries(base);
                    assert_eq!(
                        entries.len(),
                        functions + 3 + usize::from(abi.has_radix_tree())
                    );
                    entries.sort_by_key(|entry| entry.address);
                    let mut free = base.0;
                    for entry in entries {
                        let bytes = page_size.bytes() << entry.order;
                        assert!(entry.address.0.is_multiple_of(bytes));
                        assert!(entry.address.0 >= free);
                        free = entry.address.0 + bytes;
                    }
                    assert_eq!(free, base.0 + layout.preserved_size());
                }
            }
        }
    }

    #[test]
    fn too_many_functions_are_refused_with_their_number() {
        let error = Layout::new(140_000, KhoAbi::V4, PageSize::K4).unwrap_err();
        assert_eq!(error.functions, 140_000);
        assert!(Layout::new(usize::MAX, KhoAbi::V1, PageSize::K64).is_err());
        assert!(Layout::new(65_536, KhoAbi::V4, PageSize::K4).is_ok());
        assert!(Layout::new(65_536, KhoAbi::V4, PageSize::K64).is_err());
    }
}

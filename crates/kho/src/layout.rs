//! How the pieces of a handover lie in their arena.

use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Reverse;

use thiserror::Error;
use warmbus_memory::{PageSize, PhysAddr};

use crate::metadata::{METADATA, METADATA_SIZE};
use crate::preserved_map::{self, PageAllocator, Preserved, split};
use crate::{InheritedState, KhoAbi};

/// An arena lies within one block of this many bytes: Linux 7.3 makes scratch
/// of every other one.
pub const ARENA_BLOCK: u64 = 1 << 30;

/// What a handover consists of, before its layout is calculated.
///
/// [`Layout::builder`] makes one. The order of the calls decides between pieces
/// of one size: the first is first in the arena, and in the root tree.
#[derive(Clone, Debug)]
pub struct LayoutBuilder {
    abi: KhoAbi,
    page_size: PageSize,
    pieces: Vec<Piece>,
    release: Option<&'static str>,
}

impl LayoutBuilder {
    /// Adds a subtree, whose data has at most `max_size` bytes. Linux finds it
    /// by `name`: a component of the kernel asks for the one that it knows.
    ///
    /// The data is a flattened device tree where the version is `kho-v1`,
    /// which reads its size from it; later versions take anything.
    #[must_use]
    pub fn subtree(mut self, name: &'static str, max_size: u64) -> Self {
        self.add(PieceKind::Subtree, name, 1, max_size);
        self
    }

    /// Adds `count` pieces of preserved memory with `size` bytes each. They
    /// belong to a subtree, whose data has their addresses. Each is physically
    /// contiguous and has an entry of its own in the preserved-memory map, so
    /// that Linux can restore and free it alone. `name` is for
    /// [`HandoverWriter`](crate::HandoverWriter) and for errors.
    #[must_use]
    pub fn preserve(mut self, name: &'static str, count: u64, size: u64) -> Self {
        self.add(PieceKind::Memory, name, count, size);
        self
    }

    /// Adds the subtree `kexec-metadata` with the name and version of the
    /// program that hands over, of which Linux prints 64 bytes. Without effect
    /// for `kho-v1`, which has no such subtree.
    #[must_use]
    pub const fn metadata(mut self, release: &'static str) -> Self {
        self.release = Some(release);
        self
    }

    /// Calculates the layout.
    ///
    /// # Errors
    ///
    /// [`LayoutError`] if a piece, or all of them together, are more than Linux
    /// can restore.
    pub fn build(mut self) -> Result<Layout, LayoutError> {
        let page = self.page_size.bytes();
        self.add(PieceKind::Root, "root tree", 1, page);
        let release = self.release.filter(|_| self.abi.has_radix_tree());
        if release.is_some() {
            self.add(PieceKind::Metadata, METADATA, 1, METADATA_SIZE);
        }
        let max = page << self.page_size.max_order();
        for piece in &self.pieces {
            // A size without a power of two above it has a run of 0.
            if piece.run == 0 || piece.run > max {
                let (name, size) = (piece.name, piece.size);
                return Err(LayoutError::PieceTooLarge { name, size, max });
            }
        }
        let sizes = self.pieces.iter();
        let total = sizes.fold(0_u64, |total, piece| {
            total.saturating_add(piece.run.saturating_mul(piece.runs))
        });
        let mut layout = Layout {
            abi: self.abi,
            name: None,
            page_size: self.page_size,
            pieces: self.pieces,
            release: release.unwrap_or_default(),
            align: page,
            preserved_size: 0,
            map_pages: 0,
        };
        if total > ARENA_BLOCK {
            return Err(LayoutError::ArenaTooLarge { size: total });
        }
        layout.arrange();
        layout.check()
    }

    fn add(&mut self, kind: PieceKind, name: &'static str, runs: u64, size: u64) {
        let page = self.page_size.bytes();
        let run = size.checked_next_power_of_two();
        self.pieces.push(Piece {
            kind,
            name,
            size,
            offset: 0,
            run: run.map_or(0, |run| run.max(page)),
            runs,
        });
    }
}

/// Sizes and offsets of a handover in its arena.
///
/// Pieces are naturally aligned runs of `2^order` pages, the large ones first,
/// so that nothing is lost between them. Behind them are the array of scratch
/// areas and the preserved-memory map, which Linux does not have to preserve.
///
/// ```
/// use warmbus_kho::{KhoAbi, Layout, PageSize};
///
/// // A subtree of up to 4 KiB, and 12 buffers of 8 KiB that it points to.
/// let layout = Layout::builder(KhoAbi::V4, PageSize::K4)
///     .subtree("example", 0x1000)
///     .preserve("buffer", 12, 0x2000)
///     .build()?;
/// assert_eq!(layout.align(), 0x2000);
/// // 12 buffers, the subtree and the root tree.
/// assert_eq!(layout.preserved_size(), 12 * 0x2000 + 0x1000 + 0x1000);
/// assert!(layout.size() > layout.preserved_size());
/// # Ok::<(), warmbus_kho::LayoutError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    abi: KhoAbi,
    /// What the kernel calls the version, where it has a name of its own.
    name: Option<String>,
    page_size: PageSize,
    pieces: Vec<Piece>,
    /// What the metadata says, where there is such a piece.
    release: &'static str,
    align: u64,
    preserved_size: u64,
    map_pages: u64,
}

/// What a piece of the arena is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PieceKind {
    /// The data of a subtree.
    Subtree,
    /// Memory that belongs to a subtree.
    Memory,
    /// The root tree.
    Root,
    /// The data of the subtree `kexec-metadata`.
    Metadata,
}

/// A piece of the arena, or several of the same size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) kind: PieceKind,
    pub(crate) name: &'static str,
    /// Bytes that are used of a run, at most.
    pub(crate) size: u64,
    pub(crate) offset: u64,
    /// Bytes of one run.
    pub(crate) run: u64,
    pub(crate) runs: u64,
}

impl Piece {
    /// Where run `number` starts in the arena.
    pub(crate) const fn run_at(&self, arena: PhysAddr, number: u64) -> PhysAddr {
        PhysAddr(arena.0 + self.offset + number * self.run)
    }
}

impl Layout {
    /// Describes a handover for a kernel of version `abi` with pages of
    /// `page_size`.
    #[must_use]
    pub const fn builder(abi: KhoAbi, page_size: PageSize) -> LayoutBuilder {
        LayoutBuilder {
            abi,
            page_size,
            pieces: Vec::new(),
            release: None,
        }
    }

    /// The same with space for what goes on from a previous handover.
    ///
    /// # Errors
    ///
    /// [`LayoutError::ArenaTooLarge`] if the preserved-memory map gets too
    /// large for one arena.
    pub fn with_inherited(mut self, inherited: InheritedState<'_>) -> Result<Self, LayoutError> {
        // The previous kernel has named itself already.
        if inherited.subtrees.iter().any(|tree| tree.name == METADATA) {
            self.pieces
                .retain(|piece| piece.kind != PieceKind::Metadata);
            self.arrange();
        }
        if !inherited.entries.is_empty() {
            self.map_pages += preserved_map::radix::pages(self.page_size, inherited.entries);
        }
        self.check()
    }

    /// The same for a kernel that has another name for the version: it looks
    /// for that name in the root tree. It has no NUL and is so short that the
    /// root tree still fits into one page.
    #[must_use]
    pub fn with_name(mut self, name: Option<&str>) -> Self {
        self.name = name.map(String::from);
        self
    }

    /// What the kernel calls the version, where it has a name of its own.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn check(self) -> Result<Self, LayoutError> {
        let size = self.size();
        if size > ARENA_BLOCK {
            return Err(LayoutError::ArenaTooLarge { size });
        }
        Ok(self)
    }

    /// Gives every piece its offset: the largest runs first.
    fn arrange(&mut self) {
        let mut pieces: Vec<&mut Piece> = self.pieces.iter_mut().collect();
        pieces.sort_by_key(|piece| Reverse(piece.run));
        self.align = pieces[0].run;
        let mut offset = 0;
        for piece in pieces {
            piece.offset = offset;
            offset += piece.run * piece.runs;
        }
        self.preserved_size = offset;
        let extents = self.extents().into_iter();
        self.map_pages = preserved_map::max_pages(self.abi, self.page_size, extents);
    }

    /// The orders of all preserved blocks, each with the bytes from the first
    /// to the end of the last block of that order.
    fn extents(&self) -> Vec<(u32, u64)> {
        let mut extents: Vec<(u32, u64, u64)> = Vec::new();
        for piece in &self.pieces {
            let order = (piece.run / self.page_size.bytes()).ilog2();
            let end = piece.offset + piece.run * piece.runs;
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

    /// All pieces, in the order in which they were added.
    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// What the metadata says.
    pub(crate) const fn release(&self) -> &'static str {
        self.release
    }

    /// The entries of the preserved-memory map for an arena at `base`, which
    /// is aligned: every run as one entry of its own order, ascending.
    pub(crate) fn entries(&self, base: PhysAddr) -> Vec<Preserved> {
        let mut entries = Vec::new();
        for piece in &self.pieces {
            let pages = piece.run / self.page_size.bytes();
            for run in 0..piece.runs {
                entries.extend(split(piece.run_at(base, run), pages, self.page_size));
            }
        }
        entries.sort_by_key(|entry| (entry.order, entry.address));
        entries
    }

    /// Where the array of scratch areas is, in one page behind the pieces.
    pub(crate) const fn scratch_at(&self, arena: PhysAddr) -> PhysAddr {
        PhysAddr(arena.0 + self.preserved_size)
    }

    /// The pages of the preserved-memory map, behind that.
    pub(crate) const fn map_pages(&self, arena: PhysAddr) -> PageAllocator {
        let start = PhysAddr(arena.0 + self.map());
        PageAllocator::new(start, self.map_pages, self.page_size)
    }

    const fn map(&self) -> u64 {
        self.preserved_size + self.page_size.bytes()
    }

    /// Bytes of the arena.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.map() + self.map_pages * self.page_size.bytes()
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

    /// Bytes from one of the pieces called `name` to the next: a power of two,
    /// and at least a page. `None` if there is no such piece.
    #[must_use]
    pub fn stride(&self, name: &str) -> Option<u64> {
        let piece = self.pieces.iter().find(|piece| piece.name == name);
        piece.map(|piece| piece.run)
    }
}

/// Why a handover cannot be laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// Linux does not allocate, so it cannot restore, so much in one piece.
    #[error("the {name} takes {size:#x} bytes, but Linux restores at most {max:#x} in one piece")]
    PieceTooLarge {
        /// The piece.
        name: &'static str,
        /// Bytes that it takes.
        size: u64,
        /// Bytes of the largest piece.
        max: u64,
    },
    /// All pieces and the map are more than [`ARENA_BLOCK`].
    #[error("the handover takes {size:#x} bytes, which are more than the {} MiB of an arena", ARENA_BLOCK >> 20)]
    ArenaTooLarge {
        /// Bytes that the handover takes.
        size: u64,
    },
}

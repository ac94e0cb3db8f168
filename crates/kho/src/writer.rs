//! Writing a handover.

use alloc::vec::Vec;

use thiserror::Error;
use warmbus_fdt::{FdtError, FdtWriter};
use warmbus_memory::{MemoryRange, PhysAddr, PhysMemoryWrite, crc32};

use crate::layout::{Piece, PieceKind};
use crate::metadata::{METADATA, METADATA_SIZE, metadata};
use crate::{ARENA_BLOCK, InheritedState, Layout, MAX_SCRATCH_AREAS, native, preserved_map};

/// What was written, for the boot tree and for
/// [`verify`](crate::verify()).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Handover {
    /// The page of the root tree: [`FDT_PROPERTY`](crate::FDT_PROPERTY).
    pub root: MemoryRange,
    /// CRC-32 of that page.
    pub root_crc: u32,
    /// The array of scratch areas: [`SCRATCH_PROPERTY`](crate::SCRATCH_PROPERTY).
    pub scratch: MemoryRange,
    /// The subtrees that were written, in the order of the layout.
    pub subtrees: Vec<WrittenSubtree>,
    /// Entries of the preserved-memory map.
    pub entries: usize,
    /// Pages that the preserved-memory map takes.
    pub map_pages: u64,
    /// Bytes that this handover itself keeps preserved in Linux.
    pub preserved_bytes: u64,
}

/// The data of a subtree in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WrittenSubtree {
    /// The name of the subtree.
    pub name: &'static str,
    /// Where its data is.
    pub range: MemoryRange,
    /// CRC-32 of the data.
    pub crc: u32,
}

/// Writes the pieces of a handover into memory, one after the other.
///
/// [`Layout::writer`] makes one. What is written to no piece, and not zeroed,
/// keeps what was in memory before.
#[derive(Debug)]
pub struct HandoverWriter<'a, M> {
    layout: &'a Layout,
    arena: PhysAddr,
    scratch: &'a [MemoryRange],
    inherited: InheritedState<'a>,
    memory: M,
    subtrees: Vec<WrittenSubtree>,
}

impl Layout {
    /// Begins to write the handover to `memory`, whose [`Layout::size`] bytes
    /// from `arena` on are free. They are aligned to [`Layout::align`] and
    /// within one block of [`ARENA_BLOCK`] bytes and one NUMA node.
    ///
    /// `scratch` are the areas that Linux allocates from until it has read the
    /// preserved-memory map; nothing that is preserved may be in them.
    /// `inherited` is the state that the layout has space for
    /// ([`Layout::with_inherited`]). Nothing is written before all of this is
    /// checked.
    ///
    /// # Errors
    ///
    /// [`BuildError::Misaligned`] for the arena, [`BuildError::ScratchAreas`]
    /// for the number of scratch areas, [`BuildError::SameName`] if two
    /// subtrees have one name.
    pub fn writer<'a, M: PhysMemoryWrite>(
        &'a self,
        arena: PhysAddr,
        scratch: &'a [MemoryRange],
        inherited: InheritedState<'a>,
        memory: M,
    ) -> Result<HandoverWriter<'a, M>, BuildError> {
        let last = arena.0.checked_add(self.size() - 1);
        let fits = last.is_some_and(|last| last / ARENA_BLOCK == arena.0 / ARENA_BLOCK);
        let align = self.align();
        if !fits || !arena.0.is_multiple_of(align) {
            return Err(BuildError::Misaligned { arena, align });
        }
        let areas = scratch.len();
        if areas == 0 || areas > MAX_SCRATCH_AREAS {
            return Err(BuildError::ScratchAreas { areas });
        }
        for (number, piece) in self.pieces().iter().enumerate() {
            let name = piece.name;
            let mut before = self.pieces()[..number].iter();
            let mut inherits = inherited.subtrees.iter();
            let is_subtree = matches!(piece.kind, PieceKind::Subtree | PieceKind::Metadata);
            if before.any(|other| other.name == name)
                || is_subtree && inherits.any(|subtree| subtree.name == name)
            {
                return Err(BuildError::SameName { name });
            }
        }
        Ok(HandoverWriter {
            layout: self,
            arena,
            scratch,
            inherited,
            memory,
            subtrees: Vec::new(),
        })
    }
}

impl<M: PhysMemoryWrite> HandoverWriter<'_, M> {
    fn piece(&self, kind: PieceKind, name: &'static str) -> Result<Piece, BuildError> {
        let mut pieces = self.layout.pieces().iter();
        let piece = pieces.find(|piece| piece.kind == kind && piece.name == name);
        piece.copied().ok_or(BuildError::Unknown { name })
    }

    /// Where piece `number` of the [preserved memory](crate::LayoutBuilder::preserve)
    /// called `name` is, with the bytes that the layout has for it.
    ///
    /// # Errors
    ///
    /// [`BuildError::Unknown`] if the layout has no such piece.
    pub fn preserved(&self, name: &'static str, number: u64) -> Result<MemoryRange, BuildError> {
        let piece = self.piece(PieceKind::Memory, name)?;
        if number >= piece.runs {
            return Err(BuildError::Unknown { name });
        }
        let start = piece.run_at(self.arena, number);
        Ok(MemoryRange::new(start, piece.size))
    }

    /// Writes `bytes` to piece `number` of the preserved memory called `name`,
    /// zeroes the rest of its pages, and returns where the bytes are.
    ///
    /// # Errors
    ///
    /// [`BuildError::Unknown`] if the layout has no such piece,
    /// [`BuildError::PieceTooLarge`] if it is smaller than `bytes`.
    pub fn write(
        &mut self,
        name: &'static str,
        number: u64,
        bytes: &[u8],
    ) -> Result<MemoryRange, BuildError> {
        let start = self.preserved(name, number)?.start;
        let piece = self.piece(PieceKind::Memory, name)?;
        self.put(name, start, bytes, piece.run)
    }

    /// The memory that is written to, for preserved memory whose bytes come in
    /// parts: they go to where [`Self::preserved`] says.
    pub const fn memory(&mut self) -> &mut M {
        &mut self.memory
    }

    /// Writes the data of the subtree called `name`, zeroes the rest of its
    /// pages, and returns where the data is.
    ///
    /// # Errors
    ///
    /// [`BuildError::Unknown`] if the layout has no such subtree, or if it has
    /// been written already; [`BuildError::PieceTooLarge`] if `data` has more
    /// bytes than the layout has for it.
    pub fn write_subtree(
        &mut self,
        name: &'static str,
        data: &[u8],
    ) -> Result<MemoryRange, BuildError> {
        let piece = self.piece(PieceKind::Subtree, name)?;
        if self.subtrees.iter().any(|written| written.name == name) {
            return Err(BuildError::Unknown { name });
        }
        let start = piece.run_at(self.arena, 0);
        let range = self.put(name, start, data, piece.run)?;
        let crc = crc32::checksum(data);
        self.subtrees.push(WrittenSubtree { name, range, crc });
        Ok(range)
    }

    /// Writes what is left: the preserved-memory map, the metadata, the root
    /// tree and the array of scratch areas.
    ///
    /// # Errors
    ///
    /// [`BuildError::Missing`] if a subtree was not written,
    /// [`BuildError::MapTooLarge`] if the layout has no space for what is
    /// inherited, [`BuildError::PieceTooLarge`] or [`BuildError::Tree`] if the
    /// root tree does not fit into its page or cannot be written.
    pub fn finish(mut self) -> Result<Handover, BuildError> {
        let (layout, arena) = (self.layout, self.arena);
        let page = layout.page_size().bytes();
        let mut subtrees = Vec::new();
        for piece in layout.pieces() {
            if piece.kind == PieceKind::Subtree {
                let name = piece.name;
                let mut written = self.subtrees.iter();
                let found = written.find(|written| written.name == name);
                subtrees.push(*found.ok_or(BuildError::Missing { name })?);
            }
        }

        let mut entries = layout.entries(arena);
        // A radix tree needs no order among them.
        entries.extend_from_slice(self.inherited.entries);
        let mut pages = layout.map_pages(arena);
        let planned = pages.left();
        let (abi, page_size) = (layout.abi(), layout.page_size());
        let map = preserved_map::write(abi, page_size, &entries, &mut pages, &mut self.memory)
            .ok_or(BuildError::MapTooLarge { pages: planned })?;

        let metadata = match self.piece(PieceKind::Metadata, METADATA) {
            Ok(piece) => {
                let bytes = metadata(layout.release());
                Some(
                    self.put(METADATA, piece.run_at(arena, 0), &bytes, page)?
                        .start,
                )
            }
            Err(_) => None,
        };
        let name = "root tree";
        let root = self.piece(PieceKind::Root, name)?.run_at(arena, 0);
        let mut tree = self.root_tree(map, &subtrees, metadata)?;
        self.put(name, root, &tree, page)?;
        tree.resize(page as usize, 0);
        let root_crc = crc32::checksum(&tree);

        let mut areas = Vec::with_capacity(self.scratch.len() * 16);
        for area in self.scratch {
            areas.extend_from_slice(&area.start.0.to_le_bytes());
            areas.extend_from_slice(&area.size.to_le_bytes());
        }
        let scratch = self.put("scratch array", layout.scratch_at(arena), &areas, page)?;
        Ok(Handover {
            root: MemoryRange::new(root, page),
            root_crc,
            scratch,
            subtrees,
            entries: entries.len(),
            map_pages: planned - pages.left(),
            preserved_bytes: layout.preserved_size(),
        })
    }

    /// The root tree of the handover.
    fn root_tree(
        &self,
        map: PhysAddr,
        subtrees: &[WrittenSubtree],
        metadata: Option<PhysAddr>,
    ) -> Result<Vec<u8>, BuildError> {
        let abi = self.layout.abi();
        let mut tree = FdtWriter::new();
        tree.begin_node("");
        match self.layout.name() {
            Some(name) => tree.property_string("compatible", name),
            None => tree.property_strings("compatible", abi.compatible()),
        }
        native::u64(&mut tree, "preserved-memory-map", map.0);
        for subtree in subtrees {
            tree.begin_node(subtree.name);
            if abi.has_radix_tree() {
                native::u64(&mut tree, "preserved-data", subtree.range.start.0);
                native::u64(&mut tree, "blob-size", subtree.range.size);
            } else {
                native::u64(&mut tree, "fdt", subtree.range.start.0);
            }
            tree.end_node();
        }
        if let Some(metadata) = metadata {
            tree.begin_node(METADATA);
            native::u64(&mut tree, "preserved-data", metadata.0);
            native::u64(&mut tree, "blob-size", METADATA_SIZE);
            tree.end_node();
        }
        for subtree in self.inherited.subtrees {
            tree.begin_node(&subtree.name);
            for (name, value) in &subtree.properties {
                tree.property(name, value);
            }
            tree.end_node();
        }
        tree.end_node();
        Ok(tree.finish()?)
    }

    /// Writes `bytes` and zeroes the rest of a run of `run` bytes.
    fn put(
        &mut self,
        name: &'static str,
        address: PhysAddr,
        bytes: &[u8],
        run: u64,
    ) -> Result<MemoryRange, BuildError> {
        let size = bytes.len() as u64;
        if size > run {
            return Err(BuildError::PieceTooLarge { name, size, run });
        }
        self.memory.write(address, bytes);
        self.memory.zero(PhysAddr(address.0 + size), run - size);
        Ok(MemoryRange::new(address, size))
    }
}

/// Why a handover cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The arena is not aligned or crosses a boundary of [`ARENA_BLOCK`].
    #[error(
        "the handover cannot start at {arena}: it has to be aligned to {align:#x} and lie in one block of 1 GiB"
    )]
    Misaligned {
        /// Start of the arena.
        arena: PhysAddr,
        /// The alignment it must have.
        align: u64,
    },
    /// There is no scratch area, or more than the array holds.
    #[error("a handover takes 1 to {MAX_SCRATCH_AREAS} scratch areas, not {areas}")]
    ScratchAreas {
        /// How many there are.
        areas: usize,
    },
    /// Two pieces have one name, or a subtree has that of an inherited one.
    #[error("the handover has two pieces with the name {name}")]
    SameName {
        /// The name.
        name: &'static str,
    },
    /// The layout has no piece of this name and number that is still to be
    /// written.
    #[error("the handover has no such piece with the name {name} left to be written")]
    Unknown {
        /// The name.
        name: &'static str,
    },
    /// A subtree of the layout was not written.
    #[error("the subtree {name} of the handover was not written")]
    Missing {
        /// The subtree.
        name: &'static str,
    },
    /// The preserved-memory map takes more pages than were set aside.
    #[error("the preserved-memory map does not fit into its {pages} pages")]
    MapTooLarge {
        /// Pages set aside.
        pages: u64,
    },
    /// A piece takes more bytes than were set aside.
    #[error("the {name} of the handover takes {size:#x} bytes, more than its {run:#x}")]
    PieceTooLarge {
        /// The piece.
        name: &'static str,
        /// Bytes it takes.
        size: u64,
        /// Bytes set aside.
        run: u64,
    },
    /// The root tree could not be written.
    #[error("the root tree of the handover cannot be written: {0}")]
    Tree(#[from] FdtError),
}

//! Writing a handover.

use alloc::format;
use alloc::vec::Vec;
use core::fmt;

use super::block_error::BlockError;
use super::layout::Layout;
use super::{FunctionRecord, absent, index};
use warmbus_fdt::{FdtError, FdtWriter};
use warmbus_kho::{
    ARENA_BLOCK, InheritedState, MAX_SCRATCH_AREAS, METADATA, Subtree, native, preserved_map,
};
use warmbus_memory::{MemoryRange, PhysAddr, PhysMemoryWrite, crc32};
use warmbus_pci::Sbdf;

/// Version of the cacheability rules that the consumer compares with its own:
/// with the same number it takes the bitmaps as they are.
const RULES_VERSION: u32 = 1;

/// Version of the properties and tables that the consumer does not look at.
const EXTENSION_VERSION: u32 = 1;

/// Size of the `kexec-metadata` structure.
const METADATA_SIZE: usize = 73;

/// Where a handover goes and what goes with it.
#[derive(Clone, Copy, Debug)]
pub struct Placement<'a> {
    /// Start of the arena: [`Layout::size`] bytes, aligned to
    /// [`Layout::align`], within one block of 1 GiB and one NUMA node.
    pub arena: PhysAddr,
    /// The scratch areas, at least one.
    pub scratch: &'a [MemoryRange],
    /// Functions that are not there and will not be: as many of them as there
    /// is room for are handed over.
    pub absent: &'a [Sbdf],
    /// A number that tells this handover from earlier ones in the same memory.
    pub generation: u64,
}

/// What was written, for the boot tree and for the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The page of the root tree: `linux,kho-fdt`.
    pub root: MemoryRange,
    /// CRC-32 of that page.
    pub root_crc: u32,
    /// The array of scratch areas: `linux,kho-scratch`.
    pub scratch: MemoryRange,
    /// The `pcsc` tree.
    pub subtree: MemoryRange,
    /// CRC-32 of the `pcsc` tree.
    pub subtree_crc: u32,
    /// The sorted index.
    pub index: MemoryRange,
    /// Data blocks written.
    pub functions: usize,
    /// Entries of the preserved-memory map.
    pub entries: usize,
    /// Pages that the preserved-memory map takes.
    pub map_pages: u64,
    /// Bytes that this handover itself keeps preserved in Linux.
    pub preserved_bytes: u64,
}

/// Writes the handover of `blocks`, which ascend by function, as `layout`
/// lays it out. Nothing is written before the arguments are checked.
pub fn build(
    layout: &Layout,
    placement: &Placement<'_>,
    blocks: &[FunctionRecord<'_>],
    sink: &mut impl PhysMemoryWrite,
) -> Result<Handover, BuildError> {
    build_inheriting(layout, placement, InheritedState::default(), blocks, sink)
}

/// The same on top of an earlier handover, that `layout` has room for
/// ([`Layout::with_inherited`]).
pub fn build_inheriting(
    layout: &Layout,
    placement: &Placement<'_>,
    inherited: InheritedState<'_>,
    blocks: &[FunctionRecord<'_>],
    sink: &mut impl PhysMemoryWrite,
) -> Result<Handover, BuildError> {
    check(layout, placement, blocks)?;
    let at = |offset: u64| PhysAddr(placement.arena.0 + offset);
    let page = layout.page_size().bytes();
    let stride = layout.block_stride();
    let first_block = at(layout.blocks.offset);

    for (number, block) in blocks.iter().enumerate() {
        let address = PhysAddr(first_block.0 + number as u64 * stride);
        block.write(address, placement.generation, sink);
    }

    let index = MemoryRange::new(at(layout.index.offset), index::size(blocks.len()));
    let generation = placement.generation;
    index::write(blocks, first_block, stride, generation, index.start, sink);
    fill(sink, index.start, index.size, layout.index.run);

    let tree = subtree(blocks, placement, first_block, stride, index)?;
    let subtree = MemoryRange::new(at(layout.subtree.offset), tree.len() as u64);
    let subtree_crc = crc32::checksum(&tree);
    put(sink, subtree.start, &tree, layout.subtree.run)?;
    drop(tree);

    let mut entries = layout.entries(placement.arena);
    // A radix tree needs no order among them.
    entries.extend_from_slice(inherited.entries);
    let mut pages = layout.map_pages(placement.arena);
    let map_pages = pages.left();
    let map = preserved_map::write(layout.abi(), layout.page_size(), &entries, &mut pages, sink)
        .ok_or(BuildError::MapTooLarge { pages: map_pages })?;

    let metadata = layout.metadata.map(|piece| at(piece.offset));
    if let Some(metadata) = metadata {
        put(sink, metadata, &metadata_bytes(), page)?;
    }
    let root = MemoryRange::new(at(layout.root.offset), page);
    let mut tree = root_tree(layout, map, subtree, metadata, inherited.subtrees)?;
    put(sink, root.start, &tree, page)?;
    tree.resize(page as usize, 0);
    let root_crc = crc32::checksum(&tree);

    let mut areas = Vec::with_capacity(placement.scratch.len() * 16);
    for area in placement.scratch {
        areas.extend_from_slice(&area.start.0.to_le_bytes());
        areas.extend_from_slice(&area.size.to_le_bytes());
    }
    let scratch = MemoryRange::new(at(layout.scratch.offset), areas.len() as u64);
    put(sink, scratch.start, &areas, layout.scratch.run)?;

    Ok(Handover {
        root,
        root_crc,
        scratch,
        subtree,
        subtree_crc,
        index,
        functions: blocks.len(),
        entries: entries.len(),
        map_pages: map_pages - pages.left(),
        preserved_bytes: layout.preserved_size(),
    })
}

fn check(
    layout: &Layout,
    placement: &Placement<'_>,
    blocks: &[FunctionRecord<'_>],
) -> Result<(), BuildError> {
    if blocks.len() as u64 != layout.functions() {
        return Err(BuildError::Count {
            planned: layout.functions(),
            given: blocks.len(),
        });
    }
    let arena = placement.arena;
    let last = arena.0.checked_add(layout.size() - 1);
    let fits = last.is_some_and(|last| last / ARENA_BLOCK == arena.0 / ARENA_BLOCK);
    if !fits || !arena.0.is_multiple_of(layout.align()) {
        return Err(BuildError::Misaligned {
            arena,
            align: layout.align(),
        });
    }
    let areas = placement.scratch.len();
    if areas == 0 || areas > MAX_SCRATCH_AREAS {
        return Err(BuildError::ScratchAreas { areas });
    }
    for block in blocks {
        block.check()?;
    }
    for pair in blocks.windows(2) {
        if pair[0].sbdf >= pair[1].sbdf {
            return Err(BuildError::Order {
                first: pair[0].sbdf,
                second: pair[1].sbdf,
            });
        }
    }
    Ok(())
}

/// Writes `bytes` and zeroes the rest of a run of `run` bytes.
fn put(
    sink: &mut impl PhysMemoryWrite,
    address: PhysAddr,
    bytes: &[u8],
    run: u64,
) -> Result<(), BuildError> {
    let size = bytes.len() as u64;
    if size > run {
        return Err(BuildError::PieceTooLarge { size, run });
    }
    sink.write(address, bytes);
    fill(sink, address, size, run);
    Ok(())
}

/// Zeroes what follows the first `used` bytes of a run.
fn fill(sink: &mut impl PhysMemoryWrite, address: PhysAddr, used: u64, run: u64) {
    sink.zero(PhysAddr(address.0 + used), run - used);
}

/// The tree that the `pcsc-v1` consumer walks, with pointers to what it
/// ignores.
fn subtree(
    blocks: &[FunctionRecord<'_>],
    placement: &Placement<'_>,
    first_block: PhysAddr,
    stride: u64,
    index: MemoryRange,
) -> Result<Vec<u8>, BuildError> {
    let mut tree = FdtWriter::new();
    tree.begin_node("");
    tree.property_string("compatible", "pcsc-v1");
    native::u32(&mut tree, "pv", RULES_VERSION);
    native::u32(&mut tree, "warmbus,version", EXTENSION_VERSION);
    native::u64(&mut tree, "warmbus,generation", placement.generation);
    native::u64(&mut tree, "warmbus,index", index.start.0);
    native::u64(&mut tree, "warmbus,index-size", index.size);
    if !placement.absent.is_empty() {
        tree.property(absent::PROPERTY, &absent::property(placement.absent));
    }
    // Who does not know the index does not know either under which conditions a
    // block holds whose function does not exist now.
    let exists = |block: &FunctionRecord<'_>| !block.virtual_function.is_some_and(|vf| vf.disabled);
    for (number, block) in blocks.iter().enumerate().filter(|(_, block)| exists(block)) {
        let function = block.sbdf;
        tree.begin_node(&format!(
            "dev_{:04x}_{:02x}_{:02x}_{:x}",
            function.segment(),
            function.bus(),
            function.device(),
            function.function()
        ));
        native::u64(&mut tree, "da", first_block.0 + number as u64 * stride);
        tree.end_node();
    }
    tree.end_node();
    Ok(tree.finish()?)
}

/// The root tree of the handover.
fn root_tree(
    layout: &Layout,
    map: PhysAddr,
    subtree: MemoryRange,
    metadata: Option<PhysAddr>,
    inherited: &[Subtree],
) -> Result<Vec<u8>, BuildError> {
    let abi = layout.abi();
    let mut tree = FdtWriter::new();
    tree.begin_node("");
    tree.property_strings("compatible", abi.compatible());
    native::u64(&mut tree, "preserved-memory-map", map.0);
    tree.begin_node("pcsc");
    if abi.has_radix_tree() {
        native::u64(&mut tree, "preserved-data", subtree.start.0);
        native::u64(&mut tree, "blob-size", subtree.size);
    } else {
        native::u64(&mut tree, "fdt", subtree.start.0);
    }
    tree.end_node();
    if let Some(metadata) = metadata {
        tree.begin_node(METADATA);
        native::u64(&mut tree, "preserved-data", metadata.0);
        native::u64(&mut tree, "blob-size", METADATA_SIZE as u64);
        tree.end_node();
    }
    for subtree in inherited {
        tree.begin_node(&subtree.name);
        for (name, value) in &subtree.properties {
            tree.property(name, value);
        }
        tree.end_node();
    }
    tree.end_node();
    Ok(tree.finish()?)
}

/// The `kexec-metadata` structure: who hands over, and that it is the first
/// link of the chain.
fn metadata_bytes() -> [u8; METADATA_SIZE] {
    const VERSION: u32 = 1;
    const COUNT: u32 = 1;
    let mut bytes = [0; METADATA_SIZE];
    bytes[0..4].copy_from_slice(&VERSION.to_le_bytes());
    let name = concat!("warmbus-", env!("CARGO_PKG_VERSION")).as_bytes();
    let length = name.len().min(64);
    bytes[4..4 + length].copy_from_slice(&name[..length]);
    bytes[69..73].copy_from_slice(&COUNT.to_le_bytes());
    bytes
}

/// Why a handover cannot be written.
#[derive(Debug, PartialEq, Eq)]
pub enum BuildError {
    /// The layout is for another number of functions.
    Count {
        /// Functions of the layout.
        planned: u64,
        /// Functions given.
        given: usize,
    },
    /// The arena is not aligned or crosses a boundary of 1 GiB.
    Misaligned {
        /// Start of the arena.
        arena: PhysAddr,
        /// The alignment it must have.
        align: u64,
    },
    /// There is no scratch area, or more than the array holds.
    ScratchAreas {
        /// How many there are.
        areas: usize,
    },
    /// Two functions are the same or in the wrong order.
    Order {
        /// The one that comes first.
        first: Sbdf,
        /// The one right after it.
        second: Sbdf,
    },
    /// A function cannot be handed over.
    Block(BlockError),
    /// The preserved-memory map takes more pages than were set aside.
    MapTooLarge {
        /// Pages set aside.
        pages: u64,
    },
    /// A piece takes more bytes than were set aside.
    PieceTooLarge {
        /// Bytes it takes.
        size: u64,
        /// Bytes set aside.
        run: u64,
    },
    /// A tree could not be written.
    Tree(FdtError),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count { planned, given } => write!(
                f,
                "the handover is laid out for {planned} functions but gets {given}"
            ),
            Self::Misaligned { arena, align } => write!(
                f,
                "the handover cannot start at {arena}: it has to be aligned to {align:#x} and lie in one block of 1 GiB"
            ),
            Self::ScratchAreas { areas } => write!(
                f,
                "a handover takes 1 to {MAX_SCRATCH_AREAS} scratch areas, not {areas}"
            ),
            Self::Order { first, second } => write!(
                f,
                "function {second} comes after {first}, although functions have to ascend"
            ),
            Self::Block(error) => error.fmt(f),
            Self::MapTooLarge { pages } => write!(
                f,
                "the preserved-memory map does not fit into its {pages} pages"
            ),
            Self::PieceTooLarge { size, run } => write!(
                f,
                "a piece of the handover takes {size:#x} bytes, more than its {run:#x}"
            ),
            Self::Tree(error) => write!(f, "a tree of the handover cannot be written: {error}"),
        }
    }
}

impl core::error::Error for BuildError {}

impl From<BlockError> for BuildError {
    fn from(error: BlockError) -> Self {
        Self::Block(error)
    }
}

impl From<FdtError> for BuildError {
    fn from(error: FdtError) -> Self {
        Self::Tree(error)
    }
}

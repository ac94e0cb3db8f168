//! Writing the handover of a cache.

use alloc::format;
use alloc::vec::Vec;

use thiserror::Error;
use warmbus_fdt::{FdtError, FdtWriter};
use warmbus_kho::{InheritedState, native};
use warmbus_memory::{MemoryRange, PhysAddr, PhysMemoryWrite};
use warmbus_pci::Sbdf;

use super::block_error::BlockError;
use super::layout::{BLOCK, INDEX, Layout, SUBTREE};
use super::{FunctionRecord, index};

/// What the tree is compatible with.
pub(crate) const COMPATIBLE: &str = "pcsc-v1";

/// Version of the cacheability rules that the consumer compares with its own:
/// with the same number it uses the bitmaps as they are.
pub(crate) const RULES_VERSION: u32 = 1;

/// Version of the properties and tables that the consumer does not look at.
pub(crate) const EXTENSION_VERSION: u32 = 1;

/// Where a handover goes and what goes with it.
#[derive(Clone, Copy, Debug)]
pub struct Placement<'a> {
    /// Start of the arena: [`Layout::size`] bytes, aligned to
    /// [`Layout::align`], within one block of 1 GiB and one NUMA node.
    pub arena: PhysAddr,
    /// The scratch areas, at least one.
    pub scratch: &'a [MemoryRange],
    /// A number that no earlier handover in the same memory has.
    pub generation: u64,
}

impl<'a> Placement<'a> {
    /// A handover at `arena` with the areas in `scratch`.
    #[must_use]
    pub const fn new(arena: PhysAddr, scratch: &'a [MemoryRange], generation: u64) -> Self {
        Self {
            arena,
            scratch,
            generation,
        }
    }
}

/// What was written, for the boot tree and for the report.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Handover {
    /// The handover, whose only subtree is the `pcsc` tree.
    pub kho: warmbus_kho::Handover,
    /// The sorted index.
    pub index: MemoryRange,
    /// Data blocks written.
    pub functions: usize,
}

impl Handover {
    /// Where the `pcsc` tree is.
    #[must_use]
    pub fn subtree(&self) -> MemoryRange {
        let subtree = self.kho.subtrees.first();
        subtree.map_or_else(Default::default, |subtree| subtree.range)
    }

    /// The CRC-32 of the `pcsc` tree.
    #[must_use]
    pub fn subtree_crc(&self) -> u32 {
        self.kho.subtrees.first().map_or(0, |subtree| subtree.crc)
    }
}

/// Writes the handover of `blocks`, which ascend by function, as `layout`
/// lays it out. Nothing is written before the arguments are checked.
///
/// # Errors
///
/// [`BuildError`], for a mistake in the arguments.
pub fn build(
    layout: &Layout,
    placement: &Placement<'_>,
    blocks: &[FunctionRecord<'_>],
    sink: &mut impl PhysMemoryWrite,
) -> Result<Handover, BuildError> {
    build_inheriting(layout, placement, InheritedState::default(), blocks, sink)
}

/// The same on top of a previous handover that `layout` has space for
/// ([`Layout::with_inherited`]).
///
/// # Errors
///
/// [`BuildError`], for a mistake in the arguments.
pub fn build_inheriting(
    layout: &Layout,
    placement: &Placement<'_>,
    inherited: InheritedState<'_>,
    blocks: &[FunctionRecord<'_>],
    sink: &mut impl PhysMemoryWrite,
) -> Result<Handover, BuildError> {
    check(layout, blocks)?;
    let generation = placement.generation;
    let kho = layout.kho();
    let mut writer = kho.writer(placement.arena, placement.scratch, inherited, sink)?;

    let mut addresses = Vec::with_capacity(blocks.len());
    for (number, block) in (0..).zip(blocks) {
        let address = writer.preserved(BLOCK, number)?.start;
        block.write(address, generation, writer.memory());
        addresses.push(address);
    }
    // Each is as large as the map will be: one at a time is in the heap.
    let encoded = index::encode(blocks, &addresses, layout.block_stride(), generation);
    let index = writer.write(INDEX, 0, &encoded)?;
    drop(encoded);
    let tree = subtree(blocks, placement, &addresses, index)?;
    writer.write_subtree(SUBTREE, &tree)?;
    drop((tree, addresses));
    Ok(Handover {
        kho: writer.finish()?,
        index,
        functions: blocks.len(),
    })
}

fn check(layout: &Layout, blocks: &[FunctionRecord<'_>]) -> Result<(), BuildError> {
    if blocks.len() as u64 != layout.functions() {
        return Err(BuildError::Count {
            planned: layout.functions(),
            given: blocks.len(),
        });
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

/// The tree that the `pcsc-v1` consumer walks, with pointers to what it
/// ignores.
fn subtree(
    blocks: &[FunctionRecord<'_>],
    placement: &Placement<'_>,
    addresses: &[PhysAddr],
    index: MemoryRange,
) -> Result<Vec<u8>, BuildError> {
    let mut tree = FdtWriter::new();
    tree.begin_node("");
    tree.property_string("compatible", COMPATIBLE);
    native::u32(&mut tree, "pv", RULES_VERSION);
    native::u32(&mut tree, "warmbus,version", EXTENSION_VERSION);
    native::u64(&mut tree, "warmbus,generation", placement.generation);
    native::u64(&mut tree, "warmbus,index", index.start.0);
    native::u64(&mut tree, "warmbus,index-size", index.size);
    // Who does not know the index does not know either under which conditions a
    // block holds whose function does not exist now.
    let exists = |block: &FunctionRecord<'_>| !block.virtual_function.is_some_and(|vf| vf.disabled);
    let with_node = blocks.iter().zip(addresses);
    for (block, address) in with_node.filter(|(block, _)| exists(block)) {
        let function = block.sbdf;
        tree.begin_node(&format!(
            "dev_{:04x}_{:02x}_{:02x}_{:x}",
            function.segment(),
            function.bus(),
            function.device(),
            function.function()
        ));
        native::u64(&mut tree, "da", address.0);
        tree.end_node();
    }
    tree.end_node();
    Ok(tree.finish()?)
}

/// Why a handover cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The layout is for another number of functions.
    #[error("the handover is laid out for {planned} functions but gets {given}")]
    Count {
        /// Functions of the layout.
        planned: u64,
        /// Functions given.
        given: usize,
    },
    /// Two functions are the same or in the wrong order.
    #[error("function {second} comes after {first}, although functions have to ascend")]
    Order {
        /// The one that comes first.
        first: Sbdf,
        /// The one right after it.
        second: Sbdf,
    },
    /// A function cannot be handed over.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The `pcsc` tree could not be written.
    #[error("the pcsc tree cannot be written: {0}")]
    Tree(#[from] FdtError),
    /// The handover around it cannot be written.
    #[error(transparent)]
    Handover(#[from] warmbus_kho::BuildError),
}

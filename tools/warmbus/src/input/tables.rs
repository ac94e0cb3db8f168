//! The index and the data blocks of a handover in a memory image: what the
//! decoder of the format finds wrong is named with its byte of the file.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use warmbus_memory::MemoryRange;
use warmbus_pci::{ConfigOffset, Sbdf, VfRouting};
use warmbus_pcsc_format::{BLOCK_SIZE, Block, BlockBase, DecodeError, Index, SubtreeExtension};

use super::memory::Memory;
use super::{Extension, Space, VirtualFunction};

/// Checks the index and returns the address of each block.
pub(super) fn read_index(
    memory: &Memory<'_>,
    extension: SubtreeExtension,
) -> Result<BTreeMap<Sbdf, u64>> {
    let MemoryRange { start, size } = extension.index;
    let bytes = memory
        .get(start.0, usize::try_from(size)?)
        .context("the index")?;
    let wrong = |error| located(memory, start.0, "the index", error);
    let index = Index::decode(bytes).map_err(wrong)?;
    index
        .check_generation(extension.generation)
        .map_err(wrong)?;
    Ok(index
        .records()
        .map(|record| (record.sbdf, record.block.0))
        .collect())
}

/// Checks and reads a data block; without a `generation`, its base only.
pub(super) fn read_block(
    memory: &Memory<'_>,
    address: u64,
    sbdf: Sbdf,
    generation: Option<u64>,
) -> Result<Space> {
    let bytes = memory
        .get(address, BLOCK_SIZE as usize)
        .context("its data block")?;
    let wrong = |error| located(memory, address, "its data block", error);
    let Some(generation) = generation else {
        return Ok(space(BlockBase::decode(bytes).map_err(wrong)?));
    };
    let block = Block::decode(bytes).map_err(wrong)?;
    block.check_identity(sbdf, generation).map_err(wrong)?;
    Ok(Space {
        extension: Some(extension(&block)),
        ..space(block.base())
    })
}

/// `error` of `what`, which is at `address`, as a sentence with its byte.
fn located(memory: &Memory<'_>, address: u64, what: &str, error: DecodeError) -> anyhow::Error {
    let place = memory.place(address.saturating_add(error.offset() as u64));
    anyhow!("{place}: {what} is not valid: {}", error.problem())
}

/// The bytes that are known, and zeros in place of the others.
fn space(base: BlockBase<'_>) -> Space {
    let offsets = offsets(base);
    Space {
        bytes: offsets
            .clone()
            .map(|at| base.byte(at).unwrap_or(0))
            .collect(),
        known: offsets.map(|at| base.is_cached(at)).collect(),
        extension: None,
    }
}

fn offsets(base: BlockBase<'_>) -> impl Iterator<Item = ConfigOffset> + Clone {
    (0..base.data().len() as u16).map(ConfigOffset::wrapping)
}

fn extension(block: &Block<'_>) -> Extension {
    let base = block.base();
    Extension {
        cacheable: offsets(base).map(|at| base.is_cacheable(at)).collect(),
        masks: block.masks().collect(),
        capabilities: block.capabilities().collect(),
        capabilities_complete: block.capabilities_complete(),
        virtual_function: block.virtual_function().map(|vf| VirtualFunction {
            physical: vf.physical,
            number: vf.number,
            routing: VfRouting {
                num_vfs: vf.routing.first,
                offset: vf.routing.offset,
                stride: vf.routing.stride,
            },
            disabled: vf.disabled,
        }),
    }
}

//! From the cache to what a handover is written from.

use alloc::vec::Vec;

use super::{BlockInput, CapabilityRecord, MaskRecord};
use crate::pci::registers::COMMAND;
use crate::pci::{Sbdf, Topology};
use crate::pcsc::{Block, Cached};

/// What a handover says of each function of a cache.
#[derive(Debug)]
pub struct Gathered<'a> {
    functions: Vec<Function<'a>>,
}

#[derive(Debug)]
struct Function<'a> {
    sbdf: Sbdf,
    block: &'a Block,
    masks: Vec<MaskRecord>,
    capabilities: Vec<CapabilityRecord>,
    capabilities_complete: bool,
}

impl<'a> Gathered<'a> {
    /// Gathers everything that `config` has cached, ascending by function.
    /// `topology` tells of which functions the capability lists are sound.
    #[must_use]
    pub fn new<A: crate::pci::ConfigAccess>(config: &'a Cached<A>, topology: &Topology) -> Self {
        let mut sound: Vec<Sbdf> = topology
            .functions
            .iter()
            .filter(|function| function.anomalies.is_empty())
            .map(|function| function.sbdf)
            .collect();
        sound.sort_unstable();
        let functions = config
            .blocks()
            .map(|(sbdf, block)| Function {
                sbdf,
                block,
                masks: masks(block),
                capabilities: capabilities(block),
                capabilities_complete: sound.binary_search(&sbdf).is_ok(),
            })
            .collect();
        Self { functions }
    }

    /// The blocks of a handover, in the order that [`build`](super::build())
    /// wants.
    #[must_use]
    pub fn blocks(&self) -> Vec<BlockInput<'_>> {
        self.functions
            .iter()
            .map(|function| BlockInput {
                sbdf: function.sbdf,
                data: function.block.data(),
                cacheable: function.block.cacheable_bitmap(),
                cached: function.block.cached_bitmap(),
                masks: &function.masks,
                capabilities: &function.capabilities,
                capabilities_complete: function.capabilities_complete,
            })
            .collect()
    }
}

/// The masks of a function, ascending.
fn masks(block: &Block) -> Vec<MaskRecord> {
    let mut masks: Vec<MaskRecord> = block
        .write_masks()
        .iter()
        .map(|mask| MaskRecord {
            offset: mask.offset,
            writable: mask.writable,
            fixed: mask.fixed,
            value: None,
        })
        .collect();
    masks.extend(block.fixed_bits().iter().map(|found| MaskRecord {
        offset: found.offset,
        writable: match found.offset {
            COMMAND => u32::from(block.writable_command_bits()),
            _ => 0,
        },
        fixed: found.bits,
        value: Some(found.value),
    }));
    masks.sort_unstable_by_key(|mask| mask.offset);
    masks
}

fn capabilities(block: &Block) -> Vec<CapabilityRecord> {
    let conventional = block
        .capabilities()
        .iter()
        .map(|capability| CapabilityRecord {
            id: u16::from(capability.id),
            offset: u16::from(capability.offset),
            version: 0,
        });
    let extended = block
        .extended_capabilities()
        .iter()
        .map(|capability| CapabilityRecord {
            id: capability.id,
            offset: capability.offset,
            version: capability.version,
        });
    conventional.chain(extended).collect()
}

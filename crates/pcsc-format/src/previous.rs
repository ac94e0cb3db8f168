//! The cache that a previous handover has, which a new one replaces.

use alloc::vec::Vec;

use warmbus_kho::native::{each_property, number};
use warmbus_kho::{PreviousHandover, Subtree};
use warmbus_memory::bytes::le_u64;
use warmbus_memory::{MemoryRange, PhysAddr, PhysMemory};

use super::layout::SUBTREE;

/// Most blocks of an old cache that are released.
const MAX_BLOCKS: usize = 1 << 16;

/// Removes the cache from `previous`, so that what inherits from it passes on
/// neither the subtree nor its blocks. Memory of the old cache that cannot be
/// found in `memory` stays preserved.
pub fn discard_cache(previous: &mut PreviousHandover, memory: &dyn PhysMemory) {
    if let Some(subtree) = previous.subtree(SUBTREE) {
        let mut unused = Vec::new();
        // What cannot be read stays as it is.
        let _ = add_cache(memory, subtree, &mut unused);
        previous.discard(SUBTREE, &mut unused);
    }
}

/// Adds to `unused` where the memory of a `pcsc` subtree starts, block by block.
fn add_cache(memory: &dyn PhysMemory, subtree: &Subtree, unused: &mut Vec<PhysAddr>) -> Option<()> {
    let data = subtree.data()?;
    let bytes = memory.bytes(data).ok()?;
    unused.push(data.start);
    let (mut index, mut index_size) = (0, 0);
    each_property(bytes, &mut |_, name, value| {
        match name {
            b"da" => unused.extend(number(value).map(PhysAddr)),
            b"warmbus,index" => index = number(value)?,
            b"warmbus,index-size" => index_size = number(value)?,
            _ => {}
        }
        (unused.len() <= MAX_BLOCKS).then_some(())
    })?;
    // Some blocks are named by the index alone.
    let index = MemoryRange::new(PhysAddr(index), index_size);
    let records = memory.bytes(index).ok()?.chunks_exact(16);
    unused.push(index.start);
    let blocks = records.skip(4).take(MAX_BLOCKS);
    unused.extend(blocks.filter_map(|record| le_u64(record, 8).map(PhysAddr)));
    Some(())
}

//! Memory as boot services have mapped it.

use uefi::mem::memory_map::{MemoryMap as _, MemoryMapOwned};
use warmbus_machine::MemoryMap;
use warmbus_memory::{MemoryRange, NotMemory, PhysMemory};

/// All memory of a memory map.
pub(super) struct Mapped<'a>(MemoryMap<'a>);

impl<'a> Mapped<'a> {
    pub(super) fn of(map: &'a MemoryMapOwned) -> Self {
        let bytes = map.buffer().get(..map.meta().map_size).unwrap_or_default();
        Self(MemoryMap::new(bytes, map.meta().desc_size))
    }

    pub(super) const fn map(&self) -> &MemoryMap<'a> {
        &self.0
    }
}

impl PhysMemory for Mapped<'_> {
    fn bytes(&self, range: MemoryRange) -> Result<&[u8], NotMemory> {
        if range.start.0 == 0 || !self.0.is_memory(range) {
            return Err(NotMemory { range });
        }
        let start = core::ptr::with_exposed_provenance(range.start.0 as usize);
        // SAFETY: all of it is memory, which UEFI maps one to one; tables and
        // code do not change.
        Ok(unsafe { core::slice::from_raw_parts(start, range.size as usize) })
    }
}

//! The memory that belongs to no part of the firmware, by physical address.

use alloc::vec::Vec;
use core::{ptr, slice};

use warmbus_boot::memory::{BootMemory, UsableMemory};
use warmbus_memory::{MemoryRange, NotMemory, PhysAddr, PhysMemory, RangeSet};

use crate::arch::{cache, copy};

/// All memory that is mapped and not in use by the firmware itself: payload,
/// and the space for what Linux gets.
///
/// Reading borrows it, writing borrows it alone, as with any slice.
pub(crate) struct PhysicalMemory {
    map: UsableMemory,
}

impl PhysicalMemory {
    /// The memory of `mapped` without what is `in_use`.
    ///
    /// # Safety
    ///
    /// To be called once. `mapped` must be mapped as writable memory, but for
    /// what is in `in_use`, for the rest of the boot, and everything in it that
    /// Rust or the processor uses must be in `in_use`, or be reserved by
    /// [`PhysicalMemory::reserve`] before it is used.
    pub(crate) unsafe fn new(mapped: RangeSet, in_use: Vec<MemoryRange>) -> Self {
        Self {
            map: UsableMemory::new(mapped, in_use),
        }
    }

    /// Excludes one more range, which the firmware uses itself.
    pub(crate) fn reserve(&mut self, range: MemoryRange) {
        self.map.reserve(range);
    }
}

impl BootMemory for PhysicalMemory {
    fn map(&self) -> &UsableMemory {
        &self.map
    }

    fn bytes_mut(&mut self, range: MemoryRange) -> Result<&mut [u8], NotMemory> {
        self.map.check(range)?;
        let start = ptr::with_exposed_provenance_mut(range.start.0 as usize);
        // SAFETY: it is memory that nothing else uses, and the borrow keeps
        // all other borrows away.
        Ok(unsafe { slice::from_raw_parts_mut(start, range.size as usize) })
    }

    fn source_and_target(
        &mut self,
        from: MemoryRange,
        to: MemoryRange,
    ) -> Result<(&[u8], &mut [u8]), NotMemory> {
        self.map.check_copy(from, to)?;
        let source = ptr::with_exposed_provenance(from.start.0 as usize);
        let target = ptr::with_exposed_provenance_mut(to.start.0 as usize);
        // SAFETY: both are memory that nothing else uses, they do not overlap,
        // and the borrow keeps all other borrows away.
        Ok(unsafe {
            (
                slice::from_raw_parts(source, from.size as usize),
                slice::from_raw_parts_mut(target, to.size as usize),
            )
        })
    }

    fn copy(&mut self, from: MemoryRange, to: PhysAddr) -> Result<(), NotMemory> {
        let (source, target) = self.source_and_target(from, MemoryRange::new(to, from.size))?;
        copy::copy(source, target);
        Ok(())
    }

    fn clean(&self, range: MemoryRange) {
        cache::clean_and_invalidate_to_poc(range);
    }
}

impl PhysMemory for PhysicalMemory {
    fn bytes(&self, range: MemoryRange) -> Result<&[u8], NotMemory> {
        self.map.check(range)?;
        let start = ptr::with_exposed_provenance(range.start.0 as usize);
        // SAFETY: it is memory that nothing else uses, and the borrow keeps
        // `bytes_mut` away.
        Ok(unsafe { slice::from_raw_parts(start, range.size as usize) })
    }
}

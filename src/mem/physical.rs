//! The memory that belongs to no part of the firmware, by physical address.

use alloc::vec::Vec;
use core::{ptr, slice};

use warmbus_memory::{MemoryRange, NotMemory, PhysMemory, RangeSet};

/// All memory that is mapped and not in use by the firmware itself: payload,
/// and the place for what Linux gets.
///
/// Who reads borrows it, who writes borrows it alone, as with any slice.
pub(crate) struct PhysicalMemory {
    mapped: RangeSet,
    taken: Vec<MemoryRange>,
}

impl PhysicalMemory {
    /// The memory of `mapped` without what is `taken`.
    ///
    /// # Safety
    ///
    /// To be called once. `mapped` must be mapped as writable memory, but for
    /// what is in `taken`, for the rest of the boot, and everything in it that
    /// Rust or the processor uses must be in `taken`, or be taken by
    /// [`PhysicalMemory::take`] before it is used.
    pub(crate) unsafe fn new(mapped: RangeSet, taken: Vec<MemoryRange>) -> Self {
        Self { mapped, taken }
    }

    /// Takes one more range away.
    pub(crate) fn take(&mut self, range: MemoryRange) {
        self.taken.push(range);
    }

    /// What the firmware has taken for itself.
    pub(crate) fn taken(&self) -> &[MemoryRange] {
        &self.taken
    }

    /// The bytes of `range`.
    pub(crate) fn bytes(&self, range: MemoryRange) -> Result<&[u8], NotMemory> {
        let start = self.address(range)?;
        // SAFETY: `address` has checked that it is memory which nobody else
        // uses, and the borrow keeps `write` away.
        Ok(unsafe {
            slice::from_raw_parts(ptr::with_exposed_provenance(start), range.size as usize)
        })
    }

    /// The bytes of `range`, to be written to.
    pub(crate) fn bytes_mut(&mut self, range: MemoryRange) -> Result<&mut [u8], NotMemory> {
        let start = ptr::with_exposed_provenance_mut(self.address(range)?);
        // SAFETY: `address` has checked that it is memory which nobody else
        // uses, and the borrow keeps everybody else away.
        Ok(unsafe { slice::from_raw_parts_mut(start, range.size as usize) })
    }

    /// The bytes of `from`, and those of `to` to be written to.
    pub(crate) fn source_and_target(
        &mut self,
        from: MemoryRange,
        to: MemoryRange,
    ) -> Result<(&[u8], &mut [u8]), NotMemory> {
        let source = ptr::with_exposed_provenance(self.address(from)?);
        if from.overlaps(to) {
            return Err(NotMemory { range: to });
        }
        let target = self.bytes_mut(to)?;
        // SAFETY: as in `bytes`; the two do not overlap.
        let source = unsafe { slice::from_raw_parts(source, from.size as usize) };
        Ok((source, target))
    }

    /// The address of `range`, if all of it is free memory.
    fn address(&self, range: MemoryRange) -> Result<usize, NotMemory> {
        let is_slice = range.start.0 != 0 && isize::try_from(range.size).is_ok();
        if is_slice
            && self.mapped.contains_range(range)
            && !self.taken.iter().any(|taken| taken.overlaps(range))
        {
            Ok(range.start.0 as usize)
        } else {
            Err(NotMemory { range })
        }
    }
}

impl PhysMemory for PhysicalMemory {
    fn bytes(&self, range: MemoryRange) -> Result<&[u8], NotMemory> {
        self.bytes(range)
    }
}

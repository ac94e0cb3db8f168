//! The memory of the machine that is not in use by the firmware, as a boot
//! reads and writes it.

use alloc::vec::Vec;

use warmbus_memory::{MemoryRange, NotMemory, PhysAddr, PhysMemory, RangeSet};

/// Memory by physical address: what loaders have put there, and the space for
/// what Linux is started with.
pub trait BootMemory: PhysMemory {
    /// What is mapped, and what of it is in use.
    fn map(&self) -> &UsableMemory;

    /// The bytes of `range`, to be written to.
    fn bytes_mut(&mut self, range: MemoryRange) -> Result<&mut [u8], NotMemory>;

    /// The bytes of `from`, and those of `to` to be written to. Fails where
    /// the two overlap.
    fn source_and_target(
        &mut self,
        from: MemoryRange,
        to: MemoryRange,
    ) -> Result<(&[u8], &mut [u8]), NotMemory>;

    /// Copies the bytes of `from` to `to`. Fails where the two overlap.
    fn copy(&mut self, from: MemoryRange, to: PhysAddr) -> Result<(), NotMemory> {
        let (source, target) = self.source_and_target(from, MemoryRange::new(to, from.size))?;
        target.copy_from_slice(source);
        Ok(())
    }

    /// Makes what was written to `range`, all of which is usable, visible to
    /// Linux, which first looks at it with its caches off.
    fn clean(&self, range: MemoryRange);
}

/// Which memory may be read and written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsableMemory {
    mapped: RangeSet,
    in_use: Vec<MemoryRange>,
}

impl UsableMemory {
    /// The memory of `mapped` without what is `in_use` by the firmware.
    #[must_use]
    pub const fn new(mapped: RangeSet, in_use: Vec<MemoryRange>) -> Self {
        Self { mapped, in_use }
    }

    /// Excludes one more range, which is in use from now on.
    pub fn reserve(&mut self, range: MemoryRange) {
        self.in_use.push(range);
    }

    /// All that is mapped.
    #[must_use]
    pub const fn mapped(&self) -> &RangeSet {
        &self.mapped
    }

    /// What is in use by the firmware.
    #[must_use]
    pub fn in_use(&self) -> &[MemoryRange] {
        &self.in_use
    }

    /// Fails unless all of `range`, which is not empty, may be read and
    /// written.
    pub fn check(&self, range: MemoryRange) -> Result<(), NotMemory> {
        // No slice starts at address 0 or has more than half of all bytes.
        let is_slice = range.start.0 != 0 && isize::try_from(range.size).is_ok();
        let is_usable = is_slice
            && self.mapped.contains_range(range)
            && !self.in_use.iter().any(|used| used.overlaps(range));
        is_usable.then_some(()).ok_or(NotMemory { range })
    }

    /// As [`Self::check`] for both ranges, which must not overlap either.
    pub fn check_copy(&self, from: MemoryRange, to: MemoryRange) -> Result<(), NotMemory> {
        self.check(from)?;
        if from.overlaps(to) {
            return Err(NotMemory { range: to });
        }
        self.check(to)
    }
}

/// The pages of `page_size` bytes of `mappable` memory that are mapped: a page
/// that is only partly memory may hold something that must not be.
#[must_use]
pub fn mapped_pages(mappable: &RangeSet, page_size: u64) -> RangeSet {
    let pages = mappable
        .iter()
        .filter_map(|range| range.whole_pages(page_size));
    pages.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn range(start: u64, end: u64) -> MemoryRange {
        MemoryRange::from_bounds(start, end)
    }

    #[test]
    fn only_whole_memory_that_is_not_in_use_is_usable() {
        let mapped = RangeSet::from_iter([range(0, 0x9000), range(0x1_0000, 0x2_0000)]);
        let mut usable = UsableMemory::new(mapped, alloc::vec![range(0x4000, 0x5000)]);
        usable.reserve(range(0x1_8000, 0x1_9000));
        assert_eq!(usable.in_use().len(), 2);
        for (start, end, expected) in [
            (0x1000, 0x4000, true),
            (0x5000, 0x9000, true),
            (0x1_0000, 0x1_8000, true),
            // Address 0, nothing at all, and what is in use.
            (0, 0x1000, false),
            (0x1000, 0x1000, false),
            (0x3fff, 0x4001, false),
            (0x4fff, 0x5001, false),
            (0x1_8800, 0x1_8801, false),
            // Not memory, wholly or in part.
            (0x8000, 0x9001, false),
            (0x8000, 0x1_0001, false),
            (0x2_0000, 0x2_1000, false),
        ] {
            let range = range(start, end);
            let result = expected.then_some(()).ok_or(NotMemory { range });
            assert_eq!(usable.check(range), result, "{range}");
        }
        let huge = MemoryRange::new(warmbus_memory::PhysAddr(0x1000), 1 << 63);
        let everything = UsableMemory::new(RangeSet::from_iter([range(0, u64::MAX)]), Vec::new());
        assert_eq!(everything.check(huge), Err(NotMemory { range: huge }));
    }

    #[test]
    fn nothing_is_copied_onto_itself() {
        let usable = UsableMemory::new(RangeSet::from_iter([range(0x1000, 0x9000)]), Vec::new());
        let (one, two) = (range(0x1000, 0x2000), range(0x2000, 0x3000));
        assert_eq!(usable.check_copy(one, two), Ok(()));
        let overlapping = range(0x1fff, 0x2fff);
        let refused = Err(NotMemory { range: overlapping });
        assert_eq!(usable.check_copy(one, overlapping), refused);
        let outside = range(0x8000, 0xa000);
        let refused = Err(NotMemory { range: outside });
        assert_eq!(usable.check_copy(one, outside), refused);
        assert_eq!(usable.check_copy(outside, one), refused);
    }
}

//! Which memory the heap of the firmware is in.

use warmbus_memory::{MemoryRange, PhysAddr, RangeSet};

/// Most bytes of the heap; 4096 functions need half of it.
pub const MAX_SIZE: u64 = 64 << 20;
/// Most bytes of the heap of a second start, which only starts a kernel.
pub const MAX_SIZE_AGAIN: u64 = 4 << 20;
/// A heap of less is not worth it: the firmware has a small one of its own.
pub const MIN_SIZE: u64 = 1 << 20;
/// The heap starts at a multiple of this, and has a multiple of it.
pub const ALIGNMENT: u64 = 1 << 16;

/// The end of the largest range of `free`, at most a quarter of it: loaders
/// and kernels prefer the start. `None` where that is too little.
#[must_use]
pub fn choose(free: &RangeSet) -> Option<MemoryRange> {
    let largest = free.iter().max_by_key(|range| range.size)?;
    let size = size(*largest, MAX_SIZE)?;
    let start = (largest.last().0 - (size - 1)) / ALIGNMENT * ALIGNMENT;
    (start >= largest.start.0).then_some(MemoryRange::new(PhysAddr(start), size))
}

/// The memory right behind `image`, if it is `free`, for a second start: what
/// is known of the machine may be what made the first one fail, and there is
/// memory for certain. `None` where that is too little.
#[must_use]
pub fn choose_behind(image: MemoryRange, free: &RangeSet) -> Option<MemoryRange> {
    let behind = free.iter().find(|range| range.start.0 == image.end())?;
    let size = size(*behind, MAX_SIZE_AGAIN)?;
    Some(MemoryRange::new(behind.start, size))
}

/// A quarter of `range`, at most `limit`, if that is enough.
fn size(range: MemoryRange, limit: u64) -> Option<u64> {
    let size = (range.size / 4).min(limit) / ALIGNMENT * ALIGNMENT;
    (size >= MIN_SIZE).then_some(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn free(ranges: &[(u64, u64)]) -> RangeSet {
        let range = |&(start, end)| MemoryRange::from_bounds(start, end);
        ranges.iter().map(range).collect()
    }

    const fn range(start: u64, size: u64) -> MemoryRange {
        MemoryRange::new(PhysAddr(start), size)
    }

    #[test]
    fn the_heap_is_at_the_end_of_the_largest_free_range() {
        let start = 0x4000_0000;
        for (memory, heap) in [
            // A quarter of it, in whole units of 64 KiB.
            (
                free(&[(start, start + 64 * MIB)]),
                Some(range(start + 48 * MIB, 16 * MIB)),
            ),
            (
                free(&[(start, start + 64 * MIB + 0x1234)]),
                Some(range(start + 48 * MIB, 16 * MIB)),
            ),
            (
                free(&[(start, start + (8 << 30))]),
                Some(range(start + (8 << 30) - MAX_SIZE, MAX_SIZE)),
            ),
            (
                free(&[(MIB, 9 * MIB), (start, start + 16 * MIB)]),
                Some(range(start + 12 * MIB, 4 * MIB)),
            ),
            (
                free(&[(start, start + 4 * MIB)]),
                Some(range(start + 3 * MIB, MIB)),
            ),
            // Too little.
            (free(&[(start, start + 4 * MIB - 1)]), None),
            (free(&[]), None),
        ] {
            assert_eq!(choose(&memory), heap, "{memory:?}");
        }
    }

    #[test]
    fn the_heap_of_a_second_start_is_behind_the_image() {
        let image = MemoryRange::from_bounds(0x4020_0000, 0x4040_0000);
        let large = (0x8000_0000, 0x9000_0000);
        for (memory, heap) in [
            (
                free(&[(image.end(), image.end() + 64 * MIB), large]),
                Some(range(image.end(), 4 * MIB)),
            ),
            (
                free(&[(image.end(), image.end() + 8 * MIB), large]),
                Some(range(image.end(), 2 * MIB)),
            ),
            (
                free(&[(image.end(), image.end() + 4 * MIB - 1), large]),
                None,
            ),
            (
                free(&[(image.end() + 0x1000, image.end() + 64 * MIB)]),
                None,
            ),
            (free(&[large]), None),
        ] {
            assert_eq!(choose_behind(image, &memory), heap, "{memory:?}");
        }
    }
}

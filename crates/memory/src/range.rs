//! Ranges of physical memory.

use core::fmt;

use crate::PhysAddr;

/// A range of physical addresses: `size` bytes from `start` on.
///
/// It may be empty, and it may claim bytes above the last address, as a
/// device tree can say anything. [`MemoryRange::fits`] finds the latter;
/// everything else here counts such a range up to the last address.
///
/// ```
/// use warmbus_memory::{MemoryRange, PhysAddr};
///
/// let kernel = MemoryRange::new(PhysAddr(0x4020_0000), 0x90_0000);
/// let initrd = MemoryRange::from_bounds(0x4ab0_0000, 0x4ac0_0000);
/// assert!(!kernel.overlaps(initrd));
/// assert_eq!(kernel.to_string(), "0x40200000-0x40afffff");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemoryRange {
    /// The first address.
    pub start: PhysAddr,
    /// Bytes.
    pub size: u64,
}

impl MemoryRange {
    /// The `size` bytes from `start` on.
    #[must_use]
    pub const fn new(start: PhysAddr, size: u64) -> Self {
        Self { start, size }
    }

    /// The addresses from `start` up to but not including `end`; empty where
    /// `end` is not above `start`.
    #[must_use]
    pub const fn from_bounds(start: u64, end: u64) -> Self {
        Self::new(PhysAddr(start), end.saturating_sub(start))
    }

    /// Whether there is no byte in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.size == 0
    }

    /// Whether all its bytes have an address. An empty range fits.
    #[must_use]
    pub const fn fits(self) -> bool {
        self.size == 0 || self.start.0.checked_add(self.size - 1).is_some()
    }

    /// The address after the last byte; the highest address if that does not
    /// exist.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.start.0.saturating_add(self.size)
    }

    /// The address of the last byte; that of the first where there is none.
    #[must_use]
    pub const fn last(self) -> PhysAddr {
        PhysAddr(self.start.0.saturating_add(self.size.saturating_sub(1)))
    }

    /// Whether the two have a byte in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        !self.is_empty()
            && !other.is_empty()
            && self.start.0 <= other.last().0
            && other.start.0 <= self.last().0
    }

    /// Whether all of `inner` is in here. An empty range is in every range
    /// that its address is in or at the end of.
    #[must_use]
    pub const fn contains(self, inner: Self) -> bool {
        self.start.0 <= inner.start.0 && inner.end() <= self.end()
    }

    /// What the two have in common; empty where that is nothing.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        let start = self.start.max(other.start).0;
        Self::from_bounds(start, self.end().min(other.end()))
    }

    /// The pages of `page_size` bytes, a power of two, that are entirely in
    /// it; `None` where there is not one, or where the range does not fit.
    #[must_use]
    pub fn whole_pages(self, page_size: u64) -> Option<Self> {
        let start = self.start.0.checked_next_multiple_of(page_size)?;
        // One past the last address may be 2^64; the last page then counts.
        let beyond = self.last().0.checked_add(1).unwrap_or(0);
        let size = beyond.wrapping_sub(beyond % page_size).wrapping_sub(start);
        let inside = self.fits() && start <= self.last().0 && size <= self.size && size != 0;
        inside.then_some(Self::new(PhysAddr(start), size))
    }

    /// The pages of `page_size` bytes, a power of two, that it touches.
    #[must_use]
    pub const fn touched_pages(self, page_size: u64) -> Self {
        let start = self.start.0 / page_size * page_size;
        if self.is_empty() {
            return Self::new(PhysAddr(start), 0);
        }
        let last = self.last().0 / page_size * page_size;
        Self::new(PhysAddr(start), (last - start).saturating_add(page_size))
    }
}

impl fmt::Display for MemoryRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            write!(f, "{} (empty)", self.start)
        } else {
            write!(f, "{}-{}", self.start, self.last())
        }
    }
}

impl fmt::Debug for MemoryRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A range of RAM that belongs to one NUMA node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamRegion {
    /// Where it is.
    pub range: MemoryRange,
    /// The number of its NUMA node (`numa-node-id`), 0 where there is only
    /// one.
    pub node: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    const fn range(start: u64, size: u64) -> MemoryRange {
        MemoryRange::new(PhysAddr(start), size)
    }

    #[test]
    fn the_last_page_of_all_addresses_overlaps_itself_and_has_a_last_byte() {
        let top = range(u64::MAX, 1);
        assert!(top.fits() && top.overlaps(top));
        assert_eq!(top.last(), PhysAddr(u64::MAX));
        assert!(!range(u64::MAX, 2).fits());
        assert!(range(u64::MAX, 2).overlaps(top));
        let page = range(0u64.wrapping_sub(0x1000), 0x1000);
        assert_eq!(page.whole_pages(0x1000), Some(page));
        assert_eq!(range(page.start.0, 0x1001).whole_pages(0x1000), None);
    }

    #[test]
    fn an_empty_range_overlaps_nothing_and_says_that_it_is_empty() {
        let all = range(0, u64::MAX);
        assert!(!range(5, 0).overlaps(all) && !all.overlaps(range(5, 0)));
        assert!(all.contains(range(5, 0)));
        assert_eq!(range(5, 0).to_string(), "0x5 (empty)");
        assert_eq!(range(5, 0).touched_pages(16), range(0, 0));
    }

    #[test]
    fn pages_are_rounded_inwards_or_outwards() {
        let odd = range(0x1fff, 0x2002);
        assert_eq!(odd.whole_pages(0x1000), Some(range(0x2000, 0x2000)));
        assert_eq!(odd.touched_pages(0x1000), range(0x1000, 0x4000));
        assert_eq!(range(0x1001, 0xfff).whole_pages(0x1000), None);
        assert_eq!(
            range(0x1000, 0x1000).touched_pages(0x1000),
            range(0x1000, 0x1000)
        );
        assert_eq!(
            range(1, 0x1ffe).intersection(range(0x1000, 9)),
            range(0x1000, 9)
        );
        assert!(range(0, 4).intersection(range(4, 4)).is_empty());
    }
}

//! Sets of addresses: what is free, what is reserved.

use alloc::vec::Vec;
use core::ops::Deref;

use crate::{MemoryRange, PhysAddr};

/// A set of physical addresses, kept as ranges that ascend, are not empty and
/// neither overlap nor touch.
///
/// A range that goes past the last address is cut off there, and the last
/// address itself is in no set: there is no memory there.
///
/// ```
/// use warmbus_memory::{MemoryRange, PhysAddr, RangeSet};
///
/// let mut free = RangeSet::from_iter([MemoryRange::from_bounds(0x4000_0000, 0x8000_0000)]);
/// free.remove(MemoryRange::from_bounds(0x4000_0000, 0x4020_0000));
/// let all = MemoryRange::from_bounds(0, u64::MAX);
/// assert_eq!(free.lowest_fit(0x1000, 0x1000, all), Some(PhysAddr(0x4020_0000)));
/// assert_eq!(free.total(), 0x3fe0_0000);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<MemoryRange>,
}

impl RangeSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// Bytes in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.ranges.iter().map(|range| range.size).sum()
    }

    /// Whether all addresses of `range`, which is not empty, are in the set.
    #[must_use]
    pub fn contains_range(&self, range: MemoryRange) -> bool {
        let is_around = |around: &MemoryRange| around.contains(range);
        !range.is_empty() && range.fits() && self.ranges.iter().any(is_around)
    }

    /// Adds `range`.
    pub fn insert(&mut self, range: MemoryRange) {
        self.extend([range]);
    }

    /// Removes `hole`.
    pub fn remove(&mut self, hole: MemoryRange) {
        if !self.ranges.iter().any(|range| range.overlaps(hole)) {
            return;
        }
        let mut rest = Vec::with_capacity(self.ranges.len() + 1);
        for range in &self.ranges {
            let below = MemoryRange::from_bounds(range.start.0, range.end().min(hole.start.0));
            let above = MemoryRange::from_bounds(range.start.0.max(hole.end()), range.end());
            rest.extend([below, above].iter().filter(|piece| !piece.is_empty()));
        }
        self.ranges = rest;
    }

    /// The set without everything in `holes`.
    #[must_use]
    pub fn without(mut self, holes: impl IntoIterator<Item = MemoryRange>) -> Self {
        for hole in holes {
            self.remove(hole);
        }
        self
    }

    /// The addresses that are in `range` as well.
    #[must_use]
    pub fn within(&self, range: MemoryRange) -> Self {
        let common = self.ranges.iter().map(|one| one.intersection(range));
        Self {
            ranges: common.filter(|one| !one.is_empty()).collect(),
        }
    }

    /// The lowest address in `window` that is a multiple of `align` and starts
    /// `size` bytes of the set in `window`.
    #[must_use]
    pub fn lowest_fit(&self, size: u64, align: u64, window: MemoryRange) -> Option<PhysAddr> {
        let mut fits = self.ranges.iter();
        fits.find_map(|range| lowest_and_highest(*range, size, align, window))
            .map(|(lowest, _)| lowest)
    }

    /// The highest such address.
    #[must_use]
    pub fn highest_fit(&self, size: u64, align: u64, window: MemoryRange) -> Option<PhysAddr> {
        let mut fits = self.ranges.iter().rev();
        fits.find_map(|range| lowest_and_highest(*range, size, align, window))
            .map(|(_, highest)| highest)
    }

    /// The lowest and the highest such address in each range of the set, from
    /// high to low and without repetition.
    #[must_use]
    pub fn candidates(&self, size: u64, align: u64, window: MemoryRange) -> Vec<PhysAddr> {
        let fits = self.ranges.iter().rev();
        let fits = fits.filter_map(|range| lowest_and_highest(*range, size, align, window));
        let mut addresses: Vec<_> = fits.flat_map(|(low, high)| [high, low]).collect();
        addresses.dedup();
        addresses
    }

    /// The largest size, in steps of `align`, that has a multiple of `align`
    /// as its address in `window`; 0 where there is none.
    #[must_use]
    pub fn largest_fit(&self, align: u64, window: MemoryRange) -> u64 {
        let sizes = self.ranges.iter().filter_map(|range| {
            let common = range.intersection(window);
            let start = common.start.0.checked_next_multiple_of(align)?;
            Some(common.end().checked_sub(start)? / align * align)
        });
        sizes.max().unwrap_or(0)
    }

    /// Adds the gaps between ranges, the small ones first, until there are no
    /// more than `max_ranges`, of which there must be one at least. Gaps up to
    /// a limit are added, which starts at `min_gap` bytes and doubles.
    pub fn coalesce(&mut self, max_ranges: usize, min_gap: u64) {
        let mut gap = min_gap.max(1);
        while self.ranges.len() > max_ranges.max(1) {
            self.ranges.dedup_by(|next, last| join(last, *next, gap));
            gap = gap.saturating_mul(2);
        }
    }
}

/// Adds `next`, which does not start before `last`, to `last` where no more
/// than `gap` bytes are between the two.
fn join(last: &mut MemoryRange, next: MemoryRange, gap: u64) -> bool {
    let joins = next.start.0 <= last.end().saturating_add(gap);
    if joins {
        *last = MemoryRange::from_bounds(last.start.0, last.end().max(next.end()));
    }
    joins
}

/// The lowest and the highest multiple of `align` that starts `size` bytes of
/// both `range` and `window`.
fn lowest_and_highest(
    range: MemoryRange,
    size: u64,
    align: u64,
    window: MemoryRange,
) -> Option<(PhysAddr, PhysAddr)> {
    let start = range.start.max(window.start).0;
    let end = range.end().min(window.end());
    let lowest = start.checked_next_multiple_of(align)?;
    let highest = end.checked_sub(size)? / align * align;
    (lowest <= highest).then_some((PhysAddr(lowest), PhysAddr(highest)))
}

impl Extend<MemoryRange> for RangeSet {
    fn extend<I: IntoIterator<Item = MemoryRange>>(&mut self, ranges: I) {
        let more = ranges.into_iter().filter(|range| !range.is_empty());
        // Cut off at the last address, which no range may claim to go past.
        self.ranges
            .extend(more.map(|range| MemoryRange::from_bounds(range.start.0, range.end())));
        self.ranges.retain(|range| !range.is_empty());
        self.ranges.sort_unstable();
        self.ranges.dedup_by(|next, last| join(last, *next, 0));
    }
}

impl FromIterator<MemoryRange> for RangeSet {
    fn from_iter<I: IntoIterator<Item = MemoryRange>>(ranges: I) -> Self {
        let mut set = Self::new();
        set.extend(ranges);
        set
    }
}

impl Deref for RangeSet {
    type Target = [MemoryRange];

    /// The ranges of the set, ascending.
    fn deref(&self) -> &[MemoryRange] {
        &self.ranges
    }
}

impl IntoIterator for RangeSet {
    type Item = MemoryRange;
    type IntoIter = alloc::vec::IntoIter<MemoryRange>;

    fn into_iter(self) -> Self::IntoIter {
        self.ranges.into_iter()
    }
}

impl<'a> IntoIterator for &'a RangeSet {
    type Item = &'a MemoryRange;
    type IntoIter = core::slice::Iter<'a, MemoryRange>;

    fn into_iter(self) -> Self::IntoIter {
        self.ranges.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn set(bounds: &[(u64, u64)]) -> RangeSet {
        let ranges = bounds.iter();
        ranges
            .map(|&(start, end)| MemoryRange::from_bounds(start, end))
            .collect()
    }

    const ALL: MemoryRange = MemoryRange::from_bounds(0, u64::MAX);

    #[test]
    fn removing_splits_and_finding_respects_alignment_and_window() {
        let mut free = set(&[(0x1000, 0x5000), (0x5000, 0x9000), (7, 7)]);
        assert_eq!(free, set(&[(0x1000, 0x9000)]));
        assert_eq!(free.len(), 1);
        free.remove(MemoryRange::from_bounds(0x3000, 0x4800));
        assert_eq!(
            free[..],
            [(0x1000, 0x3000), (0x4800, 0x9000)]
                .map(|(start, end)| MemoryRange::from_bounds(start, end))
        );
        let at = |address| Some(PhysAddr(address));
        assert_eq!(free.lowest_fit(0x1000, 0x2000, ALL), at(0x2000));
        assert_eq!(free.highest_fit(0x1000, 0x2000, ALL), at(0x8000));
        assert_eq!(free.lowest_fit(0x4800, 1, ALL), at(0x4800));
        assert_eq!(free.lowest_fit(0x4801, 1, ALL), None);
        let window = MemoryRange::from_bounds(0x2800, 0x5800);
        assert_eq!(free.lowest_fit(0x1000, 0x1000, window), None);
        assert_eq!(free.largest_fit(0x1000, ALL), 0x4000);
        assert_eq!(free.largest_fit(0x10_0000, ALL), 0);
        let low = MemoryRange::from_bounds(0, 0x3000);
        let expected = vec![PhysAddr(0x2000), PhysAddr(0x1000)];
        assert_eq!(free.candidates(0x1000, 0x1000, low), expected);
    }

    #[test]
    fn coalescing_fills_the_small_gaps_first() {
        let mut held = set(&[
            (0, 0x100),
            (0x180, 0x200),
            (0x1000, 0x1100),
            (0x9000, 0xa000),
        ]);
        held.coalesce(4, 0x100);
        assert_eq!(held.len(), 4, "few enough: nothing is added");
        held.coalesce(3, 0x100);
        assert_eq!(held, set(&[(0, 0x200), (0x1000, 0x1100), (0x9000, 0xa000)]));
        // A gap of 0x200 is added in the second step, one of 0x201 is not.
        let mut close = set(&[(0, 0x100), (0x300, 0x400), (0x601, 0x700)]);
        close.coalesce(2, 0x100);
        assert_eq!(close, set(&[(0, 0x400), (0x601, 0x700)]));
        held.coalesce(0, 0x100);
        assert_eq!(held, set(&[(0, 0xa000)]));
    }

    /// What a set of small addresses has, address by address.
    fn addresses(set: &RangeSet) -> Vec<u64> {
        set.iter()
            .flat_map(|range| range.start.0..range.end())
            .collect()
    }

    proptest! {
        #[test]
        fn sets_have_the_addresses_that_were_added_and_not_removed(
            steps in prop::collection::vec((any::<bool>(), 0_u64..64, 0_u64..20), 0..12),
        ) {
            let mut set = RangeSet::new();
            let mut expected = [false; 84];
            for (is_added, start, size) in steps {
                let range = MemoryRange::new(PhysAddr(start), size);
                if is_added {
                    set.insert(range);
                } else {
                    set.remove(range);
                }
                for address in start..start + size {
                    expected[address as usize] = is_added;
                }
            }
            let expected: Vec<u64> = (0..84).filter(|at| expected[*at as usize]).collect();
            prop_assert_eq!(addresses(&set), expected);
            let apart = set.windows(2).all(|pair| pair[0].end() < pair[1].start.0);
            prop_assert!(apart && set.iter().all(|range| !range.is_empty()));
        }

        #[test]
        fn a_fit_is_the_first_or_the_last_that_a_search_by_address_finds(
            ranges in prop::collection::vec((0_u64..100, 1_u64..20), 0..6),
            size in 0_u64..12,
            shift in 0_u32..4,
            window in (0_u64..60, 0_u64..120),
        ) {
            let ranges = ranges.iter();
            let set: RangeSet = ranges
                .map(|&(start, size)| MemoryRange::new(PhysAddr(start), size))
                .collect();
            let window = MemoryRange::new(PhysAddr(window.0), window.1);
            let align = 1 << shift;
            let free = addresses(&set.within(window));
            let fits = |at: &u64| {
                let piece = MemoryRange::new(PhysAddr(*at), size.max(1));
                at.is_multiple_of(align) && (*at..*at + size).all(|byte| free.contains(&byte))
                    && set.iter().any(|range| range.contains(piece))
            };
            let all: Vec<u64> = (0..128).filter(fits).collect();
            if size != 0 {
                let lowest = set.lowest_fit(size, align, window).map(|at| at.0);
                let highest = set.highest_fit(size, align, window).map(|at| at.0);
                prop_assert_eq!(lowest, all.first().copied());
                prop_assert_eq!(highest, all.last().copied());
            }
        }
    }
}

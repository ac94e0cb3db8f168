//! Ranges of addresses on the PCI side.

use core::fmt;

/// A range of addresses on the PCI side, which includes both its ends: so it
/// is never empty and can hold the last address of a space.
///
/// ```
/// use warmbus_pci::PciRange;
///
/// let window = PciRange::new(0x1000_0000, 0x101f_ffff).unwrap();
/// let bar = PciRange::from_size(0x1000_4000, 0x4000).unwrap();
/// assert!(window.contains(bar));
/// assert_eq!(window.size(), 0x20_0000);
/// assert_eq!(PciRange::new(0xfff0_0000, 0), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PciRange {
    base: u64,
    limit: u64,
}

impl PciRange {
    /// The addresses from `base` to `limit`; `None` where `base` is above
    /// `limit`, as in the registers of a closed window.
    #[must_use]
    pub const fn new(base: u64, limit: u64) -> Option<Self> {
        if base <= limit {
            Some(Self { base, limit })
        } else {
            None
        }
    }

    /// The `size` bytes from `base` on; `None` where `size` is 0 or the range
    /// would go beyond 64 bits.
    #[must_use]
    pub const fn from_size(base: u64, size: u64) -> Option<Self> {
        match size.checked_sub(1) {
            Some(distance) => match base.checked_add(distance) {
                Some(limit) => Some(Self { base, limit }),
                None => None,
            },
            None => None,
        }
    }

    /// First address.
    #[must_use]
    pub const fn base(self) -> u64 {
        self.base
    }

    /// Last address.
    #[must_use]
    pub const fn limit(self) -> u64 {
        self.limit
    }

    /// Bytes; `u64::MAX` also for the whole 64-bit space, which has one more.
    #[must_use]
    pub const fn size(self) -> u64 {
        (self.limit - self.base).saturating_add(1)
    }

    /// Whether all of `other` is within this range.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.base <= other.base && other.limit <= self.limit
    }

    /// Whether the ranges have an address in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.base <= other.limit && other.base <= self.limit
    }

    /// The part of this range below `other`.
    pub(crate) const fn below(self, other: Self) -> Option<Self> {
        match other.base.checked_sub(1) {
            Some(limit) if limit < self.limit => Self::new(self.base, limit),
            Some(_) => Some(self),
            None => None,
        }
    }

    /// The part of this range above `other`.
    pub(crate) const fn above(self, other: Self) -> Option<Self> {
        match other.limit.checked_add(1) {
            Some(base) if base > self.base => Self::new(base, self.limit),
            Some(_) => Some(self),
            None => None,
        }
    }
}

impl fmt::Display for PciRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} to {:#x}", self.base, self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(base: u64, limit: u64) -> PciRange {
        PciRange::new(base, limit).unwrap()
    }

    #[test]
    fn a_range_is_never_empty_and_reaches_the_last_address() {
        assert_eq!(PciRange::new(5, 4), None);
        assert_eq!(PciRange::from_size(5, 0), None);
        assert_eq!(PciRange::from_size(u64::MAX, 2), None);
        assert_eq!(
            PciRange::from_size(u64::MAX, 1),
            Some(range(u64::MAX, u64::MAX))
        );
        assert_eq!(range(5, 5).size(), 1);
        assert_eq!(range(0, u64::MAX).size(), u64::MAX);
    }

    #[test]
    fn ranges_overlap_where_they_share_one_address() {
        let window = range(10, 20);
        for (base, limit, is_inside, has_common) in [
            (10, 20, true, true),
            (9, 20, false, true),
            (10, 21, false, true),
            (0, 9, false, false),
            (0, 10, false, true),
            (20, 30, false, true),
            (21, 30, false, false),
        ] {
            let other = range(base, limit);
            assert_eq!(window.contains(other), is_inside, "{other}");
            assert_eq!(window.overlaps(other), has_common, "{other}");
        }
    }

    #[test]
    fn what_is_below_and_above_a_range_is_all_but_the_range() {
        let window = range(10, 20);
        let parts = |base, limit| {
            let cut = range(base, limit);
            (window.below(cut), window.above(cut))
        };
        assert_eq!(parts(12, 15), (Some(range(10, 11)), Some(range(16, 20))));
        assert_eq!(parts(10, 20), (None, None));
        assert_eq!(parts(0, u64::MAX), (None, None));
        for limit in [5, 8, 9] {
            assert_eq!(parts(0, limit), (None, Some(window)));
        }
        for base in [21, 22, 30] {
            assert_eq!(parts(base, 40), (Some(window), None));
        }
    }
}

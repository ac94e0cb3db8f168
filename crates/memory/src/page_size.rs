//! The page sizes of arm64.

use core::fmt;

/// The size of the pages that a kernel works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PageSize {
    /// 4 KiB.
    K4,
    /// 16 KiB.
    K16,
    /// 64 KiB.
    K64,
}

impl PageSize {
    /// All sizes that arm64 has, ascending.
    pub const ALL: [Self; 3] = [Self::K4, Self::K16, Self::K64];

    /// Bytes in a page.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        1 << self.shift()
    }

    /// Binary logarithm of the bytes in a page: 12, 14 or 16.
    #[must_use]
    pub const fn shift(self) -> u32 {
        match self {
            Self::K4 => 12,
            Self::K16 => 14,
            Self::K64 => 16,
        }
    }

    /// The largest order of pages that Linux allocates in one piece
    /// (`MAX_PAGE_ORDER` as `ARCH_FORCE_MAX_ORDER` defaults it).
    #[must_use]
    pub const fn max_order(self) -> u32 {
        match self {
            Self::K4 => 10,
            Self::K16 => 11,
            Self::K64 => 13,
        }
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}K", self.bytes() >> 10)
    }
}

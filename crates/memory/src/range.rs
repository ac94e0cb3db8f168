//! A piece of physical memory.

use core::fmt;

use crate::PhysAddr;

/// A range of physical addresses. It may be empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

    /// The address after the last byte; the highest address if that does not
    /// exist.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.start.0.saturating_add(self.size)
    }

    /// Whether the two have a byte in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.size != 0
            && other.size != 0
            && self.start.0 < other.end()
            && other.start.0 < self.end()
    }

    /// Whether all of `inner` is in here.
    #[must_use]
    pub const fn contains(self, inner: Self) -> bool {
        self.start.0 <= inner.start.0 && inner.end() <= self.end()
    }
}

impl fmt::Display for MemoryRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.size == 0 {
            write!(f, "{} (empty)", self.start)
        } else {
            write!(f, "{}-{:#x}", self.start, self.end() - 1)
        }
    }
}

impl fmt::Debug for MemoryRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

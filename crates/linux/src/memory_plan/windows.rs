//! The ranges of addresses that pieces are searched in.

use warmbus_memory::{ADDRESS_END, MemoryRange, PageSize};

use super::{INITRD_WINDOW, INITRD_WINDOW_ALIGN, LOW_MEMORY_END};

/// Bytes of a page of the largest size: pieces in different ones share no page
/// of any kernel.
pub(super) const PAGE: u64 = PageSize::K64.bytes();

/// Addresses below 4 GiB.
pub(super) const LOW: MemoryRange = MemoryRange::from_bounds(0, LOW_MEMORY_END);

/// All addresses.
pub(super) const ALL: MemoryRange = MemoryRange::from_bounds(0, ADDRESS_END);

/// `range` as far as there are addresses.
pub(super) fn addressable(range: MemoryRange) -> MemoryRange {
    range.intersection(ALL)
}

/// All pages that `range` touches, as far as there are addresses.
pub(super) fn pages(range: MemoryRange) -> MemoryRange {
    addressable(range).touched_pages(PAGE)
}

/// The window that both a kernel and its initrd fit in, if one of them is at
/// `piece`.
pub(super) fn window_around(piece: MemoryRange) -> MemoryRange {
    let first = piece.start.0 / INITRD_WINDOW_ALIGN * INITRD_WINDOW_ALIGN;
    let end = piece.end().div_ceil(INITRD_WINDOW_ALIGN) * INITRD_WINDOW_ALIGN;
    MemoryRange::from_bounds(end.saturating_sub(INITRD_WINDOW), first + INITRD_WINDOW)
}

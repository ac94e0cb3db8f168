//! The preserved-memory map: which pages Linux must not hand out.

mod bitmap_list;
pub(crate) mod radix;
pub(crate) mod read;

use crate::KhoAbi;
use warmbus_memory::PageSize;
use warmbus_memory::PhysAddr;
use warmbus_memory::PhysMemoryWrite;

/// One entry of the map: a naturally aligned block of `2^order` pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Preserved {
    /// Binary logarithm of the number of pages.
    pub order: u32,
    /// Where the block starts.
    pub address: PhysAddr,
}

/// Splits `pages` pages from `address` on into entries, the way Linux itself
/// does: at each step the largest block that the alignment of the address and
/// the pages that are left allow.
pub fn split(
    address: PhysAddr,
    pages: u64,
    page_size: PageSize,
) -> impl Iterator<Item = Preserved> {
    let shift = page_size.shift();
    let mut frame = address.0 >> shift;
    let mut left = pages;
    core::iter::from_fn(move || {
        let order = frame.trailing_zeros().min(left.checked_ilog2()?);
        let entry = Preserved {
            order,
            address: PhysAddr(frame << shift),
        };
        frame += 1 << order;
        left -= 1 << order;
        Some(entry)
    })
}

/// Hands out the pages of the map, one after the other.
pub(crate) struct PageAllocator {
    next: u64,
    end: u64,
    size: u64,
}

impl PageAllocator {
    /// The `count` pages of `page_size` from `start` on.
    pub(crate) const fn new(start: PhysAddr, count: u64, page_size: PageSize) -> Self {
        let size = page_size.bytes();
        Self {
            next: start.0,
            end: start.0 + count * size,
            size,
        }
    }

    /// The next page, filled with zeros; `None` if there is none left.
    pub(crate) fn take(&mut self, sink: &mut impl PhysMemoryWrite) -> Option<PhysAddr> {
        if self.next >= self.end {
            return None;
        }
        let page = PhysAddr(self.next);
        self.next += self.size;
        sink.zero(page, self.size);
        Some(page)
    }

    /// Pages that are not taken yet.
    pub(crate) const fn left(&self) -> u64 {
        (self.end - self.next) / self.size
    }
}

/// Collects bits that come in ascending order into little-endian u64 words,
/// so that each word is written once.
#[derive(Default)]
pub(crate) struct BitmapWriter {
    word: Option<(PhysAddr, u64)>,
}

impl BitmapWriter {
    /// Sets bit `bit` of the bitmap at `bitmap`.
    pub(crate) fn set(&mut self, bitmap: PhysAddr, bit: u64, sink: &mut impl PhysMemoryWrite) {
        let at = PhysAddr(bitmap.0 + bit / 64 * 8);
        let mask = 1 << (bit % 64);
        match &mut self.word {
            Some((address, word)) if *address == at => *word |= mask,
            _ => {
                self.flush(sink);
                self.word = Some((at, mask));
            }
        }
    }

    /// Writes the last word.
    pub(crate) fn flush(&mut self, sink: &mut impl PhysMemoryWrite) {
        if let Some((address, word)) = self.word.take() {
            sink.write(address, &word.to_le_bytes());
        }
    }
}

/// Writes the map of `entries`, which must ascend, into `pages` and returns
/// the address of its first page, or `None` if the pages do not suffice.
pub(crate) fn write(
    abi: KhoAbi,
    page_size: PageSize,
    entries: &[Preserved],
    pages: &mut PageAllocator,
    sink: &mut impl PhysMemoryWrite,
) -> Option<PhysAddr> {
    if abi.has_radix_tree() {
        radix::write(page_size, entries, pages, sink)
    } else {
        bitmap_list::write(page_size, entries, pages, sink)
    }
}

/// An upper bound for the pages of a map whose entries are, for each order,
/// `count` blocks within `extent` bytes, all in one block of 1 GiB.
pub(crate) fn max_pages(
    abi: KhoAbi,
    page_size: PageSize,
    orders: impl Iterator<Item = (u32, u64)>,
) -> u64 {
    if abi.has_radix_tree() {
        radix::max_pages(page_size, orders)
    } else {
        bitmap_list::max_pages(page_size, orders)
    }
}

/// How many naturally aligned spans of `2^shift` bytes a range of `extent`
/// bytes can touch that lies in one block of 1 GiB.
pub(crate) const fn max_spans(extent: u64, shift: u32) -> u64 {
    if shift >= 30 {
        1
    } else {
        (extent >> shift) + 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn entries(address: u64, pages: u64, page_size: PageSize) -> Vec<(u64, u32)> {
        split(PhysAddr(address), pages, page_size)
            .map(|entry| (entry.address.0, entry.order))
            .collect()
    }

    #[test]
    fn a_range_is_split_by_alignment_and_by_what_is_left() {
        assert_eq!(
            entries(0x6000_3000, 7, PageSize::K4),
            [(0x6000_3000, 0), (0x6000_4000, 2), (0x6000_8000, 1)]
        );
        assert_eq!(entries(0x4000_0000, 2, PageSize::K4), [(0x4000_0000, 1)]);
        assert_eq!(entries(0, 3, PageSize::K64), [(0, 1), (0x2_0000, 0)]);
        assert!(entries(0x4000_0000, 0, PageSize::K4).is_empty());
    }
}

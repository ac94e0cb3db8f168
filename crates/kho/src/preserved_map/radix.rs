//! The map of `kho-v3` and `kho-v4`: a radix tree of whole pages.
//!
//! An entry is one key: a bit that gives the order, and below it the address
//! in blocks of that order. The lowest bits of the key select a bit in a leaf
//! page, the others, in groups, the slots of the table pages above it.

use alloc::vec::Vec;

use super::{BitmapWriter, PageAllocator, Preserved, max_spans};
use warmbus_memory::PageSize;
use warmbus_memory::PhysAddr;
use warmbus_memory::PhysMemoryWrite;

/// The shape of the tree for a page size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RadixGeometry {
    page_shift: u32,
    /// Key bits that a table consumes.
    table_bits: u32,
    /// Key bits that a leaf consumes.
    leaf_bits: u32,
    /// Levels, the leaves included.
    depth: u32,
}

impl RadixGeometry {
    const fn new(page_size: PageSize) -> Self {
        let page_shift = page_size.shift();
        let (table_bits, leaf_bits) = (page_shift - 3, page_shift + 3);
        // The widest key, that of order 0, has its order bit at 64 - page_shift.
        let key_bits = 65 - page_shift;
        Self {
            page_shift,
            table_bits,
            leaf_bits,
            depth: (key_bits - leaf_bits).div_ceil(table_bits) + 1,
        }
    }

    const fn key(self, entry: Preserved) -> u64 {
        1 << (64 - self.page_shift - entry.order)
            | entry.address.0 >> (self.page_shift + entry.order)
    }

    /// The keys of `entries`, ascending.
    fn keys(self, entries: &[Preserved]) -> Vec<u64> {
        let mut keys: Vec<u64> = entries.iter().map(|entry| self.key(*entry)).collect();
        // Entries ascend by order, so that runs of keys ascend already.
        keys.sort_unstable();
        keys
    }

    /// Key bits below the ones that select a slot in a table of `level`,
    /// level 1 being right above the leaves.
    const fn below(self, level: u32) -> u32 {
        self.leaf_bits + (level - 1) * self.table_bits
    }

    const fn slot(self, key: u64, level: u32) -> u64 {
        (key >> self.below(level)) & ((1 << self.table_bits) - 1)
    }
}

/// Writes the radix tree of `entries` with pages from `pages`. Returns the
/// address of its root; `None` where the pages do not suffice.
pub(crate) fn write(
    page_size: PageSize,
    entries: &[Preserved],
    pages: &mut PageAllocator,
    sink: &mut impl PhysMemoryWrite,
) -> Option<PhysAddr> {
    let shape = RadixGeometry::new(page_size);
    let keys = shape.keys(entries);

    let root = pages.take(sink)?;
    // The page on the current path at each level below the root, with the key
    // bits above it: ascending keys never come back to a page they left.
    let mut path: Vec<Option<(u64, PhysAddr)>> = alloc::vec![None; shape.depth as usize - 1];
    let mut bits = BitmapWriter::default();
    for key in keys {
        let mut node = root;
        for level in (1..shape.depth).rev() {
            let prefix = key >> shape.below(level);
            let child = &mut path[level as usize - 1];
            node = match *child {
                Some((open, page)) if open == prefix => page,
                _ => {
                    let page = pages.take(sink)?;
                    let slot = PhysAddr(node.0 + 8 * shape.slot(key, level));
                    sink.write(slot, &page.0.to_le_bytes());
                    *child = Some((prefix, page));
                    page
                }
            };
        }
        bits.set(node, key & ((1 << shape.leaf_bits) - 1), sink);
    }
    bits.flush(sink);
    Some(root)
}

/// Pages that the tree takes at most for blocks of these orders, each with the
/// bytes from the first to the end of the last block of that order.
pub(crate) fn max_pages(page_size: PageSize, orders: impl Iterator<Item = (u32, u64)>) -> u64 {
    let shape = RadixGeometry::new(page_size);
    let below_root = orders.map(|(order, extent)| {
        (1..shape.depth)
            .map(|level| max_spans(extent, shape.below(level) + shape.page_shift + order))
            .sum::<u64>()
    });
    1 + below_root.sum::<u64>()
}

/// The pages that a map of `entries` takes.
pub(crate) fn pages(page_size: PageSize, entries: &[Preserved]) -> u64 {
    let shape = RadixGeometry::new(page_size);
    let keys = shape.keys(entries);
    let below_root = (1..shape.depth).map(|level| {
        let pairs = keys.windows(2);
        let turns = pairs.filter(|pair| (pair[0] ^ pair[1]) >> shape.below(level) != 0);
        turns.count() as u64 + u64::from(!keys.is_empty())
    });
    1 + below_root.sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_depth_of_the_tree_follows_the_page_size() {
        let depths = PageSize::ALL.map(|page_size| RadixGeometry::new(page_size).depth);
        assert_eq!(depths, [6, 5, 4]);
    }

    /// The tree of one entry as the kernel would walk it: the slots that are
    /// set from the root down, then the bit in the leaf.
    fn walk(page_size: PageSize, address: u64, order: u32) -> (Vec<u64>, u64) {
        let base = PhysAddr(0x5000_0000);
        let page = page_size.bytes();
        let mut memory = warmbus_memory::TestMemory::new(base, 8 * page as usize);
        let mut pages = PageAllocator::new(base, 8, page_size);
        let entry = Preserved {
            order,
            address: PhysAddr(address),
        };
        let mut node = write(page_size, &[entry], &mut pages, &mut memory).unwrap();
        let mut slots = Vec::new();
        loop {
            let bytes = memory.get(node, page as usize).unwrap();
            let mut words = bytes
                .chunks(8)
                .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
                .enumerate()
                .filter(|(_, word)| *word != 0);
            let (slot, word) = words.next().unwrap();
            assert!(words.next().is_none());
            if pages.left() == 8 - 1 - slots.len() as u64 {
                let bit = slot as u64 * 64 + u64::from(word.trailing_zeros());
                assert!(word.is_power_of_two());
                return (slots, bit);
            }
            slots.push(slot as u64);
            node = PhysAddr(word);
        }
    }

    #[test]
    fn entries_take_the_slots_that_linux_was_seen_to_walk() {
        let walked = walk(PageSize::K4, 0x6000_0000, 0);
        assert_eq!(walked, (alloc::vec![2, 0, 0, 0, 12], 0));
        let walked = walk(PageSize::K4, 0x8_4020_3000, 0);
        assert_eq!(walked, (alloc::vec![2, 0, 0, 0, 264], 515));
        let walked = walk(PageSize::K4, 0x8000_0000, 9);
        assert_eq!(walked, (alloc::vec![0, 2, 0, 0, 0], 1024));
        let walked = walk(PageSize::K16, 0x6000_4000, 0);
        assert_eq!(walked, (alloc::vec![1, 0, 0, 0], 98305));
        let walked = walk(PageSize::K64, 0x8_8001_0000, 0);
        assert_eq!(walked, (alloc::vec![8, 0, 1], 32769));
    }

    #[test]
    fn keys_carry_their_order_above_the_address() {
        let key = |page_size, address, order| {
            RadixGeometry::new(page_size).key(Preserved {
                order,
                address: PhysAddr(address),
            })
        };
        assert_eq!(key(PageSize::K4, 0x6000_0000, 0), 0x0010_0000_0006_0000);
        assert_eq!(key(PageSize::K4, 0x8000_0000, 9), 0x0000_0800_0000_0400);
        assert_eq!(key(PageSize::K16, 0x6000_4000, 0), 0x0004_0000_0001_8001);
        assert_eq!(key(PageSize::K64, 0x8_8001_0000, 0), 0x0001_0000_0008_8001);
    }
}

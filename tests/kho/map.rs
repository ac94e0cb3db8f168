//! A writer of preserved-memory maps for tests.
//!
//! It shares nothing with the one under test, needs no order among the entries
//! and writes whatever it is given, so that a map can be wrong in one place.

use std::collections::BTreeMap;

use warmbus_kho::KhoAbi;
use warmbus_memory::{PageSize, PhysAddr, PhysMemoryWrite, TestMemory};

/// The pages of a map, of which the first is the one that the root tree names.
pub(crate) struct MapPages {
    page_size: PageSize,
    pub(crate) first: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl MapPages {
    /// No entries yet: one page of zeros at `first`. The pages that are added
    /// follow it.
    pub(crate) fn new(page_size: PageSize, first: u64) -> Self {
        let mut map = Self {
            page_size,
            first,
            pages: BTreeMap::new(),
        };
        assert_eq!(map.add(), first);
        map
    }

    /// The map of `entries`, pairs of address and order.
    pub(crate) fn of(abi: KhoAbi, page_size: PageSize, first: u64, entries: &[(u64, u32)]) -> Self {
        let mut map = Self::new(page_size, first);
        if abi.has_radix_tree() {
            for (address, order) in entries {
                map.insert(map.key(*address, *order));
            }
        } else {
            map.list(entries);
        }
        map
    }

    pub(crate) fn page(&self) -> u64 {
        self.page_size.bytes()
    }

    /// How many pages there are.
    pub(crate) fn len(&self) -> u64 {
        self.pages.len() as u64
    }

    /// The address of one more page of zeros.
    pub(crate) fn add(&mut self) -> u64 {
        let at = self.first + self.len() * self.page();
        self.pages.insert(at, vec![0; self.page() as usize]);
        at
    }

    pub(crate) fn put(&mut self, page: u64, offset: u64, value: u64) {
        let bytes = self.pages.get_mut(&page).expect("a page of the map");
        bytes[offset as usize..][..8].copy_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn get(&self, page: u64, offset: u64) -> u64 {
        u64::from_le_bytes(
            self.pages[&page][offset as usize..][..8]
                .try_into()
                .unwrap(),
        )
    }

    pub(crate) fn set_bit(&mut self, page: u64, bit: u64) {
        let bytes = self.pages.get_mut(&page).expect("a page of the map");
        bytes[(bit / 8) as usize] |= 1 << (bit % 8);
    }

    /// The chunk list of version 1, with a chunk and a bitmap for each entry.
    fn list(&mut self, entries: &[(u64, u32)]) {
        let mut chunk = self.first;
        for (number, (address, order)) in entries.iter().enumerate() {
            if number > 0 {
                let next = self.add();
                self.put(chunk, 0, next);
                chunk = next;
            }
            let bitmap = self.bitmap(chunk, *order, *address);
            self.set_bit(bitmap, 0);
        }
    }

    /// Makes `chunk` one of `order` with one bitmap, whose first bit is the
    /// block at `start`, and returns the page of the bitmap.
    pub(crate) fn bitmap(&mut self, chunk: u64, order: u32, start: u64) -> u64 {
        let bitmap = self.add();
        self.put(chunk, 8, u64::from(order) | 1 << 32);
        self.put(chunk, 16, start);
        self.put(chunk, 24, bitmap);
        bitmap
    }

    /// The key of a block in the radix tree of versions 3 and 4.
    pub(crate) fn key(&self, address: u64, order: u32) -> u64 {
        let shift = self.page_size.shift();
        1 << (64 - shift - order) | address >> (shift + order)
    }

    /// The address of the leaf that `key` leads to, with all tables above it.
    pub(crate) fn leaf(&mut self, key: u64) -> u64 {
        let shift = self.page_size.shift();
        let depth = match self.page_size {
            PageSize::K4 => 6,
            PageSize::K16 => 5,
            PageSize::K64 => 4,
        };
        let mut node = self.first;
        for level in (1..depth).rev() {
            let below = (level - 1) * (shift - 3) + shift + 3;
            let slot = 8 * (key >> below & ((1 << (shift - 3)) - 1));
            if self.get(node, slot) == 0 {
                let child = self.add();
                self.put(node, slot, child);
            }
            node = self.get(node, slot);
        }
        node
    }

    /// Sets the bit of `key`.
    pub(crate) fn insert(&mut self, key: u64) {
        let leaf = self.leaf(key);
        self.set_bit(leaf, key & (8 * self.page() - 1));
    }

    pub(crate) fn write(&self, memory: &mut TestMemory) {
        for (page, bytes) in &self.pages {
            memory.write(PhysAddr(*page), bytes);
        }
    }
}

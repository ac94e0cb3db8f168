//! The preserved-memory map as a kernel reads it.
//!
//! Written from the description of the format alone and shares nothing with
//! the writer, so that a mistake there is not made here as well.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::KhoAbi;
use warmbus_memory::bytes::{each_nonzero_word, le_u64};
use warmbus_memory::{ADDRESS_END, MemoryRange, PageSize, PhysAddr, PhysMemory};

/// The u64 at `offset`, 0 beyond the end.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    le_u64(bytes, offset).unwrap_or(0)
}

/// Pages of a map without entries that are read in any case.
const MAX_EMPTY: usize = 64;

/// What is wrong with a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapFault {
    /// A page of the map is not aligned, not in memory, or in use twice.
    Page(PhysAddr),
    /// An entry that no kernel can take, of the page at this address.
    Entry(PhysAddr),
    /// There are more entries than this, or far more pages.
    TooMany(usize),
}

/// A map.
pub(crate) struct Map {
    /// Its entries, ascending.
    pub(crate) entries: Vec<MemoryRange>,
    /// Where its pages are.
    pub(crate) pages: BTreeSet<u64>,
}

/// Reads the map whose first page is at `first`, with at most `most` entries.
pub(crate) fn entries(
    memory: &dyn PhysMemory,
    abi: KhoAbi,
    page_size: PageSize,
    first: PhysAddr,
    most: usize,
) -> Result<Map, MapFault> {
    let mut walk = Walk {
        memory,
        shift: page_size.shift(),
        visited: BTreeSet::new(),
        found: Vec::new(),
        most,
    };
    match abi {
        KhoAbi::V1 => walk.chunks(first.0)?,
        KhoAbi::V3 | KhoAbi::V4 => {
            let (levels, leaf) = match page_size {
                PageSize::K4 => (6, 15),
                PageSize::K16 => (5, 17),
                PageSize::K64 => (4, 19),
            };
            walk.node(first.0, levels - 1, 0, leaf)?;
        }
    }
    walk.found.sort_by_key(|range| range.start);
    Ok(Map {
        entries: walk.found,
        pages: walk.visited,
    })
}

struct Walk<'a> {
    memory: &'a dyn PhysMemory,
    shift: u32,
    /// Pages of the map that were read. Each is read once, which ends every
    /// circle.
    visited: BTreeSet<u64>,
    found: Vec<MemoryRange>,
    most: usize,
}

impl<'a> Walk<'a> {
    fn page(&mut self, at: u64) -> Result<&'a [u8], MapFault> {
        let fault = MapFault::Page(PhysAddr(at));
        let size = 1 << self.shift;
        if !at.is_multiple_of(size) || !self.visited.insert(at) {
            return Err(fault);
        }
        // A kernel may leave pages without entries, but not many.
        if self.visited.len() > 2 * self.most + MAX_EMPTY {
            return Err(MapFault::TooMany(self.most));
        }
        let range = MemoryRange::new(PhysAddr(at), size);
        self.memory.bytes(range).map_err(|_| fault)
    }

    /// `2^order` pages at `start`, by the page of the map at `page`.
    fn entry(&mut self, page: u64, start: u64, order: u32) -> Result<(), MapFault> {
        if self.found.len() == self.most {
            return Err(MapFault::TooMany(self.most));
        }
        let shift = order.saturating_add(self.shift);
        let size = 1_u64.checked_shl(shift);
        let fits = |size: &u64| start <= ADDRESS_END && *size <= ADDRESS_END - start;
        let size = size.filter(|size| fits(size) && start.is_multiple_of(*size));
        let size = size.ok_or(MapFault::Entry(PhysAddr(page)))?;
        self.found.push(MemoryRange::new(PhysAddr(start), size));
        Ok(())
    }

    /// The list of version 1: chunks of one order each, with bitmaps.
    fn chunks(&mut self, first: u64) -> Result<(), MapFault> {
        // The bits that all kernels of this version read.
        const BITS: u64 = 4096;
        let mut at = first;
        while at != 0 {
            let chunk = self.page(at)?;
            let head = u64_at(chunk, 8);
            let (order, count) = (head as u32, (head >> 32) as usize);
            let records = chunk[16..]
                .get(..count.saturating_mul(16))
                .ok_or(MapFault::Entry(PhysAddr(at)))?;
            for record in records.chunks_exact(16) {
                let (start, bitmap) = (u64_at(record, 0), u64_at(record, 8));
                let bits = self.page(bitmap)?;
                each_set_bit(bits, |bit| {
                    let shift = order.saturating_add(self.shift);
                    let distance = bit.checked_shl(shift).filter(|_| bit < BITS && shift <= 30);
                    let address = distance.and_then(|distance| start.checked_add(distance));
                    let address = address.ok_or(MapFault::Entry(PhysAddr(bitmap)))?;
                    self.entry(bitmap, address, order)
                })?;
            }
            at = u64_at(chunk, 0);
        }
        Ok(())
    }

    /// A node of the radix tree of the later versions, `level` above the
    /// leaves, reached by the slots in `path`.
    fn node(&mut self, at: u64, level: u32, path: u64, leaf: u32) -> Result<(), MapFault> {
        let page = self.page(at)?;
        if level > 0 {
            let slots = page.len() as u64 / 8;
            return each_nonzero_word(page, |slot, child| {
                let path = path.checked_mul(slots).map(|path| path + slot);
                let path = path.ok_or(MapFault::Entry(PhysAddr(at)))?;
                self.node(child, level - 1, path, leaf)
            });
        }
        each_set_bit(page, |bit| {
            let key = path.checked_mul(1 << leaf).map(|path| path | bit);
            let top = key.and_then(u64::checked_ilog2);
            // The highest bit of a key gives the order.
            let order = top.and_then(|top| (64 - self.shift).checked_sub(top));
            let (Some(key), Some(top), Some(order)) = (key, top, order) else {
                return Err(MapFault::Entry(PhysAddr(at)));
            };
            let frame = key ^ 1 << top;
            let address = frame.checked_shl(self.shift + order);
            let address = address.filter(|address| address >> (self.shift + order) == frame);
            self.entry(at, address.unwrap_or(u64::MAX), order)
        })
    }
}

/// Passes the numbers of the bits that are set to `each`, until it fails.
fn each_set_bit(
    bitmap: &[u8],
    mut each: impl FnMut(u64) -> Result<(), MapFault>,
) -> Result<(), MapFault> {
    each_nonzero_word(bitmap, |number, word| {
        let mut bits = (0..64).filter(|bit| word >> bit & 1 != 0);
        bits.try_for_each(|bit| each(number * 64 + bit))
    })
}

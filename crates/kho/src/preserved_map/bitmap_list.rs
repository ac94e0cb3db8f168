//! The map of `kho-v1`: a list of chunks, each with bitmaps of one order.
//!
//! Linux 6.16 and 6.17 read 4096 bits of a bitmap, later ones a whole page of
//! bits. Both add `bit << (order + page shift)` to the address in the list
//! without asking for its alignment. So an entry here covers 4096 blocks and
//! its bitmap is a whole zeroed page: both readers see the same.

use super::{BitmapWriter, PageAllocator, Preserved, max_spans};
use warmbus_memory::PageSize;
use warmbus_memory::PhysAddr;
use warmbus_memory::PhysMemoryWrite;

/// Binary logarithm of the bits of a bitmap that are used.
const BITS_SHIFT: u32 = 12;

/// Bytes of the head of a chunk, and of each entry after it.
const RECORD: u64 = 16;

pub(super) fn write(
    page_size: PageSize,
    entries: &[Preserved],
    pages: &mut PageAllocator,
    sink: &mut impl PhysMemoryWrite,
) -> Option<PhysAddr> {
    let capacity = page_size.bytes() / RECORD - 1;
    let first = pages.take(sink)?;
    let mut chunk = first;
    let mut used = 0;
    let mut order = entries.first().map_or(0, |entry| entry.order);
    let mut span: Option<(u64, PhysAddr)> = None;
    let mut bits = BitmapWriter::default();

    for entry in entries {
        let span_shift = BITS_SHIFT + entry.order + page_size.shift();
        let start = entry.address.0 >> span_shift << span_shift;
        let bit = (entry.address.0 - start) >> (entry.order + page_size.shift());
        let bitmap = match span {
            Some((open, bitmap)) if open == start && order == entry.order => bitmap,
            _ => {
                if order != entry.order || used == capacity {
                    close(chunk, order, used, sink);
                    let next = pages.take(sink)?;
                    sink.write(chunk, &next.0.to_le_bytes());
                    (chunk, order, used) = (next, entry.order, 0);
                }
                let bitmap = pages.take(sink)?;
                let slot = PhysAddr(chunk.0 + RECORD + used * RECORD);
                sink.write(slot, &start.to_le_bytes());
                sink.write(PhysAddr(slot.0 + 8), &bitmap.0.to_le_bytes());
                used += 1;
                span = Some((start, bitmap));
                bitmap
            }
        };
        bits.set(bitmap, bit, sink);
    }
    bits.flush(sink);
    close(chunk, order, used, sink);
    Some(first)
}

/// Fills in the order of a chunk and the number of its entries.
fn close(chunk: PhysAddr, order: u32, used: u64, sink: &mut impl PhysMemoryWrite) {
    sink.write(PhysAddr(chunk.0 + 8), &order.to_le_bytes());
    sink.write(PhysAddr(chunk.0 + 12), &(used as u32).to_le_bytes());
}

pub(super) fn max_pages(page_size: PageSize, orders: impl Iterator<Item = (u32, u64)>) -> u64 {
    let capacity = page_size.bytes() / RECORD - 1;
    let lists = orders.map(|(order, extent)| {
        let bitmaps = max_spans(extent, BITS_SHIFT + order + page_size.shift());
        bitmaps + bitmaps.div_ceil(capacity)
    });
    lists.sum::<u64>().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn words(memory: &warmbus_memory::TestMemory, address: u64, count: usize) -> Vec<u64> {
        let bytes = memory.get(PhysAddr(address), count * 8).unwrap();
        bytes
            .chunks(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
            .collect()
    }

    #[test]
    fn an_entry_is_a_bit_of_a_span_of_4096_blocks() {
        let base = PhysAddr(0x5000_0000);
        let mut memory = warmbus_memory::TestMemory::new(base, 0x4000);
        let mut pages = PageAllocator::new(base, 4, PageSize::K4);
        let entry = Preserved {
            order: 0,
            address: PhysAddr(0x6700_1000),
        };
        let first = write(PageSize::K4, &[entry], &mut pages, &mut memory);
        assert_eq!(first, Some(base));
        // No next chunk; order 0, one entry; its span and its bitmap.
        let chunk = words(&memory, base.0, 4);
        assert_eq!(chunk, [0, 1 << 32, 0x6700_0000, 0x5000_1000]);
        assert_eq!(memory.get(PhysAddr(0x5000_1000), 2), Some(&[2, 0][..]));
    }

    #[test]
    fn every_order_and_every_full_chunk_starts_another_chunk() {
        let base = PhysAddr(0x5000_0000);
        let mut memory = warmbus_memory::TestMemory::new(base, 0x20_0000);
        let mut pages = PageAllocator::new(base, 0x200, PageSize::K4);
        let span = 4096 << 12;
        let entry = |order, number: u64| Preserved {
            order,
            address: PhysAddr(0x8000_0000 + number * span),
        };
        let entries: Vec<_> = (0..256).map(|n| entry(0, n)).chain([entry(1, 0)]).collect();
        let mut chunk = write(PageSize::K4, &entries, &mut pages, &mut memory).unwrap();
        let mut seen = Vec::new();
        while chunk.0 != 0 {
            let head = words(&memory, chunk.0, 2);
            seen.push((head[1] as u32, head[1] >> 32));
            chunk = PhysAddr(head[0]);
        }
        assert_eq!(seen, [(0, 255), (0, 1), (1, 1)]);
    }
}

//! The map of `kho-v1`: a list of chunks, each with bitmaps of one order.
//!
//! Linux 6.16 and 6.17 read 4096 bits of a bitmap, later ones a whole page of
//! bits. Both add `bit << (order + page shift)` to the address in the list
//! without asking for its alignment. So an entry here covers 4096 blocks and
//! its bitmap is a whole zeroed page: both readers see the same.

use super::Sink;
use super::map::{Bits, Pages, Preserved, most_spans};
use crate::linux::image::PageSize;
use crate::pci::PhysAddr;

/// Binary logarithm of the bits of a bitmap that are used.
const BITS_SHIFT: u32 = 12;

/// Bytes of the head of a chunk, and of each entry after it.
const RECORD: u64 = 16;

pub(super) fn write(
    page_size: PageSize,
    entries: &[Preserved],
    pages: &mut Pages,
    sink: &mut impl Sink,
) -> Option<PhysAddr> {
    let capacity = page_size.bytes() / RECORD - 1;
    let first = pages.take(sink)?;
    let mut chunk = first;
    let mut used = 0;
    let mut order = entries.first().map_or(0, |entry| entry.order);
    let mut span: Option<(u64, PhysAddr)> = None;
    let mut bits = Bits::default();

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
fn close(chunk: PhysAddr, order: u32, used: u64, sink: &mut impl Sink) {
    sink.write(PhysAddr(chunk.0 + 8), &order.to_le_bytes());
    sink.write(PhysAddr(chunk.0 + 12), &(used as u32).to_le_bytes());
}

pub(super) fn most_pages(page_size: PageSize, orders: impl Iterator<Item = (u32, u64)>) -> u64 {
    let capacity = page_size.bytes() / RECORD - 1;
    let lists = orders.map(|(order, extent)| {
        let bitmaps = most_spans(extent, BITS_SHIFT + order + page_size.shift());
        bitmaps + bitmaps.div_ceil(capacity)
    });
    lists.sum::<u64>().max(1)
}

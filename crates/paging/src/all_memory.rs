//! Mapping all memory of a machine, or as much of it as can be mapped.

use alloc::vec::Vec;

use warmbus_memory::{MemoryRange, RangeSet};

use crate::{Memory, PAGE_SIZE, PageTables, PagingError};

/// Memory that could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmapped {
    /// The memory, in whole pages.
    pub range: MemoryRange,
    /// Why not.
    pub error: PagingError,
}

impl PageTables<'_> {
    /// Maps as much of `memory` as can be mapped, as [`Memory::Data`], and returns
    /// the rest. `memory` is in whole pages.
    ///
    /// What cannot be mapped is what lies above the addresses of the processor, a
    /// page that is mapped as a device, and ranges for which there are not enough
    /// tables; `spare_tables` of them are not used. Ranges with any of `needed` come
    /// first and then the largest, so that the small ones are the ones that are not
    /// mapped.
    pub fn map_all_memory(
        &mut self,
        memory: &RangeSet,
        needed: &[MemoryRange],
        spare_tables: usize,
    ) -> Vec<Unmapped> {
        let mut unmapped = Vec::new();
        let limit = 1 << self.address_bits();
        let mut ranges = Vec::with_capacity(memory.len());
        for range in memory {
            let above = MemoryRange::from_bounds(range.start.0.max(limit), range.end());
            if !above.is_empty() {
                unmapped.push(Unmapped {
                    range: above,
                    error: PagingError::OutOfReach {
                        first: above.start.0,
                        size: above.size,
                        address_bits: self.address_bits(),
                    },
                });
            }
            let below = MemoryRange::from_bounds(range.start.0, range.end().min(limit));
            if !below.is_empty() {
                ranges.push(below);
            }
        }
        let is_needed = |range: &MemoryRange| needed.iter().any(|one| one.overlaps(*range));
        ranges.sort_by_key(|range| (!is_needed(range), u64::MAX - range.size, range.start));
        self.set_spare_tables(spare_tables);
        for range in ranges {
            self.map_around_devices(range, &mut unmapped);
        }
        self.set_spare_tables(0);
        unmapped.sort_by_key(|one| one.range.start);
        unmapped
    }

    /// Maps `range` but for what is mapped as a device, which goes to `unmapped`, as
    /// all of the rest does where another error occurs.
    fn map_around_devices(&mut self, range: MemoryRange, unmapped: &mut Vec<Unmapped>) {
        let mut start = range.start.0;
        // Each round ends behind a page at least, so that it ends.
        while start < range.end() {
            let rest = MemoryRange::from_bounds(start, range.end());
            let Err(error) = self.map(rest.start.0, rest.size, Memory::Data) else {
                return;
            };
            let (first, end) = match error {
                PagingError::Conflict { address, size, .. } => {
                    (address.max(start), address.saturating_add(size))
                }
                _ => (start, rest.end()),
            };
            let end = end.clamp(start.saturating_add(PAGE_SIZE), rest.end());
            unmapped.push(Unmapped {
                range: MemoryRange::from_bounds(first, end),
                error,
            });
            start = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::{Regime, Table};

    const POOL: u64 = 0x7_0000_0000;
    const GIB: u64 = 1 << 30;

    const fn range(start: u64, end: u64) -> MemoryRange {
        MemoryRange::from_bounds(start, end)
    }

    /// Maps `memory` after `device`, with `count` tables of which `spare` are not to
    /// be used, and addresses of `bits` bits. Checks that the ranges that are not
    /// mapped are all of `memory` that a walk of the tables does not find.
    fn map(
        memory: &[MemoryRange],
        needed: &[MemoryRange],
        device: Option<MemoryRange>,
        [count, spare, bits]: [usize; 3],
    ) -> Vec<Unmapped> {
        let mut pool = vec![Table::EMPTY; count];
        let mut tables = PageTables::new(&mut pool, POOL, Regime::TwoLevels, bits as u8).unwrap();
        if let Some(device) = device {
            let mapped = tables.map(device.start.0, device.size, Memory::Device);
            mapped.unwrap();
        }
        let set: RangeSet = memory.iter().copied().collect();
        let unmapped = tables.map_all_memory(&set, needed, spare);
        let rest: RangeSet = unmapped.iter().map(|one| one.range).collect();
        assert_eq!(
            rest.total(),
            unmapped.iter().map(|one| one.range.size).sum()
        );
        for range in set.without(rest) {
            // All that it says is mapped, is: mapping it again changes nothing.
            let used = tables.usage().0;
            tables.map(range.start.0, range.size, Memory::Data).unwrap();
            assert_eq!(tables.usage().0, used);
        }
        unmapped
    }

    fn ranges(unmapped: &[Unmapped]) -> Vec<MemoryRange> {
        unmapped.iter().map(|one| one.range).collect()
    }

    #[test]
    fn memory_above_the_addresses_of_the_processor_is_not_mapped() {
        let low = range(GIB, 2 * GIB);
        for bits in [40, 48] {
            let limit = 1_u64 << bits;
            let far = range(2 * limit, 2 * limit + GIB);
            let across = range(limit - GIB, limit + GIB);
            let unmapped = map(&[low, across, far], &[far], None, [8, 0, bits]);
            assert_eq!(ranges(&unmapped), [range(limit, limit + GIB), far]);
            for Unmapped { range, error } in unmapped {
                assert_eq!(
                    error,
                    PagingError::OutOfReach {
                        first: range.start.0,
                        size: range.size,
                        address_bits: bits as u8
                    }
                );
            }
        }
        assert_eq!(map(&[low], &[], None, [8, 0, 48]), []);
    }

    #[test]
    fn a_device_within_memory_costs_its_pages_only() {
        let memory = range(0, GIB);
        for device in [
            range(0x900_0000, 0x900_1000),
            range(0, 0x2000),
            range(GIB - 0x1000, GIB),
            // A block, of which the memory has a part.
            range(0x20_0000, 0x40_0000),
        ] {
            let unmapped = map(&[memory], &[], Some(device), [8, 0, 48]);
            let rest: RangeSet = ranges(&unmapped).into_iter().collect();
            assert_eq!(rest.iter().copied().collect::<Vec<_>>(), [device]);
        }
        let part = range(0x30_0000, GIB);
        let unmapped = map(&[part], &[], Some(range(0x20_0000, 0x40_0000)), [8, 0, 48]);
        assert_eq!(ranges(&unmapped), [range(0x30_0000, 0x40_0000)]);
    }

    #[test]
    fn where_tables_run_out_needed_ranges_come_first_and_large_ones_next() {
        // Each range takes a table of its own.
        let piece = |number: u64| {
            let start = (number + 1) * 0x40_0000 + 0x1000;
            range(start, start + 0x1000 * (number % 7 + 1))
        };
        let memory: Vec<_> = (0..40).map(piece).collect();
        let smallest = piece(35);
        for spare in [0, 4] {
            let count = 3 + 20 + spare;
            let unmapped = map(&memory, &[smallest], None, [count, spare, 48]);
            assert_eq!(unmapped.len(), 20);
            assert!(!ranges(&unmapped).contains(&smallest));
            let without = ranges(&unmapped);
            let is_mapped = |one: &&MemoryRange| !without.contains(one) && **one != smallest;
            let least = memory.iter().filter(is_mapped).map(|one| one.size).min();
            let most = without.iter().map(|one| one.size).max();
            assert!(most <= least, "{most:?} {least:?}");
            for one in &unmapped {
                let tables = count;
                assert!(
                    matches!(one.error, PagingError::OutOfTables { tables: t, .. } if t == tables)
                );
            }
        }
    }
}

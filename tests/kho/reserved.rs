//! What memory must not be written to while the handover of a previous kernel is
//! still read, or goes on.

use warmbus_kho::KhoAbi;
use warmbus_memory::{MemoryRange, PageSize, PhysAddr};

use crate::damaged::Damaged;

/// Entries that a map may have in these tests.
const MAX_ENTRIES: usize = 2000;

fn range(start: u64, size: u64) -> MemoryRange {
    MemoryRange::new(PhysAddr(start), size)
}

/// The pages of `ranges`, which are whole pages, by their number.
fn pages(ranges: &[MemoryRange], page: u64) -> std::collections::BTreeSet<u64> {
    ranges
        .iter()
        .flat_map(|range| range.start.0 / page..range.end().div_ceil(page))
        .collect()
}

#[test]
fn memory_that_is_preserved_or_still_read_is_reserved_and_nothing_else() {
    for page_size in PageSize::ALL {
        let mut case = Damaged::new(KhoAbi::V4, page_size);
        let page = case.page();
        // Blocks side by side, one page apart, and far away.
        let far = [
            (0x1_0000_0000, 0),
            (0x1_0000_0000 + page, 0),
            (0x1_0000_0000 + 3 * page, 0),
            (0x2_0000_0000, 4),
            (0x3000_0000, 1),
        ];
        let mut entries = case.entries();
        entries.extend(far);
        let map =
            crate::map::MapPages::of(case.abi, case.page_size, case.empty_map().first, &entries);
        case.set_map(&map);
        let reserved = case.incoming(MAX_ENTRIES).unwrap().reserved;
        let mut expected: Vec<_> = entries
            .iter()
            .map(|(at, order)| range(*at, page << order))
            .collect();
        expected.push(range(map.first, map.len() * page));
        expected.push(case.handover.kho.root);
        let array = case.handover.kho.scratch;
        // The array is not a whole page.
        assert!(reserved.iter().any(|range| range.contains(array)));
        expected.push(range(array.start.0, page));
        assert_eq!(pages(&reserved, page), pages(&expected, page));
        assert!(
            reserved
                .windows(2)
                .all(|pair| pair[0].end() < pair[1].start.0)
        );
        assert!(reserved.contains(&range(0x1_0000_0000, 2 * page)));
    }
}

#[test]
fn where_there_are_very_many_ranges_the_smallest_gaps_are_reserved_too() {
    let (page, base) = (0x1000, 0x1_0000_0000);
    // 400 ranges with gaps of one page, 400 with gaps of more than 1 MiB.
    let near = (0..400).map(|number| base + number * 2 * page);
    let far = (0..400).map(|number| base + 0x1000_0000 + number * 0x18_0000);
    let entries: Vec<_> = near.chain(far).map(|at| (at, 0)).collect();
    let mut case = Damaged::new(KhoAbi::V4, PageSize::K4);
    case.preserve(&entries);
    let reserved = case.incoming(MAX_ENTRIES).unwrap().reserved;
    let needed: Vec<_> = entries.iter().map(|(at, _)| range(*at, page)).collect();
    assert!(pages(&reserved, page).is_superset(&pages(&needed, page)));
    assert!(reserved.len() <= 512);
    // All the small gaps, and none of the large ones.
    assert!(reserved.contains(&range(base, 799 * page)));
    let of_far = reserved
        .iter()
        .filter(|range| range.start.0 > base + 0x800_0000);
    assert!(of_far.clone().all(|range| range.size == page));
    assert_eq!(of_far.count(), 400);

    // Where there are more large ones than that, they are reserved as well.
    let entries: Vec<_> = (0..1500)
        .map(|number| (base + number * 0x4_1000, 0))
        .collect();
    case.preserve(&entries);
    let reserved = case.incoming(MAX_ENTRIES).unwrap().reserved;
    assert!(
        reserved.contains(&range(base, 1499 * 0x4_1000 + page)),
        "{reserved:?}"
    );
}

#[test]
fn where_gaps_are_reserved_all_up_to_64_kib_are() {
    let (page, base) = (0x1000, 0x1_0000_0000);
    // As many as need their gaps joined, and three with other gaps.
    let many = (0..600).map(|number| base + number * 2 * page);
    let others = [0, 0x1_0000, 0x1_1000].into_iter();
    let mut at = base + 0x1000_0000;
    let others = others.map(|gap| {
        at += page + gap;
        at
    });
    let entries: Vec<_> = many.chain(others).map(|at| (at, 0)).collect();
    let mut case = Damaged::new(KhoAbi::V4, PageSize::K4);
    case.preserve(&entries);
    let reserved = case.incoming(MAX_ENTRIES).unwrap().reserved;
    // The first two are 64 KiB apart, the third a page more from them.
    let first = base + 0x1000_0000 + page;
    let together = range(first, 2 * page + 0x1_0000);
    let alone = range(together.end() + 0x1_1000, page);
    assert!(reserved.contains(&together), "{reserved:?}");
    assert!(reserved.contains(&alone), "{reserved:?}");
}

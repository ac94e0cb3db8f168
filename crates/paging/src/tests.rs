use super::*;
use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

const POOL: u64 = 0x7_0000_0000;

/// Walks the tables as Arm ARM D8.2 describes the hardware doing it, knowing
/// nothing of how they were made: the descriptor of the last step.
fn walk(tables: &[Table], address: u64) -> Option<(u64, u64)> {
    walk_in(&[(POOL, tables)], address)
}

/// The same in tables that are at several addresses, the first one with the
/// root.
fn walk_in(pools: &[(u64, &[Table])], address: u64) -> Option<(u64, u64)> {
    let mut table = POOL;
    for level in 0..4 {
        let shift = [39, 30, 21, 12][level];
        let slot = (address >> shift & 0x1ff) as usize;
        let (start, tables) = pools
            .iter()
            .find(|(start, tables)| {
                (*start..*start + 0x1000 * tables.len() as u64).contains(&table)
            })
            .expect("a descriptor leads to a table");
        let descriptor = tables[((table - start) / 0x1000) as usize].entries()[slot];
        let offset_mask = (1_u64 << shift) - 1;
        match (descriptor & 3, level) {
            (3, 0..=2) => table = descriptor & 0x0000_ffff_ffff_f000,
            (1, 1 | 2) | (3, 3) => {
                let output = descriptor & 0x0000_ffff_ffff_f000;
                assert_eq!(
                    output & offset_mask,
                    0,
                    "misaligned output at level {level}"
                );
                return Some((output | (address & offset_mask), descriptor));
            }
            (1, _) => panic!("reserved descriptor at level {level}"),
            _ => return None,
        }
    }
    None
}

fn pool(tables: usize) -> Box<[Table]> {
    vec![Table::EMPTY; tables].into_boxed_slice()
}

fn tables(pool: &mut [Table]) -> PageTables<'_> {
    PageTables::new(pool, POOL, Regime::TwoLevels, 48).unwrap()
}

#[test]
fn every_mapped_address_translates_to_itself_and_nothing_else_does() {
    let mut memory = pool(16);
    tables(&mut memory)
        .map(0x4020_1800, 0x1_0000_1000, Memory::Data)
        .unwrap();
    for inside in [0x4020_1000, 0x4020_2fff, 0x8000_0000, 0x1_4020_2fff] {
        assert_eq!(walk(&memory, inside).unwrap().0, inside);
    }
    for outside in [0, 0x4020_0fff, 0x1_4020_3000, 0xffff_ffff_f000] {
        assert_eq!(walk(&memory, outside), None);
    }
}

#[test]
fn large_aligned_ranges_take_blocks_and_no_tables() {
    let mut memory = pool(2);
    let mut paging = tables(&mut memory);
    paging
        .map(0x40_0000_0000, 0x4000_0000, Memory::ConfigSpace)
        .unwrap();
    assert_eq!(paging.usage(), (2, 2));
    let (_, descriptor) = walk(&memory, 0x40_1234_5678).unwrap();
    assert_eq!(descriptor & 3, 1, "not a block");
}

#[test]
fn no_page_is_both_writable_and_executable() {
    for regime in [Regime::TwoLevels, Regime::OneLevel] {
        for memory in [
            Memory::Code,
            Memory::ReadOnly,
            Memory::Data,
            Memory::Device,
            Memory::ConfigSpace,
        ] {
            let bits = memory.attributes(regime);
            let writable = bits >> 7 & 1 == 0;
            let execute_never = match regime {
                Regime::TwoLevels => bits >> 53 & 1,
                Regime::OneLevel => bits >> 54 & 1,
            };
            assert!(!(writable && execute_never == 0), "{regime:?} {memory:?}");
            assert_eq!(execute_never == 0, memory == Memory::Code);
            // EL0 must see nothing, or PXN is implied for writable pages.
            assert_eq!(bits >> 6 & 1 == 1, regime == Regime::OneLevel);
        }
    }
}

#[test]
fn the_memory_attribute_indices_name_the_right_memory_types() {
    let mair = |memory: Memory| Memory::MAIR >> (8 * memory.attribute_index()) & 0xff;
    assert_eq!(mair(Memory::Data), 0xff, "Normal write-back");
    assert_eq!(mair(Memory::Device), 0x04, "Device-nGnRE");
    assert_eq!(mair(Memory::ConfigSpace), 0x00, "Device-nGnRnE");
}

#[test]
fn mapping_the_memory_around_code_leaves_the_code_as_it_is() {
    let mut memory = pool(8);
    let mut paging = tables(&mut memory);
    paging.map(0x4020_0000, 0x3000, Memory::Code).unwrap();
    paging.guard(0x4020_3000, 0x1000).unwrap();
    paging.map(0x4000_0000, 0x800_0000, Memory::Data).unwrap();
    let code = walk(&memory, 0x4020_2000).unwrap().1;
    assert_eq!(code >> 53 & 1, 0, "code is no longer executable");
    assert_eq!(walk(&memory, 0x4020_3abc), None, "the guard is mapped");
    assert_eq!(walk(&memory, 0x4020_4000).unwrap().1 >> 53 & 1, 1);
}

#[test]
fn a_device_over_memory_is_a_conflict_that_names_the_address() {
    let mut memory = pool(8);
    let mut paging = tables(&mut memory);
    paging.map(0x4000_0000, 0x4000_0000, Memory::Data).unwrap();
    let error = paging
        .map(0x4010_0000, 0x1000, Memory::ConfigSpace)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "0x40000000 bytes at 0x40000000 cannot be mapped as ConfigSpace: \
         they are mapped as something else"
    );
    assert!(paging.guard(0x4010_0000, 0x1000).is_err());
}

#[test]
fn a_full_pool_and_an_unreachable_address_are_refused_with_the_numbers() {
    let mut memory = pool(3);
    let mut paging = PageTables::new(&mut memory, POOL, Regime::OneLevel, 40).unwrap();
    assert_eq!(
        paging.map(0x1000, 0x1000, Memory::Device),
        Err(PagingError::OutOfTables {
            address: 0x1000,
            tables: 3
        })
    );
    for (first, size) in [
        (1 << 40, 1),
        ((1 << 40) - 1, 2),
        (u64::MAX, 2),
        (1, u64::MAX),
    ] {
        assert_eq!(
            paging.map(first, size, Memory::Data),
            Err(PagingError::OutOfReach {
                first,
                size,
                address_bits: 40
            })
        );
    }
    assert!(PageTables::new(&mut [], POOL, Regime::OneLevel, 40).is_err());
    assert_eq!(paging.map(5, 0, Memory::Data), Ok(()));
}

#[test]
fn random_maps_translate_exactly_what_was_mapped() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |limit: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % limit
    };
    for _ in 0..300 {
        let mut memory = pool(256);
        let mut paging = tables(&mut memory);
        let mut mapped: Vec<(u64, u64)> = Vec::new();
        for _ in 0..6 {
            let (first_scale, size_scale) = (random(35), random(25));
            let first = random(1 << 12 << first_scale) & !0xfff;
            let size = (random(1 << 12 << size_scale) & !0xfff) + 0x1000;
            paging.map(first, size, Memory::Data).unwrap();
            mapped.push((first, first + size));
        }
        for probe in mapped
            .iter()
            .flat_map(|&(a, b)| [a.saturating_sub(1), a, u64::midpoint(a, b), b - 1, b])
        {
            let expected = mapped.iter().any(|&(a, b)| (a..b).contains(&probe));
            let found = walk(&memory, probe);
            assert_eq!(found.map(|(output, _)| output), expected.then_some(probe));
        }
    }
}

#[test]
fn tables_that_are_added_map_the_windows_of_64_host_bridges() {
    const ADDED: u64 = 0x6_1234_5000;
    // Each window in a part of the address space of its own: two tables each.
    let window = |number: u64| ((number + 1) << 39, 16 << 20);
    let (mut first, mut second) = (pool(4), pool(2 * 64));
    let mut paging = tables(&mut first);
    paging.map(0x4000_0000, 1 << 30, Memory::Data).unwrap();
    assert_eq!(paging.usage(), (2, 4));
    let map_all = |paging: &mut PageTables<'_>| {
        (0..64).try_for_each(|number| {
            let (start, size) = window(number);
            paging.map(start, size, Memory::ConfigSpace)
        })
    };
    let refused = map_all(&mut paging).unwrap_err();
    let (address, tables) = (window(1).0, 4);
    assert_eq!(refused, PagingError::OutOfTables { address, tables });
    paging.extend(&mut second, ADDED);
    map_all(&mut paging).unwrap();
    assert_eq!(paging.usage(), (2 + 2 * 64, 4 + 2 * 64));
    // Only one pool can be added.
    paging.extend(&mut [], 0);
    assert_eq!(paging.usage().1, 4 + 2 * 64);
    let pools: [(u64, &[Table]); 2] = [(POOL, &first), (ADDED, &second)];
    for number in 0..64 {
        let (start, size) = window(number);
        for inside in [start, start + size - 1] {
            assert_eq!(walk_in(&pools, inside).unwrap().0, inside, "{number}");
        }
        assert_eq!(walk_in(&pools, start + size), None, "{number}");
    }
    assert_eq!(walk_in(&pools, 0x7fff_ffff).unwrap().0, 0x7fff_ffff);
}

/// Every pair of ranges between addresses where something changes at one of the levels.
///
/// The tables are live while the second one is mapped: no entry that was filled in may
/// change, since nothing breaks it before that (Arm ARM D8.16.1).
#[test]
fn of_all_pairs_of_maps_the_second_changes_no_entry_of_the_first() {
    const PAGE: u64 = PAGE_SIZE;
    const TWO_MIB: u64 = 2 << 20;
    const GIB: u64 = 1 << 30;
    const POINTS: [u64; 16] = [
        0,
        PAGE,
        2 * PAGE,
        TWO_MIB - PAGE,
        TWO_MIB,
        TWO_MIB + PAGE,
        2 * TWO_MIB,
        GIB - PAGE,
        GIB,
        GIB + TWO_MIB,
        2 * GIB,
        512 * GIB - PAGE,
        512 * GIB,
        512 * GIB + TWO_MIB,
        513 * GIB,
        1024 * GIB,
    ];
    let ranges: Vec<(u64, u64)> = (0..POINTS.len())
        .flat_map(|end| (0..end).map(move |first| (POINTS[first], POINTS[end])))
        .collect();
    let pairs = || {
        ranges
            .iter()
            .flat_map(|a| ranges.iter().map(move |b| (*a, *b)))
    };
    for (first, second) in pairs() {
        for wanted in [Memory::Data, Memory::Code, Memory::ConfigSpace] {
            let mut memory = pool(24);
            let mut paging = tables(&mut memory);
            paging
                .map(first.0, first.1 - first.0, Memory::Data)
                .unwrap();
            let before: Vec<Table> = paging.pools[0].tables[..paging.used].to_vec();
            let result = paging.map(second.0, second.1 - second.0, wanted);
            let context = alloc::format!("{first:x?}, {second:x?} as {wanted:?}");
            for (before, after) in before.iter().zip(&memory) {
                let entries = before.entries().iter().zip(after.entries());
                let is_changed = |(before, after): (&u64, &u64)| *before != 0 && before != after;
                assert!(!entries.clone().any(is_changed), "{context}");
            }
            let overlap = first.0 < second.1 && second.0 < first.1;
            let conflict = overlap && wanted == Memory::ConfigSpace;
            assert_eq!(result.is_err(), conflict, "{context}");
            let is_in = |range: (u64, u64), address| (range.0..range.1).contains(&address);
            for address in POINTS
                .iter()
                .flat_map(|point| [point.wrapping_sub(1), *point])
            {
                if address >> 48 != 0 || conflict && is_in(second, address) {
                    continue;
                }
                let expected = if is_in(first, address) {
                    Some(Memory::Data)
                } else {
                    (!conflict && is_in(second, address)).then_some(wanted)
                };
                let found = walk(&memory, address);
                assert_eq!(
                    found.is_some(),
                    expected.is_some(),
                    "{context}: {address:#x}"
                );
                if let (Some((output, descriptor)), Some(memory)) = (found, expected) {
                    assert_eq!(output, address, "{context}");
                    let attributes = memory.attributes(Regime::TwoLevels);
                    assert_eq!(
                        descriptor & attributes,
                        attributes,
                        "{context}: {address:#x}"
                    );
                }
            }
        }
    }
}

//! The last check of the preserved-memory map: it preserves the handover in
//! whole, once, and nothing else but what is inherited.

use warmbus_kho::KhoAbi;
use warmbus_kho::preserved_map::Preserved;
use warmbus_memory::{MemoryRange, PageSize, PhysAddr};
use warmbus_pcsc_format::VerifyError;

use crate::common::{pair, readers};
use crate::damaged::{BASE, Damaged, kinds};

fn range(start: u64, size: u64) -> MemoryRange {
    MemoryRange::new(PhysAddr(start), size)
}

/// Every version with every page size.
fn cases() -> impl Iterator<Item = Damaged> {
    kinds().map(|(abi, page_size)| Damaged::new(abi, page_size))
}

#[test]
fn the_map_of_the_tests_is_as_good_as_the_one_that_was_written() {
    for mut case in cases() {
        let entries = case.entries();
        case.edit_entries(|entries| entries.reverse());
        assert_eq!(case.check(), Ok(()));
        assert_eq!(case.entries(), entries);
    }
}

/// The pieces of a handover that Linux takes over one by one.
fn pieces(case: &Damaged) -> Vec<(&'static str, MemoryRange)> {
    let handover = &case.handover;
    let blocks = case.blocks().into_iter();
    [
        ("root tree", handover.kho.root),
        ("subtree", handover.subtree()),
        ("index", handover.index),
    ]
    .into_iter()
    .chain(blocks.map(|block| ("data block", range(block, 8192))))
    .collect()
}

#[test]
fn every_piece_is_preserved_where_it_starts() {
    for case in cases() {
        for (what, piece) in pieces(&case) {
            let mut case = Damaged::new(case.abi, case.page_size);
            // Another run of as many pages instead.
            let mut entries = case.entries();
            let entry = entries.iter_mut().find(|entry| entry.0 == piece.start.0);
            let entry = entry.expect("it was preserved");
            entry.0 = case.spare(1 << entry.1);
            case.preserve(&entries);
            let error = VerifyError::NotPreserved { what, range: piece };
            assert_eq!(case.check(), Err(error));
            assert_eq!(
                error.to_string(),
                format!("the {what} at {piece} is not preserved as a whole")
            );
        }
    }
}

#[test]
fn a_piece_that_is_preserved_in_two_entries_is_not_whole() {
    for abi in KhoAbi::ALL {
        // Only here are blocks larger than a page.
        let mut case = Damaged::new(abi, PageSize::K4);
        let block = case.blocks()[2];
        case.handover.kho.entries += 1;
        case.edit_entries(|entries| {
            entries.retain(|entry| *entry != (block, 1));
            entries.extend([(block, 0), (block + 0x1000, 0)]);
        });
        let error = VerifyError::NotPreserved {
            what: "data block",
            range: range(block, 8192),
        };
        assert_eq!(case.check(), Err(error));
    }
}

#[test]
fn a_piece_in_the_middle_of_an_entry_is_not_preserved() {
    for mut case in cases() {
        // Two pieces side by side as one entry: the second has none of its own.
        let entries = case.entries();
        let page = case.page();
        let joined = entries.windows(2).find_map(|pair| {
            let [first, second] = [pair[0], pair[1]];
            let size = page << first.1;
            let joins = first.1 == second.1
                && first.0.is_multiple_of(2 * size)
                && second.0 == first.0 + size;
            joins.then_some((first, second))
        });
        let (first, second) = joined.expect("two pieces of one size side by side");
        let pieces = pieces(&case);
        case.edit_entries(|entries| {
            entries.retain(|entry| *entry != first && *entry != second);
            entries.push((first.0, first.1 + 1));
        });
        let found = pieces.iter().find(|piece| piece.1.start.0 == second.0);
        let (what, range) = *found.expect("the second is a piece");
        assert_eq!(
            case.check(),
            Err(VerifyError::NotPreserved { what, range }),
            "{} {}",
            case.abi,
            case.page_size
        );
    }
}

#[test]
fn nothing_is_preserved_twice() {
    for mut case in cases() {
        let block = case.blocks()[2];
        let entries = case.entries();
        let order = entries.iter().find(|entry| entry.0 == block).unwrap().1;
        let page = case.page();
        case.handover.kho.entries += 1;
        case.edit_entries(|entries| entries.push((block, order + 1)));
        match case.check() {
            Err(VerifyError::InUse {
                range,
                what: "another preserved range",
                other,
            }) => {
                assert!(range.overlaps(other));
                assert!([range.start.0, other.start.0].contains(&block));
                assert!([range.size, other.size].contains(&(page << (order + 1))));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn preserved_bytes_are_counted() {
    for mut case in cases() {
        let bytes = case.handover.kho.preserved_bytes;
        // The array of scratch areas is not to be preserved.
        let (at, page) = (case.handover.kho.scratch.start.0, case.page());
        case.handover.kho.entries += 1;
        case.edit_entries(|entries| entries.push((at, 0)));
        let refused = Err(VerifyError::Differs {
            what: "number of preserved bytes",
            expected: bytes,
            found: bytes + page,
        });
        assert_eq!(case.check(), refused);

        case.edit_entries(|entries| entries.retain(|entry| entry.0 != at));
        assert_eq!(case.check(), Ok(()));
        // Pieces that nobody looks for by themselves count as well.
        let index = case.handover.index.start.0;
        let size = case
            .entries()
            .iter()
            .find(|entry| entry.0 == index)
            .unwrap()
            .1;
        case.edit_entries(|entries| entries.retain(|entry| entry.0 != index));
        let refused = Err(VerifyError::Differs {
            what: "number of preserved bytes",
            expected: bytes,
            found: bytes - (page << size),
        });
        assert_eq!(case.check(), refused);
    }
}

#[test]
fn one_entry_more_than_was_written_is_too_many() {
    for mut case in cases() {
        let at = case.spare(1);
        case.edit_entries(|entries| entries.push((at, 0)));
        assert_eq!(case.check(), Err(VerifyError::MapTooLong));
        assert_eq!(
            VerifyError::MapTooLong.to_string(),
            "the preserved-memory map has more entries than were written"
        );
    }
}

#[test]
fn what_is_inherited_is_preserved_as_it_was_and_nothing_else() {
    for mut case in cases() {
        // In no order, before and behind the arena.
        let page = case.page();
        let far = [(0x1_0000_0000, 3), (0x2000_0000, 1), (0x8000_0000, 0)];
        let entry = |(address, order)| Preserved {
            order,
            address: PhysAddr(address),
        };
        case.inherited = far.map(entry).to_vec();
        case.handover.kho.entries += 3;
        case.edit_entries(|entries| entries.extend(far));
        assert_eq!(case.check(), Ok(()));

        let refused = |what, expected, found| {
            Err(VerifyError::Differs {
                what,
                expected,
                found,
            })
        };
        case.inherited.pop();
        assert_eq!(case.check(), refused("number of inherited entries", 2, 3));
        case.inherited.push(entry((0x8000_0000 + page, 0)));
        assert_eq!(
            case.check(),
            refused(
                "address of an inherited entry",
                0x8000_0000 + page,
                0x8000_0000
            )
        );
        case.inherited[2] = entry((0x8000_0000, 2));
        assert_eq!(
            case.check(),
            refused("size of an inherited entry", 4 * page, page)
        );
    }
}

#[test]
fn memory_in_use_is_never_preserved() {
    for mut case in cases() {
        let page = case.page();
        let end = BASE.0 + case.layout.preserved_size();
        let kernel = "the kernel";
        for free in [
            range(end, page),
            range(BASE.0 - page, page),
            range(BASE.0, 0),
        ] {
            case.in_use = vec![(kernel, free)];
            assert_eq!(case.check(), Ok(()), "{free}");
        }
        for used in [
            range(BASE.0, 1),
            range(end - 1, 1),
            range(BASE.0 - 1, 2),
            range(0, u64::MAX),
        ] {
            // Behind one that is not in the way.
            case.in_use = vec![("the initrd", range(end, page)), (kernel, used)];
            match case.check() {
                Err(
                    error @ VerifyError::InUse {
                        range,
                        what: "the kernel",
                        other,
                    },
                ) => {
                    assert!(other == used && range.overlaps(used));
                    assert_eq!(
                        error.to_string(),
                        format!("{range} is preserved, but the kernel is at {used}")
                    );
                }
                other => panic!("{used}: {other:?}"),
            }
        }
    }
}

#[test]
fn no_bit_of_the_map_can_change_what_linux_preserves_unnoticed() {
    for abi in KhoAbi::ALL {
        let mut case = Damaged::new(abi, PageSize::K4);
        let kernel = readers(abi, PageSize::K4)[0];
        let (root, scratch) = (
            pair(case.handover.kho.root),
            pair(case.handover.kho.scratch),
        );
        let memory = case.memory.clone();
        let intact = kernel.receive(&memory, root, scratch).unwrap();
        // Of each page of the map what is used, and the first bytes.
        let pages = intact.map_pages.iter().flat_map(|&page| {
            let bytes = memory.get(PhysAddr(page), 4096).unwrap();
            let used = (0..4096_u64).filter(|at| *at < 24 || bytes[*at as usize] != 0);
            used.map(move |at| page + at).collect::<Vec<_>>()
        });
        let (mut caught, mut harmless) = (0, 0);
        for address in pages {
            for bit in [0x01, 0x10, 0x80] {
                let byte = memory.get(PhysAddr(address), 1).unwrap()[0];
                case.write(address, &[byte ^ bit]);
                if case.check().is_err() {
                    caught += 1;
                } else {
                    // What passes is the same for the kernel.
                    let received = kernel.receive(&case.memory, root, scratch);
                    let received = received.unwrap_or_else(|error| panic!("{address:#x}: {error}"));
                    assert_eq!(received.preserved, intact.preserved, "{address:#x}");
                    assert_eq!(received.subtree("pcsc"), intact.subtree("pcsc"));
                    harmless += 1;
                }
                case.write(address, &[byte]);
            }
        }
        assert!(caught > 100 && caught > harmless, "{caught}, {harmless}");
    }
}

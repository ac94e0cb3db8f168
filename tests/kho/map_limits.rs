//! Maps that no kernel can follow, and the last ones that it can: as the last
//! check before the jump reads them, and as those of a previous kernel.

use warmbus_kho::preserved_map::Preserved;
use warmbus_kho::{KhoAbi, PreviousHandoverError};
use warmbus_memory::{PageSize, PhysAddr};
use warmbus_pcsc_format::VerifyError;

use crate::damaged::{Damaged, kinds};
use crate::map::MapPages;

/// Where physical addresses end.
const ADDRESS_END: u64 = 1 << 52;
/// Pages without an entry that are followed in any map.
const EMPTY_PAGES: u64 = 64;

/// What becomes of a map that `change` makes out of a right one, and the page
/// that it names: the same for everybody who reads it.
fn refused(case: &mut Damaged, change: impl FnOnce(&mut MapPages) -> u64) {
    *case = Damaged::new(case.abi, case.page_size);
    let mut map = case.empty_map();
    let entries = case.entries();
    if case.abi.has_radix_tree() {
        for (address, order) in &entries {
            map.insert(map.key(*address, *order));
        }
    }
    let page = PhysAddr(change(&mut map));
    case.set_map(&map);
    // The entries of the handover do not stand in the way.
    case.handover.kho.entries = 1000;
    let error = VerifyError::Map { page };
    let found = case.check();
    assert_eq!(found, Err(error), "{} {}", case.abi, case.page_size);
    let (verified, read) = (error.to_string(), PreviousHandoverError::Map { page });
    assert!(verified.contains(&page.to_string()), "{verified}");
    if case.abi.has_radix_tree() {
        assert_eq!(case.incoming(1000), Err(read));
        assert!(read.to_string().contains(&page.to_string()), "{read}");
    }
    // Back to the one that was written.
    *case = Damaged::new(case.abi, case.page_size);
}

fn cases() -> impl Iterator<Item = Damaged> {
    kinds().map(|(abi, page_size)| Damaged::new(abi, page_size))
}

fn radix_trees() -> impl Iterator<Item = Damaged> {
    cases().filter(|case| case.abi.has_radix_tree())
}

fn lists() -> impl Iterator<Item = Damaged> {
    cases().filter(|case| !case.abi.has_radix_tree())
}

#[test]
fn a_page_of_the_map_is_aligned_and_in_memory() {
    for mut case in radix_trees() {
        let page = case.page();
        let end = case.memory.base().0 + case.memory.bytes().len() as u64;
        let spare = end - 2 * page;
        let misaligned = [8, page / 2, page - 8].map(|distance| spare + distance);
        let outside = [0x1000_0000, end, ADDRESS_END, u64::MAX - page + 1];
        for at in misaligned.into_iter().chain(outside) {
            refused(&mut case, |map| {
                map.put(map.first, page - 8, at);
                at
            });
        }
    }
    for mut case in lists() {
        let page = case.page();
        let end = case.memory.base().0 + case.memory.bytes().len() as u64;
        for at in [end - page - 8, end - page / 2, end, 0x1000_0000] {
            // The next chunk, and a bitmap.
            refused(&mut case, |map| {
                map.put(map.first, 0, at);
                at
            });
            refused(&mut case, |map| {
                map.bitmap(map.first, 0, 0);
                map.put(map.first, 24, at);
                at
            });
        }
        // The end of the list is 0, a bitmap is never there.
        refused(&mut case, |map| {
            map.bitmap(map.first, 0, 0);
            map.put(map.first, 24, 0);
            0
        });
    }
}

#[test]
fn the_root_tree_names_a_page() {
    for mut case in cases() {
        let at = case.empty_map().first + 8;
        case.edit_root(|root| root.set("", "preserved-memory-map", &at.to_le_bytes()));
        let page = PhysAddr(at);
        assert_eq!(case.check(), Err(VerifyError::Map { page }));
    }
}

#[test]
fn a_page_of_the_map_that_is_reached_twice_is_refused() {
    for mut case in radix_trees() {
        // A loop, and two slots with one page.
        refused(&mut case, |map| {
            map.put(map.first, 8 * 100, map.first);
            map.first
        });
        refused(&mut case, |map| {
            let child = map.add();
            map.put(map.first, 8 * 100, child);
            map.put(map.first, 8 * 101, child);
            child
        });
    }
    for mut case in lists() {
        refused(&mut case, |map| {
            map.put(map.first, 0, map.first);
            map.first
        });
        refused(&mut case, |map| {
            let bitmap = map.bitmap(map.first, 0, 0);
            let next = map.add();
            map.put(map.first, 0, next);
            map.put(next, 8, 1 << 32);
            map.put(next, 24, bitmap);
            bitmap
        });
    }
}

/// A map with `empty` pages that no entry is in, besides its first.
fn with_empty_pages(case: &Damaged, empty: u64) -> MapPages {
    let mut map = case.empty_map();
    let mut last = map.first;
    for number in 0..empty {
        let page = map.add();
        if case.abi.has_radix_tree() {
            map.put(map.first, 8 * (number + 1), page);
        } else {
            map.put(last, 0, page);
            last = page;
        }
    }
    map
}

#[test]
fn pages_without_entries_are_followed_up_to_a_limit() {
    for mut case in cases() {
        for limit in [0, 1, 10] {
            let pages = 2 * limit as u64 + EMPTY_PAGES;
            case.handover.kho.entries = limit;
            // The first page is one of them.
            case.set_map(&with_empty_pages(&case, pages - 1));
            let counted = VerifyError::Differs {
                what: "number of preserved bytes",
                expected: case.handover.kho.preserved_bytes,
                found: 0,
            };
            assert_eq!(case.check(), Err(counted));
            if case.abi.has_radix_tree() {
                assert!(case.incoming(limit).unwrap().entries.is_empty());
            }
            case.set_map(&with_empty_pages(&case, pages));
            assert_eq!(case.check(), Err(VerifyError::MapTooLong));
            if case.abi.has_radix_tree() {
                let error = PreviousHandoverError::TooMany { most: limit };
                assert_eq!(case.incoming(limit), Err(error));
                assert!(error.to_string().contains(&limit.to_string()), "{error}");
            }
        }
    }
}

/// What `case` has as its only entry, where its map is `map`.
fn only_entry(case: &mut Damaged, map: &MapPages) -> Preserved {
    case.set_map(map);
    let incoming = case.incoming(1).unwrap();
    assert_eq!(incoming.entries.len(), 1);
    incoming.entries[0]
}

#[test]
fn a_block_ends_where_addresses_end() {
    for mut case in radix_trees() {
        let shift = case.page_size.shift();
        for order in [0, 1, 10, 51 - shift] {
            let size = case.page() << order;
            let last = ADDRESS_END - size;
            let mut map = case.empty_map();
            map.insert(map.key(last, order));
            let found = only_entry(&mut case, &map);
            let expected = Preserved {
                order,
                address: PhysAddr(last),
            };
            assert_eq!(found, expected);
            for beyond in [ADDRESS_END, ADDRESS_END + size, 1 << 60] {
                refused(&mut case, |map| {
                    let key = map.key(beyond, order);
                    map.insert(key);
                    map.leaf(key)
                });
            }
        }
        // Blocks that are larger than all memory, up to 2^64 bytes.
        for bit in 0..12 {
            refused(&mut case, |map| {
                map.insert(1 << bit);
                map.leaf(1 << bit)
            });
        }
    }
    for mut case in lists() {
        for beyond in [ADDRESS_END, u64::MAX - case.page() + 1] {
            refused(&mut case, |map| {
                let bitmap = map.bitmap(map.first, 0, beyond);
                map.set_bit(bitmap, 0);
                bitmap
            });
        }
        // The sum of start and distance has to have 64 bits.
        refused(&mut case, |map| {
            let bitmap = map.bitmap(map.first, 0, u64::MAX - map.page() + 1);
            map.set_bit(bitmap, 1);
            bitmap
        });
        // The last page that there is, is one.
        let page = case.page();
        case.handover.kho.entries = 1;
        case.preserve(&[(ADDRESS_END - page, 0)]);
        case.inherited = vec![Preserved {
            order: 0,
            address: PhysAddr(ADDRESS_END - page),
        }];
        let counted = case.check().unwrap_err().to_string();
        assert!(counted.contains("preserved bytes"), "{counted}");
    }
}

#[test]
fn a_key_has_one_order_bit_where_orders_are() {
    for mut case in radix_trees() {
        // No bit at all, and a bit above that of order 0.
        refused(&mut case, |map| {
            map.insert(0);
            map.leaf(0)
        });
        refused(&mut case, |map| {
            let key = map.key(0, 0) << 1;
            map.insert(key);
            map.leaf(key)
        });
    }
}

#[test]
fn a_block_of_a_list_is_aligned_and_no_larger_than_a_gib() {
    for mut case in lists() {
        let (shift, page) = (case.page_size.shift(), case.page());
        for (order, start) in [
            (0, 0x4000_0008),
            (1, 0x4000_0000 + page),
            (31 - shift, 0x8000_0000),
            (64 - shift, 0x8000_0000),
            (u32::MAX, 0x8000_0000),
        ] {
            refused(&mut case, |map| {
                let bitmap = map.bitmap(map.first, order, start);
                map.set_bit(bitmap, 0);
                bitmap
            });
        }
        let largest = 30 - shift;
        case.handover.kho.entries = 1;
        case.preserve(&[(0x8000_0000, largest)]);
        case.inherited = vec![Preserved {
            order: largest,
            address: PhysAddr(0x8000_0000),
        }];
        let counted = case.check().unwrap_err().to_string();
        assert!(counted.contains("preserved bytes"), "{counted}");
    }
}

#[test]
fn a_bitmap_of_a_list_has_4096_bits() {
    for mut case in lists() {
        let bits = 8 * case.page();
        for bit in [4096, 4097, bits - 1] {
            refused(&mut case, |map| {
                let bitmap = map.bitmap(map.first, 0, 0x8000_0000);
                map.set_bit(bitmap, bit);
                bitmap
            });
        }
        let mut map = case.empty_map();
        let bitmap = map.bitmap(map.first, 1, 0x8000_0000);
        map.set_bit(bitmap, 4095);
        case.set_map(&map);
        case.handover.kho.entries = 1;
        case.inherited = vec![Preserved {
            order: 1,
            address: PhysAddr(0x8000_0000 + 4095 * 2 * case.page()),
        }];
        let counted = case.check().unwrap_err().to_string();
        assert!(counted.contains("preserved bytes"), "{counted}");
    }
}

#[test]
fn a_chunk_of_a_list_has_as_many_records_as_its_page_holds() {
    for mut case in lists() {
        let records = case.page() / 16 - 1;
        for count in [records + 1, u64::from(u32::MAX)] {
            refused(&mut case, |map| {
                map.put(map.first, 8, count << 32);
                map.first
            });
        }
    }
    let mut case = Damaged::new(KhoAbi::V1, PageSize::K4);
    // All of a page: 255 bitmaps, more than these tests have pages for. The
    // first one that is not there is at 0.
    let page = PhysAddr(0);
    refused(&mut case, |map| {
        map.bitmap(map.first, 0, 0);
        map.put(map.first, 8, 255 << 32);
        page.0
    });
}

//! The handover of a previous kernel, rule by rule: what is refused, what the
//! next kernel still needs, and what memory must not be written to.

use warmbus_kho::{KhoAbi, PreviousHandoverError, scratch_areas};
use warmbus_memory::{MemoryRange, PageSize, PhysAddr};

use crate::common::SCRATCH;
use crate::damaged::{BASE, DISABLED, Damaged};
use crate::reader::node;

/// Entries that a map may have in these tests.
const MAX_ENTRIES: usize = 2000;

/// A handover with each page size.
fn cases() -> impl Iterator<Item = Damaged> {
    PageSize::ALL
        .into_iter()
        .map(|page_size| Damaged::new(KhoAbi::V4, page_size))
}

fn range(start: u64, size: u64) -> MemoryRange {
    MemoryRange::new(PhysAddr(start), size)
}

/// The areas that are read out of an array of these pairs, `cut` bytes of which
/// are not given.
fn read_areas(areas: &[(u64, u64)], cut: u64) -> Result<Vec<MemoryRange>, PreviousHandoverError> {
    let mut case = Damaged::new(KhoAbi::V4, PageSize::K16);
    let at = case.spare(1);
    for (number, (start, size)) in areas.iter().enumerate() {
        let record = at + 16 * number as u64;
        case.write(record, &start.to_le_bytes());
        case.write(record + 8, &size.to_le_bytes());
    }
    let array = range(at, 16 * areas.len() as u64 - cut);
    let found = scratch_areas(&case.memory, array);
    if let Err(error) = found {
        assert_eq!(error, PreviousHandoverError::Scratch { array });
        assert_eq!(
            error.to_string(),
            format!("no scratch areas are named at {array}")
        );
    }
    found
}

#[test]
fn scratch_areas_are_read_as_linux_reads_them() {
    let area = (0x8000_0000, 0x1000_0000);
    let other = (0x2_4000_0000, 0x2000_0000);
    let found = |start, size| range(start, size);
    assert_eq!(
        read_areas(&[area, other], 0),
        Ok(vec![found(area.0, area.1), found(other.0, other.1)])
    );
    // What is less than a record is none, and an empty area is none.
    for cut in [1, 8, 15] {
        assert_eq!(
            read_areas(&[area, other], cut),
            Ok(vec![found(area.0, area.1)])
        );
    }
    assert_eq!(
        read_areas(&[(0x1000, 0), area, (0, 0)], 0),
        Ok(vec![found(area.0, area.1)])
    );
    for (areas, cut) in [(&[][..], 0), (&[area], 1), (&[(0x1000, 0)], 0)] {
        assert!(read_areas(areas, cut).is_err());
    }
    // Up to the end of all addresses.
    let end = 1 << 52;
    assert!(read_areas(&[area, (end - 0x1000, 0x1000)], 0).is_ok());
    for beyond in [(end - 0x1000, 0x1001), (end, 0x1000), (u64::MAX, 2)] {
        assert!(read_areas(&[area, beyond], 0).is_err(), "{beyond:x?}");
        assert!(read_areas(&[beyond, area], 0).is_err(), "{beyond:x?}");
    }
    let many: Vec<_> = (0..257)
        .map(|n| (0x8000_0000 + n * 0x2000, 0x1000))
        .collect();
    assert_eq!(
        read_areas(&many[..256], 0).map(|areas| areas.len()),
        Ok(256)
    );
    assert!(read_areas(&many, 0).is_err());
    // An array that is not in memory.
    let case = Damaged::new(KhoAbi::V4, PageSize::K4);
    let end = BASE.0 + case.memory.bytes().len() as u64;
    for array in [range(0x1000, 16), range(end - 8, 16), range(u64::MAX, 16)] {
        let refused = scratch_areas(&case.memory, array);
        assert_eq!(refused, Err(PreviousHandoverError::Scratch { array }));
    }
}

#[test]
fn the_root_tree_is_a_page_and_in_memory() {
    for mut case in cases() {
        let root = case.handover.kho.root;
        for size in [0, 0x1001, 0x2000, 0x8000, 0x2_0000] {
            case.handover.kho.root.size = size;
            let error = PreviousHandoverError::PageSize { size };
            assert_eq!(case.incoming(MAX_ENTRIES), Err(error));
            assert_eq!(
                error.to_string(),
                format!("a root tree of {size:#x} bytes is no page")
            );
        }
        let end = BASE.0 + case.memory.bytes().len() as u64;
        for start in [0x1000, end - 8, BASE.0 - 8, u64::MAX] {
            let root = range(start, root.size);
            case.handover.kho.root = root;
            let error = PreviousHandoverError::Root { root };
            assert_eq!(case.incoming(MAX_ENTRIES), Err(error));
            assert_eq!(
                error.to_string(),
                format!("the root tree at {root} cannot be read")
            );
        }
        case.handover.kho.root = root;
        assert_eq!(
            case.incoming(MAX_ENTRIES).unwrap().page_size,
            case.page_size
        );
    }
}

#[test]
fn one_of_the_two_versions_is_enough() {
    for mut case in cases() {
        for known in [
            &b"kho-v3\0"[..],
            b"kho-v4\0",
            b"other\0kho-v3\0",
            b"kho-v4\0kho-v5\0",
        ] {
            case.edit_root(|root| root.set("", "compatible", known));
            assert!(case.incoming(MAX_ENTRIES).is_ok(), "{known:?}");
        }
        for unknown in [
            &b"kho-v1\0"[..],
            b"kho-v2\0",
            b"kho-v5\0",
            b"kho-v33\0",
            b"kho-v\0",
            b"\0",
            b"",
        ] {
            case.edit_root(|root| root.set("", "compatible", unknown));
            assert_eq!(case.incoming(MAX_ENTRIES), Err(PreviousHandoverError::Abi));
        }
        assert_eq!(
            PreviousHandoverError::Abi.to_string(),
            "its version is neither kho-v3 nor kho-v4"
        );
        // Only in the root node.
        case.edit_root(|root| {
            root.remove("", "compatible");
            root.set("pcsc", "compatible", b"kho-v4\0");
        });
        assert_eq!(case.incoming(MAX_ENTRIES), Err(PreviousHandoverError::Abi));
    }
}

#[test]
fn a_root_tree_without_a_map_cannot_be_followed() {
    for mut case in cases() {
        let root = case.handover.kho.root;
        for value in [None, Some(&[0; 4][..]), Some(&[0; 16])] {
            case.edit_root(|tree| {
                let map = tree.remove("", "preserved-memory-map");
                tree.set("pcsc", "preserved-memory-map", &map);
                if let Some(value) = value {
                    tree.set("", "preserved-memory-map", value);
                }
            });
            assert_eq!(
                case.incoming(MAX_ENTRIES),
                Err(PreviousHandoverError::Root { root })
            );
            case = Damaged::new(case.abi, case.page_size);
        }
    }
}

#[test]
fn nodes_below_a_subtree_and_names_that_are_no_text_are_refused() {
    for mut case in cases() {
        let root = case.handover.kho.root;
        case.edit_root(|tree| tree.add_node("/below", "known", &[1]));
        assert_eq!(
            case.incoming(MAX_ENTRIES),
            Err(PreviousHandoverError::Root { root })
        );
    }
    for name in ["nodename", "property"] {
        let mut case = Damaged::new(KhoAbi::V4, PageSize::K4);
        let root = case.handover.kho.root;
        case.edit_root(|tree| tree.add_node("nodename", "property", &[1]));
        assert!(case.incoming(MAX_ENTRIES).is_ok());
        let page = case.bytes(root).to_vec();
        let found = page.windows(8).position(|text| text == name.as_bytes());
        let at = root.start.0 + found.expect("it is there") as u64;
        case.write(at + 3, &[0xff]);
        assert_eq!(
            case.incoming(MAX_ENTRIES),
            Err(PreviousHandoverError::Root { root })
        );
    }
}

#[test]
fn subtrees_of_others_go_on_as_they_are() {
    for mut case in cases() {
        case.edit_root(|tree| {
            tree.add_node("LUO", "preserved-data", &[1; 8]);
            tree.set("LUO", "blob-size", &[2; 8]);
            tree.set("LUO", "other", b"text\0");
            tree.add_node("memblock", "fdt", &[3; 3]);
            tree.add_node("pcsc2", "fdt", &[]);
        });
        let written = case.bytes(case.handover.kho.root).to_vec();
        let incoming = case.incoming(MAX_ENTRIES).unwrap();
        let names: Vec<_> = incoming.subtrees.iter().map(|tree| &tree.name).collect();
        assert_eq!(names, ["kexec-metadata", "LUO", "memblock", "pcsc2"]);
        for subtree in &incoming.subtrees {
            let tree = crate::reader::tree_bytes(&written).unwrap();
            let (properties, _) = node(tree, &[&subtree.name]).unwrap();
            let found = subtree.properties.iter().cloned().collect();
            assert_eq!(properties, found);
            assert_eq!(properties.len(), subtree.properties.len());
        }
        assert_eq!(incoming.scratch, SCRATCH);
    }
}

/// The addresses that the next kernel still needs, of a handover after
/// `change`.
fn needed(page_size: PageSize, change: impl FnOnce(&mut Damaged)) -> Vec<u64> {
    let mut case = Damaged::new(KhoAbi::V4, page_size);
    change(&mut case);
    let entries = case.incoming(MAX_ENTRIES).unwrap().entries;
    entries.iter().map(|entry| entry.address.0).collect()
}

#[test]
fn the_old_cache_is_given_back_as_far_as_it_can_be_read() {
    for intact in cases() {
        let page_size = intact.page_size;
        let (root, subtree) = (intact.handover.kho.root.start.0, intact.handover.subtree());
        let index = intact.handover.index;
        let blocks = intact.blocks();
        let all: Vec<_> = intact.entries().iter().map(|entry| entry.0).collect();
        let without = |obsolete: &[u64]| -> Vec<u64> {
            let kept = all.iter().filter(|at| !obsolete.contains(at));
            kept.copied().collect()
        };
        // Of a whole one nothing is left but the metadata.
        let cache = [&blocks[..], &[root, subtree.start.0, index.start.0]].concat();
        assert_eq!(without(&cache).len(), 1);
        assert_eq!(needed(page_size, |_| {}), without(&cache));

        // Without the index the blocks that have nodes.
        let with_node: Vec<_> = (0..blocks.len())
            .filter(|number| !DISABLED.contains(number))
            .map(|number| blocks[number])
            .collect();
        let known = [&with_node[..], &[root, subtree.start.0]].concat();
        for outside in [0, 0x1000_0000, u64::MAX] {
            let found = needed(page_size, |case| {
                case.edit_subtree(|tree| {
                    tree.set("", "warmbus,index", &u64::to_le_bytes(outside));
                });
            });
            assert_eq!(found, without(&known), "{outside:#x}");
        }
        let found = needed(page_size, |case| {
            case.edit_subtree(|tree| {
                tree.set("", "warmbus,index-size", &u64::MAX.to_le_bytes());
            });
        });
        assert_eq!(found, without(&known));

        // A number of another length: what follows is not looked at.
        for name in ["warmbus,index", "warmbus,index-size"] {
            let found = needed(page_size, |case| {
                case.edit_subtree(|tree| tree.set("", name, &[0; 4]));
            });
            assert_eq!(found, without(&[root, subtree.start.0]), "{name}");
        }
        // A block whose address is no number has one in the index.
        let found = needed(page_size, |case| {
            case.edit_subtree(|tree| {
                let node = tree.names()[0].clone();
                tree.set(&node, "da", &[0; 4]);
            });
        });
        assert_eq!(found, without(&cache));

        // A subtree without a place is only a name.
        for name in ["preserved-data", "blob-size"] {
            for value in [None, Some(&[0; 4][..]), Some(&[0xff; 8])] {
                let found = needed(page_size, |case| {
                    case.edit_root(|tree| {
                        tree.remove("pcsc", name);
                        if let Some(value) = value {
                            tree.set("pcsc", name, value);
                        }
                    });
                });
                assert_eq!(found, without(&[root]), "{name} {value:?}");
            }
        }
    }
}

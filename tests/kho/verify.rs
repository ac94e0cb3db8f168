//! The last check of a handover in memory, rule by rule: each is broken alone
//! in a handover that is right otherwise.

use warmbus_kho::KhoAbi;
use warmbus_memory::{MemoryRange, PageSize, PhysAddr};
use warmbus_pcsc_format::VerifyError;

use crate::damaged::{BASE, DISABLED, Damaged, EditedTree, FUNCTIONS, kinds};

/// The versions, with pages of 4 KiB.
fn versions() -> impl Iterator<Item = Damaged> {
    KhoAbi::ALL
        .into_iter()
        .map(|abi| Damaged::new(abi, PageSize::K4))
}

fn range(start: u64, size: u64) -> MemoryRange {
    MemoryRange::new(PhysAddr(start), size)
}

fn differs(what: &'static str, expected: u64, found: u64) -> Result<(), VerifyError> {
    Err(VerifyError::Differs {
        what,
        expected,
        found,
    })
}

#[test]
fn one_flipped_bit_in_any_piece_is_found_and_the_piece_named() {
    for (abi, page_size) in kinds() {
        let intact = Damaged::new(abi, page_size);
        let (root, subtree) = (intact.handover.kho.root, intact.handover.subtree());
        let index = intact.handover.index;
        let block = intact.blocks()[3];
        for (what, address, offsets) in [
            ("root tree", root.start.0, &[0, 39, 200, 4095][..]),
            ("subtree", subtree.start.0, &[0, 39, 200][..]),
            ("index", index.start.0, &[0, 8, 12, 79, index.size - 1][..]),
            ("data block", block, &[0, 4095, 4608, 5119, 5132, 5180][..]),
        ] {
            for offset in offsets {
                let mut case = Damaged::new(abi, page_size);
                let byte = case.bytes(range(address + offset, 1))[0];
                case.write(address + offset, &[byte ^ 0x10]);
                match case.check() {
                    Err(VerifyError::Crc {
                        what: piece,
                        address: at,
                        stored,
                        computed,
                    }) => {
                        assert_eq!((piece, at.0), (what, address), "+ {offset}");
                        assert_ne!(stored, computed);
                    }
                    other => panic!("{what} + {offset}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn a_checksum_that_differs_is_shown_with_the_one_that_was_computed() {
    let mut case = Damaged::new(KhoAbi::V4, PageSize::K4);
    let computed = case.handover.kho.root_crc;
    case.handover.kho.root_crc ^= 1;
    let (address, stored) = (case.handover.kho.root.start, computed ^ 1);
    let error = VerifyError::Crc {
        what: "root tree",
        address,
        stored,
        computed,
    };
    assert_eq!(case.check(), Err(error));
    assert_eq!(
        error.to_string(),
        format!(
            "the root tree at {address} has the CRC-32 {computed:#010x} instead of {stored:#010x}"
        )
    );
}

#[test]
fn a_piece_that_reaches_out_of_the_arena_is_refused() {
    for mut case in versions() {
        let end = BASE.0 + case.memory.bytes().len() as u64;
        for outside in [
            range(end - 8, 16),
            range(end, 1),
            range(BASE.0 - 1, 2),
            range(u64::MAX, 2),
            range(BASE.0, u64::MAX),
        ] {
            let refused = Err(VerifyError::Outside { range: outside });
            let subtree = std::mem::replace(&mut case.handover.kho.subtrees[0].range, outside);
            assert_eq!(case.check(), refused);
            case.handover.kho.subtrees[0].range = subtree;
            let root = std::mem::replace(&mut case.handover.kho.root, outside);
            assert_eq!(case.check(), refused);
            case.handover.kho.root = root;
        }
        // To the last byte it is inside.
        case.handover.kho.subtrees[0].range = range(end - 16, 16);
        assert!(matches!(case.check(), Err(VerifyError::Crc { .. })));
    }
}

/// One change of a root tree that makes every kernel refuse it.
type RootChange = fn(&mut EditedTree, address: &'static str);

const REFUSED_ROOTS: &[(&str, RootChange)] = &[
    ("another version", |root, _| {
        root.set("", "compatible", b"kho-v2\0");
    }),
    ("a version that only begins the same", |root, _| {
        root.set("", "compatible", b"kho-v11\0kho-v33\0kho-v44\0");
    }),
    ("no version", |root, _| {
        root.remove("", "compatible");
    }),
    ("the version in a node below", |root, _| {
        let version = root.remove("", "compatible");
        root.set("pcsc", "compatible", &version);
    }),
    ("no map", |root, _| {
        root.remove("", "preserved-memory-map");
    }),
    ("the map at 0", |root, _| {
        root.set("", "preserved-memory-map", &[0; 8]);
    }),
    ("a map address of 4 bytes", |root, _| {
        root.set("", "preserved-memory-map", &[0, 0, 0, 0x40]);
    }),
    ("a map address of 12 bytes", |root, _| {
        root.set("", "preserved-memory-map", &[1; 12]);
    }),
    ("the map in a node below", |root, _| {
        let map = root.remove("", "preserved-memory-map");
        root.set("pcsc", "preserved-memory-map", &map);
    }),
    ("no subtree", |root, _| root.remove_node("pcsc")),
    ("a subtree of another name", |root, _| {
        root.rename("pcsc", "pcsc2");
    }),
    ("no address of the subtree", |root, address| {
        root.remove("pcsc", address);
    }),
    ("the subtree at 0", |root, address| {
        root.set("pcsc", address, &[0; 8]);
    }),
    ("a subtree address of 4 bytes", |root, address| {
        root.set("pcsc", address, &[0, 0, 0, 0x40]);
    }),
    ("the subtree as another version has it", |root, address| {
        let other = match address {
            "fdt" => "preserved-data",
            _ => "fdt",
        };
        let at = root.remove("pcsc", address);
        root.set("pcsc", other, &at);
    }),
];

#[test]
fn a_root_tree_that_no_kernel_takes_is_refused() {
    for (what, change) in REFUSED_ROOTS {
        for mut case in versions() {
            let address = case.address_property();
            case.edit_root(|root| change(root, address));
            let root = case.handover.kho.root;
            assert_eq!(case.check(), Err(VerifyError::Root { root }), "{what}");
        }
    }
    for mut case in versions() {
        // The magic number.
        let root = case.handover.kho.root;
        case.write(root.start.0, &[0]);
        case.seal_root();
        let error = VerifyError::Root { root };
        assert_eq!(case.check(), Err(error));
        assert_eq!(
            error.to_string(),
            format!("no kernel accepts the root tree at {root}")
        );
    }
}

#[test]
fn a_root_tree_has_both_versions_that_share_a_map_and_a_size() {
    for (abi, strings) in [
        (KhoAbi::V3, &b"kho-v3\0"[..]),
        (KhoAbi::V3, b"kho-v4\0"),
        (KhoAbi::V4, b"kho-v3\0"),
        (KhoAbi::V4, b"kho-v4\0"),
    ] {
        let mut case = Damaged::new(abi, PageSize::K4);
        case.edit_root(|root| root.set("", "compatible", strings));
        let root = case.handover.kho.root;
        assert_eq!(case.check(), Err(VerifyError::Root { root }), "{abi}");
    }
    for abi in [KhoAbi::V3, KhoAbi::V4] {
        for size in [None, Some(&[0; 4][..]), Some(&[0; 16])] {
            let mut case = Damaged::new(abi, PageSize::K4);
            case.edit_root(|root| {
                root.remove("pcsc", "blob-size");
                if let Some(size) = size {
                    root.set("pcsc", "blob-size", size);
                }
            });
            let root = case.handover.kho.root;
            assert_eq!(case.check(), Err(VerifyError::Root { root }), "{size:?}");
        }
    }
    // Version 1 takes the size from the tree itself, and other strings beside
    // its own.
    let mut case = Damaged::new(KhoAbi::V1, PageSize::K4);
    case.edit_root(|root| {
        root.set("", "compatible", b"other\0kho-v1\0");
        root.set("pcsc", "blob-size", &[0; 4]);
    });
    assert_eq!(case.check(), Ok(()));
}

#[test]
fn the_root_tree_leads_to_the_subtree_that_was_written() {
    for mut case in versions() {
        let (start, name) = (case.handover.subtree().start.0, case.address_property());
        let other = start + 0x1000;
        case.edit_root(|root| root.set("pcsc", name, &other.to_le_bytes()));
        let error = differs("address of the subtree", start, other);
        assert_eq!(case.check(), error);
        assert_eq!(
            error.unwrap_err().to_string(),
            format!(
                "the address of the subtree in the handover is {other:#x} instead of {start:#x}"
            )
        );
    }
    for abi in [KhoAbi::V3, KhoAbi::V4] {
        let mut case = Damaged::new(abi, PageSize::K4);
        let size = case.handover.subtree().size;
        for other in [size - 1, size + 1, 0x1000] {
            case.edit_root(|root| root.set("pcsc", "blob-size", &other.to_le_bytes()));
            assert_eq!(case.check(), differs("size of the subtree", size, other));
        }
    }
}

#[test]
fn a_subtree_that_cannot_be_read_is_refused() {
    for mut case in versions() {
        let subtree = case.handover.subtree();
        case.write(subtree.start.0, &[0]);
        case.seal_subtree();
        let error = VerifyError::Subtree { subtree };
        assert_eq!(case.check(), Err(error));
        assert_eq!(
            error.to_string(),
            format!("the subtree at {subtree} cannot be read")
        );
    }
    for mut case in versions() {
        // The address of a block in 4 bytes.
        case.edit_subtree(|tree| {
            let node = tree.names()[2].clone();
            tree.set(&node, "da", &[0, 0, 0, 0x40]);
        });
        let subtree = case.handover.subtree();
        assert_eq!(case.check(), Err(VerifyError::Subtree { subtree }));
    }
}

#[test]
fn the_index_has_a_record_for_each_function() {
    for mut case in versions() {
        case.handover.index.size -= 16;
        case.seal_index();
        let functions = FUNCTIONS as u64;
        let refused = differs("number of blocks", functions, functions - 1);
        assert_eq!(case.check(), refused);
    }
    for mut case in versions() {
        case.handover.index.size += 16;
        case.seal_index();
        let functions = FUNCTIONS as u64;
        let refused = differs("number of blocks", functions, functions + 1);
        assert_eq!(case.check(), refused);
    }
}

#[test]
fn the_nodes_lead_to_the_blocks_of_the_functions_that_exist() {
    let nodes = (FUNCTIONS - DISABLED.len()) as u64;
    let surplus = Err(VerifyError::Differs {
        what: "number of nodes",
        expected: nodes,
        found: nodes + 1,
    });
    for mut case in versions() {
        // Behind the others, to a block that has a node already.
        let block = case.blocks()[0];
        case.edit_subtree(|tree| {
            assert_eq!(tree.names().len() as u64, nodes);
            tree.add_node("dev_0000_ff_1f_7", "da", &block.to_le_bytes());
        });
        assert_eq!(case.check(), surplus);
    }
    for mut case in versions() {
        // To the function that does not exist now.
        let block = case.blocks()[FUNCTIONS - 1];
        assert_eq!(DISABLED[1], FUNCTIONS - 1);
        case.edit_subtree(|tree| {
            tree.add_node("dev_0000_00_07_0", "da", &block.to_le_bytes());
        });
        assert_eq!(case.check(), surplus);
    }
    for mut case in versions() {
        let last = case.blocks()[FUNCTIONS - 2];
        case.edit_subtree(|tree| {
            let node = tree.names().pop().unwrap();
            tree.remove_node(&node);
        });
        assert_eq!(case.check(), differs("address of a block", last, 0));
    }
    for mut case in versions() {
        let (first, second) = (case.blocks()[0], case.blocks()[1]);
        case.edit_subtree(|tree| {
            let names = tree.names();
            tree.set(&names[0], "da", &second.to_le_bytes());
            tree.set(&names[1], "da", &first.to_le_bytes());
        });
        assert_eq!(case.check(), differs("address of a block", first, second));
    }
    for mut case in versions() {
        // What is no address of a block, or not of a function, is no node.
        let block = case.blocks()[0];
        case.edit_subtree(|tree| {
            tree.set("", "da", &block.to_le_bytes());
            tree.add_node("other", "db", &block.to_le_bytes());
            tree.add_node("/below", "da", &block.to_le_bytes());
        });
        assert_eq!(case.check(), Ok(()));
    }
}

#[test]
fn the_length_of_a_block_stays_inside_the_block_and_covers_its_checksum() {
    for (abi, page_size) in kinds() {
        for used in [0, 15, 3073, 0x0fff_ffff, u32::MAX] {
            let mut case = Damaged::new(abi, page_size);
            let block = case.blocks()[3];
            case.write(block + 5128, &used.to_le_bytes());
            let range = range(block, 8192);
            let error = VerifyError::Outside { range };
            assert_eq!(case.check(), Err(error), "{used:#x}");
            assert_eq!(
                error.to_string(),
                format!("the piece of the handover at {range} is not whole")
            );
        }
        // The shortest and the longest are read as far as they say.
        for used in [16, 3072_u32] {
            let mut case = Damaged::new(abi, page_size);
            let block = case.blocks()[3];
            case.write(block + 5128, &used.to_le_bytes());
            let end = 5120 + u64::from(used);
            let crc = crate::reader::pcsc::crc_without(case.bytes(range(block, end)), 5132);
            case.write(block + 5132, &crc.to_le_bytes());
            // In so short a header there are no flags.
            assert_eq!(case.check().is_ok(), used == 3072, "{used}");
        }
    }
}

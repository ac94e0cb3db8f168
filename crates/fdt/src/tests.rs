//! The reader and the tokens, held against each other and against damage.

use super::*;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use core::ops::ControlFlow;
use proptest::prelude::*;

/// A tree of `depth` nodes, each in the one before it.
fn nested(depth: usize) -> Vec<u8> {
    let mut structure = Vec::new();
    for number in 0..depth {
        write::begin(&mut structure, if number == 0 { "" } else { "n" });
    }
    for _ in 0..depth {
        write::end(&mut structure);
    }
    write::finish(&mut structure);
    assemble(&structure, b"")
}

fn assemble(structure: &[u8], strings: &[u8]) -> Vec<u8> {
    let parts = RawTree {
        structure,
        strings,
        reservations: &write::NO_RESERVATIONS,
        boot_cpu: 0,
    };
    let mut tree = write::start(&parts, structure.len(), strings.len()).unwrap();
    tree.extend_from_slice(structure);
    tree.extend_from_slice(strings);
    tree
}

fn with_field(tree: &[u8], index: usize, value: u32) -> Vec<u8> {
    let mut tree = tree.to_vec();
    tree[4 * index..4 * index + 4].copy_from_slice(&value.to_be_bytes());
    tree
}

/// All nodes by their paths, with `p` and `q` of each, as the reader finds
/// them.
type Found = Vec<(String, Option<Vec<u8>>, Option<Vec<u8>>)>;

fn read(tree: &[u8]) -> Result<Found, FdtError> {
    let mut found = Vec::new();
    DeviceTree::new(tree)?.walk(&mut |node| {
        let value = |name| node.property(name).map(|value| value.map(<[u8]>::to_vec));
        found.push((node.path(), value("p")?, value("q")?));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// The same, token by token.
fn read_tokens(tree: &[u8]) -> Result<Found, FdtError> {
    let mut found: Found = Vec::new();
    let mut path = Vec::new();
    let mut open = Vec::new();
    for token in RawTree::new(tree)?.tokens() {
        match token?.1 {
            Token::Begin { name } => {
                path.push(String::from_utf8_lossy(name).into_owned());
                open.push(found.len());
                let here = if path.len() == 1 {
                    "/".into()
                } else {
                    path.join("/")
                };
                found.push((here, None, None));
            }
            Token::Property { name, value } => {
                let node = &mut found[*open.last().unwrap()];
                let slot = if name == b"p" {
                    &mut node.1
                } else {
                    &mut node.2
                };
                *slot = Some(value.to_vec());
            }
            Token::End => {
                path.pop();
                open.pop();
            }
        }
    }
    Ok(found)
}

#[test]
fn as_many_nested_nodes_are_followed_as_linux_allows() {
    let deepest = nested(MAX_DEPTH);
    assert_eq!(read(&deepest).unwrap().len(), MAX_DEPTH);
    assert_eq!(read_tokens(&deepest).unwrap().len(), MAX_DEPTH);
    let deeper = nested(MAX_DEPTH + 1);
    assert!(matches!(read(&deeper), Err(FdtError::TooDeep { place }) if place.starts_with("/n/n")));
    let error = read_tokens(&deeper).unwrap_err().to_string();
    let offset = 8 * MAX_DEPTH;
    assert_eq!(
        error,
        format!("the device tree nests more than 64 nodes at offset {offset:#x}")
    );
}

#[test]
fn both_find_the_same_damage_in_a_header() {
    let tree = nested(2);
    let same = |tree: &[u8]| {
        let error = read(tree).unwrap_err();
        assert_eq!(read_tokens(tree).unwrap_err(), error);
        error
    };
    assert_eq!(same(&tree[..39]), FdtError::NoHeader { available: 39 });
    let found = 0x1234;
    assert_eq!(
        same(&with_field(&tree, 0, found)),
        FdtError::NoMagic { found }
    );
    let (announced, available) = (tree.len() as u32, tree.len() - 1);
    let truncated = FdtError::Truncated {
        announced,
        available,
    };
    assert_eq!(same(&tree[..available]), truncated);
    for (index, version, oldest) in [(5, 15, 16), (6, 17, 18)] {
        let expected = FdtError::Version {
            version,
            compatible_with: if index == 6 { oldest } else { 16 },
        };
        let value = if index == 5 { version } else { oldest };
        assert_eq!(same(&with_field(&tree, index, value)), expected);
    }
    for (index, value, name) in [
        (2, 36, "structure"),
        (2, u32::MAX - 3, "structure"),
        (9, 12, "structure"),
        (9, u32::MAX, "structure"),
        (3, 36, "strings"),
        (8, 1, "strings"),
    ] {
        let error = same(&with_field(&tree, index, value));
        assert!(
            matches!(error, FdtError::Block { block, .. } if block == name),
            "{error}"
        );
    }
    let name = [vec![b'n'; MAX_NAME + 1], vec![0]].concat();
    let long = assemble(&tree[56..], &name);
    let offset = 0;
    let length = MAX_NAME + 1;
    assert_eq!(same(&long), FdtError::LongName { offset, length });
}

#[test]
fn the_size_of_the_structure_block_of_version_16_is_what_is_left() {
    let old = with_field(&with_field(&nested(3), 5, 16), 9, 0xdead_beef);
    assert_eq!(read_tokens(&old).unwrap().len(), 3);
    assert!(matches!(
        read(&old),
        Err(FdtError::Version { version: 16, .. })
    ));
}

#[test]
fn a_reservation_block_ends_with_zeros_or_is_an_error() {
    let tree = nested(1);
    let mut long = with_field(&tree, 4, tree.len() as u32);
    for number in [0x4000_0000_u64, 0x1000, 0, 5] {
        long.extend_from_slice(&number.to_be_bytes());
    }
    let whole = [long.clone(), vec![0; 16]].concat();
    let entries = |tree: &[u8]| {
        let tree = with_field(tree, 1, tree.len() as u32);
        let entries = DeviceTree::new(&tree)
            .unwrap()
            .reservations()
            .collect::<Vec<_>>();
        (
            entries,
            RawTree::new(&tree).map(|tree| tree.reservations.len()),
        )
    };
    let expected = vec![Ok((0x4000_0000, 0x1000)), Ok((0, 5))];
    assert_eq!(entries(&whole), (expected.clone(), Ok(48)));
    let offset = tree.len() as u32;
    let no_end = FdtError::Reservations { offset };
    let expected = [expected, vec![Err(no_end.clone())]].concat();
    assert_eq!(entries(&long), (expected, Err(no_end)));
}

#[test]
fn numbers_of_more_than_64_bits_and_beyond_the_end_are_none() {
    let value = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 9];
    assert_eq!(Cells::new(&value).number(3), Some(0x1_0000_0002));
    assert_eq!(Cells::new(&value[4..]).number(2), Some(0x1_0000_0002));
    assert_eq!(Cells::new(&value).number(usize::MAX), None);
    assert_eq!(Cells::new(&[1; 12]).number(3), None);
    assert_eq!(Cells::new(&value[..3]).cell(), None);
    let mut cells = Cells::new(&value);
    assert!(cells.number(3).is_some() && !cells.is_empty());
}

/// A few nodes with properties, as steps of a writer.
fn trees() -> impl Strategy<Value = Vec<u8>> {
    let value = prop::collection::vec(any::<u8>(), 0..6);
    let node = (
        0_u8..3,
        prop::option::of(value.clone()),
        prop::option::of(value),
    );
    prop::collection::vec(node, 1..12).prop_map(|nodes| {
        let mut tree = FdtWriter::new();
        let mut depth = 0;
        for (number, (ends, p, q)) in nodes.into_iter().enumerate() {
            for _ in 0..usize::from(ends).min(depth.max(1) - 1) {
                tree.end_node();
                depth -= 1;
            }
            tree.begin_node(if number == 0 { "" } else { "n@1" });
            depth += 1;
            for (name, value) in [("p", p), ("q", q)] {
                if let Some(value) = value {
                    tree.property(name, &value);
                }
            }
        }
        (0..depth).for_each(|_| tree.end_node());
        tree.finish().unwrap()
    })
}

proptest! {
    #[test]
    fn the_reader_and_the_tokens_find_the_same(tree in trees()) {
        prop_assert_eq!(read(&tree).unwrap(), read_tokens(&tree).unwrap());
    }

    #[test]
    fn damage_is_an_error_or_harmless(
        tree in trees(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut tree = tree;
        for (at, value) in damage {
            let at = at.index(tree.len());
            tree[at] = value;
        }
        let _ = (read(&tree), read_tokens(&tree));
    }
}

#[test]
fn a_node_name_that_no_node_has_is_refused_and_not_copied() {
    for (length, is_read) in [(MAX_NAME, true), (MAX_NAME + 1, false), (1 << 20, false)] {
        let mut structure = Vec::new();
        write::begin(&mut structure, "");
        write::begin(&mut structure, &"n".repeat(length));
        write::begin(&mut structure, "below");
        (0..3).for_each(|_| write::end(&mut structure));
        write::finish(&mut structure);
        let tree = assemble(&structure, b"");
        let mut names = Vec::new();
        let mut paths = Vec::new();
        let tree = DeviceTree::new(&tree).unwrap();
        tree.walk(&mut |node| {
            names.push(node.name());
            paths.push(node.path().len());
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        assert_eq!(names[1].is_ok(), is_read, "{length}");
        let longest = 1 + MAX_NAME + "/below".len();
        assert!(paths.iter().all(|&path| path <= longest), "{paths:?}");
        if let Err(error) = &names[1] {
            let parent = "/".to_string();
            assert_eq!(*error, FdtError::LongNodeName { parent, length });
        }
    }
}

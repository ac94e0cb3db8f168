//! The decoder of the format: it returns what was encoded, agrees with the
//! independent reader, and refuses what is damaged without a panic.

use proptest::prelude::*;
use warmbus_kho::KhoAbi;
use warmbus_memory::{MemoryRange, PageSize, PhysAddr, TestMemory};
use warmbus_pci::ConfigOffset;
use warmbus_pcie_sim::proptest_config;
use warmbus_pcsc_format::{
    Block, BlockBase, CapabilityRecord, DecodeError, DecodeProblem, Handover, Index, MaskRecord,
    Subtree, SubtreeError, VirtualRecord,
};

use crate::common::{GENERATION, functions, hand_over, inputs};
use crate::damaged::{Damaged, EditedTree};
use crate::reader::pcsc;

const ARENA: u64 = 0x4000_0000;

fn bytes(memory: &TestMemory, range: MemoryRange) -> &[u8] {
    memory.get(range.start, range.size as usize).unwrap()
}

fn block_at(memory: &TestMemory, at: PhysAddr) -> &[u8] {
    bytes(memory, MemoryRange::new(at, 8192))
}

fn opened(count: usize) -> (TestMemory, Handover) {
    hand_over(&functions(count), KhoAbi::V4, PageSize::K4, ARENA)
}

#[test]
fn what_was_encoded_is_decoded_again() {
    let functions = functions(70);
    let (memory, handover) = opened(70);
    let tree = Subtree::decode(bytes(&memory, handover.subtree())).unwrap();
    let extension = tree.extension().unwrap();
    assert_eq!(extension.generation, GENERATION);
    assert_eq!(extension.index, handover.index);
    let index = Index::decode(bytes(&memory, handover.index)).unwrap();
    assert_eq!(index.check_generation(GENERATION), Ok(()));
    assert_eq!((index.len(), index.stride()), (70, 8192));
    for (number, (function, input)) in functions.iter().zip(inputs(&functions)).enumerate() {
        let record = index.find(function.sbdf).unwrap();
        assert_eq!(index.get(number), Some(record));
        assert_eq!(tree.nodes()[number], (function.sbdf, record.block));
        assert_eq!(record.space_size, function.size);
        let block = Block::decode(block_at(&memory, record.block)).unwrap();
        assert_eq!(block.check_identity(function.sbdf, GENERATION), Ok(()));
        let base = block.base();
        assert_eq!(base.data().len(), usize::from(function.size));
        for at in 0..function.size {
            let set = |bitmap: &[u8]| {
                let byte = bitmap.get(usize::from(at) / 8);
                byte.is_some_and(|byte| byte >> (at % 8) & 1 != 0)
            };
            let offset = ConfigOffset::wrapping(at);
            assert_eq!(base.is_cacheable(offset), set(&function.cacheable));
            let value = function.data.get(usize::from(at)).copied();
            let value = value.filter(|_| set(&function.cached));
            assert_eq!(base.byte(offset), value);
        }
        let masks: Vec<_> = function
            .masks
            .iter()
            .map(|mask| MaskRecord {
                value: mask.value.map(|value| value & mask.fixed),
                ..*mask
            })
            .collect();
        assert_eq!(block.masks().collect::<Vec<_>>(), masks);
        let capabilities: Vec<CapabilityRecord> = block.capabilities().collect();
        assert_eq!(capabilities, function.capabilities);
        assert_eq!(block.capabilities_complete(), input.capabilities_complete);
        assert!(block.masks_complete() && block.virtual_function().is_none());
    }
    assert_eq!(index.find(warmbus_pci::Sbdf::new(9, 9, 9, 1)), None);
}

#[test]
fn virtual_functions_and_their_routing_are_those_of_the_independent_reader() {
    let case = Damaged::new(KhoAbi::V4, PageSize::K4);
    for address in case.blocks() {
        let bytes = block_at(&case.memory, PhysAddr(address));
        let other = pcsc::extension(bytes).unwrap();
        // A virtual function without a routing record cannot be used.
        if other.flags & 4 != 0 {
            assert!(other.routing.is_empty());
            let error = Block::decode(bytes).unwrap_err();
            assert_eq!(error.problem(), DecodeProblem::Routing { count: 0 });
            assert_eq!(error.offset(), 5172);
        }
    }

    let functions = functions(2);
    let mut blocks = inputs(&functions);
    let routing = warmbus_pcsc_format::RoutingRecord {
        first: 3,
        last: 3,
        offset: 0x80,
        stride: 2,
        ari: true,
        captured: true,
    };
    let records = [routing];
    blocks[1].routing = &records;
    blocks[1].virtual_function = Some(VirtualRecord {
        physical: 0x1234,
        number: 5,
        disabled: true,
        synthesised: &[(0, 4), (0x2c, 8)],
    });
    let (memory, handover) = crate::common::hand_over_blocks(&blocks, ARENA);
    let index = Index::decode(bytes(&memory, handover.index)).unwrap();
    let block = Block::decode(block_at(&memory, index.get(1).unwrap().block)).unwrap();
    let vf = block.virtual_function().unwrap();
    assert_eq!((vf.physical.routing_id(), vf.number), (0x1234, 5));
    assert_eq!((vf.disabled, vf.routing), (true, routing));
    let ranges: Vec<_> = block.synthesised().collect();
    assert_eq!(ranges, [(0, 4), (0x2c, 8)]);
}

/// Decodes everything, whatever it is.
fn decode_all(bytes: &[u8]) {
    let _ = Subtree::decode(bytes);
    let _ = BlockBase::decode(bytes);
    if let Ok(index) = Index::decode(bytes) {
        assert!(index.records().count() <= bytes.len() / 16);
    }
    if let Ok(block) = Block::decode(bytes) {
        let counts = [
            block.masks().count(),
            block.capabilities().count(),
            block.routing().count(),
            block.synthesised().count(),
        ];
        assert!(counts.iter().all(|count| *count <= 3072));
        let _ = block.virtual_function();
    }
}

proptest! {
    #![proptest_config(proptest_config::properties(64))]
    #[test]
    fn damage_that_has_a_right_checksum_is_refused_or_harmless(
        edits in prop::collection::vec((0_usize..72, any::<u8>()), 1..6),
        length in 0_usize..9000,
    ) {
        let (memory, handover) = opened(4);
        let index = Index::decode(bytes(&memory, handover.index)).unwrap();
        let mut block = block_at(&memory, index.get(3).unwrap().block).to_vec();
        let mut table = bytes(&memory, handover.index).to_vec();
        for (at, value) in edits {
            block[5120 + at] = value;
            let end = table.len() - 1;
            table[at.min(end)] = value;
        }
        let used = u32::from_le_bytes(block[5128..5132].try_into().unwrap()) as usize;
        let end = (5120 + used.min(3072)).max(5136);
        let crc = pcsc::crc_without(&block[..end], 5132);
        block[5132..5136].copy_from_slice(&crc.to_le_bytes());
        let crc = pcsc::crc_without(&table, 12);
        table[12..16].copy_from_slice(&crc.to_le_bytes());
        for input in [&block, &table] {
            decode_all(input);
            decode_all(&input[..length.min(input.len())]);
        }
    }

    #[test]
    fn any_bytes_are_decoded_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..9000),
    ) {
        decode_all(&bytes);
    }
}

#[test]
fn one_flipped_bit_is_found_where_it_is_or_by_the_checksum() {
    let (memory, handover) = opened(3);
    let table = bytes(&memory, handover.index);
    let first = Index::decode(table).unwrap().get(0).unwrap().block;
    let block = block_at(&memory, first);
    let flip = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 0x10;
        bytes
    };
    let of_index = |at| Index::decode(&flip(table, at)).map(drop).unwrap_err();
    let of_block = |at| Block::decode(&flip(block, at)).map(drop).unwrap_err();
    let found = |error: DecodeError| (error.offset(), error.problem());
    assert_eq!(found(of_index(1)), (0, DecodeProblem::Magic));
    let version = DecodeProblem::Version { version: 0x11 };
    assert_eq!(found(of_index(4)), (4, version));
    assert!(matches!(
        found(of_index(8)),
        (8, DecodeProblem::IndexSize { .. })
    ));
    for at in [13, 25, 40, 70] {
        assert!(matches!(
            found(of_index(at)),
            (12, DecodeProblem::Crc { .. })
        ));
    }
    assert_eq!(found(of_block(5120)), (5120, DecodeProblem::Magic));
    assert_eq!(found(of_block(5124)), (5124, version));
    assert!(matches!(
        found(of_block(5130)),
        (5128, DecodeProblem::ExtensionSize { .. })
    ));
    for at in [7, 5133, 5136, 5145, 5170] {
        assert!(
            matches!(found(of_block(at)), (5132, DecodeProblem::Crc { .. })),
            "{at}"
        );
    }
    let short = DecodeProblem::TooShort { size: 8191 };
    assert_eq!(
        found(Block::decode(&block[..8191]).unwrap_err()),
        (0, short)
    );
    let decoded = Block::decode(block).unwrap();
    let other = warmbus_pci::Sbdf::new(0, 9, 0, 0);
    let refused = decoded.check_identity(other, GENERATION).unwrap_err();
    assert_eq!(refused.offset(), 5136);
    let refused = decoded.check_identity(decoded.sbdf(), 1).unwrap_err();
    assert_eq!(refused.offset(), 5144);
    assert!(refused.to_string().contains("of generation"), "{refused}");
}

#[test]
fn a_subtree_of_another_version_or_with_damaged_properties_is_refused() {
    let refused = |change: fn(&mut EditedTree)| {
        let mut case = Damaged::new(KhoAbi::V4, PageSize::K4);
        case.edit_subtree(change);
        Subtree::decode(case.bytes(case.handover.subtree())).map(|tree| tree.extension().is_some())
    };
    assert_eq!(refused(|_| ()), Ok(true));
    let other = refused(|tree| tree.set("", "compatible", b"pcsc-v2\0"));
    assert_eq!(other, Err(SubtreeError::Incompatible));
    let rules = refused(|tree| tree.set("", "pv", &[2, 0, 0, 0]));
    assert_eq!(rules, Err(SubtreeError::Rules { version: 2 }));
    // Only the base can be used then.
    let unknown = refused(|tree| tree.set("", "warmbus,version", &[2, 0, 0, 0]));
    assert_eq!(unknown, Ok(false));
    let missing = refused(|tree| drop(tree.remove("", "warmbus,index")));
    let name = "warmbus,index";
    assert_eq!(missing, Err(SubtreeError::Missing { name }));
    let short = refused(|tree| tree.set("", "warmbus,index", &[0; 4]));
    let (found, size) = (4, 8);
    assert_eq!(short, Err(SubtreeError::Length { name, found, size }));
    for node in [
        "dev_0000_ff_20_0",
        "dev_0000_ff_00_8",
        "dev_000_ff_00_0",
        "other",
    ] {
        let mut case = Damaged::new(KhoAbi::V4, PageSize::K4);
        case.edit_subtree(|tree| tree.add_node(node, "da", &[0; 8]));
        let refused = Subtree::decode(case.bytes(case.handover.subtree()));
        let name = node.to_string();
        assert_eq!(refused, Err(SubtreeError::Node { name }));
    }
    let no_block = refused(|tree| tree.add_node("dev_0000_ff_00_0", "db", &[0; 8]));
    assert!(matches!(no_block, Err(SubtreeError::NoBlock { .. })));
}

//! Data blocks and their extension.

use warmbus_kho::KhoAbi;
use warmbus_memory::{PageSize, PhysAddr, TestMemory};
use warmbus_pcsc_format::{
    CapabilityRecord, FunctionRecord, Layout, MaskRecord, Placement, RoutingRecord, VirtualRecord,
    build,
};

use crate::common::{GENERATION, SCRATCH, functions, inputs};
use crate::damaged::kinds;
use crate::reader::pcsc;

const BASE: PhysAddr = PhysAddr(0x6000_0000);

/// The handover of `blocks`, and its subtree.
fn written(
    (abi, page_size): (KhoAbi, PageSize),
    blocks: &[FunctionRecord<'_>],
) -> (TestMemory, Vec<u8>) {
    let layout = Layout::new(blocks.len(), abi, page_size).unwrap();
    let mut memory = TestMemory::new(BASE, layout.size() as usize);
    let placement = Placement {
        arena: BASE,
        scratch: &SCRATCH,
        generation: GENERATION,
    };
    let handover = build(&layout, &placement, blocks, &mut memory).unwrap();
    let subtree = memory.get(handover.subtree().start, handover.subtree().size as usize);
    let subtree = subtree.unwrap().to_vec();
    (memory, subtree)
}

/// What a reader finds behind the block of `blocks[0]`.
fn extension_of(blocks: &[FunctionRecord<'_>]) -> pcsc::Extension {
    let (memory, tree) = written((KhoAbi::V4, PageSize::K4), blocks);
    let index = pcsc::Index::open(&memory, &tree).unwrap();
    let sbdf = blocks[0].sbdf;
    let function = (sbdf.segment(), sbdf.bus(), sbdf.device(), sbdf.function());
    let (at, _) = index.find(function).0.expect("in the index");
    pcsc::extension(memory.get(PhysAddr(at), 8192).unwrap()).unwrap()
}

fn masks(count: usize) -> Vec<MaskRecord> {
    (0..count as u16)
        .map(|number| MaskRecord {
            offset: 4 * number,
            writable: 0xffff_0000,
            fixed: 0x0000_ff00 | u32::from(number),
            value: (number % 2 == 0).then_some(0xffff_ffff),
        })
        .collect()
}

fn capabilities(count: usize) -> Vec<CapabilityRecord> {
    (0..count as u16)
        .map(|number| CapabilityRecord {
            id: number,
            offset: 0x100 + 4 * number,
            version: 1,
        })
        .collect()
}

/// Bits of the flags of the extension.
const MASKS_TRUNCATED: u16 = 1;
const CAPABILITIES_INCOMPLETE: u16 = 2;

#[test]
fn tables_that_do_not_fit_are_truncated_and_the_block_says_so() {
    let functions = functions(1);
    for (given, kept, flag) in [
        (0, 0, 0),
        (31, 31, 0),
        (32, 32, 0),
        (33, 32, MASKS_TRUNCATED),
        (100, 32, MASKS_TRUNCATED),
    ] {
        let masks = masks(given);
        let mut blocks = inputs(&functions);
        (blocks[0].masks, blocks[0].capabilities_complete) = (&masks, true);
        let extension = extension_of(&blocks);
        let expected = masks[..kept].iter().map(|mask| {
            let value = mask.value.map(|value| value & mask.fixed);
            (mask.offset, mask.writable, mask.fixed, value)
        });
        assert_eq!(extension.masks, expected.collect::<Vec<_>>());
        assert_eq!(extension.flags, flag, "{given} masks");
    }
    for (given, kept, flag) in [
        (270, 270, 0),
        (271, 271, 0),
        (272, 271, CAPABILITIES_INCOMPLETE),
        (400, 271, CAPABILITIES_INCOMPLETE),
    ] {
        for complete in [true, false] {
            let capabilities = capabilities(given);
            let mut blocks = inputs(&functions);
            blocks[0].capabilities = &capabilities;
            blocks[0].capabilities_complete = complete;
            let extension = extension_of(&blocks);
            let expected = capabilities[..kept].iter();
            let expected = expected.map(|found| (found.id, found.offset, found.version));
            assert_eq!(extension.capabilities, expected.collect::<Vec<_>>());
            let flag = if complete {
                flag
            } else {
                CAPABILITIES_INCOMPLETE
            };
            assert_eq!(extension.flags, flag, "{given} capabilities");
        }
    }
}

/// Records of `count` values of NumVFs, of which VFs were captured with those
/// in `captured`.
fn routings(count: u16, captured: &[u16]) -> Vec<RoutingRecord> {
    (1..=count)
        .map(|num_vfs| RoutingRecord {
            first: num_vfs,
            last: num_vfs,
            offset: 0x100 * num_vfs,
            stride: num_vfs,
            ari: num_vfs % 2 == 0,
            captured: captured.contains(&num_vfs),
        })
        .collect()
}

/// The records as they are read back.
fn read_back(records: &[RoutingRecord]) -> Vec<[u16; 5]> {
    let flags = |record: &RoutingRecord| u16::from(record.ari) | u16::from(record.captured) << 1;
    let fields = |record: &RoutingRecord| [record.first, record.last, record.offset, record.stride];
    records
        .iter()
        .map(|record| {
            let [first, last, offset, stride] = fields(record);
            [first, last, offset, stride, flags(record)]
        })
        .collect()
}

#[test]
fn of_too_many_routing_records_those_that_were_used_are_kept() {
    let functions = functions(1);
    for count in [0, 1, 15, 16, 17, 18, 40] {
        for captured in [1, 2, 8, 16, 17, 40] {
            let records = routings(count, &[captured]);
            let mut blocks = inputs(&functions);
            blocks[0].routing = &records;
            let found = extension_of(&blocks).routing;
            assert_eq!(found.len(), usize::from(count.min(16)));
            // Ascending, and none that was not given.
            let given = read_back(&records);
            assert!(found.is_sorted());
            assert!(found.iter().all(|record| given.contains(record)));
            let used = found.iter().filter(|record| record[4] & 2 != 0);
            let used: Vec<_> = used.map(|record| record[0]).collect();
            let expected = if captured <= count {
                vec![captured]
            } else {
                Vec::new()
            };
            assert_eq!(used, expected, "{count} records");
        }
    }
    // There is one of these at most, but what if not.
    let all: Vec<_> = (1..=40).collect();
    let records = routings(40, &all);
    let mut blocks = inputs(&functions);
    blocks[0].routing = &records;
    assert_eq!(extension_of(&blocks).routing, read_back(&records[..16]));
}

#[test]
fn a_block_with_every_table_full_uses_its_last_byte() {
    let functions = functions(1);
    let (masks, capabilities) = (masks(32), capabilities(271));
    let records = routings(16, &[3]);
    let synthesised: Vec<_> = (0..16).map(|number| (number * 4, 2)).collect();
    for kind in kinds() {
        let mut blocks = inputs(&functions);
        (blocks[0].masks, blocks[0].capabilities) = (&masks, &capabilities);
        blocks[0].routing = &records;
        blocks[0].capabilities_complete = true;
        blocks[0].virtual_function = Some(VirtualRecord {
            physical: 0x1234,
            number: 0x5678,
            disabled: false,
            synthesised: &synthesised,
        });
        let (memory, tree) = written(kind, &blocks);
        let nodes = pcsc::consume(&memory, &tree).unwrap();
        let (at, _) = nodes[&(0, 0, 0, 0)];
        let block = memory.get(PhysAddr(at), 8192).unwrap();
        assert_eq!(block[5128..5132], 3072_u32.to_le_bytes());
        let extension = pcsc::extension(block).unwrap();
        // A virtual function with synthesised bytes.
        assert_eq!(extension.flags, 4 | 16);
        assert_eq!(
            (extension.masks.len(), extension.capabilities.len()),
            (32, 271)
        );
        assert_eq!(extension.routing, read_back(&records));
        assert_eq!(extension.synthesised, synthesised);
        assert_eq!(extension.virtual_function, (0x1234, 0x5678));
    }
}

#[test]
fn what_is_not_used_of_a_block_is_zero() {
    let functions = functions(8);
    let blocks = inputs(&functions);
    for kind in kinds() {
        let (memory, tree) = written(kind, &blocks);
        for (at, _) in pcsc::consume(&memory, &tree).unwrap().values() {
            let block = memory.get(PhysAddr(*at), 8192).unwrap();
            let used = u32::from_le_bytes(block[5128..5132].try_into().unwrap());
            let rest = &block[5120 + used as usize..];
            assert!(rest.iter().all(|byte| *byte == 0));
        }
    }
}

#[test]
fn vfs_that_do_not_exist_now_are_in_the_index_only_with_their_conditions() {
    let functions = functions(4);
    let routing = |first, last, captured| RoutingRecord {
        first,
        last,
        offset: 7,
        stride: 7,
        ari: true,
        captured,
    };
    let known = [
        routing(1, 2, false),
        routing(3, 3, true),
        routing(4, 9, false),
    ];
    let synthesised = [(0, 4), (0x0c, 0x20)];
    let mut blocks = inputs(&functions);
    blocks[0].routing = &known;
    for (number, block) in (1..).zip(&mut blocks[1..]) {
        block.routing = &known[1..2];
        block.virtual_function = Some(VirtualRecord {
            physical: functions[0].sbdf.routing_id(),
            number,
            disabled: number != 2,
            synthesised: &synthesised,
        });
    }
    let (memory, tree) = written((KhoAbi::V4, PageSize::K4), &blocks);
    let nodes = pcsc::consume(&memory, &tree).unwrap();
    let index = pcsc::Index::open(&memory, &tree).unwrap();
    assert_eq!((nodes.len(), index.len()), (2, 4));
    for (number, block) in blocks.iter().enumerate() {
        let sbdf = block.sbdf;
        let address = (sbdf.segment(), sbdf.bus(), sbdf.device(), sbdf.function());
        assert_eq!(nodes.contains_key(&address), number == 0 || number == 2);
        let (at, _) = index.find(address).0.expect("in the index");
        let extension = pcsc::extension(memory.get(PhysAddr(at), 8192).unwrap()).unwrap();
        let physical = functions[0].sbdf.routing_id();
        if number == 0 {
            assert_eq!(
                extension.routing,
                [[1, 2, 7, 7, 1], [3, 3, 7, 7, 3], [4, 9, 7, 7, 1]]
            );
            assert_eq!(extension.virtual_function, (0, 0));
            assert_eq!(
                (extension.flags & 0x1c, extension.synthesised.len()),
                (0, 0)
            );
        } else {
            let flags = if number == 2 { 0x14 } else { 0x1c };
            assert_eq!(extension.flags & 0x1c, flags);
            assert_eq!(extension.routing, [[3, 3, 7, 7, 3]]);
            assert_eq!(extension.synthesised, synthesised);
            assert_eq!(extension.virtual_function, (physical, number as u16));
        }
        assert_eq!(extension.masks.len(), block.masks.len());
        assert_eq!(extension.capabilities.len(), block.capabilities.len());
    }
}

/// In larger pages a block is followed by what nobody wrote, and all of it is
/// written, records or not.
#[test]
fn a_block_is_all_of_its_bytes_and_nothing_behind_them() {
    const UNTOUCHED: u8 = 0xa5;
    let functions = functions(2);
    let masks = masks(3);
    for page_size in [PageSize::K16, PageSize::K64] {
        let mut blocks = inputs(&functions);
        blocks[1].masks = &masks;
        let (memory, tree) = written((KhoAbi::V4, page_size), &blocks);
        let index = pcsc::Index::open(&memory, &tree).unwrap();
        for block in &blocks {
            let sbdf = block.sbdf;
            let function = (sbdf.segment(), sbdf.bus(), sbdf.device(), sbdf.function());
            let (at, _) = index.find(function).0.expect("in the index");
            let page = memory.get(PhysAddr(at), page_size.bytes() as usize);
            let (written, behind) = page.unwrap().split_at(8192);
            // The records are short: the last quarter is zeros.
            assert!(written[6144..].iter().all(|byte| *byte == 0), "{sbdf}");
            assert!(behind.iter().all(|byte| *byte == UNTOUCHED), "{sbdf}");
        }
    }
}

//! Arguments that no handover can be written from, each named in the error.

use std::sync::LazyLock;

use warmbus_kho::KhoAbi;
use warmbus_memory::{MemoryRange, PageSize, PhysAddr, TestMemory};
use warmbus_pci::ConfigOffset;
use warmbus_pcsc_format::BlockError;
use warmbus_pcsc_format::{
    BuildError, FunctionRecord, Handover, Layout, Placement, VirtualRecord, build,
};

use crate::common::{MadeUpFunction, SCRATCH, functions, inputs};
use crate::damaged::kinds;
use crate::reader::le64;

static FUNCTIONS: LazyLock<Vec<MadeUpFunction>> = LazyLock::new(|| functions(3));

/// Builds a handover of three functions with what `change` makes of the
/// arguments. Where it is refused, nothing may have been written.
fn attempt<'a>(
    (abi, page_size): (KhoAbi, PageSize),
    change: impl FnOnce(&mut Vec<FunctionRecord<'a>>, &mut Placement<'a>),
) -> Result<(TestMemory, Handover), BuildError> {
    let layout = Layout::new(FUNCTIONS.len(), abi, page_size).unwrap();
    let mut blocks = inputs(&FUNCTIONS);
    let mut placement = Placement {
        arena: PhysAddr(0x4000_0000),
        scratch: &SCRATCH,
        generation: 0,
    };
    change(&mut blocks, &mut placement);
    let mut memory = TestMemory::new(PhysAddr(0x4000_0000), layout.size() as usize);
    let built = build(&layout, &placement, &blocks, &mut memory);
    if built.is_err() {
        assert!(memory.bytes().iter().all(|byte| *byte == 0xa5));
    }
    built.map(|handover| (memory, handover))
}

/// Synthesised ranges that a block has room for.
const MAX_RANGES: usize = 16;
const KIND: (KhoAbi, PageSize) = (KhoAbi::V4, PageSize::K4);

/// The same where a block has to be refused, for this reason and in these
/// words.
fn refused_block<'a>(
    change: impl FnOnce(&mut [FunctionRecord<'a>]),
    reason: BlockError,
    words: &str,
) {
    let error = attempt(KIND, |blocks, _| change(blocks)).map(drop);
    let error = error.unwrap_err();
    assert_eq!(error, BuildError::from(reason));
    assert_eq!(error.to_string(), words);
    assert_eq!(reason.to_string(), words);
}

#[test]
fn functions_ascend() {
    let (first, second) = (FUNCTIONS[0].sbdf, FUNCTIONS[1].sbdf);
    let order = |first, second| BuildError::Order { first, second };
    let error = attempt(KIND, |blocks, _| blocks.swap(0, 1)).unwrap_err();
    assert_eq!(error, order(second, first));
    assert_eq!(
        error.to_string(),
        format!("function {first} comes after {second}, although functions have to ascend")
    );
    let error = attempt(KIND, |blocks, _| blocks[1] = blocks[0]).unwrap_err();
    assert_eq!(error, order(first, first));
}

#[test]
fn the_array_of_scratch_areas_holds_1_to_256() {
    let areas: Vec<_> = (0..300)
        .map(|number| MemoryRange::new(PhysAddr(0x8000_0000 + number * 0x1_0000), 0x1_0000))
        .collect();
    for kind in kinds() {
        for count in [0, 257, 300] {
            let areas = &areas[..count];
            let built = attempt(kind, |_, placement| placement.scratch = areas);
            let error = built.map(drop).unwrap_err();
            let scratch = warmbus_kho::BuildError::ScratchAreas { areas: count };
            assert_eq!(error, BuildError::Handover(scratch));
            assert_eq!(
                error.to_string(),
                format!("a handover takes 1 to 256 scratch areas, not {count}")
            );
        }
        for count in [1, 255, 256] {
            let areas = &areas[..count];
            let built = attempt(kind, |_, placement| placement.scratch = areas);
            let (memory, handover) = built.unwrap();
            assert_eq!(handover.kho.scratch.size, 16 * count as u64);
            let array = memory.get(handover.kho.scratch.start, 16 * count).unwrap();
            for (area, record) in areas.iter().zip(array.chunks(16)) {
                let found = (le64(record, 0), le64(record, 8));
                assert_eq!(found, (area.start.0, area.size));
            }
        }
    }
}

#[test]
fn a_configuration_space_has_256_or_4096_bytes() {
    let function = FUNCTIONS[1].sbdf;
    for size in [0, 255, 257, 512, 4095, 4097, u16::MAX] {
        refused_block(
            |blocks| blocks[1].size = size,
            BlockError::DataSize {
                function,
                size,
                given: 4096,
            },
            &format!(
                "{function}: the cache holds 4096 bytes of a configuration space of {size}, which has to be 256 or 4096"
            ),
        );
    }
}

#[test]
fn what_is_given_of_a_space_is_not_more_than_the_space() {
    let bytes = [0; 4104];
    let function = FUNCTIONS[0].sbdf;
    // More than there is, and no multiple of 8.
    for (size, given) in [(256, 264), (256, 4096), (4096, 4104), (4096, 252)] {
        refused_block(
            |blocks| {
                blocks[0].size = size;
                blocks[0].data = &bytes[..given];
                blocks[0].cacheable = &bytes[..given / 8];
                blocks[0].cached = &bytes[..given / 8];
            },
            BlockError::DataSize {
                function,
                size,
                given,
            },
            &format!(
                "{function}: the cache holds {given} bytes of a configuration space of {size}, which has to be 256 or 4096"
            ),
        );
    }
    // All of it, a part of it, and nothing.
    for (size, given) in [(256, 256), (4096, 4096), (256, 8), (4096, 0)] {
        let built = attempt(KIND, |blocks, _| {
            blocks[0].size = size;
            blocks[0].data = &bytes[..given];
            blocks[0].cacheable = &bytes[..given / 8];
            blocks[0].cached = &bytes[..given / 8];
        });
        assert!(built.is_ok(), "{size} {given}");
    }
}

#[test]
fn a_bitmap_has_a_bit_for_each_byte() {
    let bytes = [0; 513];
    let function = FUNCTIONS[0].sbdf;
    for (size, is_cached) in [
        (511, false),
        (513, false),
        (32, true),
        (0, true),
        (513, true),
    ] {
        refused_block(
            |blocks| {
                let block = &mut blocks[0];
                let bitmap = if is_cached {
                    &mut block.cached
                } else {
                    &mut block.cacheable
                };
                *bitmap = &bytes[..size];
            },
            BlockError::BitmapSize {
                function,
                size,
                expected: 512,
            },
            &format!("{function}: a bitmap of the cache has {size} bytes instead of 512"),
        );
    }
}

#[test]
fn a_byte_that_is_cached_may_be_cached() {
    let function = FUNCTIONS[0].sbdf;
    for byte in [0, 7, 8, 100, 4095] {
        let mut cacheable = [0xff; 512];
        cacheable[byte / 8] &= !(1 << (byte % 8));
        let offset = ConfigOffset::wrapping(byte as u16);
        refused_block(
            |blocks| {
                blocks[0].cacheable = &cacheable;
                blocks[0].cached = &[0xff; 512];
            },
            BlockError::NotCacheable { function, offset },
            &format!("{function}: the byte at {offset} is cached although it may not be"),
        );
    }
}

#[test]
fn synthesised_ranges_are_counted() {
    let ranges = [(0, 4); MAX_RANGES + 1];
    let virtual_function = |count: usize| VirtualRecord {
        physical: 0,
        number: 1,
        disabled: false,
        synthesised: &ranges[..count],
    };
    let all = virtual_function(MAX_RANGES);
    let built = attempt(KIND, |blocks, _| {
        blocks[1].virtual_function = Some(all);
    });
    assert!(built.is_ok());
    let more = virtual_function(MAX_RANGES + 1);
    let function = FUNCTIONS[1].sbdf;
    refused_block(
        |blocks| blocks[1].virtual_function = Some(more),
        BlockError::Ranges {
            function,
            ranges: 17,
        },
        &format!("{function}: 17 ranges of bytes that were not read are more than 16"),
    );
}

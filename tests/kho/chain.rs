//! A handover on top of another one, as between two kernels.

use std::collections::BTreeMap;

use proptest::prelude::*;
use warmbus_kho::preserved_map::Preserved;
use warmbus_kho::{InheritedState, KhoAbi, PreviousHandover, PreviousHandoverError, Subtree};
use warmbus_memory::{MemoryRange, PageSize, PhysAddr, PhysMemoryWrite, TestMemory};
use warmbus_pci::Sbdf;
use warmbus_pcsc_format::{
    FunctionRecord, Handover, Layout, Placement, VerifyError, VirtualRecord, build_inheriting,
    discard_cache, verify,
};

use crate::reader::Kernel;

const BASE: u64 = 0x4000_0000;
const SECOND: u64 = 0x4080_0000;
const SIZE: usize = 0x400_0000;
/// Where memory of others is.
const OTHERS: u64 = 0x4100_0000;
const SCRATCH: [MemoryRange; 2] = [
    MemoryRange::new(PhysAddr(0x8000_0000), 0x1000_0000),
    MemoryRange::new(PhysAddr(0x2_4000_0000), 0x2000_0000),
];

/// Memory of others: several orders, in places that are far apart.
fn others() -> Vec<Preserved> {
    let at = |order, address| Preserved {
        order,
        address: PhysAddr(address),
    };
    vec![
        at(0, OTHERS),
        at(0, OTHERS + 0x1_0000),
        at(3, OTHERS + 0x8_0000),
        at(7, OTHERS + 0x80_0000),
    ]
}

fn subtrees() -> Vec<Subtree> {
    let number = |name: &str, value: u64| (name.into(), value.to_le_bytes().to_vec());
    let tree = |name: &str, at, size| Subtree {
        name: name.into(),
        properties: vec![number("preserved-data", at), number("blob-size", size)],
    };
    vec![
        tree("LUO", OTHERS, 32),
        tree("memblock", OTHERS + 0x1_0000, 4096),
    ]
}

/// Writes a handover of `count` functions at `arena`, the last of which is a
/// virtual function that does not exist now.
fn write(
    memory: &mut TestMemory,
    arena: u64,
    count: u8,
    page_size: PageSize,
    inherited: InheritedState<'_>,
) -> Handover {
    let data = [0x5a; 256];
    let bits = [0; 32];
    let blocks: Vec<FunctionRecord<'_>> = (0..count)
        .map(|device| FunctionRecord {
            sbdf: Sbdf::new(0, device, 0, 0),
            config_address: None,
            size: data.len() as u16,
            data: &data,
            cacheable: &bits,
            cached: &bits,
            masks: &[],
            capabilities: &[],
            capabilities_complete: true,
            routing: &[],
            virtual_function: (device + 1 == count).then_some(VirtualRecord {
                physical: 0,
                number: 1,
                disabled: true,
                synthesised: &[],
            }),
        })
        .collect();
    let layout = Layout::new(blocks.len(), KhoAbi::V4, page_size).unwrap();
    let layout = layout.with_inherited(inherited).unwrap();
    let placement = Placement {
        arena: PhysAddr(arena),
        scratch: &SCRATCH,
        generation: arena,
    };
    let handover = build_inheriting(&layout, &placement, inherited, &blocks, memory).unwrap();
    let bytes = memory.get(PhysAddr(arena), layout.size() as usize).unwrap();
    let check =
        |entries: &[Preserved]| verify(&layout, &handover, entries, PhysAddr(arena), bytes, &[]);
    assert_eq!(check(inherited.entries), Ok(()));
    // The check notices what is missing, too much, or another.
    let (last, rest) = inherited.entries.split_last().unwrap();
    let other = |order, at| Preserved {
        order: last.order + order,
        address: PhysAddr(last.address.0 + at),
    };
    for other in [other(1, 0), other(0, 1 << 30)] {
        let entries = [rest, &[other]].concat();
        assert!(matches!(check(&entries), Err(VerifyError::Differs { .. })));
        let entries = [inherited.entries, &[other]].concat();
        assert!(matches!(check(&entries), Err(VerifyError::Differs { .. })));
    }
    assert!(matches!(check(rest), Err(VerifyError::Differs { .. })));
    handover
}

/// What a kernel leaves: its own subtrees and memory, and an old cache.
fn left_by_a_kernel(page_size: PageSize, size: usize) -> (TestMemory, Handover) {
    let mut memory = TestMemory::new(PhysAddr(BASE), size);
    let inherited = InheritedState {
        subtrees: &subtrees(),
        entries: &others(),
    };
    let handover = write(&mut memory, BASE, 9, page_size, inherited);
    (memory, handover)
}

fn read(
    memory: &TestMemory,
    handover: &Handover,
) -> Result<PreviousHandover, PreviousHandoverError> {
    let (root, array) = (handover.kho.root, handover.kho.scratch);
    let mut incoming = PreviousHandover::read(memory, root, array, 2000)?;
    discard_cache(&mut incoming, memory);
    Ok(incoming)
}

/// Address and order of everything that a kernel would preserve.
fn preserved(memory: &TestMemory, handover: &Handover, page_size: PageSize) -> BTreeMap<u64, u32> {
    let kernel = Kernel::readers("kho-v4", page_size.shift())[0];
    let pair = |range: MemoryRange| (range.start.0, range.size);
    let received = kernel.receive(memory, pair(handover.kho.root), pair(handover.kho.scratch));
    received.unwrap().preserved
}

#[test]
fn a_second_handover_keeps_what_the_first_one_kept_but_for_its_cache() {
    for page_size in PageSize::ALL {
        let (mut memory, first) = left_by_a_kernel(page_size, SIZE);
        let incoming = read(&memory, &first).unwrap();
        assert_eq!(incoming.page_size, page_size);
        assert_eq!(incoming.scratch, SCRATCH);
        let mut names: Vec<_> = incoming.subtrees.iter().map(|t| t.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["LUO", "kexec-metadata", "memblock"]);

        // The old cache, its index and the old root tree are not kept; the page
        // that the metadata is in is somebody's.
        let mut kept = incoming.entries.clone();
        kept.sort_unstable();
        let mut expected = others();
        let metadata = kept.iter().find(|entry| !expected.contains(entry));
        expected.push(*metadata.unwrap());
        expected.sort_unstable();
        assert_eq!(kept, expected);

        let inherited = InheritedState {
            subtrees: &incoming.subtrees,
            entries: &kept,
        };
        let second = write(&mut memory, SECOND, 4, page_size, inherited);
        let all = preserved(&memory, &second, page_size);
        assert_eq!(all.len(), second.kho.entries);
        for entry in &kept {
            assert_eq!(all.get(&entry.address.0), Some(&entry.order));
        }
        let new = all
            .keys()
            .filter(|at| (SECOND..SECOND + 0x80_0000).contains(at));
        // Four blocks, index, subtree and root tree.
        assert_eq!(new.count(), 7);
        assert_eq!(all.len(), 7 + kept.len());

        let kernel = Kernel::readers("kho-v4", page_size.shift())[0];
        let pair = |range: MemoryRange| (range.start.0, range.size);
        let received = kernel
            .receive(&memory, pair(second.kho.root), pair(second.kho.scratch))
            .unwrap();
        assert_eq!(received.subtree("LUO"), Ok((OTHERS, 32)));
        assert_eq!(received.subtree("memblock"), Ok((OTHERS + 0x1_0000, 4096)));
        assert_eq!(received.subtree("pcsc"), Ok(pair(second.subtree())));
        assert!(received.subtree("kexec-metadata").is_ok());
        assert_eq!(received.scratch, SCRATCH.map(pair));

        // And once more: nothing grows from link to link.
        let third = read(&memory, &second).unwrap();
        let mut again = third.entries;
        again.sort_unstable();
        assert_eq!(again, kept);
        assert_eq!(third.subtrees.len(), incoming.subtrees.len());
    }
}

/// Whether `held` covers all of a range.
fn covers(held: &[MemoryRange], start: u64, size: u64) -> bool {
    held.iter()
        .any(|range| range.contains(MemoryRange::new(PhysAddr(start), size)))
}

#[test]
fn all_that_is_preserved_or_still_read_is_held() {
    for page_size in [PageSize::K4, PageSize::K16] {
        let page = page_size.bytes();
        // So many places that they cannot all be listed.
        let scattered: Vec<_> = (0..1200)
            .map(|number| Preserved {
                order: 0,
                address: PhysAddr(OTHERS + number * 2 * page),
            })
            .collect();
        let mut memory = TestMemory::new(PhysAddr(BASE), SIZE);
        let inherited = InheritedState {
            subtrees: &[],
            entries: &scattered,
        };
        let handover = write(&mut memory, BASE, 2, page_size, inherited);
        let incoming = read(&memory, &handover).unwrap();
        let held = incoming.reserved;
        assert!(held.len() <= 512, "{}", held.len());
        assert!(held.windows(2).all(|pair| pair[0].end() < pair[1].start.0));
        for (at, order) in preserved(&memory, &handover, page_size) {
            assert!(covers(&held, at, page << order), "{at:#x} {order}");
        }
        let kernel = Kernel::readers("kho-v4", page_size.shift())[0];
        let pair = |range: MemoryRange| (range.start.0, range.size);
        let received = kernel
            .receive(&memory, pair(handover.kho.root), pair(handover.kho.scratch))
            .unwrap();
        for node in &received.map_pages {
            assert!(covers(&held, *node, page), "{node:#x}");
        }
        assert!(covers(
            &held,
            handover.kho.root.start.0,
            handover.kho.root.size
        ));
        assert!(covers(
            &held,
            handover.kho.scratch.start.0,
            handover.kho.scratch.size
        ));

        let read =
            |most| PreviousHandover::read(&memory, handover.kho.root, handover.kho.scratch, most);
        assert!(read(handover.kho.entries).is_ok());
        let most = handover.kho.entries - 1;
        assert_eq!(read(most), Err(PreviousHandoverError::TooMany { most }));
    }
}

#[test]
fn what_is_no_handover_is_refused_with_its_reason() {
    let (memory, handover) = left_by_a_kernel(PageSize::K4, 0x8_0000);
    let refused = |root, array| {
        let error = PreviousHandover::read(&memory, root, array, 100).unwrap_err();
        error.to_string()
    };
    let odd = MemoryRange::new(handover.kho.root.start, 0x3000);
    assert_eq!(
        refused(odd, handover.kho.scratch),
        "a root tree of 0x3000 bytes is no page"
    );
    let outside = MemoryRange::new(PhysAddr(0x1000), 0x1000);
    assert_eq!(
        refused(outside, handover.kho.scratch),
        "the root tree at 0x1000-0x1fff cannot be read"
    );
    assert_eq!(
        refused(handover.kho.root, outside),
        "no scratch areas are named at 0x1000-0x1fff"
    );
    let data = MemoryRange::new(PhysAddr(BASE), 0x1000);
    assert_eq!(
        refused(data, handover.kho.scratch),
        "the root tree at 0x40000000-0x40000fff cannot be read"
    );
}

#[test]
fn an_old_cache_gives_back_nothing_that_somebody_else_points_to() {
    let (memory, handover) = left_by_a_kernel(PageSize::K4, SIZE);
    let alone = read(&memory, &handover).unwrap();
    let index = handover.index.start;
    assert!(alone.entries.iter().all(|entry| entry.address != index));

    let subtrees = [Subtree {
        name: "other".into(),
        properties: vec![("preserved-data".into(), index.0.to_le_bytes().to_vec())],
    }];
    let mut memory = TestMemory::new(PhysAddr(BASE), SIZE);
    let inherited = InheritedState {
        subtrees: &subtrees,
        entries: &others(),
    };
    let handover = write(&mut memory, BASE, 9, PageSize::K4, inherited);
    assert_eq!(handover.index.start, index);
    let incoming = read(&memory, &handover).unwrap();
    let kept = incoming
        .entries
        .iter()
        .filter(|entry| entry.address == index);
    assert_eq!(kept.count(), 1);
}

#[test]
fn blocks_of_any_size_at_any_address_are_taken() {
    let entry = |order, address| Preserved {
        order,
        address: PhysAddr(address),
    };
    for page_size in PageSize::ALL {
        // 16 GiB, which some kernels preserve as one block.
        let large = entry(34 - page_size.shift(), 0x80_0000_0000);
        let last = entry(0, (1 << 52) - page_size.bytes());
        let mut memory = TestMemory::new(PhysAddr(BASE), SIZE);
        let inherited = InheritedState {
            subtrees: &[],
            entries: &[large, last],
        };
        let handover = write(&mut memory, BASE, 1, page_size, inherited);
        let incoming = read(&memory, &handover).unwrap();
        let has = |one: &Preserved| incoming.entries.contains(one);
        assert!(has(&large) && has(&last), "{:?}", incoming.entries);
        assert!(covers(&incoming.reserved, large.address.0, 1 << 34));
    }
}

#[test]
fn a_map_that_leads_to_itself_comes_to_an_end() {
    for page_size in PageSize::ALL {
        let (mut memory, handover) = left_by_a_kernel(page_size, SIZE);
        let map = map_of(&memory, &handover, page_size);
        memory.write(PhysAddr(map + 8), &map.to_le_bytes());
        let error = read(&memory, &handover).unwrap_err();
        assert_eq!(
            error,
            PreviousHandoverError::Map {
                page: PhysAddr(map)
            }
        );
    }
}

/// The address of the map, the only page of it that the root tree names.
fn map_of(memory: &TestMemory, handover: &Handover, page_size: PageSize) -> u64 {
    let root = memory.get(handover.kho.root.start, 4096).unwrap();
    let kernel = Kernel::readers("kho-v4", page_size.shift())[0];
    let pair = |range: MemoryRange| (range.start.0, range.size);
    let received = kernel.receive(memory, pair(handover.kho.root), pair(handover.kho.scratch));
    let pages = received.unwrap().map_pages;
    let mut named = pages.into_iter().filter(|page| {
        let bytes = page.to_le_bytes();
        root.windows(8).any(|window| window == bytes)
    });
    named.next().unwrap()
}

proptest! {
    #[test]
    fn damage_is_found_or_harmless(
        at in 0_u64..0x6_0000,
        bytes in prop::collection::vec(any::<u8>(), 1..17),
    ) {
        let (mut memory, handover) = left_by_a_kernel(PageSize::K4, 0x8_0000);
        warmbus_memory::PhysMemoryWrite::write(&mut memory, PhysAddr(BASE + at), &bytes);
        if let Ok(incoming) = read(&memory, &handover) {
            prop_assert!(incoming.entries.len() <= 2000 && incoming.reserved.len() <= 512);
        }
    }
}

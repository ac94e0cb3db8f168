//! A handover on top of another one, as between two kernels.

#[expect(dead_code, reason = "not every reader is needed here")]
mod kho_reader;

use std::collections::BTreeMap;

use kho_reader::Kernel;
use proptest::prelude::*;
use warmbus::kho::map::Preserved;
use warmbus::kho::{
    BlockInput, Buffer, Handover, Incoming, IncomingError, Inherited, KhoAbi, Layout, Placement,
    Subtree, build_upon,
};
use warmbus::linux::image::PageSize;
use warmbus::linux::memory::MemoryRange;
use warmbus::pci::{PhysAddr, Sbdf};

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

/// Writes a handover of `count` functions at `arena`.
fn write(
    memory: &mut Buffer,
    arena: u64,
    count: u8,
    page_size: PageSize,
    inherited: Inherited<'_>,
) -> Handover {
    let data = [0x5a; 256];
    let bits = [0; 32];
    let blocks: Vec<BlockInput<'_>> = (0..count)
        .map(|device| BlockInput {
            sbdf: Sbdf::new(0, device, 0, 0),
            data: &data,
            cacheable: &bits,
            cached: &bits,
            masks: &[],
            capabilities: &[],
            capabilities_complete: true,
        })
        .collect();
    let layout = Layout::new(blocks.len(), KhoAbi::V4, page_size).unwrap();
    let layout = layout.with_inherited(inherited.entries).unwrap();
    let placement = Placement {
        arena: PhysAddr(arena),
        scratch: &SCRATCH,
        generation: arena,
    };
    build_upon(&layout, &placement, inherited, &blocks, memory).unwrap()
}

/// What a kernel leaves: its own subtrees and memory, and an old cache.
fn left_by_a_kernel(page_size: PageSize, size: usize) -> (Buffer, Handover) {
    let mut memory = Buffer::new(PhysAddr(BASE), size);
    let inherited = Inherited {
        subtrees: &subtrees(),
        entries: &others(),
    };
    let handover = write(&mut memory, BASE, 9, page_size, inherited);
    (memory, handover)
}

fn read(memory: &Buffer, handover: &Handover) -> Result<Incoming, IncomingError> {
    Incoming::read(memory, handover.root, handover.scratch)
}

/// Address and order of everything that a kernel would preserve.
fn preserved(memory: &Buffer, handover: &Handover, page_size: PageSize) -> BTreeMap<u64, u32> {
    let kernel = Kernel::readers("kho-v4", page_size.shift())[0];
    let pair = |range: MemoryRange| (range.start.0, range.size);
    let received = kernel.receive(memory, pair(handover.root), pair(handover.scratch));
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
        let mut kept = incoming.entries(&memory, 100).unwrap();
        kept.sort_unstable();
        let mut expected = others();
        let metadata = kept.iter().find(|entry| !expected.contains(entry));
        expected.push(*metadata.unwrap());
        expected.sort_unstable();
        assert_eq!(kept, expected);

        let inherited = Inherited {
            subtrees: &incoming.subtrees,
            entries: &kept,
        };
        let second = write(&mut memory, SECOND, 4, page_size, inherited);
        let all = preserved(&memory, &second, page_size);
        assert_eq!(all.len(), second.entries);
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
            .receive(&memory, pair(second.root), pair(second.scratch))
            .unwrap();
        assert_eq!(received.subtree("LUO"), Ok((OTHERS, 32)));
        assert_eq!(received.subtree("memblock"), Ok((OTHERS + 0x1_0000, 4096)));
        assert_eq!(received.subtree("pcsc"), Ok(pair(second.subtree)));
        assert!(received.subtree("kexec-metadata").is_ok());
        assert_eq!(received.scratch, SCRATCH.map(pair));

        // And once more: nothing grows from link to link.
        let third = read(&memory, &second).unwrap();
        let mut again = third.entries(&memory, 100).unwrap();
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
        // So many places that they cannot all be told apart.
        let scattered: Vec<_> = (0..1200)
            .map(|number| Preserved {
                order: 0,
                address: PhysAddr(OTHERS + number * 2 * page),
            })
            .collect();
        let mut memory = Buffer::new(PhysAddr(BASE), SIZE);
        let inherited = Inherited {
            subtrees: &[],
            entries: &scattered,
        };
        let handover = write(&mut memory, BASE, 2, page_size, inherited);
        let incoming = read(&memory, &handover).unwrap();
        let held = incoming.held(&memory).unwrap();
        assert!(held.len() <= 512, "{}", held.len());
        assert!(held.windows(2).all(|pair| pair[0].end() < pair[1].start.0));
        for (at, order) in preserved(&memory, &handover, page_size) {
            assert!(covers(&held, at, page << order), "{at:#x} {order}");
        }
        let kernel = Kernel::readers("kho-v4", page_size.shift())[0];
        let pair = |range: MemoryRange| (range.start.0, range.size);
        let received = kernel
            .receive(&memory, pair(handover.root), pair(handover.scratch))
            .unwrap();
        for node in &received.map_pages {
            assert!(covers(&held, *node, page), "{node:#x}");
        }
        assert!(covers(&held, handover.root.start.0, handover.root.size));
        assert!(covers(
            &held,
            handover.scratch.start.0,
            handover.scratch.size
        ));

        let error = incoming.entries(&memory, 1199).unwrap_err();
        assert!(matches!(error, IncomingError::TooMany { most: 1199, .. }));
    }
}

#[test]
fn what_is_no_handover_is_refused_with_its_reason() {
    let (memory, handover) = left_by_a_kernel(PageSize::K4, 0x8_0000);
    let refused = |root, array| {
        let error = Incoming::read(&memory, root, array).unwrap_err();
        error.to_string()
    };
    let odd = MemoryRange::new(handover.root.start, 0x3000);
    assert_eq!(
        refused(odd, handover.scratch),
        "the root tree has 0x3000 bytes, which is no page size"
    );
    let outside = MemoryRange::new(PhysAddr(0x1000), 0x1000);
    assert_eq!(
        refused(outside, handover.scratch),
        "0x1000-0x1fff is no readable memory"
    );
    assert_eq!(
        refused(handover.root, outside),
        "0x1000-0x1fff is no readable memory"
    );
    let data = MemoryRange::new(PhysAddr(BASE), 0x1000);
    assert!(refused(data, handover.scratch).contains("is damaged"));
}

proptest! {
    #[test]
    fn damage_is_found_or_harmless(
        at in 0_u64..0x6_0000,
        bytes in prop::collection::vec(any::<u8>(), 1..17),
    ) {
        let (mut memory, handover) = left_by_a_kernel(PageSize::K4, 0x8_0000);
        warmbus::kho::Sink::write(&mut memory, PhysAddr(BASE + at), &bytes);
        if let Ok(incoming) = read(&memory, &handover) {
            let _ = incoming.held(&memory);
            let _ = incoming.entries(&memory, 1000);
        }
    }
}

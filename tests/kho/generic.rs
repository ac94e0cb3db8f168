//! Handovers of data that has nothing to do with PCI, through `warmbus-kho`
//! alone, as a kernel reads them.

use proptest::prelude::*;
use warmbus_kho::{
    Arena, BuildError, Handover, InheritedState, KhoAbi, Layout, LayoutBuilder, LayoutError,
    MemoryRange, PageSize, PhysAddr, PreviousHandover, Subtree, VerifyError, verify,
};
use warmbus_memory::TestMemory;
use warmbus_pcie_sim::proptest_config;

use crate::common::{SCRATCH, pair, readers};
use crate::damaged::kinds;

const ARENA: PhysAddr = PhysAddr(0x1_4000_0000);
const NAMES: [&str; 3] = ["buffer", "log", "table"];
/// A device tree without content: `kho-v1` takes the size of a subtree from it.
fn tree() -> Vec<u8> {
    let mut tree = vm_fdt::FdtWriter::new().unwrap();
    let root = tree.begin_node("").unwrap();
    tree.end_node(root).unwrap();
    tree.finish().unwrap()
}

fn none() -> InheritedState<'static> {
    InheritedState::default()
}

/// Number and size of each kind of preserved memory, and the subtrees.
fn builder(
    abi: KhoAbi,
    page_size: PageSize,
    memory: &[(u64, u64)],
    subtrees: &[&'static str],
) -> LayoutBuilder {
    let mut builder = Layout::builder(abi, page_size).metadata("loader-2.1");
    for (name, (count, size)) in NAMES.into_iter().zip(memory) {
        builder = builder.preserve(name, *count, *size);
    }
    let add = |builder: LayoutBuilder, name: &&'static str| builder.subtree(name, 0x800);
    subtrees.iter().fold(builder, add)
}

/// Writes `layout`; each piece is full of a byte of its own.
fn write(
    layout: &Layout,
    memory: &[(u64, u64)],
    subtrees: &[&'static str],
) -> (TestMemory, Handover) {
    let mut target = TestMemory::new(ARENA, layout.size() as usize);
    let mut writer = layout.writer(ARENA, &SCRATCH, none(), &mut target).unwrap();
    for (name, (count, size)) in NAMES.into_iter().zip(memory) {
        for number in 0..*count {
            let bytes = vec![number as u8; *size as usize];
            let range = writer.write(name, number, &bytes).unwrap();
            assert_eq!(writer.preserved(name, number), Ok(range));
        }
    }
    for name in subtrees.iter().rev() {
        writer.write_subtree(name, &tree()).unwrap();
    }
    let handover = writer.finish().unwrap();
    (target, handover)
}

proptest! {
    #![proptest_config(proptest_config::properties(24))]
    #[test]
    fn a_kernel_restores_every_piece_of_any_handover(
        kind in any::<prop::sample::Index>(),
        memory in prop::collection::vec((0_u64..6, 1_u64..0x2_8000), 0..4),
        subtree_count in 0_usize..4,
    ) {
        let kinds: Vec<_> = kinds().collect();
        let (abi, page_size) = kinds[kind.index(kinds.len())];
        let subtrees = &["one", "two", "three"][..subtree_count];
        let layout = builder(abi, page_size, &memory, subtrees).build().unwrap();
        let (target, handover) = write(&layout, &memory, subtrees);
        let in_use = SCRATCH.map(|range| ("scratch memory", range));
        let arena = Arena::new(ARENA, target.bytes());
        prop_assert!(verify(&layout, &handover, &[], arena, &in_use).is_ok());
        for kernel in readers(abi, page_size) {
            let received = kernel
                .receive(&target, pair(handover.root), pair(handover.scratch))
                .unwrap();
            prop_assert_eq!(received.preserved.len(), handover.entries);
            prop_assert_eq!(&received.scratch, &SCRATCH.map(pair));
            let later = received.under_pressure(pair(handover.scratch));
            for (subtree, name) in handover.subtrees.iter().zip(subtrees) {
                prop_assert_eq!(&subtree.name, name);
                let place = received.subtree(name).unwrap();
                prop_assert_eq!(place, pair(subtree.range));
                received.restore_folio(place.0, place.1).unwrap();
                prop_assert_eq!(later.get(subtree.range.start, place.1 as usize), Some(&tree()[..]));
            }
            let writer = layout.writer(ARENA, &SCRATCH, none(), TestMemory::new(ARENA, 0)).unwrap();
            for (name, (count, size)) in NAMES.into_iter().zip(&memory) {
                for number in 0..*count {
                    let range = writer.preserved(name, number).unwrap();
                    prop_assert_eq!(range.size, *size);
                    received.restore_folio(range.start.0, *size).unwrap();
                    let bytes = later.get(range.start, *size as usize).unwrap();
                    prop_assert!(bytes.iter().all(|byte| *byte == number as u8));
                    // The rest of the pages has been zeroed.
                    let rest = layout.stride(name).unwrap() - size;
                    let rest = later.get(PhysAddr(range.end()), rest as usize).unwrap();
                    prop_assert!(rest.iter().all(|byte| *byte == 0));
                }
            }
        }
    }
}

#[test]
fn every_run_is_naturally_aligned_and_none_overlap() {
    for (abi, page_size) in kinds() {
        for count in [0, 1, 9, 65, 1000] {
            let memory = [(count, 0x2000), (1, 16 * count), (3, 0x1_0001)];
            let layout = builder(abi, page_size, &memory, &["one"]).build().unwrap();
            assert!(ARENA.0.is_multiple_of(layout.align()));
            let (target, handover) = write(&layout, &memory, &["one"]);
            let kernel = readers(abi, page_size)[0];
            let received = kernel
                .receive(&target, pair(handover.root), pair(handover.scratch))
                .unwrap();
            let metadata = u64::from(abi.has_radix_tree());
            assert_eq!(
                received.preserved.len() as u64,
                count + 1 + 3 + 1 + 1 + metadata
            );
            // Side by side from the start: the largest come first.
            let mut free = ARENA.0;
            for (start, order) in &received.preserved {
                let bytes = page_size.bytes() << order;
                assert!(start.is_multiple_of(bytes));
                assert_eq!(*start, free);
                free += bytes;
            }
            assert_eq!(free, ARENA.0 + layout.preserved_size());
        }
    }
}

#[test]
fn the_metadata_names_the_program_and_counts_one_kernel() {
    let long = "a release whose name is longer than the sixty-four bytes that Linux has for it";
    for (release, expected) in [("loader-2.1", "loader-2.1"), (long, &long[..64])] {
        for abi in [KhoAbi::V3, KhoAbi::V4] {
            let layout = Layout::builder(abi, PageSize::K4).metadata(release);
            let layout = layout.build().unwrap();
            let (target, handover) = write(&layout, &[], &[]);
            let kernel = readers(abi, PageSize::K4)[0];
            let received = kernel
                .receive(&target, pair(handover.root), pair(handover.scratch))
                .unwrap();
            let (at, size) = received.subtree("kexec-metadata").unwrap();
            received.restore_folio(at, size).unwrap();
            let bytes = target.get(PhysAddr(at), size as usize).unwrap();
            assert_eq!(size, 73);
            assert_eq!(bytes[..4], 1_u32.to_le_bytes());
            let text = bytes[4..69].split(|byte| *byte == 0).next().unwrap();
            assert_eq!(text, expected.as_bytes());
            assert_eq!(bytes[69..], 1_u32.to_le_bytes());
        }
    }
    // Without it there is no such subtree, and kho-v1 never has it.
    let none = Layout::builder(KhoAbi::V4, PageSize::K4).build().unwrap();
    let v1 = Layout::builder(KhoAbi::V1, PageSize::K4).metadata("loader");
    for layout in [none, v1.build().unwrap()] {
        let (_, handover) = write(&layout, &[], &[]);
        assert_eq!(handover.entries, 1);
    }
}

#[test]
fn what_linux_cannot_restore_has_no_layout() {
    for (page_size, order) in PageSize::ALL.into_iter().zip([10, 11, 13]) {
        let max = page_size.bytes() << order;
        let with = |count, size| {
            Layout::builder(KhoAbi::V4, page_size)
                .preserve("buffer", count, size)
                .build()
        };
        assert_eq!(with(1, max).unwrap().align(), max);
        for size in [max + 1, 1 << 63, u64::MAX] {
            let error = LayoutError::PieceTooLarge {
                name: "buffer",
                size,
                max,
            };
            assert_eq!(with(1, size), Err(error));
            let text = error.to_string();
            assert!(text.contains(&format!("{size:#x}")) && text.contains(&format!("{max:#x}")));
        }
        for count in [1 << 20, u64::MAX] {
            let refused = with(count, page_size.bytes());
            assert!(matches!(refused, Err(LayoutError::ArenaTooLarge { size }) if size > 1 << 30));
        }
    }
}

#[test]
fn a_name_is_written_once_and_all_subtrees_are() {
    let layout = builder(KhoAbi::V4, PageSize::K4, &[(2, 64)], &["one"]);
    let layout = layout.build().unwrap();
    let mut target = TestMemory::new(ARENA, layout.size() as usize);
    let mut writer = layout.writer(ARENA, &SCRATCH, none(), &mut target).unwrap();
    let unknown = |name| Err(BuildError::Unknown { name });
    assert_eq!(writer.write("one", 0, &[]), unknown("one"));
    assert_eq!(writer.write("buffer", 2, &[]), unknown("buffer"));
    assert_eq!(writer.write_subtree("buffer", &[]), unknown("buffer"));
    assert_eq!(writer.write_subtree("root tree", &[]), unknown("root tree"));
    let too_large = BuildError::PieceTooLarge {
        name: "buffer",
        size: 0x1001,
        run: 0x1000,
    };
    assert_eq!(writer.write("buffer", 1, &[0; 0x1001]), Err(too_large));
    writer.write_subtree("one", b"data").unwrap();
    assert_eq!(writer.write_subtree("one", b"more"), unknown("one"));
    assert!(writer.finish().is_ok());
    let writer = layout.writer(ARENA, &SCRATCH, none(), &mut target).unwrap();
    assert_eq!(writer.finish(), Err(BuildError::Missing { name: "one" }));

    let inherited = ["one", "kexec-metadata"].map(|name| Subtree {
        name: name.into(),
        properties: Vec::new(),
    });
    for subtree in &inherited {
        let inherited = InheritedState {
            subtrees: std::slice::from_ref(subtree),
            entries: &[],
        };
        let refused = layout.writer(ARENA, &SCRATCH, inherited, TestMemory::new(ARENA, 0));
        let error = refused.map(drop).unwrap_err().to_string();
        assert!(error.contains(&subtree.name), "{error}");
    }
    let twice = builder(KhoAbi::V4, PageSize::K4, &[], &["one", "one"]).build();
    let twice = twice.unwrap();
    let refused = twice.writer(ARENA, &SCRATCH, none(), TestMemory::new(ARENA, 0));
    assert_eq!(refused.map(drop), Err(BuildError::SameName { name: "one" }));
}

#[test]
fn memory_that_a_subtree_points_to_is_verified_to_be_preserved() {
    // A layout that has one buffer more than the one that was written.
    let written = builder(KhoAbi::V4, PageSize::K4, &[(3, 64)], &["one"]);
    let written = written.build().unwrap();
    let (target, handover) = write(&written, &[(3, 64)], &["one"]);
    let arena = Arena::new(ARENA, target.bytes());
    assert!(verify(&written, &handover, &[], arena, &[]).is_ok());
    let other = builder(KhoAbi::V4, PageSize::K4, &[(3, 0x1001)], &["one"]);
    let refused = verify(&other.build().unwrap(), &handover, &[], arena, &[]);
    let range = MemoryRange::new(ARENA, 0x1001);
    let error = VerifyError::NotPreserved {
        what: "buffer",
        range,
    };
    assert_eq!(refused.map(drop), Err(error));
}

#[test]
fn a_previous_handover_passes_on_all_subtrees_but_the_one_that_is_discarded() {
    let memory = [(2, 64), (1, 0x3000)];
    let names = ["one", "two"];
    let layout = builder(KhoAbi::V4, PageSize::K4, &memory, &names).build();
    let layout = layout.unwrap();
    let (target, handover) = write(&layout, &memory, &names);
    let read = || PreviousHandover::read(&target, handover.root, handover.scratch, 100).unwrap();
    let whole = read();
    let found: Vec<_> = whole.subtrees.iter().map(|tree| &tree.name[..]).collect();
    assert_eq!(found, ["one", "two", "kexec-metadata"]);
    // The next handover has another root tree.
    assert_eq!(whole.entries.len(), handover.entries - 1);
    let (one, two) = (handover.subtrees[0].range, handover.subtrees[1].range);
    assert_eq!(whole.subtree("one").unwrap().data(), Some(one));

    let mut rest = read();
    let buffer = PhysAddr(one.start.0 + 0x1000_0000);
    rest.discard("one", &mut [two.start, buffer, one.start]);
    assert_eq!(rest.subtree("one"), None);
    // The data of `two` is in use by a subtree that stays.
    let gone: Vec<_> = whole
        .entries
        .iter()
        .filter(|entry| !rest.entries.contains(entry))
        .collect();
    assert_eq!(gone.len(), 1);
    assert_eq!(gone[0].address, one.start);
    assert_eq!(rest.reserved, whole.reserved);

    // A handover upon it: what is inherited is there, and preserved.
    let arena = PhysAddr(0x1_6000_0000);
    let layout = Layout::builder(KhoAbi::V4, PageSize::K4).subtree("one", 64);
    let layout = layout.build().unwrap();
    let layout = layout.with_inherited(rest.inherited()).unwrap();
    let mut next = TestMemory::new(arena, layout.size() as usize);
    let inherited = rest.inherited();
    let mut writer = layout
        .writer(arena, &SCRATCH, inherited, &mut next)
        .unwrap();
    writer.write_subtree("one", b"new").unwrap();
    let written = writer.finish().unwrap();
    let bytes = Arena::new(arena, next.bytes());
    assert!(verify(&layout, &written, inherited.entries, bytes, &[]).is_ok());
    assert!(verify(&layout, &written, &[], bytes, &[]).is_err());
}

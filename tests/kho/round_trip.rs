//! Handovers of every version and page size, read by an independent reader.

use proptest::prelude::*;
use warmbus_kho::KhoAbi;
use warmbus_memory::{PageSize, PhysAddr, PhysMemoryWrite, TestMemory};
use warmbus_pcie_sim::proptest_config;
use warmbus_pcsc_format::{Handover, Layout, Placement, build};

use crate::common::{
    GENERATION, MadeUpFunction, SCRATCH, config_address, functions, hand_over, inputs, padded,
    pair, readers,
};
use crate::reader::{Kernel, pcsc, tree_bytes};

/// Everything that a kernel and its consumers can find out about a handover.
fn verify(functions: &[MadeUpFunction], memory: &TestMemory, handover: &Handover, kernel: Kernel) {
    let scratch = pair(handover.kho.scratch);
    let received = kernel
        .receive(memory, pair(handover.kho.root), scratch)
        .unwrap_or_else(|error| panic!("{}: {error}", kernel.name));
    assert_eq!(received.scratch, SCRATCH.map(pair));
    assert_eq!(received.preserved.len(), handover.kho.entries);
    assert_eq!(received.map_pages.len() as u64, handover.kho.map_pages);
    for page in &received.map_pages {
        let entry = received.preserved.range(..=page).next_back().unwrap();
        assert!(entry.0 + (1 << (entry.1 + kernel.page_shift)) <= *page);
    }
    let bytes: u64 = received
        .preserved
        .values()
        .map(|order| 1_u64 << (order + kernel.page_shift))
        .sum();
    assert_eq!(bytes, handover.kho.preserved_bytes);

    let page = 1 << kernel.page_shift;
    received
        .restore_folio(handover.kho.root.start.0, page)
        .unwrap();
    let (at, size) = received.subtree("pcsc").unwrap();
    assert_eq!((at, size), pair(handover.subtree()));
    received.restore_folio(at, size).unwrap();
    received
        .restore_folio(handover.index.start.0, handover.index.size)
        .unwrap();

    let later = received.under_pressure(scratch);
    let tree = later.get(PhysAddr(at), size as usize).unwrap();
    assert_eq!(tree_bytes(tree).unwrap().len() as u64, size);
    assert_eq!(pcsc::crc_without(tree, tree.len()), handover.subtree_crc());
    let restored = pcsc::consume(&later, tree).unwrap();
    let index = pcsc::Index::open(&later, tree).unwrap();
    assert_eq!(index.generation, GENERATION);
    assert_eq!(index.stride, page.max(8192));
    assert_eq!(restored.len(), functions.len());
    assert_eq!(index.len(), functions.len());
    let first = functions.first().map_or(0, |function| {
        let sbdf = function.sbdf;
        let address = (sbdf.segment(), sbdf.bus(), sbdf.device(), sbdf.function());
        restored[&address].0
    });
    for (number, function) in (0..).zip(functions) {
        let sbdf = function.sbdf;
        let address = (sbdf.segment(), sbdf.bus(), sbdf.device(), sbdf.function());
        let (block, found) = &restored[&address];
        assert_eq!(found.data, padded(&function.data, 4096));
        assert_eq!(found.cacheable, padded(&function.cacheable, 512));
        assert_eq!(found.cached, padded(&function.cached, 512));
        received.restore_folio(*block, 5120).unwrap();
        assert_eq!(*block, first + number * index.stride);

        let size = function.size;
        let (indexed, steps) = index.find(address);
        assert_eq!(indexed, Some((*block, size)));
        assert!(steps <= functions.len().ilog2() + 1);
        let block = later.get(PhysAddr(*block), 8192).unwrap();
        let extension = pcsc::extension(block).unwrap();
        let bits = |map: &[u8]| map.iter().map(|byte| byte.count_ones() as u16).sum::<u16>();
        let masks = function.masks.iter();
        let capabilities = function.capabilities.iter();
        assert_eq!(
            extension,
            pcsc::Extension {
                function: u32::from(sbdf.segment()) << 16 | u32::from(sbdf.routing_id()),
                size,
                flags: if sbdf.devfn() % 3 == 0 { 2 } else { 0 },
                generation: GENERATION,
                masks: masks
                    .map(|m| {
                        let value = m.value.map(|value| value & m.fixed);
                        (m.offset, m.writable, m.fixed, value)
                    })
                    .collect(),
                capabilities: capabilities.map(|c| (c.id, c.offset, c.version)).collect(),
                cacheable_bytes: bits(&function.cacheable),
                cached_bytes: bits(&function.cached),
                routing: Vec::new(),
                synthesised: Vec::new(),
                virtual_function: (0, 0),
                config_address: config_address(sbdf).0,
            }
        );
    }
    assert_eq!(index.find((0xffff, 0xff, 0x1f, 7)).0, None);
}

#[test]
fn every_kernel_reads_back_every_function_after_memory_pressure() {
    for count in [0, 1, 9, 65] {
        let functions = functions(count);
        for abi in KhoAbi::ALL {
            for page_size in PageSize::ALL {
                let (memory, handover) = hand_over(&functions, abi, page_size, 0x6000_0000);
                for kernel in readers(abi, page_size) {
                    verify(&functions, &memory, &handover, kernel);
                }
            }
        }
    }
}

#[test]
fn versions_are_named_as_linux_names_them() {
    let names = KhoAbi::ALL.map(|abi| abi.to_string());
    assert_eq!(names, ["kho-v1", "kho-v3", "kho-v4"]);
    // What a tree is written for comes first in its own list.
    for (abi, name) in KhoAbi::ALL.into_iter().zip(names) {
        assert_eq!(abi.compatible()[0], name);
    }
}

#[test]
fn kernels_of_another_version_refuse_the_handover() {
    let functions = functions(2);
    let (memory, handover) = hand_over(&functions, KhoAbi::V1, PageSize::K4, 0x4000_0000);
    for string in ["kho-v2", "kho-v3", "kho-v4", "kho-v"] {
        for kernel in Kernel::readers(string, 12) {
            let error = kernel
                .receive(&memory, pair(handover.kho.root), pair(handover.kho.scratch))
                .unwrap_err();
            assert!(error.contains("incompatible"), "{error}");
        }
    }
}

#[test]
fn every_page_of_the_map_counts() {
    let functions = functions(9);
    for abi in KhoAbi::ALL {
        let (memory, handover) = hand_over(&functions, abi, PageSize::K4, 0x4000_0000);
        let (root, scratch) = (pair(handover.kho.root), pair(handover.kho.scratch));
        let kernel = readers(abi, PageSize::K4)[0];
        let received = kernel.receive(&memory, root, scratch).unwrap();
        for page in received.map_pages {
            let mut damaged = memory.clone();
            damaged.zero(PhysAddr(page), 4096);
            let other = kernel.receive(&damaged, root, scratch);
            let same = other.is_ok_and(|other| other.preserved == received.preserved);
            assert!(!same, "map page {page:#x} makes no difference");
        }
    }
}

#[test]
fn the_metadata_names_this_program_and_the_first_link_of_the_chain() {
    let (memory, handover) = hand_over(&functions(1), KhoAbi::V4, PageSize::K16, 0x4000_0000);
    let kernel = Kernel::readers("kho-v4", 14)[0];
    let received = kernel
        .receive(&memory, pair(handover.kho.root), pair(handover.kho.scratch))
        .unwrap();
    let (at, size) = received.subtree("kexec-metadata").unwrap();
    received.restore_folio(at, size).unwrap();
    let bytes = memory.get(PhysAddr(at), 73).unwrap();
    assert_eq!((size, &bytes[..4]), (73, &[1, 0, 0, 0][..]));
    let name = format!("warmbus-{}\0", env!("CARGO_PKG_VERSION"));
    assert_eq!(&bytes[4..4 + name.len()], name.as_bytes());
    assert_eq!(&bytes[69..], [1, 0, 0, 0]);
}

/// Counts what is written.
#[derive(Default)]
struct Counter {
    calls: u64,
    written: u64,
    zeroed: u64,
}

impl PhysMemoryWrite for Counter {
    fn write(&mut self, _: PhysAddr, bytes: &[u8]) {
        self.calls += 1;
        self.written += bytes.len() as u64;
    }

    fn zero(&mut self, _: PhysAddr, length: u64) {
        self.calls += 1;
        self.zeroed += length;
    }
}

#[test]
fn the_work_is_linear_in_the_number_of_functions() {
    for abi in KhoAbi::ALL {
        for page_size in PageSize::ALL {
            let cost = |count: usize| {
                let functions = functions(count);
                let layout = Layout::new(count, abi, page_size).unwrap();
                let placement = Placement {
                    arena: PhysAddr(0x4000_0000),
                    scratch: &SCRATCH,
                    generation: 0,
                };
                let mut counter = Counter::default();
                let blocks = inputs(&functions);
                build(&layout, &placement, &blocks, &mut counter).unwrap();
                (counter, layout)
            };
            let (few, _) = cost(512);
            let (many, layout) = cost(4096);
            assert!(many.calls < 8 * few.calls, "{} {}", many.calls, few.calls);
            assert!(many.written < 8 * few.written + (1 << 20));
            // Nothing but the blocks and, once each, the pieces around them.
            let blocks = 4096 * 8192;
            assert!(many.written + many.zeroed < blocks + (3 << 20));
            println!(
                "{abi}, {page_size} pages, 4096 functions: {} calls, {} bytes written, {} zeroed, arena {} bytes, preserved {}",
                many.calls,
                many.written,
                many.zeroed,
                layout.size(),
                layout.preserved_size()
            );
        }
    }
}

#[test]
fn four_thousand_functions_are_read_back() {
    let functions = functions(4096);
    for (abi, page_size) in [(KhoAbi::V1, PageSize::K4), (KhoAbi::V4, PageSize::K4)] {
        let (memory, handover) = hand_over(&functions, abi, page_size, 0x1_c000_0000);
        assert!(handover.subtree().size < 200 << 10);
        verify(&functions, &memory, &handover, readers(abi, page_size)[0]);
    }
}

proptest! {
    #![proptest_config(proptest_config::properties(48))]

    #[test]
    fn any_arena_in_any_gib_is_read_back(
        count in 0..200_usize,
        abi in prop::sample::select(&KhoAbi::ALL[..]),
        page_size in prop::sample::select(&PageSize::ALL[..]),
        gib in 0..(1_u64 << 18),
        place in 0..=1_u64 << 20,
    ) {
        let functions = functions(count);
        let layout = Layout::new(count, abi, page_size).unwrap();
        let places = ((1 << 30) - layout.size()) / layout.align();
        let arena = (gib << 30) + ((places * place) >> 20) * layout.align();
        let (memory, handover) = hand_over(&functions, abi, page_size, arena);
        for kernel in readers(abi, page_size) {
            verify(&functions, &memory, &handover, kernel);
        }
    }
}

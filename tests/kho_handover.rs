//! Handovers of every version and page size, read by an independent reader.

mod kho_reader;

use std::io::Write;
use std::process::{Command, Stdio};

use kho_reader::{Kernel, node, pcsc, tree_bytes};
use proptest::prelude::*;
use warmbus_kho::KhoAbi;
use warmbus_memory::MemoryRange;
use warmbus_memory::PageSize;
use warmbus_memory::{PhysMemoryWrite, TestMemory};
use warmbus_pci::{PhysAddr, Sbdf};
use warmbus_pcie_sim::proptest_config;
use warmbus_pcsc_format::{
    BuildError, CapabilityRecord, FunctionRecord, Handover, Layout, MaskRecord, Placement,
    RoutingRecord, VerifyError, VirtualRecord, build, verify as verify_memory,
};

/// A function with made-up but reproducible contents.
struct Function {
    sbdf: Sbdf,
    size: u16,
    data: Vec<u8>,
    cacheable: Vec<u8>,
    cached: Vec<u8>,
    masks: Vec<MaskRecord>,
    capabilities: Vec<CapabilityRecord>,
}

fn functions(count: usize) -> Vec<Function> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32
    };
    (0..count)
        .map(|number| {
            let size = if number % 5 == 3 { 256 } else { 4096 };
            // Of some not all is given.
            let given = if number % 7 == 2 { size / 16 * 3 } else { size };
            let data = (0..given).map(|_| random() as u8).collect();
            let cacheable: Vec<u8> = (0..given / 8).map(|_| random() as u8).collect();
            let cached = cacheable.iter().map(|byte| byte & random() as u8).collect();
            Function {
                sbdf: Sbdf::from_routing_id((number / 3000) as u16, (number % 3000 * 7) as u16),
                size,
                data,
                cacheable,
                cached,
                masks: (0..number % 14)
                    .map(|bar| MaskRecord {
                        offset: 0x10 + 4 * bar as u16,
                        writable: random(),
                        fixed: random(),
                        value: (random() % 2 == 0).then(&mut random),
                    })
                    .collect(),
                capabilities: (0..number % 40)
                    .map(|_| CapabilityRecord {
                        id: random() as u16,
                        offset: random() as u16 & 0xffc,
                        version: random() as u8 & 0xf,
                    })
                    .collect(),
            }
        })
        .collect()
}

fn inputs(functions: &[Function]) -> Vec<FunctionRecord<'_>> {
    functions
        .iter()
        .map(|function| FunctionRecord {
            sbdf: function.sbdf,
            size: function.size,
            data: &function.data,
            cacheable: &function.cacheable,
            cached: &function.cached,
            masks: &function.masks,
            capabilities: &function.capabilities,
            capabilities_complete: function.sbdf.devfn() % 3 != 0,
            routing: &[],
            virtual_function: None,
        })
        .collect()
}

const SCRATCH: [MemoryRange; 2] = [
    MemoryRange::new(PhysAddr(0x8000_0000), 0x1000_0000),
    MemoryRange::new(PhysAddr(0x2_4000_0000), 0x2000_0000),
];

const GENERATION: u64 = 0x0123_4567_89ab_cdef;

/// More functions than there is room for, in no order.
fn absent() -> Vec<Sbdf> {
    (0..600_u16)
        .rev()
        .map(|number| Sbdf::from_routing_id(number % 2, number * 8))
        .collect()
}

fn hand_over(
    functions: &[Function],
    abi: KhoAbi,
    page_size: PageSize,
    arena: u64,
) -> (TestMemory, Handover) {
    let layout = Layout::new(functions.len(), abi, page_size).unwrap();
    let mut memory = TestMemory::new(PhysAddr(arena), layout.size() as usize);
    let placement = Placement {
        arena: PhysAddr(arena),
        scratch: &SCRATCH,
        absent: &absent(),
        generation: GENERATION,
    };
    let handover = build(&layout, &placement, &inputs(functions), &mut memory).unwrap();
    (memory, handover)
}

fn pair(range: MemoryRange) -> (u64, u64) {
    (range.start.0, range.size)
}

fn padded(bytes: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(size, 0);
    bytes
}

/// Everything that a kernel and its consumers can find out about a handover.
fn verify(functions: &[Function], memory: &TestMemory, handover: &Handover, kernel: Kernel) {
    let scratch = pair(handover.scratch);
    let received = kernel
        .receive(memory, pair(handover.root), scratch)
        .unwrap_or_else(|error| panic!("{}: {error}", kernel.name));
    assert_eq!(received.scratch, SCRATCH.map(pair));
    assert_eq!(received.preserved.len(), handover.entries);
    assert_eq!(received.map_pages.len() as u64, handover.map_pages);
    for page in &received.map_pages {
        let entry = received.preserved.range(..=page).next_back().unwrap();
        assert!(entry.0 + (1 << (entry.1 + kernel.page_shift)) <= *page);
    }
    let bytes: u64 = received
        .preserved
        .values()
        .map(|order| 1_u64 << (order + kernel.page_shift))
        .sum();
    assert_eq!(bytes, handover.preserved_bytes);

    let page = 1 << kernel.page_shift;
    received.restore_folio(handover.root.start.0, page).unwrap();
    let (at, size) = received.subtree("pcsc").unwrap();
    assert_eq!((at, size), pair(handover.subtree));
    received.restore_folio(at, size).unwrap();
    received
        .restore_folio(handover.index.start.0, handover.index.size)
        .unwrap();

    let later = received.under_pressure(scratch);
    let tree = later.get(PhysAddr(at), size as usize).unwrap();
    assert_eq!(tree_bytes(tree).unwrap().len() as u64, size);
    assert_eq!(pcsc::crc_without(tree, tree.len()), handover.subtree_crc);
    let restored = pcsc::consume(&later, tree).unwrap();
    let mut expected: Vec<u32> = absent()
        .iter()
        .map(|function| u32::from(function.segment()) << 16 | u32::from(function.routing_id()))
        .collect();
    expected.sort_unstable();
    assert_eq!(pcsc::absent(tree).unwrap(), expected[..512]);
    let index = pcsc::Index::open(&later, tree).unwrap();
    assert_eq!(index.generation, GENERATION);
    assert_eq!(restored.len(), functions.len());
    assert_eq!(index.len(), functions.len());
    for function in functions {
        let sbdf = function.sbdf;
        let address = (sbdf.segment(), sbdf.bus(), sbdf.device(), sbdf.function());
        let (block, found) = &restored[&address];
        assert_eq!(found.data, padded(&function.data, 4096));
        assert_eq!(found.cacheable, padded(&function.cacheable, 512));
        assert_eq!(found.cached, padded(&function.cached, 512));
        received.restore_folio(*block, 5120).unwrap();

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
            }
        );
    }
    assert_eq!(index.find((0xffff, 0xff, 0x1f, 7)).0, None);
}

fn readers(abi: KhoAbi, page_size: PageSize) -> Vec<Kernel> {
    match abi {
        KhoAbi::V1 => Kernel::readers("kho-v1", page_size.shift()),
        // One tree serves both, whichever was found.
        KhoAbi::V3 | KhoAbi::V4 => ["kho-v3", "kho-v4"]
            .into_iter()
            .flat_map(|string| Kernel::readers(string, page_size.shift()))
            .collect(),
    }
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
fn kernels_of_another_version_refuse_the_handover() {
    let functions = functions(2);
    let (memory, handover) = hand_over(&functions, KhoAbi::V1, PageSize::K4, 0x4000_0000);
    for string in ["kho-v2", "kho-v3", "kho-v4", "kho-v"] {
        for kernel in Kernel::readers(string, 12) {
            let error = kernel
                .receive(&memory, pair(handover.root), pair(handover.scratch))
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
        let (root, scratch) = (pair(handover.root), pair(handover.scratch));
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
fn numbers_are_little_endian_in_the_handover_and_big_endian_in_the_boot_tree() {
    use warmbus_linux::chosen::{Chosen, ChosenHandover, edit};
    let functions = functions(1);
    let (memory, handover) = hand_over(&functions, KhoAbi::V4, PageSize::K4, 0x1_2000_0000);
    let window = memory.get(handover.root.start, 4096).unwrap();
    let (properties, _) = node(tree_bytes(window).unwrap(), &["pcsc"]).unwrap();
    let subtree = handover.subtree.start.0;
    assert_eq!(properties["preserved-data"], subtree.to_le_bytes());

    let boot = dtc("/dts-v1/; / { #address-cells = <2>; #size-cells = <1>; };");
    let chosen = Chosen {
        handover: Some(ChosenHandover {
            root: handover.root,
            scratch: handover.scratch,
        }),
        ..Chosen::default()
    };
    let boot = edit(&boot, &chosen).unwrap();
    let (properties, _) = node(&boot, &["chosen"]).unwrap();
    let mut cells = handover.root.start.0.to_be_bytes().to_vec();
    cells.extend(0x1000_u32.to_be_bytes());
    assert_eq!(properties["linux,kho-fdt"], cells);
}

/// Runs dtc on source text, or back on a blob.
fn run_dtc(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("dtc")
        .args(["-q"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("dtc (package device-tree-compiler) is needed for this test");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn dtc(source: &str) -> Vec<u8> {
    run_dtc(&["-I", "dts", "-O", "dtb"], source.as_bytes())
}

fn decompile(tree: &[u8]) -> String {
    String::from_utf8(run_dtc(&["-I", "dtb", "-O", "dts"], tree)).unwrap()
}

#[test]
fn dtc_decodes_both_trees_to_what_the_format_says() {
    let functions = functions(2);
    let (memory, handover) = hand_over(&functions, KhoAbi::V3, PageSize::K4, 0x4000_0000);
    let root = memory.get(handover.root.start, 4096).unwrap();
    // dtc takes the bytes for big-endian cells: 0x40004000 reads as 0x400040.
    let cells = |number: u64| {
        let swapped = number.swap_bytes();
        format!("<{:#04x} {:#04x}>", swapped >> 32, swapped & 0xffff_ffff)
    };
    let text = decompile(tree_bytes(root).unwrap());
    let expect = [
        "compatible = \"kho-v3\\0kho-v4\";".to_string(),
        "pcsc {".to_string(),
        format!("preserved-data = {};", cells(handover.subtree.start.0)),
        format!("blob-size = {};", cells(handover.subtree.size)),
        "kexec-metadata {".to_string(),
        format!("blob-size = {};", cells(73)),
    ];
    for line in expect {
        assert!(text.contains(&line), "no '{line}' in\n{text}");
    }

    let tree = memory
        .get(handover.subtree.start, handover.subtree.size as usize)
        .unwrap();
    let text = decompile(tree);
    let expect = [
        "compatible = \"pcsc-v1\";".to_string(),
        "pv = <0x1000000>;".to_string(),
        "warmbus,version = <0x1000000>;".to_string(),
        format!("warmbus,index = {};", cells(handover.index.start.0)),
        "dev_0000_00_00_0 {".to_string(),
        "dev_0000_00_00_7 {".to_string(),
    ];
    for line in expect {
        assert!(text.contains(&line), "no '{line}' in\n{text}");
    }
}

#[test]
fn the_metadata_names_this_program_and_the_first_link_of_the_chain() {
    let (memory, handover) = hand_over(&functions(1), KhoAbi::V4, PageSize::K16, 0x4000_0000);
    let kernel = Kernel::readers("kho-v4", 14)[0];
    let received = kernel
        .receive(&memory, pair(handover.root), pair(handover.scratch))
        .unwrap();
    let (at, size) = received.subtree("kexec-metadata").unwrap();
    received.restore_folio(at, size).unwrap();
    let bytes = memory.get(PhysAddr(at), 73).unwrap();
    assert_eq!((size, &bytes[..4]), (73, &[1, 0, 0, 0][..]));
    let name = format!("warmbus-{}\0", env!("CARGO_PKG_VERSION"));
    assert_eq!(&bytes[4..4 + name.len()], name.as_bytes());
    assert_eq!(&bytes[69..], [1, 0, 0, 0]);
}

#[test]
fn tables_that_do_not_fit_are_cut_and_the_block_says_so() {
    let mut functions = functions(1);
    let mask = MaskRecord {
        offset: 0x10,
        writable: 1,
        fixed: 2,
        value: None,
    };
    let capability = CapabilityRecord {
        id: 0x10,
        offset: 0x40,
        version: 0,
    };
    functions[0].masks = vec![mask; 33];
    functions[0].capabilities = vec![capability; 400];
    let (memory, handover) = hand_over(&functions, KhoAbi::V1, PageSize::K4, 0x4000_0000);
    let tree = memory.get(handover.subtree.start, handover.subtree.size as usize);
    let restored = pcsc::consume(&memory, tree.unwrap()).unwrap();
    let (block, _) = &restored[&(0, 0, 0, 0)];
    let block = memory.get(PhysAddr(*block), 8192).unwrap();
    let extension = pcsc::extension(block).unwrap();
    assert_eq!(extension.masks.len(), 32);
    assert_eq!(extension.capabilities.len(), 272);
    assert_eq!(extension.flags, 3);
}

#[test]
fn mistakes_in_the_input_are_named_and_nothing_is_written() {
    let good = functions(3);
    let layout = Layout::new(3, KhoAbi::V4, PageSize::K4).unwrap();
    let attempt = |change: &dyn Fn(&mut Vec<FunctionRecord<'_>>, &mut Placement<'_>)| {
        let mut blocks = inputs(&good);
        let mut placement = Placement {
            arena: PhysAddr(0x4000_0000),
            scratch: &SCRATCH,
            absent: &[],
            generation: 0,
        };
        change(&mut blocks, &mut placement);
        let mut memory = TestMemory::new(placement.arena, layout.size() as usize);
        let error = build(&layout, &placement, &blocks, &mut memory).unwrap_err();
        assert!(memory.bytes().iter().all(|byte| *byte == 0xa5));
        error
    };
    let error = attempt(&|blocks, _| blocks.swap(0, 2));
    assert!(matches!(error, BuildError::Order { .. }));
    let error = attempt(&|blocks, _| blocks[1] = blocks[0]);
    assert!(matches!(error, BuildError::Order { .. }));
    let error = attempt(&|blocks, _| blocks.truncate(2));
    assert!(error.to_string().contains("laid out for 3 functions"));
    let error = attempt(&|blocks, _| blocks[1].data = &blocks[1].data[..255]);
    assert!(error.to_string().contains("255 bytes"));
    let error = attempt(&|blocks, _| blocks[1].size = 512);
    assert!(error.to_string().contains("configuration space of 512"));
    let error = attempt(&|blocks, _| blocks[0].cached = &blocks[0].cached[..32]);
    assert!(error.to_string().contains("32 bytes instead of 512"));
    let error = attempt(&|blocks, _| blocks[0].cached = &[0xff; 512]);
    assert!(error.to_string().contains("0000:00:00.0: the byte at 00"));
    let error = attempt(&|_, placement| placement.scratch = &[]);
    assert!(matches!(error, BuildError::ScratchAreas { areas: 0 }));
    let error = attempt(&|_, placement| placement.arena.0 += 0x1000);
    assert!(matches!(error, BuildError::Misaligned { .. }));
    let error = attempt(&|_, placement| placement.arena.0 = 0x7fff_e000);
    assert!(matches!(error, BuildError::Misaligned { .. }));
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
                    absent: &[],
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
        assert!(handover.subtree.size < 200 << 10);
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

#[test]
fn a_handover_that_memory_does_not_keep_is_found_with_the_piece_that_is_hurt() {
    let functions = functions(9);
    for abi in KhoAbi::ALL {
        for page_size in PageSize::ALL {
            let base = PhysAddr(0x4000_0000);
            let (memory, handover) = hand_over(&functions, abi, page_size, base.0);
            let layout = Layout::new(functions.len(), abi, page_size).unwrap();
            let check = |bytes: &[u8]| verify_memory(&layout, &handover, &[], base, bytes, &[]);
            assert_eq!(check(memory.bytes()), Ok(()));

            let index = memory.get(handover.index.start, 80).unwrap();
            let block = u64::from_le_bytes(index[72..80].try_into().unwrap());
            for (what, address, offsets) in [
                ("root tree", handover.root.start.0, &[0, 39, 200, 4095][..]),
                ("subtree", handover.subtree.start.0, &[0, 39, 200][..]),
                ("index", handover.index.start.0, &[8, 12, 79][..]),
                ("data block", block, &[0, 4095, 4608, 5119, 5132, 5180][..]),
            ] {
                for offset in offsets {
                    let mut bytes = memory.bytes().to_vec();
                    bytes[(address + offset - base.0) as usize] ^= 0x10;
                    match check(&bytes) {
                        Err(VerifyError::Crc {
                            what: hurt,
                            address: at,
                            ..
                        }) => assert_eq!((hurt, at.0), (what, address)),
                        other => panic!("{what} + {offset}: {other:?}"),
                    }
                }
            }
            // A length out of reason must not be followed.
            let mut bytes = memory.bytes().to_vec();
            bytes[(block + 5131 - base.0) as usize] = 0xff;
            assert!(matches!(check(&bytes), Err(VerifyError::Outside { .. })));
            assert!(check(&memory.bytes()[..0x1000]).is_err());
        }
    }
}

#[test]
fn vfs_that_do_not_exist_now_are_in_the_index_only_and_tell_when_they_hold() {
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
    let layout = Layout::new(blocks.len(), KhoAbi::V4, PageSize::K4).unwrap();
    let mut memory = TestMemory::new(PhysAddr(0x6000_0000), layout.size() as usize);
    let placement = Placement {
        arena: PhysAddr(0x6000_0000),
        scratch: &SCRATCH,
        generation: GENERATION,
        absent: &[],
    };
    let handover = build(&layout, &placement, &blocks, &mut memory).unwrap();
    let tree = memory
        .get(handover.subtree.start, handover.subtree.size as usize)
        .unwrap();

    let nodes = pcsc::consume(&memory, tree).unwrap();
    let index = pcsc::Index::open(&memory, tree).unwrap();
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

#[test]
fn no_bit_of_the_map_can_change_what_linux_preserves_unnoticed() {
    let functions = functions(9);
    for abi in KhoAbi::ALL {
        let base = PhysAddr(0x4000_0000);
        let (memory, handover) = hand_over(&functions, abi, PageSize::K4, base.0);
        let layout = Layout::new(functions.len(), abi, PageSize::K4).unwrap();
        let kernel = readers(abi, PageSize::K4)[0];
        let scratch = pair(handover.scratch);
        let root = pair(handover.root);
        let sound = kernel.receive(&memory, root, scratch).unwrap();
        // Of each page of the map what is used, and the first bytes.
        let pages = sound.map_pages.iter().flat_map(|&page| {
            let bytes = memory.get(PhysAddr(page), 4096).unwrap();
            let used = (0..4096_u64).filter(|at| *at < 24 || bytes[*at as usize] != 0);
            used.map(move |at| page + at).collect::<Vec<_>>()
        });
        let (mut caught, mut harmless) = (0, 0);
        for address in pages {
            for bit in [0x01, 0x10, 0x80] {
                let mut damaged = memory.clone();
                let byte = memory.get(PhysAddr(address), 1).unwrap()[0];
                damaged.write(PhysAddr(address), &[byte ^ bit]);
                if verify_memory(&layout, &handover, &[], base, damaged.bytes(), &[]).is_err() {
                    caught += 1;
                    continue;
                }
                // What passes is the same for the kernel.
                let received = kernel.receive(&damaged, root, scratch);
                let received = received.unwrap_or_else(|error| panic!("{address:#x}: {error}"));
                assert_eq!(received.preserved, sound.preserved, "{address:#x}");
                assert_eq!(received.subtree("pcsc"), sound.subtree("pcsc"));
                harmless += 1;
            }
        }
        assert!(caught > 100 && caught > harmless, "{caught}, {harmless}");
    }
}

#[test]
fn memory_in_use_is_never_preserved() {
    let functions = functions(9);
    for abi in KhoAbi::ALL {
        let base = PhysAddr(0x4000_0000);
        let (memory, handover) = hand_over(&functions, abi, PageSize::K4, base.0);
        let layout = Layout::new(functions.len(), abi, PageSize::K4).unwrap();
        let check = |start, size| {
            let in_use = [("the kernel", MemoryRange::new(PhysAddr(start), size))];
            verify_memory(&layout, &handover, &[], base, memory.bytes(), &in_use)
        };
        let end = base.0 + layout.preserved_size();
        assert_eq!(check(end, 0x1000), Ok(()));
        assert_eq!(check(base.0 - 0x1000, 0x1000), Ok(()));
        let overlaps = [(base.0, 1), (end - 1, 1), (base.0 - 1, 2), (0, u64::MAX)];
        for (start, size) in overlaps {
            match check(start, size) {
                Err(VerifyError::InUse { what, .. }) => assert_eq!(what, "the kernel"),
                other => panic!("{start:#x}: {other:?}"),
            }
        }
    }
}

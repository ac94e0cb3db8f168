//! The handover for a kernel that another program starts on a machine with UEFI:
//! true after drivers have used the devices, and nothing where it cannot be.

use warmbus_boot::resident::{Candidate, LoadedKernel, ResidentError, ResidentPlan};
use warmbus_machine::{Reservation, ReservationKind, Source};
use warmbus_pci::registers::{BAR0, COMMAND};

use super::*;

/// A kernel that keeps its scratch memory on a machine with UEFI.
const BANNER: &str = "Linux version 7.3.4 (builder@host)";
/// Memory that UEFI has given away, as the kernel.
const ALLOCATED: MemoryRange = MemoryRange::new(PhysAddr(0x6000_0000), 256 * MIB);
/// The offset of a dword that is read by width and place, whatever is cached.
const DWORD: usize = 4;

/// A machine whose firmware has numbered buses and assigned addresses, and what
/// is captured of it now.
fn survey(mut fabric: Fabric) -> (Machine, Captured<Fabric>) {
    let mut clock = fabric.clock();
    let mut hosts = fabric.host_bridges();
    let _ = Pipeline::default().run(&hosts, &mut fabric, &mut clock, &mut ());
    for host in &mut hosts {
        host.preserve_config = true;
    }
    let mut machine = Machine::from_device_tree(&tree(RAM)).expect("it is a machine");
    machine.source = Source::Acpi;
    machine.hosts.clone_from(&hosts);
    machine.reservations = vec![Reservation {
        range: ALLOCATED,
        kind: ReservationKind::Firmware,
    }];
    let writes = fabric.log().writes();
    let mut captured = Pipeline::default().run(&hosts, fabric, &mut clock, &mut ());
    assert_eq!(captured.config.access().log().writes(), writes);
    captured.config.retain_constants();
    (machine, captured)
}

fn plan(
    machine: &Machine,
    captured: &Captured<Fabric>,
    texts: &[&str],
    words: &str,
) -> Result<ResidentPlan, ResidentError> {
    let kernel = LoadedKernel {
        range: KERNEL,
        image: &kernel(texts),
        command_line: words,
    };
    let candidate = Candidate::new(&Options::from_bootargs(words), kernel)?;
    ResidentPlan::new(machine, captured, candidate)
}

#[test]
fn what_is_handed_over_stays_true_whatever_drivers_write() {
    for (fabric, version) in [
        (topologies::small(), "kho-v4"),
        (topologies::switch(), "kho-v3"),
    ] {
        let functions = fabric.nodes().count();
        let (machine, mut captured) = survey(fabric);
        let plan = plan(&machine, &captured, &[version, BANNER], "").expect("it is made");
        for range in plan.ranges() {
            assert!(RAM.contains(range), "{range}");
            for used in [ALLOCATED, KERNEL] {
                assert!(!range.overlaps(used), "{range}");
            }
        }
        let mut memory = FakeMemory::new(RAM);
        let built = plan.build(&machine, &captured, 0x1234, &mut memory, None);
        let (_, tree) = built.expect("it is built");

        // A tree with `/chosen` alone has Linux use ACPI.
        let tree = DeviceTree::new(&tree).expect("Linux can read it");
        let chosen = |name| tree.root_child_property("chosen", name).unwrap().unwrap();
        let pair = |value: &[u8]| {
            let number = |at: usize| u64::from_be_bytes(value[at..at + 8].try_into().unwrap());
            (number(0), number(8))
        };
        let (root, scratch) = (
            pair(chosen("linux,kho-fdt")),
            pair(chosen("linux,kho-scratch")),
        );
        let arena = memory.first.expect("it was written");
        let mut window = TestMemory::new(arena.start, arena.size as usize);
        let bytes = memory.bytes(arena).expect("it is memory");
        warmbus_memory::PhysMemoryWrite::write(&mut window, arena.start, bytes);
        let received = Kernel::readers(version, 12)[0]
            .receive(&window, root, scratch)
            .expect("Linux takes it");
        let (at, size) = received.subtree("pcsc").expect("it is there");
        let later = received.under_pressure(scratch);
        let tree = later.get(PhysAddr(at), size as usize).expect("it is kept");
        let restored = pcsc::consume(&later, tree).expect("it can be read");
        assert_eq!(restored.len(), functions);

        // Drivers of UEFI use the devices.
        let fabric = captured.config.access_mut();
        let found: Vec<Sbdf> = fabric.reachable().into_keys().collect();
        for &function in &found {
            let mut write = |offset, value| {
                let offset = ConfigOffset::wrapping(offset);
                fabric.write(function, offset, Width::Dword, value);
            };
            write(COMMAND, 7);
            write(0x3c, 0x1ff);
            write(BAR0, 0x1234_5000);
        }
        let mut constants = 0;
        for function in found {
            let address = (
                function.segment(),
                function.bus(),
                function.device(),
                function.function(),
            );
            let (_, block) = &restored[&address];
            let is_cached = |at: usize| block.cached[at / 8] & 1 << (at % 8) != 0;
            for (at, &kept) in block
                .data
                .iter()
                .enumerate()
                .filter(|&(at, _)| is_cached(at))
            {
                let dword = ConfigOffset::wrapping((at / DWORD * DWORD) as u16);
                let read = fabric.read(function, dword, Width::Dword);
                assert_eq!(read.to_le_bytes()[at % DWORD], kept, "{function} {at:#x}");
                constants += 1;
            }
        }
        assert!(constants > 30 * functions, "{constants}");
    }
}

#[test]
fn a_kernel_that_cannot_keep_it_gets_nothing_for_a_reason() {
    let (machine, captured) = survey(topologies::small());
    for (texts, words, reason) in [
        (&["kho-v4", BANNER][..], "warmbus.kho=off", "switched off"),
        (&[BANNER], "", "no Kexec HandOver"),
        (&["kho-v9", BANNER], "", "kho-v9"),
        (
            &["kho-v1", "Linux version 6.16.0 (builder@host)"],
            "",
            "before 7.0 forgets its scratch memory",
        ),
        (&["kho-v4", BANNER], "kho_scratch=4G,1G,0", "scratch memory"),
    ] {
        let refused = plan(&machine, &captured, texts, words);
        let refused = refused.expect_err("nothing is handed over").to_string();
        assert!(refused.contains(reason), "{refused}");
    }
}

/// A tree with `/chosen` as GRUB makes one for an initrd, and `nodes` beside it.
fn tree_of_grub(cells: Option<u32>, nodes: &[&str]) -> Vec<u8> {
    let mut tree = FdtWriter::new();
    tree.begin_node("");
    if let Some(cells) = cells {
        tree.property_u32("#address-cells", cells);
        tree.property_u32("#size-cells", cells);
    }
    tree.begin_node("chosen");
    tree.property_u64("linux,initrd-start", 0x6b00_0000);
    tree.end_node();
    for node in nodes {
        tree.begin_node(node);
        tree.end_node();
    }
    tree.end_node();
    tree.finish().expect("it is small")
}

#[test]
fn a_tree_that_a_loader_made_keeps_what_it_says() {
    let (machine, captured) = survey(topologies::small());
    let plan = plan(&machine, &captured, &["kho-v4", BANNER], "").expect("it is made");
    let build = |other: &[u8]| {
        let mut memory = FakeMemory::new(RAM);
        let built = plan.build(&machine, &captured, 0x1234, &mut memory, Some(other));
        built.map(|(_, tree)| tree)
    };
    for (cells, size) in [(None, 16), (Some(2), 16), (Some(1), 8)] {
        let tree = build(&tree_of_grub(cells, &[])).expect("it is built");
        let tree = DeviceTree::new(&tree).expect("Linux can read it");
        let chosen = |name| tree.root_child_property("chosen", name).unwrap();
        assert_eq!(
            chosen("linux,initrd-start"),
            Some(&0x6b00_0000_u64.to_be_bytes()[..])
        );
        assert_eq!(chosen("linux,kho-fdt").map(<[u8]>::len), Some(size));
    }
    let refused = build(&tree_of_grub(None, &["memory@0"])).expect_err("it has a machine");
    assert!(refused.to_string().contains("'memory@0'"), "{refused}");
    let cut = &tree_of_grub(None, &[])[..60];
    build(cut).expect_err("it is cut off");
}

#[test]
fn a_place_that_is_no_memory_is_an_error() {
    let (machine, captured) = survey(topologies::small());
    let plan = plan(&machine, &captured, &["kho-v4", BANNER], "").expect("it is made");
    let mut memory = FakeMemory::new(RAM);
    // No memory where the plan has it.
    memory.map = UsableMemory::new(RangeSet::from_iter([KERNEL]), Vec::new());
    let built = plan.build(&machine, &captured, 0x1234, &mut memory, None);
    assert!(matches!(
        built,
        Err(ResidentError::Failed(HandoverError::Memory(_)))
    ));
}

use super::*;
use alloc::string::ToString;
use alloc::{format, vec};

use crate::pci::{BusRange, HostWindow, PhysAddr, WindowKind};

const QEMU: &[u8] = include_bytes!("../../tests/fixtures/device-trees/qemu-virt.dtb");
const QEMU_LOW: &[u8] =
    include_bytes!("../../tests/fixtures/device-trees/qemu-virt-highmem-off.dtb");
const SOC: &[u8] = include_bytes!("../../tests/fixtures/device-trees/soc.dtb");
const BAD_BRIDGES: &[u8] = include_bytes!("../../tests/fixtures/device-trees/bad-bridges.dtb");

fn machine(tree: &[u8]) -> Machine {
    Machine::from_device_tree(tree).unwrap()
}

fn region(base: u64, size: u64) -> Region {
    Region {
        base: PhysAddr(base),
        size,
    }
}

fn window(kind: WindowKind, pci_address: u64, cpu_address: u64, size: u64) -> HostWindow {
    HostWindow {
        kind,
        prefetchable: false,
        pci_address,
        cpu_address: PhysAddr(cpu_address),
        size,
    }
}

/// Writes a big-endian cell over the header field `index`.
fn with_header(tree: &[u8], index: usize, value: u32) -> Vec<u8> {
    let mut tree = tree.to_vec();
    tree[4 * index..4 * index + 4].copy_from_slice(&value.to_be_bytes());
    tree
}

/// Replaces `from` by `to`, which is as long, everywhere.
fn replaced(tree: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut tree = tree.to_vec();
    let places: Vec<usize> = (0..tree.len() - from.len())
        .filter(|&at| tree[at..].starts_with(from))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        tree[at..at + from.len()].copy_from_slice(to);
    }
    tree
}

#[test]
fn the_tree_of_qemu_is_read_completely() {
    let machine = machine(QEMU);
    assert_eq!(machine.warnings, Vec::<String>::new());
    assert_eq!(machine.memory, [region(0x4000_0000, 0x4000_0000)]);
    assert_eq!(machine.reservations, []);
    assert_eq!(machine.cpus, 1);
    assert_eq!(machine.model.as_deref(), Some("linux,dummy-virt"));
    assert_eq!(machine.bootargs, "");
    assert_eq!(machine.timer_frequency, None);
    assert_eq!(
        machine.lifeline,
        Lifeline {
            console: Some(Console {
                path: "/pl011@9000000".into(),
                kind: ConsoleKind::Pl011,
                base: PhysAddr(0x900_0000),
                size: 0x1000,
                register_shift: 2,
                access_width: 4,
            }),
            psci: Some(Conduit::Hvc),
        }
    );
    assert_eq!(
        machine.hosts,
        [HostBridge {
            name: "/pcie@10000000".into(),
            segment: 0,
            ecam_base: PhysAddr(0x40_1000_0000),
            ecam_size: 0x1000_0000,
            buses: BusRange {
                first: 0,
                last: 255
            },
            windows: vec![
                window(WindowKind::Io, 0, 0x3eff_0000, 0x1_0000),
                window(WindowKind::Memory32, 0x1000_0000, 0x1000_0000, 0x2eff_0000),
                window(
                    WindowKind::Memory64,
                    0x80_0000_0000,
                    0x80_0000_0000,
                    0x80_0000_0000
                ),
            ],
            preserve: false,
        }]
    );
}

#[test]
fn qemu_without_high_memory_has_its_ecam_below_four_gigabytes() {
    let machine = machine(QEMU_LOW);
    let [host] = machine.host_bridges().unwrap() else {
        panic!("{machine:?}")
    };
    assert_eq!(host.ecam_base, PhysAddr(0x3f00_0000));
    assert_eq!(host.buses, BusRange { first: 0, last: 15 });
    assert_eq!(host.windows.len(), 2);
}

#[test]
fn addresses_are_translated_through_all_buses() {
    let machine = machine(SOC);
    let console = machine.lifeline.console.unwrap();
    assert_eq!(console.path, "/soc/peripherals@80000000/serial@1000");
    assert_eq!(console.base, PhysAddr(0x1_8000_1000));
    assert_eq!(console.kind, ConsoleKind::Ns16550);
    assert_eq!((console.register_shift, console.access_width), (2, 4));

    let host = &machine.hosts[0];
    assert_eq!(host.name, "/soc/pcie@40000000");
    assert_eq!(host.ecam_base, PhysAddr(0x1_4000_0000));
    assert_eq!(
        host.buses,
        BusRange {
            first: 16,
            last: 31
        }
    );
    let prefetchable = HostWindow {
        prefetchable: true,
        ..window(
            WindowKind::Memory64,
            0x8_0000_0000,
            0x1_7000_0000,
            0x800_0000,
        )
    };
    assert_eq!(
        host.windows,
        [
            window(WindowKind::Io, 0, 0x1_5000_0000, 0x1_0000),
            window(
                WindowKind::Memory32,
                0x8000_0000,
                0x1_6000_0000,
                0x1000_0000
            ),
            prefetchable,
        ]
    );
    assert_eq!(
        machine.warnings,
        [
            "/soc/pcie@40000000: the window at PCI address 0xa0000000 is left out: /soc does not forward 0x10000000 bytes at 0xd8000000 to the processor"
        ]
    );
}

#[test]
fn segments_come_from_the_tree_or_are_the_lowest_that_are_free() {
    let machine = machine(SOC);
    let segments: Vec<_> = machine
        .hosts
        .iter()
        .map(|host| (host.name.as_str(), host.segment))
        .collect();
    assert_eq!(
        segments,
        [
            ("/soc/pcie@40000000", 1),
            ("/pcie@9000000000", 0),
            ("/pcie@9200000000", 0x1002),
            ("/pcie@9300000000", 2),
        ]
    );
}

#[test]
fn the_probe_only_setting_of_a_host_bridge_hides_that_of_chosen() {
    let preserved: Vec<bool> = machine(SOC)
        .hosts
        .iter()
        .map(|host| host.preserve)
        .collect();
    assert_eq!(preserved, [false, true, true, true]);
}

#[test]
fn memory_reservations_and_modules_are_all_found() {
    let machine = machine(SOC);
    assert_eq!(
        machine.memory,
        [
            region(0x80_8000_0000, 0x1_0000_0000),
            region(0xffff_fff0_0000, 0x10_0000)
        ]
    );
    let reservation = |base, size, kind| Reservation {
        region: region(base, size),
        kind,
    };
    assert_eq!(
        machine.reservations,
        [
            reservation(0x80_8000_0000, 0x1_0000, ReservationKind::MemReserve),
            reservation(0x80_9000_0000, 1, ReservationKind::MemReserve),
            reservation(0x80_b000_0000, 0x200_0000, ReservationKind::Module),
            reservation(0x80_c000_0000, 0x10_0000, ReservationKind::NoMap),
            reservation(0x80_d000_0000, 0x20_0000, ReservationKind::ReservedMemory),
            reservation(0x80_a000_0000, 0x10_0000, ReservationKind::Initrd),
        ]
    );
    assert_eq!(
        machine.mappable_memory(),
        [
            region(0x80_8000_0000, 0x4000_0000),
            region(0x80_c010_0000, 0xbff0_0000),
            region(0xffff_fff0_0000, 0x10_0000),
        ]
    );
    assert_eq!(
        machine.free_memory(&[region(0x80_d010_0000, 0x1_0000_0000)]),
        [
            region(0x80_8001_0000, 0xfff_0000),
            region(0x80_9000_0001, 0xfff_ffff),
            region(0x80_a010_0000, 0xff0_0000),
            region(0x80_b200_0000, 0xe00_0000),
            region(0x80_c010_0000, 0xff0_0000),
            region(0xffff_fff0_0000, 0x10_0000),
        ]
    );
    assert_eq!(
        (machine.cpus, machine.timer_frequency),
        (2, Some(24_000_000))
    );
    assert_eq!(machine.model.as_deref(), Some("Test SoC"));
    assert_eq!(machine.lifeline.psci, Some(Conduit::Smc));
    assert_eq!(machine.bootargs, "console=ttyS0 warmbus.loglevel=debug");
}

#[test]
fn only_whole_pages_of_a_region_count() {
    let pages = |base, size| region(base, size).whole_pages(0x1000);
    assert_eq!(pages(0x1000, 0x2000), Some(region(0x1000, 0x2000)));
    assert_eq!(pages(0x1001, 0x2000), Some(region(0x2000, 0x1000)));
    assert_eq!(pages(0xfff, 0x2001), Some(region(0x1000, 0x2000)));
    assert_eq!(pages(0x1001, 0x1ffe), None);
    assert_eq!(pages(0x1fff, 1), None);
    assert_eq!(pages(0x2000, 0xfff), None);
    assert_eq!(
        pages(u64::MAX - 0x1fff, 0x2000),
        Some(region(u64::MAX - 0x1fff, 0x2000))
    );
    assert_eq!(
        pages(u64::MAX - 0x1ffe, 0x1fff),
        Some(region(u64::MAX - 0xfff, 0x1000))
    );
    assert_eq!(pages(u64::MAX - 1, 1), None);
}

#[test]
fn a_bridge_that_cannot_be_used_is_left_out_with_its_reason() {
    let machine = machine(BAD_BRIDGES);
    assert_eq!(machine.hosts.len(), 1);
    assert_eq!(machine.refused_hosts, 11);
    assert_eq!(machine.hosts[0].windows.len(), 1);
    assert!(!machine.hosts[0].preserve);
    let expected = [
        "/pcie@4000000000: linux,pci-probe-only has 0 bytes instead of 4 and is ignored",
        "/pcie@4000000000: the window at PCI address 0x18000000 is left out: it overlaps the window at PCI address 0x10000000",
        "/pcie@4000000000: the window at PCI address 0x50000000 is left out: it overlaps memory 0x40000000-0x7fffffff",
        "/pcie@4000000000: the window at PCI address 0xf0000000 is left out: 0x20000000 bytes at 0xf0000000 go past the last address",
        "/pcie@4000000000: the window at PCI address 0xfffffffff0000000 is left out: 0x20000000 bytes at 0xfffffffff0000000 go past the last address",
        "/pcie@4000000000: the window at PCI address 0x7000000000 is left out: 0x20000000 bytes at 0xfffffffff0000000 go past the last address",
        "/overlaps-good is left out: its ECAM window 0x4007f00000-0x4017efffff overlaps 0x4000000000-0x4007ffffff of /pcie@4000000000",
        "/same-buses is left out: buses 7f-80 of segment 0000 already belong to /pcie@4000000000",
        "/too-small is left out: its ECAM window of 0xfffff bytes is too small for buses 05-05, which need 0x100000",
        "/bad-buses is left out: its bus-range from 9 to 8 is not within 0 to 255",
        "/many-buses is left out: its bus-range from 0 to 256 is not within 0 to 255",
        "/no-reg is left out: it has no reg property",
        "/wraps is left out: 0x10000000 bytes at 0xfffffffff8000000 go past the last address",
        "/misaligned is left out: its ECAM window at 0x4500000004 is not page-aligned",
        "/in-memory is left out: its ECAM window 0x48000000-0x57ffffff overlaps memory 0x40000000-0x7fffffff",
        "/cut-off-reg is left out: the reg property of /cut-off-reg cannot be read as addresses and sizes (12 bytes)",
        "/island/pcie is left out: /island does not forward 0x10000000 bytes at 0x4700000000 to the processor",
    ];
    assert_eq!(machine.warnings, expected);
}

#[test]
fn a_tree_without_host_bridge_is_a_machine_without_host_bridges() {
    let tree = replaced(QEMU, b"pci-host-ecam-generic", b"pci-host-xxxx-generic");
    let machine = machine(&tree);
    assert_eq!(
        machine.host_bridges().unwrap_err().to_string(),
        "the device tree has no pci-host-ecam-generic host bridge"
    );
}

#[test]
fn what_is_no_device_tree_is_refused_with_the_numbers() {
    let error = |tree: &[u8]| Machine::from_device_tree(tree).unwrap_err().to_string();
    let size = QEMU.len();
    assert_eq!(
        error(&[]),
        "there is no device tree: 0 bytes are fewer than a header has"
    );
    assert_eq!(
        error(&QEMU[..39]),
        "there is no device tree: 39 bytes are fewer than a header has"
    );
    assert_eq!(
        error(&with_header(QEMU, 0, 0x1234)),
        "there is no device tree: it starts with 0x00001234 instead of 0xd00dfeed"
    );
    assert_eq!(
        error(&QEMU[..size - 1]),
        format!(
            "the device tree is cut off: it announces {size} bytes and {} are there",
            size - 1
        )
    );
    assert_eq!(
        error(&with_header(QEMU, 5, 16)),
        "the device tree is of version 16, compatible with 16; version 17 is understood"
    );
    assert_eq!(
        error(&with_header(QEMU, 2, 0xffff_fffc)),
        format!(
            "the structure block of the device tree ({} bytes at 0xfffffffc) is not inside its {size} bytes",
            u32::from_be_bytes(QEMU[36..40].try_into().unwrap())
        )
    );
    assert!(error(&with_header(QEMU, 8, u32::MAX)).starts_with("the strings block"));
    assert!(error(&with_header(QEMU, 9, 4)).starts_with("the structure block"));
    let no_memory = replaced(QEMU, b"memory\0", b"memori\0");
    assert_eq!(error(&no_memory), "the device tree names no memory");
}

#[test]
fn a_damaged_tree_still_gives_the_console_that_comes_before_the_damage() {
    // An invalid token in place of the end of the root node.
    let at = u32::from_be_bytes(QEMU[8..12].try_into().unwrap()) as usize
        + u32::from_be_bytes(QEMU[36..40].try_into().unwrap()) as usize
        - 8;
    let mut tree = QEMU.to_vec();
    tree[at..at + 4].copy_from_slice(&0xbad_u32.to_be_bytes());
    let error = Machine::from_device_tree(&tree).unwrap_err();
    assert!(matches!(error, MachineError::Structure { .. }), "{error}");
    assert_eq!(
        Lifeline::from_device_tree(&tree),
        Lifeline::from_device_tree(QEMU)
    );
}

#[test]
fn nodes_that_are_nested_too_deeply_are_refused() {
    // What QEMU made, with 5000 nested nodes in front of the end of the root.
    let field = |index: usize| {
        u32::from_be_bytes(QEMU[4 * index..4 * index + 4].try_into().unwrap()) as usize
    };
    let end = field(2) + field(9) - 8;
    let mut tree = QEMU[..end].to_vec();
    tree.extend([0, 0, 0, 1, b'n', 0, 0, 0].repeat(5000));
    tree.extend([0, 0, 0, 2].repeat(5000));
    tree.extend_from_slice(&QEMU[end..]);
    let added = 12 * 5000;
    for index in [1, 3, 9] {
        tree = with_header(&tree, index, (field(index) + added) as u32);
    }
    let error = Machine::from_device_tree(&tree).unwrap_err();
    assert!(matches!(error, MachineError::TooDeep { .. }), "{error}");
}

#[test]
fn a_tree_with_absurdly_many_reservations_is_refused_and_not_worked_through() {
    // The reservation block moves to the end, where it can be long.
    let mut tree = with_header(SOC, 4, SOC.len() as u32);
    for index in 1..2000_u64 {
        tree.extend((index << 16).to_be_bytes());
        tree.extend(1_u64.to_be_bytes());
    }
    tree.extend([0; 16]);
    let tree = with_header(&tree, 1, tree.len() as u32);
    assert_eq!(
        Machine::from_device_tree(&tree).unwrap_err().to_string(),
        "the device tree has more than 1024 memory reservations"
    );
}

#[test]
fn no_mutation_of_a_tree_makes_the_reader_panic_or_break_its_promises() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |limit: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % limit as u64) as usize
    };
    let mut readable = 0;
    for round in 0..24_000 {
        let mut tree = [QEMU, QEMU_LOW, SOC, BAD_BRIDGES][round % 4].to_vec();
        for _ in 0..=random(4) {
            let at = random(tree.len());
            let word = at & !3;
            match random(7) {
                0 => tree[at] ^= 1 << random(8),
                1 => tree[at] = random(256) as u8,
                2 if word + 4 <= tree.len() => {
                    let cell = [0, 1, 2, 3, 4, 9, 0x7fff_ffff, u32::MAX, tree.len() as u32];
                    let cell = cell[random(cell.len())];
                    tree[word..word + 4].copy_from_slice(&cell.to_be_bytes());
                }
                3 => {
                    let (from, length) = (random(tree.len()), random(64));
                    for index in 0..length.min(tree.len() - at).min(tree.len() - from) {
                        tree[at + index] = tree[from + index];
                    }
                }
                4 => tree[at % 40] = random(256) as u8,
                5 => tree.truncate(at.max(1)),
                _ => tree[at] = 0,
            }
        }
        let Ok(machine) = Machine::from_device_tree(&tree) else {
            continue;
        };
        readable += 1;
        assert!(!machine.memory.is_empty());
        for pair in machine.memory.windows(2) {
            assert!(pair[0].last().0 < pair[1].base.0, "{machine:?}");
        }
        for host in &machine.hosts {
            let buses = u64::from(host.buses.last - host.buses.first) + 1;
            assert!(host.ecam_size >= buses << 20, "{host:?}");
            assert!(host.ecam_base.0.checked_add(host.ecam_size - 1).is_some());
            for window in &host.windows {
                assert!(window.pci_address.checked_add(window.size - 1).is_some());
                assert!(window.cpu_address.0.checked_add(window.size - 1).is_some());
            }
        }
    }
    // Most mutations hit something small; if nothing is readable the test
    // says nothing.
    assert!((4_000..24_000).contains(&readable), "{readable}");
}

#[test]
fn consoles_are_found_by_path_and_by_alias_with_their_register_layout() {
    let second = replaced(SOC, b"serial0:115200n8", b"serial1\0\0\0\0\0\0\0\0\0");
    let console = Lifeline::from_device_tree(&second).console.unwrap();
    assert_eq!(console.path, "/soc/serial@f0000000");
    assert_eq!(console.base, PhysAddr(0x5_1000_0000));
    assert_eq!((console.register_shift, console.access_width), (0, 1));

    let by_path = replaced(SOC, b"serial0:115200n8", b"/soc/serial:1\0\0\0");
    assert_eq!(
        Lifeline::from_device_tree(&by_path).console.as_ref(),
        Some(&console)
    );
    for nowhere in [
        b"serial9\0",
        b"/soc/ser",
        b"/\0\0\0\0\0\0\0",
        b"\0\0\0\0\0\0\0\0",
    ] {
        let tree = replaced(SOC, b"serial0:", nowhere);
        let tree = replaced(&tree, b"115200n8", &[0; 8]);
        assert_eq!(Lifeline::from_device_tree(&tree).console, None);
    }
}

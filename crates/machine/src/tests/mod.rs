mod acpi;
mod acpi_damage;
mod acpi_hosts;
mod acpi_roots;
mod consoles;
mod damage;
mod host_bridges;
mod memory;
mod mixed_hosts;
mod monitors;

use super::*;
use alloc::format;
use alloc::string::ToString;

use warmbus_memory::{MemoryRange, RamRegion};
use warmbus_pci::{BusRange, CamLayout, HostWindow, Mechanism, PhysAddr, WindowKind};

const QEMU: &[u8] = include_bytes!("../../../../tests/fixtures/device-trees/qemu-virt.dtb");
const QEMU_LOW: &[u8] =
    include_bytes!("../../../../tests/fixtures/device-trees/qemu-virt-highmem-off.dtb");
const SOC: &[u8] = include_bytes!("../../../../tests/fixtures/device-trees/soc.dtb");
const BAD_BRIDGES: &[u8] =
    include_bytes!("../../../../tests/fixtures/device-trees/bad-bridges.dtb");

fn machine(tree: &[u8]) -> Machine {
    Machine::from_device_tree(tree).unwrap()
}

fn region(base: u64, size: u64) -> MemoryRange {
    MemoryRange::new(PhysAddr(base), size)
}

fn in_node(base: u64, size: u64, node: u32) -> RamRegion {
    let range = region(base, size);
    RamRegion { range, node }
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
    assert_eq!(machine.memory[..], [region(0x4000_0000, 0x4000_0000)]);
    assert_eq!(machine.reservations, []);
    assert_eq!(machine.cpus, 1);
    assert_eq!(machine.model.as_deref(), Some("linux,dummy-virt"));
    assert_eq!(machine.bootargs, "");
    assert_eq!(machine.timer_frequency, None);
    assert_eq!(
        machine.early_devices,
        EarlyDevices {
            console: Some(Console {
                path: "/pl011@9000000".into(),
                kind: ConsoleKind::Pl011,
                base: PhysAddr(0x900_0000),
                size: 0x1000,
                register_shift: 2,
                access_width: 4,
            }),
            psci: Psci::By(PsciConduit::Hvc),
        }
    );
    assert_eq!(
        machine.hosts,
        [HostBridge::ecam(
            0,
            PhysAddr(0x40_1000_0000),
            BusRange {
                first: 0,
                last: 255
            }
        )
        .with_name("/pcie@10000000")
        .with_window(window(WindowKind::Io, 0, 0x3eff_0000, 0x1_0000))
        .with_window(window(
            WindowKind::Memory32,
            0x1000_0000,
            0x1000_0000,
            0x2eff_0000
        ))
        .with_window(window(
            WindowKind::Memory64,
            0x80_0000_0000,
            0x80_0000_0000,
            0x80_0000_0000
        ))]
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
    let console = machine.early_devices.console.unwrap();
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
            "/soc/pcie@40000000: the window at PCI address 0xa0000000 is excluded: /soc does not forward 0x10000000 bytes at 0xd8000000 to the processor"
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
        .map(|host| host.preserve_config)
        .collect();
    assert_eq!(preserved, [false, true, true, true]);
}

#[test]
fn memory_reservations_and_modules_are_all_found() {
    let machine = machine(SOC);
    assert_eq!(
        machine.memory[..],
        [
            region(0x80_8000_0000, 0x1_0000_0000),
            region(0xffff_fff0_0000, 0x10_0000)
        ]
    );
    let reservation = |base, size, kind| Reservation {
        range: region(base, size),
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
        machine.mappable_memory()[..],
        [
            region(0x80_8000_0000, 0x4000_0000),
            region(0x80_c010_0000, 0xbff0_0000),
            region(0xffff_fff0_0000, 0x10_0000),
        ]
    );
    assert_eq!(
        machine.free_memory(&[region(0x80_d010_0000, 0x1_0000_0000)])[..],
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
    assert_eq!(machine.early_devices.psci, Psci::By(PsciConduit::Smc));
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
fn a_bridge_that_cannot_be_used_is_excluded_with_its_reason() {
    let machine = machine(BAD_BRIDGES);
    assert_eq!(machine.hosts.len(), 1);
    assert_eq!(machine.unusable_host_bridges, 11);
    assert_eq!(machine.hosts[0].windows.len(), 1);
    assert!(!machine.hosts[0].preserve_config);
    let expected = [
        "/pcie@4000000000: linux,pci-probe-only has 0 bytes instead of 4 and is ignored",
        "/pcie@4000000000: the window at PCI address 0x18000000 is excluded: it overlaps the window at PCI address 0x10000000",
        "/pcie@4000000000: the window at PCI address 0x50000000 is excluded: it overlaps memory 0x40000000-0x7fffffff",
        "/pcie@4000000000: the window at PCI address 0xf0000000 is excluded: 0x20000000 bytes at 0xf0000000 go past the last address",
        "/pcie@4000000000: the window at PCI address 0xfffffffff0000000 is excluded: 0x20000000 bytes at 0xfffffffff0000000 go past the last address",
        "/pcie@4000000000: the window at PCI address 0x7000000000 is excluded: 0x20000000 bytes at 0xfffffffff0000000 go past the last address",
        "/overlaps-good is excluded: its window 0x4007f00000-0x4017efffff overlaps 0x4000000000-0x4007ffffff of /pcie@4000000000",
        "/same-buses is excluded: segment 0000 already belongs to /pcie@4000000000",
        "/too-small is excluded: its window of 0xfffff bytes is too small for buses 05-05, which need 0x100000",
        "/bad-buses is excluded: its bus-range from 9 to 8 is not within 0 to 255",
        "/many-buses is excluded: its bus-range from 0 to 256 is not within 0 to 255",
        "/no-reg is excluded: it has no reg property",
        "/wraps is excluded: 0x10000000 bytes at 0xfffffffff8000000 go past the last address",
        "/misaligned is excluded: its window at 0x4500000004 is not page-aligned",
        "/in-memory is excluded: its window 0x48000000-0x57ffffff overlaps memory 0x40000000-0x7fffffff",
        "/cut-off-reg is excluded: the reg property of /cut-off-reg cannot be read as addresses and sizes (12 bytes)",
        "/island/pcie is excluded: /island does not forward 0x10000000 bytes at 0x4700000000 to the processor",
    ];
    assert_eq!(machine.warnings, expected);
}

#[test]
fn a_tree_without_host_bridge_is_a_machine_without_host_bridges() {
    let tree = replaced(QEMU, b"pci-host-ecam-generic", b"pci-host-xxxx-generic");
    let machine = machine(&tree);
    assert_eq!(
        machine.host_bridges().unwrap_err().to_string(),
        "the PCI host bridge of the machine description cannot be used"
    );
    assert_eq!(
        machine.warnings,
        ["/pcie@10000000 is excluded: pci-host-xxxx-generic is not supported"]
    );
    let error = MachineError::NoHostBridge { unusable: 0 };
    assert_eq!(
        error.to_string(),
        "the machine description has no PCI host bridge"
    );
}

#[test]
fn consoles_are_found_by_path_and_by_alias_with_their_register_layout() {
    let second = replaced(SOC, b"serial0:115200n8", b"serial1\0\0\0\0\0\0\0\0\0");
    let console = EarlyDevices::from_device_tree(&second).console.unwrap();
    assert_eq!(console.path, "/soc/serial@f0000000");
    assert_eq!(console.base, PhysAddr(0x5_1000_0000));
    assert_eq!((console.register_shift, console.access_width), (0, 1));

    let by_path = replaced(SOC, b"serial0:115200n8", b"/soc/serial:1\0\0\0");
    assert_eq!(
        EarlyDevices::from_device_tree(&by_path).console.as_ref(),
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
        assert_eq!(EarlyDevices::from_device_tree(&tree).console, None);
    }
}

#[test]
fn memory_of_several_nodes_keeps_its_node_and_is_joined_only_within_it() {
    let mut tree = vm_fdt::FdtWriter::new().unwrap();
    let root = tree.begin_node("").unwrap();
    tree.property_u32("#address-cells", 2).unwrap();
    tree.property_u32("#size-cells", 2).unwrap();
    for (base, node) in [
        (0xc000_0000, Some(1)),
        (0x4000_0000, Some(0)),
        (0x8000_0000, None),
        (0x1_0000_0000, Some(7)),
    ] {
        let memory = tree.begin_node(&format!("memory@{base:x}")).unwrap();
        tree.property_string("device_type", "memory").unwrap();
        tree.property_array_u64("reg", &[base, 0x4000_0000])
            .unwrap();
        if let Some(node) = node {
            tree.property_u32("numa-node-id", node).unwrap();
        }
        tree.end_node(memory).unwrap();
    }
    tree.end_node(root).unwrap();
    let machine = machine(&tree.finish().unwrap());
    assert_eq!(machine.memory[..], [region(0x4000_0000, 0x1_0000_0000)]);
    let mut nodes = machine.memory_nodes;
    nodes.sort_by_key(|region| region.range);
    assert_eq!(
        nodes,
        [
            in_node(0x4000_0000, 0x8000_0000, 0),
            in_node(0xc000_0000, 0x4000_0000, 1),
            in_node(0x1_0000_0000, 0x4000_0000, 7),
        ]
    );
}

//! Ranges and bus numbers that Enhanced Allocation fixes (PCIe 7.8.5).

use warmbus_pci::{BarKind, HostWindow, Sbdf, Width};
use warmbus_pcie_sim::{
    BarModel, EaEntry, Fabric, FunctionModel, HostId, SrIovModel, io_window, memory32_window,
};

use crate::{
    ALL_WINDOWS, GIB, HIGH, KIB, LOW, MIB, Machine, at, endpoint, integrated, root_port, set_up,
};

const F: Sbdf = Sbdf::new(0, 0, 1, 0);

/// Primary Properties (PCIe 7.8.5.3, table of their values).
const MEMORY: u8 = 0;
const PREFETCHABLE: u8 = 1;
const IO: u8 = 2;
const VF_PREFETCHABLE: u8 = 3;
const VF_MEMORY: u8 = 4;

const fn entry(bei: u8, properties: u8, base: u64, size: u64) -> EaEntry {
    EaEntry {
        bei,
        properties,
        base,
        size,
    }
}

/// A host bridge with 1 MiB of memory, 8 KiB of I/O and the usual high memory.
const NARROW: HostWindow = memory32_window(0x1000_0000, MIB);

fn narrow() -> (Fabric, HostId) {
    Fabric::with_windows(&[io_window(0x1000, 8 * KIB), NARROW, HIGH])
}

/// Index, kind, prefetchability, address and size of each fixed range.
fn fixed(machine: &Machine) -> Vec<(u8, BarKind, bool, u64, u64)> {
    let bars = machine.function(F).bars.iter().filter(|bar| bar.fixed);
    bars.map(|bar| {
        let address = bar.address.expect("it is fixed");
        let size = bar.size.expect("it is fixed");
        (bar.index, bar.kind, bar.prefetchable, address, size)
    })
    .collect()
}

#[test]
fn every_form_of_an_entry_is_read() {
    let entries = [
        entry(0, MEMORY, 0x1000_0000, 0x3000),
        entry(1, IO, 0x1000, 0x20),
        entry(2, PREFETCHABLE, 0x80_0000_0000, 16 * KIB),
        entry(4, PREFETCHABLE, 0x88_0000_0000, 8 * GIB),
        entry(8, MEMORY, 0x1001_0000, 2 * KIB),
    ];
    let (mut fabric, host) = narrow();
    let model = integrated(1)
        .writable(4, Width::Word, 7)
        .enhanced_allocation(&entries, (0, 0));
    fabric.add_root(host, 1, 0, model);
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    let expected = [
        (0, BarKind::Memory64, false, 0x1000_0000, 0x3000),
        (1, BarKind::Io, false, 0x1000, 0x20),
        (2, BarKind::Memory64, true, 0x80_0000_0000, 16 * KIB),
        (4, BarKind::Memory64, true, 0x88_0000_0000, 8 * GIB),
        (6, BarKind::Rom, false, 0x1001_0000, 2 * KIB),
    ];
    assert_eq!(fixed(&machine), expected);
    assert_eq!(machine.reported(F), [""; 0]);
    assert_eq!(machine.register(F, 4, Width::Word) & 7, 3);
    for (index, _, _, _, size) in expected {
        assert!(machine.decodes(F, index, size), "BAR {index}");
    }
    assert_eq!((machine.outcome.assigned, machine.outcome.disabled), (5, 0));
}

#[test]
fn fixed_ranges_are_not_assigned_to_others() {
    let entries = [
        entry(0, MEMORY, NARROW.pci_address, 64 * KIB),
        entry(1, MEMORY, NARROW.pci_address + 256 * KIB, 64 * KIB),
        entry(2, IO, 0x1000, 4 * KIB),
        entry(3, PREFETCHABLE, HIGH.pci_address, 4 * GIB),
    ];
    let (mut fabric, host) = narrow();
    let model = integrated(1)
        .writable(4, Width::Word, 7)
        .enhanced_allocation(&entries, (0, 0));
    fabric.add_root(host, 1, 0, model);
    for (device, size) in (2..).zip([128 * KIB, 512 * KIB]) {
        let model = integrated(2)
            .bar(0, BarModel::memory32(size))
            .bar(1, BarModel::io(2 * KIB))
            .bar(2, BarModel::memory64(GIB).prefetchable());
        fabric.add_root(host, device, 0, model);
    }
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    assert_eq!(fixed(&machine).len(), 4);
    for device in 2..4 {
        let function = at(0, device, 0);
        let memory = machine.address(function, 0).expect("it fits");
        assert!(memory >= NARROW.pci_address + 64 * KIB, "{memory:#x}");
        let io = machine.address(function, 1).expect("it fits");
        assert!(io >= 0x2000, "{io:#x}");
        let high = machine.address(function, 2).expect("it fits");
        assert!(high >= HIGH.pci_address + 4 * GIB, "{high:#x}");
    }
}

#[test]
fn what_a_fixed_range_leaves_of_a_window_is_assigned() {
    const HALF: u64 = MIB / 2;
    let start = NARROW.pci_address;
    // First address and bytes of a fixed range; where half a MiB goes then.
    for (base, size, expected) in [
        (start, 4 * KIB, Some(HALF)),
        (start, HALF, Some(HALF)),
        (start - 64 * KIB, 68 * KIB, Some(HALF)),
        (start - 64 * KIB, 64 * KIB, Some(0)),
        (start + MIB - 4 * KIB, 4 * KIB, Some(0)),
        (start + MIB - 4 * KIB, MIB, Some(0)),
        (start + MIB, MIB, Some(0)),
        (start + HALF, 4 * KIB, Some(0)),
        (start + HALF - 4 * KIB, 4 * KIB, Some(HALF)),
        (start + HALF - 4 * KIB, 8 * KIB, None),
        (start, MIB, None),
        (start - MIB, 4 * MIB, None),
    ] {
        let (mut fabric, host) = narrow();
        // It decodes nothing, so that it may be outside of the window.
        let model = integrated(1).enhanced_allocation(&[entry(0, MEMORY, base, size)], (0, 0));
        fabric.add_root(host, 1, 0, model);
        let other = integrated(2).bar(0, BarModel::memory32(HALF));
        fabric.add_root(host, 2, 0, other);
        let machine = set_up(fabric);
        let found = machine.address(at(0, 2, 0), 0);
        let expected = expected.map(|offset| start + offset);
        assert_eq!(found, expected, "{size:#x} bytes from {base:#x} are fixed");
    }
}

#[test]
fn a_fixed_vf_range_is_kept_free_for_every_vf() {
    for (properties, prefetchable) in [(VF_MEMORY, false), (VF_PREFETCHABLE, true)] {
        let entries = [entry(9, properties, NARROW.pci_address, 16 * KIB)];
        let sriov = SrIovModel {
            total_vfs: 8,
            ..SrIovModel::default()
        };
        let (mut fabric, host) = narrow();
        let model = integrated(1)
            .writable(4, Width::Word, 7)
            .enhanced_allocation(&entries, (0, 0))
            .sriov(sriov, FunctionModel::virtual_function(0));
        fabric.add_root(host, 1, 0, model);
        let other = integrated(2).bar(0, BarModel::memory32(16 * KIB));
        fabric.add_root(host, 2, 0, other);
        let mut machine = set_up(fabric);
        let base = NARROW.pci_address;
        let expected = [(7, BarKind::VfMemory64, prefetchable, base, 16 * KIB)];
        assert_eq!(fixed(&machine), expected);
        let other = machine.address(at(0, 2, 0), 0).expect("it fits");
        assert_eq!(other, base + 8 * 16 * KIB);
        machine.assert_consistent();
    }
}

#[test]
fn entries_for_vf_bars_have_the_resource_numbers_of_vf_bars() {
    let entries: Vec<EaEntry> = (9..=14)
        .map(|bei| {
            let base = NARROW.pci_address + u64::from(bei - 9) * 64 * KIB;
            entry(bei, VF_MEMORY, base, 4 * KIB)
        })
        .collect();
    let sriov = SrIovModel {
        total_vfs: 2,
        ..SrIovModel::default()
    };
    let (mut fabric, host) = narrow();
    let model = integrated(1)
        .enhanced_allocation(&entries, (0, 0))
        .sriov(sriov, FunctionModel::virtual_function(0));
    fabric.add_root(host, 1, 0, model);
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    let found: Vec<(u8, u64)> = fixed(&machine).iter().map(|bar| (bar.0, bar.3)).collect();
    let expected: Vec<(u8, u64)> = (7..=12).zip(entries.iter().map(|one| one.base)).collect();
    assert_eq!(found, expected);
}

#[test]
fn an_entry_that_is_disabled_or_stands_for_no_bar_fixes_nothing() {
    let base = NARROW.pci_address;
    // The capability is at 0x7c, the first entry at 0x80: Enable is bit 31.
    for entries in [
        [
            entry(0, MEMORY, base, 64 * KIB),
            entry(1, MEMORY, base, 0x1000),
        ],
        [entry(6, 5, base, 64 * KIB), entry(1, MEMORY, base, 0x1000)],
        [
            entry(7, MEMORY, base, 64 * KIB),
            entry(1, MEMORY, base, 0x1000),
        ],
        [
            entry(15, MEMORY, base, 64 * KIB),
            entry(1, MEMORY, base, 0x1000),
        ],
        [entry(0, 5, base, 64 * KIB), entry(1, MEMORY, base, 0x1000)],
        [
            entry(0, 0xfd, base, 64 * KIB),
            entry(1, MEMORY, base, 0x1000),
        ],
        [
            entry(0, 0xff, base, 64 * KIB),
            entry(1, MEMORY, base, 0x1000),
        ],
    ] {
        let is_first = entries[0].bei == 0 && entries[0].properties == MEMORY;
        let mut model = integrated(1)
            .writable(4, Width::Word, 7)
            .place_at(0x7c)
            .enhanced_allocation(&entries, (0, 0));
        if is_first {
            model = model.set(0x83, Width::Byte, 0);
        }
        let (mut fabric, host) = narrow();
        fabric.add_root(host, 1, 0, model);
        let mut machine = set_up(fabric);
        machine.assert_consistent();
        let expected = [(1, BarKind::Memory64, false, base, 0x1000)];
        assert_eq!(fixed(&machine), expected, "{:?}", entries[0]);
        assert_eq!(machine.reported(F), [""; 0]);
    }
}

#[test]
fn entries_beyond_the_first_256_bytes_are_not_read() {
    let base = NARROW.pci_address;
    let entries = [
        entry(0, MEMORY, base, 0x1000),
        entry(1, MEMORY, base + 0x1000, 0x1000),
    ];
    // Two entries of 12 bytes end at 0x100.
    for (count, expected) in [(2, 2), (3, 2), (63, 2)] {
        let model = integrated(1)
            .place_at(0xe4)
            .enhanced_allocation(&entries, (0, 0))
            .set(0xe6, Width::Byte, count)
            // What an entry at 0x100 would be: enabled, for BAR 2.
            .set(0x100, Width::Dword, 0x80ff_0022)
            .set(0x104, Width::Dword, 0x1002_0000)
            .set(0x108, Width::Dword, 0xffc);
        let (mut fabric, host) = narrow();
        fabric.add_root(host, 1, 0, model);
        let machine = set_up(fabric);
        let found: Vec<u8> = fixed(&machine).iter().map(|bar| bar.0).collect();
        assert_eq!(found.len(), expected, "{found:?}");
        let reported: Vec<String> = machine.reported(F);
        let text = "Enhanced Allocation entry at 100 leaves the first 256 bytes";
        assert_eq!(reported.iter().any(|one| one == text), count > 2);
        assert_eq!(
            reported.iter().filter(|one| one.contains("entry")).count(),
            usize::from(count > 2)
        );
    }
}

#[test]
fn a_last_entry_that_is_longer_than_what_is_left_is_not_read() {
    let base = NARROW.pci_address;
    let (mut fabric, host) = narrow();
    let entries = [
        entry(0, MEMORY, base, 0x1000),
        entry(1, MEMORY, base, 0x1000),
    ];
    let model = integrated(1)
        .place_at(0xe4)
        .enhanced_allocation(&entries, (0, 0))
        // Entry Size of the second one: three dwords follow, the last at 0x100.
        .set(0xf4, Width::Byte, 0x13);
    fabric.add_root(host, 1, 0, model);
    let machine = set_up(fabric);
    assert_eq!(fixed(&machine).len(), 1);
    let text = "Enhanced Allocation entry at f4 leaves the first 256 bytes";
    assert_eq!(machine.reported(F), [text]);
}

#[test]
fn a_bar_that_is_fixed_is_not_probed_and_its_neighbours_are() {
    let base = NARROW.pci_address;
    let entries = [
        entry(1, MEMORY, base, 64 * KIB),
        entry(8, MEMORY, base + 64 * KIB, 2 * KIB),
    ];
    let (mut fabric, host) = narrow();
    fabric.log_mut().record();
    let model = integrated(1)
        .bar(0, BarModel::memory32(4 * KIB))
        .bar(2, BarModel::memory32(8 * KIB))
        .enhanced_allocation(&entries, (0, 0));
    let node = fabric.add_root(host, 1, 0, model);
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    let mut bars: Vec<(u8, bool)> = Vec::new();
    bars.extend(
        machine
            .function(F)
            .bars
            .iter()
            .map(|bar| (bar.index, bar.fixed)),
    );
    assert_eq!(bars, [(0, false), (1, true), (2, false), (6, true)]);
    let entries = machine.fabric().log().entries().iter();
    let written: Vec<u16> = entries
        .filter(|access| access.write && access.node == Some(node))
        .map(|access| access.offset.get())
        .collect();
    assert!(
        !written.contains(&0x14) && !written.contains(&0x30),
        "{written:x?}"
    );
    for index in 0..3 {
        assert!(machine.decodes(F, index, [4 * KIB, 64 * KIB, 8 * KIB][usize::from(index)]));
    }
}

#[test]
fn a_rom_is_probed_unless_it_is_fixed_itself() {
    let base = NARROW.pci_address;
    for (bei, index) in [(1, 1), (8, 6)] {
        let (mut fabric, host) = narrow();
        let model = integrated(1)
            .rom(4 << 10)
            .enhanced_allocation(&[entry(bei, MEMORY, base, 64 * KIB)], (0, 0));
        fabric.add_root(host, 1, 0, model);
        let machine = set_up(fabric);
        assert!(machine.bar(F, index).is_some_and(|bar| bar.fixed));
        let rom = machine.bar(F, 6).expect("it has a ROM");
        assert_eq!(rom.fixed, bei == 8);
        let register = machine.register(F, 0x30, Width::Dword);
        let expected = if bei == 8 { Some(0) } else { rom.address };
        assert_eq!(Some(u64::from(register)), expected);
    }
}

#[test]
fn high_memory_that_is_fixed_as_a_whole_is_none() {
    let (mut fabric, host) = narrow();
    let whole = entry(0, PREFETCHABLE, HIGH.pci_address, HIGH.size);
    let model = integrated(1).enhanced_allocation(&[whole], (0, 0));
    fabric.add_root(host, 1, 0, model);
    let other = integrated(2).bar(0, BarModel::memory64(64 * KIB).prefetchable());
    fabric.add_root(host, 2, 0, other);
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    assert!(machine.decodes(at(0, 2, 0), 0, 64 * KIB));
}

#[test]
fn entries_of_a_bridge_follow_its_bus_numbers() {
    let (mut fabric, host) = Fabric::with_windows(&[LOW, HIGH]);
    let entries = [entry(0, MEMORY, LOW.pci_address, 64 * KIB)];
    let model = root_port(ALL_WINDOWS).enhanced_allocation(&entries, (0, 0));
    let port = fabric.add_root(host, 1, 0, model);
    let model = endpoint(7).bar(0, BarModel::memory32(MIB));
    fabric.add_below(port, 0, 0, model);
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    let expected = (0, BarKind::Memory64, false, LOW.pci_address, 64 * KIB);
    assert_eq!(fixed(&machine), [expected]);
    let memory = machine.bridge(F).memory.expect("open");
    assert_eq!(memory.base(), LOW.pci_address + MIB);
    assert!(machine.decodes(at(1, 0, 0), 0, MIB));
}

#[test]
fn a_range_that_ends_at_the_last_address_has_no_size() {
    let (mut fabric, host) = narrow();
    let model = integrated(1).enhanced_allocation(
        &[
            entry(0, MEMORY, 0, u64::MAX),
            entry(1, MEMORY, NARROW.pci_address, 0x1000),
        ],
        (0, 0),
    );
    fabric.add_root(host, 1, 0, model);
    let machine = set_up(fabric);
    let bar = machine.bar(F, 0).expect("it is read");
    assert_eq!((bar.address, bar.size), (Some(0), None));
    assert_eq!(machine.bar(F, 1).and_then(|bar| bar.size), Some(0x1000));
}

//! Window registers of bridges: what is probed, written, closed, and reported
//! where a register does not hold what was written.

use warmbus_boot::unassigned::unassigned_below;
use warmbus_pci::{Sbdf, Width};
use warmbus_pcie_sim::{BarModel, BridgeWindows, Fabric, FunctionModel};

use crate::{
    ALL_WINDOWS, HIGH, IO, KIB, LOW, MIB, Machine, at, below_port, endpoint, is_inside, root_port,
    set_up,
};

const PORT: Sbdf = Sbdf::new(0, 0, 1, 0);

/// An endpoint that needs all three windows.
fn model() -> FunctionModel {
    endpoint(7)
        .bar(0, BarModel::memory32(MIB))
        .bar(1, BarModel::io(0x20))
        .bar(2, BarModel::memory64(MIB).prefetchable())
}

/// `port` at 00:01.0 with such an endpoint below, and a healthy pair beside.
fn beside(port: FunctionModel) -> Machine {
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    let port = fabric.add_root(host, 1, 0, port);
    fabric.add_below(port, 0, 0, model());
    below_port(&mut fabric, host, 2, ALL_WINDOWS, model());
    let machine = set_up(fabric);
    let neighbor = at(2, 0, 0);
    assert_eq!(machine.reported(neighbor), [""; 0]);
    assert_eq!(machine.reported(at(0, 2, 0)), [""; 0]);
    for (index, size) in [(0, MIB), (1, 0x20), (2, MIB)] {
        assert!(machine.decodes(neighbor, index, size), "BAR {index}");
    }
    machine
}

#[test]
fn every_window_register_holds_the_range_that_the_topology_has() {
    let mut machine = beside(root_port(ALL_WINDOWS));
    machine.assert_consistent();
    for device in 1..3 {
        let port = at(0, device, 0);
        let bridge = machine.bridge(port);
        let io = bridge.io.expect("open");
        let io_register = u64::from(machine.register(port, 0x1c, Width::Word));
        assert_eq!((io_register & 0xf0) << 8, io.base());
        assert_eq!(io_register & 0xf000 | 0xfff, io.limit());
        let memory = bridge.memory.expect("open");
        let register = u64::from(machine.register(port, 0x20, Width::Dword));
        assert_eq!((register & 0xfff0) << 16, memory.base());
        assert_eq!(register & 0xfff0_0000 | 0xf_ffff, memory.limit());
        let prefetchable = bridge.prefetchable.expect("open");
        let register = u64::from(machine.register(port, 0x24, Width::Dword));
        let upper = |at| u64::from(machine.register(port, at, Width::Dword)) << 32;
        assert_eq!(upper(0x28) | (register & 0xfff0) << 16, prefetchable.base());
        let limit = upper(0x2c) | register & 0xfff0_0000 | 0xf_ffff;
        assert_eq!(limit, prefetchable.limit());
        assert!(is_inside(&HIGH, prefetchable.base(), MIB));
        assert_eq!(machine.register(port, 4, Width::Word) & 7, 3);
    }
}

#[test]
fn io_windows_of_16_and_of_32_bits_are_used_alike() {
    for io_bits in [16, 32] {
        let windows = BridgeWindows {
            io_bits,
            prefetchable_bits: 64,
        };
        let mut machine = beside(root_port(windows));
        machine.assert_consistent();
        assert!(machine.decodes(at(1, 0, 0), 1, 0x20));
        assert_eq!(machine.all_reported(), [""; 0]);
    }
}

#[test]
fn windows_that_a_bridge_does_not_have_are_no_fault_of_it() {
    let windows = BridgeWindows {
        io_bits: 0,
        prefetchable_bits: 0,
    };
    let mut machine = beside(root_port(windows));
    machine.assert_consistent();
    assert_eq!(machine.reported(PORT), [""; 0]);
    let bridge = machine.bridge(PORT);
    assert_eq!((bridge.io, bridge.prefetchable), (None, None));
    // The I/O BAR has no address, which disables that space alone.
    assert_eq!(machine.address(at(1, 0, 0), 1), None);
    assert!(machine.decodes(at(1, 0, 0), 0, MIB));
    let address = machine.address(at(1, 0, 0), 2).expect("it fits");
    assert!(is_inside(&LOW, address, MIB));
    // Nor does it get one where prefetchable windows share the low memory.
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW]);
    below_port(&mut fabric, host, 1, windows, model());
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    assert_eq!(machine.bridge(PORT).prefetchable, None);
}

#[test]
fn a_hardwired_memory_window_is_reported_with_both_values() {
    for hardwired in [0x3ff0_3000, 0x0000_0000, 0x0000_fff0, 0xffff_ffff] {
        let port = root_port(ALL_WINDOWS).hardwired(0x20, Width::Dword, hardwired);
        let machine = beside(port);
        let planned = machine.bridge(PORT).memory.expect("it was planned");
        let wrote = planned.base() >> 16 | planned.limit() & 0xfff0_0000;
        let expected =
            format!("memory window is hardwired: wrote {wrote:08x}, read {hardwired:08x}");
        assert_eq!(machine.reported(PORT), std::slice::from_ref(&expected));
        // The BAR below is not where the bridge forwards to: nothing may take
        // this assignment as it is.
        let gap = unassigned_below(&machine.topology, 0).expect("a gap");
        assert_eq!((gap.function, gap.reason.to_string()), (PORT, expected));
        let checked = machine.checked();
        assert!(
            checked
                .iter()
                .any(|text| text.contains("is outside of what")),
            "{hardwired:08x}: {checked:?}"
        );
    }
}

#[test]
fn a_memory_window_hardwired_to_what_is_written_is_not_reported() {
    let machine = beside(root_port(ALL_WINDOWS));
    let value = machine.register(PORT, 0x20, Width::Dword);
    let port = root_port(ALL_WINDOWS).hardwired(0x20, Width::Dword, value);
    let mut machine = beside(port);
    assert_eq!(machine.all_reported(), [""; 0]);
    machine.assert_consistent();
}

#[test]
fn a_hardwired_prefetchable_window_is_reported_and_not_used() {
    for hardwired in [0x3ff1_3001, 0x3ff0_3000, 0xffff_ffff, 0x1000_0000] {
        let port = root_port(ALL_WINDOWS).hardwired(0x24, Width::Dword, hardwired);
        let machine = beside(port);
        let expected =
            format!("prefetchable window is hardwired: wrote 0000fff0, read {hardwired:08x}");
        assert_eq!(machine.reported(PORT), [expected]);
        assert_eq!(machine.bridge(PORT).prefetchable, None);
        let address = machine.address(at(1, 0, 0), 2).expect("it fits below");
        assert!(is_inside(&LOW, address, MIB), "{address:#x}");
        let memory = machine.bridge(PORT).memory.expect("open");
        assert!(memory.base() <= address && address + MIB - 1 <= memory.limit());
        assert!(unassigned_below(&machine.topology, 0).is_some());
    }
}

#[test]
fn an_upper_half_that_does_not_hold_its_value_is_reported_with_all_four_values() {
    for (offset, hardwired) in [(0x28, 0), (0x28, 0x81), (0x2c, 0), (0x2c, 0xffff_ffff)] {
        let port = root_port(ALL_WINDOWS).hardwired(offset, Width::Dword, hardwired);
        let machine = beside(port);
        let (base, limit) = if offset == 0x28 {
            (hardwired, 0x80)
        } else {
            (0x80, hardwired)
        };
        let expected = format!(
            "upper half of the prefetchable window does not stick: wrote 00000080 and 00000080, read {base:08x} and {limit:08x}"
        );
        assert_eq!(machine.reported(PORT), [expected]);
        assert!(unassigned_below(&machine.topology, 0).is_some());
    }
}

#[test]
fn windows_that_a_loader_left_open_are_closed_where_nothing_is_assigned() {
    let (mut fabric, host) = Fabric::with_windows(&[HIGH]);
    let port = fabric.add_root(host, 1, 0, root_port(ALL_WINDOWS));
    fabric.add_below(port, 0, 0, endpoint(7));
    let windows_of_loader = [
        (0x1c, 0xf0f0),
        (0x20, 0x3ff0_3000),
        (0x24, 0x3ff1_3001),
        (0x28, 0x12),
        (0x2c, 0x12),
    ];
    for (offset, value) in windows_of_loader {
        let width = if offset == 0x1c {
            Width::Word
        } else {
            Width::Dword
        };
        fabric.poke(port, offset, width, value);
    }
    fabric.poke(port, 4, Width::Word, 7);
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    assert_eq!(machine.bridge(PORT).io, None);
    assert_eq!(machine.bridge(PORT).memory, None);
    assert_eq!(machine.register(PORT, 0x1c, Width::Word), 0x00f0);
    assert_eq!(machine.register(PORT, 0x20, Width::Dword), 0x0000_fff0);
    let bridge = machine.bridge(PORT);
    let window = bridge.prefetchable.expect("the port gets one of its own");
    assert_eq!(
        (window.base(), window.limit()),
        (0x80_0000_0000, 0x80_000f_ffff)
    );

    // Without memory for them the prefetchable window is closed, too.
    let (mut fabric, host) = Fabric::with_windows(&[]);
    let port = fabric.add_root(host, 1, 0, root_port(ALL_WINDOWS));
    for (offset, value) in &windows_of_loader[1..] {
        fabric.poke(port, *offset, Width::Dword, *value);
    }
    fabric.poke(port, 4, Width::Word, 7);
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    assert_eq!(machine.register(PORT, 4, Width::Word) & 7, 0);
    assert_eq!(machine.register(PORT, 0x20, Width::Dword), 0x0000_fff0);
    assert_eq!(machine.register(PORT, 0x24, Width::Dword), 0x0001_fff1);
    assert_eq!(machine.register(PORT, 0x28, Width::Dword), 0);
    assert_eq!(machine.register(PORT, 0x2c, Width::Dword), 0);
}

#[test]
fn io_windows_are_given_in_granules_of_4_kib() {
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW]);
    for device in 1..4 {
        below_port(&mut fabric, host, device, ALL_WINDOWS, model());
    }
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    let mut windows = [1, 2, 3].map(|device| {
        let io = machine.bridge(at(0, device, 0)).io.expect("open");
        (io.base(), io.limit())
    });
    windows.sort_unstable();
    let expected = [0x1000, 0x2000, 0x3000].map(|base| (base, base + 4 * KIB - 1));
    assert_eq!(windows, expected);
}

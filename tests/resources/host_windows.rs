//! Host bridges with narrow, low, prefetchable and unsorted windows.

use warmbus_pci::{HostWindow, Width};
use warmbus_pcie_sim::{
    BarModel, BridgeWindows, Fabric, FunctionModel, devices, io_window, memory32_window,
    memory64_window, prefetchable_window,
};

use crate::{
    ALL_WINDOWS, GIB, HIGH, IO, KIB, LOW, MIB, Machine, at, below_port, endpoint, hot_plug_port,
    integrated, is_inside, root_port, set_up,
};

const FOUR_GIB: u64 = 4 * GIB;

/// `count` ports, each with an endpoint that has one I/O BAR.
fn io_devices(count: u8, window: HostWindow) -> Machine {
    let (mut fabric, host) = Fabric::with_windows(&[window, LOW, HIGH]);
    for device in 1..=count {
        let model = endpoint(7).bar(0, BarModel::io(0x20));
        below_port(&mut fabric, host, device, ALL_WINDOWS, model);
    }
    set_up(fabric)
}

/// The addresses of BAR 0 of the endpoints of [`io_devices`], in order.
fn io_addresses(machine: &Machine, count: u8) -> Vec<u64> {
    let found = (1..=count).map(|bus| machine.address(at(bus, 0, 0), 0));
    let mut found: Vec<u64> = found.flatten().collect();
    found.sort_unstable();
    found
}

#[test]
fn io_beyond_64_kib_is_not_assigned_since_bridges_decode_16_bits() {
    let mut machine = io_devices(20, io_window(0, 128 * KIB));
    machine.assert_consistent();
    // The first 4 KiB stay free for what decodes ports of the PC unasked.
    let expected: Vec<u64> = (1..16).map(|n| n * 4 * KIB).collect();
    assert_eq!(io_addresses(&machine, 20), expected);
    let reported = machine.all_reported();
    assert_eq!(reported.len(), 5, "{reported:?}");
    for text in reported {
        let reason = "BAR 0 (io, 0x20 bytes) does not fit and stays disabled; the largest free range is 0x0 bytes";
        assert!(text.ends_with(reason), "{text}");
    }
}

#[test]
fn an_io_window_that_starts_at_64_kib_is_of_no_use() {
    let mut machine = io_devices(2, io_window(64 * KIB, 64 * KIB));
    machine.assert_consistent();
    assert_eq!(io_addresses(&machine, 2), [0; 0]);
    assert_eq!(machine.all_reported().len(), 2);
    assert_eq!(machine.bridge(at(0, 1, 0)).io, None);
}

#[test]
fn a_narrow_io_window_is_assigned_to_its_last_granule_and_not_beyond() {
    let mut machine = io_devices(3, io_window(0x8000, 8 * KIB));
    machine.assert_consistent();
    assert_eq!(io_addresses(&machine, 3), [0x8000, 0x9000]);
    let mut machine = io_devices(1, io_window(0, 4 * KIB));
    machine.assert_consistent();
    assert_eq!(io_addresses(&machine, 1), [0; 0]);
}

#[test]
fn the_first_mebibyte_of_a_memory_window_from_0_stays_free() {
    for window in [memory32_window(0, 16 * MIB), memory64_window(0, 16 * MIB)] {
        let (mut fabric, host) = Fabric::with_windows(&[window]);
        fabric.add_root(host, 1, 0, integrated(1).bar(0, BarModel::memory32(0x1000)));
        let model = endpoint(7).bar(0, BarModel::memory32(0x1000));
        below_port(&mut fabric, host, 2, ALL_WINDOWS, model);
        let mut machine = set_up(fabric);
        machine.assert_consistent();
        assert_eq!(machine.address(at(1, 0, 0), 0), Some(MIB));
        for function in [at(0, 1, 0), at(1, 0, 0)] {
            let address = machine.address(function, 0).expect("it fits");
            assert!(address >= MIB, "{function} at {address:#x}");
            assert!(machine.decodes(function, 0, 0x1000), "{function}");
        }
        assert_eq!(machine.outcome.disabled, 0);
    }
}

#[test]
fn a_bar_that_is_not_prefetchable_is_never_put_into_a_prefetchable_window() {
    const PLAIN: HostWindow = memory32_window(0x4000_0000, 16 * MIB);
    for prefetchable in [
        memory32_window(0x8000_0000, 512 * MIB),
        memory64_window(0x8000_0000, 512 * MIB),
    ] {
        let prefetchable = prefetchable_window(prefetchable);
        for windows in [[PLAIN, prefetchable], [prefetchable, PLAIN]] {
            let (mut fabric, host) = Fabric::with_windows(&windows);
            let large = integrated(1).bar(0, BarModel::memory32(64 * MIB));
            fabric.add_root(host, 1, 0, large);
            let wide = integrated(2).bar(0, BarModel::memory64(64 * MIB));
            fabric.add_root(host, 2, 0, wide);
            let small = endpoint(3).bar(0, BarModel::memory32(MIB));
            below_port(&mut fabric, host, 3, ALL_WINDOWS, small);
            let mut machine = set_up(fabric);
            machine.assert_consistent();
            assert_eq!(machine.address(at(0, 1, 0), 0), None);
            assert_eq!(machine.address(at(0, 2, 0), 0), None);
            let small = machine.address(at(1, 0, 0), 0).expect("it fits");
            assert!(is_inside(&PLAIN, small, MIB), "{small:#x}");
            let memory = machine.bridge(at(0, 3, 0)).memory.expect("it is open");
            assert!(is_inside(
                &PLAIN,
                memory.base(),
                memory.limit() - memory.base() + 1
            ));
            let reported = machine.reported(at(0, 1, 0));
            assert_eq!(reported.len(), 1, "{reported:?}");
            assert!(reported[0].contains("0x4000000 bytes"), "{reported:?}");
        }
    }
}

#[test]
fn a_high_prefetchable_window_serves_prefetchable_bars_only() {
    let high = prefetchable_window(HIGH);
    let (mut fabric, host) = Fabric::with_windows(&[LOW, high]);
    let model = integrated(1)
        .bar(0, BarModel::memory64(MIB))
        .bar(2, BarModel::memory64(MIB).prefetchable());
    fabric.add_root(host, 1, 0, model);
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    let plain = machine.address(at(0, 1, 0), 0).expect("it fits");
    assert!(is_inside(&LOW, plain, MIB), "{plain:#x}");
    let prefetchable = machine.address(at(0, 1, 0), 2).expect("it fits");
    assert!(is_inside(&high, prefetchable, MIB), "{prefetchable:#x}");
}

#[test]
fn a_high_window_that_is_not_prefetchable_serves_every_64_bit_bar_of_the_root_bus() {
    let (mut fabric, host) = Fabric::with_windows(&[LOW, HIGH]);
    let model = integrated(1)
        .bar(0, BarModel::memory64(MIB))
        .bar(2, BarModel::memory32(MIB));
    fabric.add_root(host, 1, 0, model);
    // Below a bridge only the prefetchable window reaches beyond 4 GiB.
    let below = endpoint(2).bar(0, BarModel::memory64(MIB));
    below_port(&mut fabric, host, 2, ALL_WINDOWS, below);
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    let wide = machine.address(at(0, 1, 0), 0).expect("it fits");
    assert!(is_inside(&HIGH, wide, MIB), "{wide:#x}");
    let narrow = machine.address(at(0, 1, 0), 2).expect("it fits");
    assert!(is_inside(&LOW, narrow, MIB), "{narrow:#x}");
    let below = machine.address(at(1, 0, 0), 0).expect("it fits");
    assert!(is_inside(&LOW, below, MIB), "{below:#x}");
}

#[test]
fn a_window_across_4_gib_never_yields_a_range_across_4_gib() {
    for window in [
        memory64_window(3 * GIB, 4 * GIB),
        memory32_window(3 * GIB, 4 * GIB),
        memory64_window(FOUR_GIB - 512 * MIB, GIB + 512 * MIB),
    ] {
        let (mut fabric, host) = Fabric::with_windows(&[window]);
        let wide = endpoint(7).bar(0, BarModel::memory64(GIB).prefetchable());
        below_port(&mut fabric, host, 1, ALL_WINDOWS, wide);
        let narrow = endpoint(8).bar(0, BarModel::memory32(256 * MIB));
        below_port(&mut fabric, host, 2, ALL_WINDOWS, narrow);
        let mut machine = set_up(fabric);
        machine.assert_consistent();
        if let Some(address) = machine.address(at(2, 0, 0), 0) {
            assert!(address + 256 * MIB <= FOUR_GIB, "{address:#x}");
        }
        let address = machine.address(at(1, 0, 0), 0);
        if window.kind == HIGH.kind {
            let address = address.expect("there is room above 4 GiB");
            assert!(is_inside(&window, address, GIB), "{address:#x}");
            assert!(machine.decodes(at(1, 0, 0), 0, GIB));
        }
        let ranges = [1, 2].map(|device| machine.bridge(at(0, device, 0)));
        for range in ranges.iter().flat_map(|b| [b.memory, b.prefetchable]) {
            let Some(range) = range else { continue };
            assert_eq!(
                range.base() < FOUR_GIB,
                range.limit() < FOUR_GIB,
                "{range:x?}"
            );
        }
    }
}

#[test]
fn a_64_bit_bar_below_a_32_bit_prefetchable_window_is_assigned_below_4_gib() {
    let narrow = |prefetchable_bits| BridgeWindows {
        io_bits: 16,
        prefetchable_bits,
    };
    let model = || endpoint(7).bar(0, BarModel::memory64(64 * MIB).prefetchable());
    for prefetchable_bits in [0, 32] {
        // Right below such a bridge, and below one that is below such a bridge.
        for (outer, inner) in [
            (narrow(prefetchable_bits), ALL_WINDOWS),
            (ALL_WINDOWS, narrow(prefetchable_bits)),
        ] {
            let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
            let port = fabric.add_root(host, 1, 0, root_port(outer));
            let bridge = FunctionModel::bridge(0x1234, 6, inner);
            let bridge = fabric.add_below(port, 0, 0, bridge);
            fabric.add_below(bridge, 0, 0, model());
            let mut machine = set_up(fabric);
            machine.assert_consistent();
            let address = machine.address(at(2, 0, 0), 0).expect("it fits");
            assert!(is_inside(&LOW, address, 64 * MIB), "{address:#x}");
            assert!(machine.decodes(at(2, 0, 0), 0, 64 * MIB));
        }
    }
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    below_port(&mut fabric, host, 1, ALL_WINDOWS, model());
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    let address = machine.address(at(1, 0, 0), 0).expect("it fits");
    assert!(is_inside(&HIGH, address, 64 * MIB), "{address:#x}");
}

#[test]
fn without_memory_above_4_gib_prefetchable_windows_get_what_memory_leaves() {
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW]);
    fabric.add_root(host, 2, 0, hot_plug_port());
    let model = endpoint(7)
        .bar(0, BarModel::memory32(MIB))
        .bar(2, BarModel::memory64(MIB).prefetchable());
    below_port(&mut fabric, host, 1, ALL_WINDOWS, model);
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    assert_eq!(machine.all_reported(), [""; 0]);
    let bridge = machine.bridge(at(0, 2, 0));
    let window = bridge.prefetchable.expect("it is open");
    assert_eq!(window.limit() - window.base() + 1, 2 * MIB);
    assert!(is_inside(&LOW, window.base(), 2 * MIB), "{window:x?}");
    let memory = bridge.memory.expect("it is open");
    assert!(window.base() > memory.limit() || window.limit() < memory.base());
    assert_eq!(machine.register(at(0, 2, 0), 0x28, Width::Dword), 0);
    for index in [0, 2] {
        assert!(machine.decodes(at(1, 0, 0), index, MIB), "BAR {index}");
    }
}

#[test]
fn a_32_bit_prefetchable_window_stays_closed_where_its_host_has_memory_above_4_gib() {
    let windows = BridgeWindows {
        io_bits: 16,
        prefetchable_bits: 32,
    };
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    below_port(&mut fabric, host, 1, windows, endpoint(7));
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    assert_eq!(machine.bridge(at(0, 1, 0)).prefetchable, None);
    let register = machine.register(at(0, 1, 0), 0x24, Width::Dword);
    assert_eq!(register, 0x0000_fff0);
    // With nothing above 4 GiB it is opened.
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW]);
    below_port(&mut fabric, host, 1, windows, endpoint(7));
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    let window = machine.bridge(at(0, 1, 0)).prefetchable.expect("open");
    assert!(is_inside(&LOW, window.base(), MIB));
}

#[test]
fn with_memory_above_4_gib_only_a_port_forwards_its_prefetchable_window() {
    let (mut fabric, host) = Fabric::with_windows(&[HIGH]);
    let model = endpoint(7).bar(0, BarModel::memory64(MIB).prefetchable());
    below_port(&mut fabric, host, 1, ALL_WINDOWS, model);
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    assert_eq!(machine.bridge(at(0, 1, 0)).memory, None);
    assert_eq!(machine.bridge(at(0, 1, 0)).io, None);
    // Memory Space Enable alone: there is no I/O window.
    assert_eq!(machine.register(at(0, 1, 0), 4, Width::Word) & 3, 2);
    assert_eq!(machine.register(at(0, 1, 0), 0x20, Width::Dword), 0xfff0);
    assert!(machine.decodes(at(1, 0, 0), 0, MIB));
}

#[test]
fn windows_are_used_from_the_lowest_address_on_whatever_their_order() {
    let low = memory32_window(0x1000_0000, 2 * MIB);
    let high = memory32_window(0x4000_0000, 16 * MIB);
    for windows in [[low, high], [high, low]] {
        let (mut fabric, host) = Fabric::with_windows(&windows);
        for (device, size) in (1..).zip([8 * MIB, MIB, MIB, MIB]) {
            let model = integrated(1).bar(0, BarModel::memory32(size));
            fabric.add_root(host, device, 0, model);
        }
        let mut machine = set_up(fabric);
        machine.assert_consistent();
        let found = [1, 2, 3, 4].map(|device| machine.address(at(0, device, 0), 0));
        let expected = [0x4000_0000, 0x1000_0000, 0x1010_0000, 0x4080_0000].map(Some);
        assert_eq!(found, expected);
    }
}

#[test]
fn a_bar_in_a_space_that_a_bridge_does_not_forward_is_reported_as_such() {
    let windows = BridgeWindows {
        io_bits: 0,
        prefetchable_bits: 64,
    };
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    below_port(&mut fabric, host, 1, windows, devices::old_network());
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    assert_eq!(machine.address(at(1, 0, 0), 2), None);
    let expected =
        "BAR 2 (io, 0x20 bytes) stays disabled; a bridge above it does not forward that space";
    assert_eq!(machine.reported(at(1, 0, 0)), [expected]);
    assert_eq!((machine.outcome.assigned, machine.outcome.disabled), (4, 1));

    // A bridge further up does not forward it either.
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    let port = fabric.add_root(host, 1, 0, root_port(windows));
    let inner = FunctionModel::bridge(0x1234, 6, ALL_WINDOWS);
    let inner = fabric.add_below(port, 0, 0, inner);
    fabric.add_below(inner, 0, 0, devices::old_network());
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    assert_eq!(machine.reported(at(2, 0, 0)), [expected]);
    assert_eq!(machine.bridge(at(1, 0, 0)).io, None);
}

//! The checker of finished assignments, rule by rule: bus numbers, and which
//! bus and space two ranges share. Each rule is broken once and seen reported
//! with its numbers; the nearest neighbors that keep to it are accepted.

use warmbus_pci::{
    BusRange, ConfigAccess, ConfigOffset, ConfigSpace, KnownRegisters, Sbdf, Width,
    verify_assignment,
};
use warmbus_pcie_sim::{BarModel, Fabric, FunctionModel, devices, memory32_window};
use warmbus_pcsc::ConfigCache;

use crate::{
    ALL_WINDOWS, HIGH, IO, KIB, LOW, MIB, Machine, at, below_port, endpoint, integrated, root_port,
    set_up,
};

/// A root port with a switch that has one port in use, and a conventional
/// bridge.
///
/// 00:01.0 buses 01-03, 01:00.0 buses 02-03, 02:00.0 bus 03; 00:02.0 bus 04.
fn tree() -> Machine {
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    let root = fabric.add_root(host, 1, 0, root_port(ALL_WINDOWS));
    let upstream = fabric.add_below(root, 0, 0, devices::upstream_port());
    let down = crate::port(warmbus_pci::PortType::DownstreamPort, ALL_WINDOWS);
    let down = fabric.add_below(upstream, 0, 0, down);
    fabric.add_below(down, 0, 0, endpoint(7));
    let conventional = FunctionModel::bridge(0x1234, 6, ALL_WINDOWS);
    fabric.add_root(host, 2, 0, conventional);
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    machine
}

/// Writes a dword of a function through the cache and captures it again.
pub(crate) fn write(machine: &mut Machine, function: Sbdf, offset: u16, value: u32) {
    let offset = ConfigOffset::wrapping(offset);
    machine.config.write(function, offset, Width::Dword, value);
    machine.config.capture(function);
}

/// What the checker finds where `function` has these bus numbers. They are put
/// in on the way to the checker: the cache would evict what is on these buses.
fn after_numbers(function: Sbdf, primary: u8, secondary: u8, subordinate: u8) -> Vec<String> {
    let machine = tree();
    let numbers = u32::from_le_bytes([primary, secondary, subordinate, 0]);
    let known = |of: Sbdf, offset: ConfigOffset, width: Width| {
        let value = machine.config.known(of, offset, width)?;
        let lane = offset.get().checked_sub(0x18);
        let lane = lane.filter(|&lane| of == function && lane < 4);
        Some(lane.map_or(value, |lane| numbers >> (8 * lane) & width.ones()))
    };
    let found = verify_assignment(&machine.topology, &known);
    found.iter().map(ToString::to_string).collect()
}

const DOWN: Sbdf = Sbdf::new(0, 2, 0, 0);
const CONVENTIONAL: Sbdf = Sbdf::new(0, 0, 2, 0);

#[test]
fn bus_numbers_that_nest_are_accepted() {
    assert_eq!(after_numbers(DOWN, 2, 3, 3), [""; 0]);
    // Up to the last bus of the host bridge, one bus or all.
    for (secondary, subordinate) in [(4, 4), (4, 0xff), (0xff, 0xff)] {
        let found = after_numbers(CONVENTIONAL, 0, secondary, subordinate);
        assert_eq!(found, [""; 0], "{secondary:02x} to {subordinate:02x}");
    }
}

#[test]
fn buses_below_two_bridges_of_one_bus_are_reported() {
    // 00:01.0 has buses 01 to 03.
    for (secondary, subordinate) in [(1, 1), (2, 2), (3, 4), (1, 0xff)] {
        let found = after_numbers(CONVENTIONAL, 0, secondary, subordinate);
        let text = "are also below 0000:00:01.0, which has 01 to 03";
        let expected = format!("0000:00:02.0: buses {secondary:02x} to {subordinate:02x} {text}");
        assert_eq!(found, [expected]);
    }
    // 02:00.0 has bus 03, as 00:01.0 has: one is below the other.
    assert_eq!(after_numbers(DOWN, 2, 3, 3), [""; 0]);
}

#[test]
fn memory_that_is_only_forwarded_as_prefetchable_is_reported() {
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    let model = endpoint(7)
        .bar(0, BarModel::memory32(MIB))
        .bar(2, BarModel::memory32(MIB).prefetchable());
    let port = fabric.add_root(host, 1, 0, root_port(ALL_WINDOWS));
    fabric.add_below(port, 0, 0, model);
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    let closed = 0x0000_fff0;
    write(&mut machine, at(0, 1, 0), 0x20, closed);
    write(&mut machine, at(0, 1, 0), 0x24, 0x1030_1000);
    write(&mut machine, at(0, 1, 0), 0x28, 0);
    write(&mut machine, at(0, 1, 0), 0x2c, 0);
    write(&mut machine, at(1, 0, 0), 0x10, 0x1000_0000);
    write(&mut machine, at(1, 0, 0), 0x18, 0x1010_0008);
    let text = "BAR 0x10000000 to 0x100fffff is not prefetchable, but only a prefetchable window forwards it";
    assert_eq!(machine.checked(), [format!("0000:01:00.0: {text}")]);
    // A host window of this sort is the same.
    let (mut fabric, host) = Fabric::with_windows(&[LOW]);
    fabric.add_root(host, 1, 0, integrated(1).bar(0, BarModel::memory32(MIB)));
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    machine.change_host(|host| host.windows[0].prefetchable = true);
    assert_eq!(machine.checked(), [format!("0000:00:01.0: {text}")]);
    // A loader may know better.
    machine.change_host(|host| host.preserve_config = true);
    assert_eq!(machine.checked(), [""; 0]);
}

#[test]
fn a_bridge_without_a_secondary_bus_number_is_accepted() {
    for (primary, subordinate) in [(0, 0), (5, 0), (0, 7)] {
        let found = after_numbers(CONVENTIONAL, primary, 0, subordinate);
        assert_eq!(found, [""; 0], "{primary:02x}/00/{subordinate:02x}");
    }
}

#[test]
fn a_secondary_bus_that_is_not_above_the_bus_of_the_bridge_is_reported() {
    for (secondary, subordinate) in [(2, 3), (1, 3), (2, 2)] {
        let expected = format!(
            "0000:02:00.0: buses 02/{secondary:02x}/{subordinate:02x} do not nest in 02 to 03"
        );
        assert_eq!(after_numbers(DOWN, 2, secondary, subordinate), [expected]);
    }
}

#[test]
fn a_subordinate_bus_beyond_that_of_the_bridge_above_is_reported() {
    let expected = "0000:02:00.0: buses 02/03/04 do not nest in 02 to 03";
    assert_eq!(after_numbers(DOWN, 2, 3, 4), [expected]);
    let expected = "0000:02:00.0: buses 02/04/05 do not nest in 02 to 03";
    assert_eq!(after_numbers(DOWN, 2, 4, 5), [expected]);
}

#[test]
fn a_subordinate_bus_below_the_secondary_bus_is_reported() {
    let expected = "0000:00:02.0: buses 00/05/04 do not nest in 00 to ff";
    assert_eq!(after_numbers(CONVENTIONAL, 0, 5, 4), [expected]);
}

#[test]
fn a_primary_bus_of_a_conventional_bridge_that_is_not_its_own_is_reported() {
    let expected = "0000:00:02.0: buses 05/04/04 do not nest in 00 to ff";
    assert_eq!(after_numbers(CONVENTIONAL, 5, 4, 4), [expected]);
}

/// The same bridge below a host bridge of buses 10 to 14.
fn on_bus_10(secondary: u8, subordinate: u8) -> Vec<String> {
    let (mut fabric, host) = Fabric::with_buses(0x10, 0x14);
    let bridge = FunctionModel::bridge(0x1234, 6, ALL_WINDOWS);
    fabric.add_root(host, 2, 0, bridge);
    let mut machine = set_up(fabric);
    assert_eq!(machine.checked(), [""; 0]);
    let numbers = u32::from_le_bytes([0x10, secondary, subordinate, 0]);
    write(&mut machine, at(0x10, 2, 0), 0x18, numbers);
    machine.checked()
}

#[test]
fn bus_numbers_outside_of_the_host_bridge_are_reported() {
    assert_eq!(on_bus_10(0x11, 0x14), [""; 0]);
    for (secondary, subordinate) in [(0x11, 0x15), (0x10, 0x14), (0x0f, 0x12), (0x15, 0x15)] {
        let expected = format!(
            "0000:10:02.0: buses 10/{secondary:02x}/{subordinate:02x} do not nest in 10 to 14"
        );
        assert_eq!(on_bus_10(secondary, subordinate), [expected]);
    }
}

/// Functions on the root bus, each with one BAR of 1 MiB in the low window.
fn row(count: u8) -> Machine {
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    for device in 1..=count {
        let model = integrated(1)
            .bar(0, BarModel::memory32(MIB))
            .bar(1, BarModel::io(0x100));
        fabric.add_root(host, device, 0, model);
    }
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    machine
}

#[test]
fn two_ranges_that_meet_do_not_overlap_and_one_byte_more_does() {
    let mut machine = row(2);
    // 1 MiB each: at 0x20000000, then right behind, then the same.
    write(&mut machine, at(0, 1, 0), 0x10, 0x2000_0000);
    write(&mut machine, at(0, 2, 0), 0x10, 0x2010_0000);
    assert_eq!(machine.checked(), [""; 0]);
    write(&mut machine, at(0, 2, 0), 0x10, 0x1ff0_0000);
    assert_eq!(machine.checked(), [""; 0]);
    write(&mut machine, at(0, 2, 0), 0x10, 0x2000_0000);
    let found = machine.checked();
    assert_eq!(found.len(), 1, "{found:?}");
    for part in [
        "BAR 0x20000000 to 0x200fffff",
        " overlaps BAR 0x20000000 to 0x200fffff of 0000:00:0",
    ] {
        assert!(found[0].contains(part), "{found:?}");
    }
}

#[test]
fn ranges_that_share_their_last_byte_overlap() {
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    let sizes = [2 * MIB, MIB];
    for (device, size) in (1..).zip(sizes) {
        let model = integrated(1).bar(0, BarModel::memory32(size));
        fabric.add_root(host, device, 0, model);
    }
    let mut machine = set_up(fabric);
    write(&mut machine, at(0, 1, 0), 0x10, 0x2000_0000);
    write(&mut machine, at(0, 2, 0), 0x10, 0x2010_0000);
    let expected = "0000:00:02.0: BAR 0x20100000 to 0x201fffff overlaps BAR 0x20000000 to 0x201fffff of 0000:00:01.0";
    assert_eq!(machine.checked(), [expected]);
}

#[test]
fn a_range_behind_a_small_one_is_compared_with_the_large_one_before_it() {
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    for (device, size) in (1..).zip([16 * MIB, MIB, MIB]) {
        let model = integrated(1).bar(0, BarModel::memory32(size));
        fabric.add_root(host, device, 0, model);
    }
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    write(&mut machine, at(0, 1, 0), 0x10, 0x2000_0000);
    write(&mut machine, at(0, 2, 0), 0x10, 0x2010_0000);
    write(&mut machine, at(0, 3, 0), 0x10, 0x2080_0000);
    let expected = [
        "0000:00:02.0: BAR 0x20100000 to 0x201fffff overlaps BAR 0x20000000 to 0x20ffffff of 0000:00:01.0",
        "0000:00:03.0: BAR 0x20800000 to 0x208fffff overlaps BAR 0x20000000 to 0x20ffffff of 0000:00:01.0",
    ];
    assert_eq!(machine.checked(), expected);
    // Behind the large one there is no overlap with it.
    write(&mut machine, at(0, 3, 0), 0x10, 0x2100_0000);
    assert_eq!(machine.checked(), expected[..1]);
}

#[test]
fn a_longer_range_takes_the_place_of_the_one_that_it_overlaps() {
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    for (device, size) in (1..).zip([MIB, 16 * MIB, MIB]) {
        let model = integrated(1).bar(0, BarModel::memory32(size));
        fabric.add_root(host, device, 0, model);
    }
    let mut machine = set_up(fabric);
    write(&mut machine, at(0, 1, 0), 0x10, 0x2000_0000);
    write(&mut machine, at(0, 2, 0), 0x10, 0x2100_0000);
    write(&mut machine, at(0, 3, 0), 0x10, 0x2180_0000);
    let expected = "0000:00:03.0: BAR 0x21800000 to 0x218fffff overlaps BAR 0x21000000 to 0x21ffffff of 0000:00:02.0";
    assert_eq!(machine.checked(), [expected]);
}

#[test]
fn io_and_memory_at_the_same_numbers_do_not_overlap() {
    let (mut fabric, host) =
        Fabric::with_windows(&[IO, warmbus_pcie_sim::memory32_window(0, 512 * MIB), HIGH]);
    let model = integrated(1).bar(0, BarModel::memory32(0x100));
    fabric.add_root(host, 1, 0, model);
    let model = integrated(1).bar(0, BarModel::io(0x100));
    fabric.add_root(host, 2, 0, model);
    let mut machine = set_up(fabric);
    write(&mut machine, at(0, 1, 0), 0x10, 0x2000);
    write(&mut machine, at(0, 2, 0), 0x10, 0x2000);
    assert_eq!(machine.checked(), [""; 0]);
}

#[test]
fn io_ranges_overlap_each_other() {
    let mut machine = row(2);
    write(&mut machine, at(0, 1, 0), 0x14, 0x2000);
    write(&mut machine, at(0, 2, 0), 0x14, 0x2000);
    let found = machine.checked();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("BAR 0x2000 to 0x20ff overlaps BAR 0x2000 to 0x20ff of"));
    write(&mut machine, at(0, 2, 0), 0x14, 0x2100);
    assert_eq!(machine.checked(), [""; 0]);
}

#[test]
fn the_same_addresses_on_different_buses_or_hosts_do_not_overlap() {
    let mut fabric = Fabric::new();
    for segment in 0..2 {
        let buses = BusRange { first: 0, last: 8 };
        let host = fabric.add_host(Fabric::host_bridge(segment, buses));
        for device in 1..3 {
            let port = fabric.add_root(host, device, 0, root_port(ALL_WINDOWS));
            let model = endpoint(7).bar(0, BarModel::memory32(MIB));
            fabric.add_below(port, 0, 0, model);
        }
    }
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    let addresses: Vec<_> = machine
        .topology
        .functions()
        .iter()
        .map(|f| f.sbdf)
        .collect();
    assert_eq!(addresses.len(), 8);
    // The two endpoints of one host at one address: only the windows differ.
    let first = machine.address(at(1, 0, 0), 0).expect("it fits");
    let first = u32::try_from(first).expect("32 bits");
    write(&mut machine, at(2, 0, 0), 0x10, first);
    let found = machine.checked();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("is outside of what"), "{found:?}");
}

#[test]
fn ranges_of_other_hosts_buses_and_spaces_do_not_hide_an_overlap() {
    let mut fabric = Fabric::new();
    for segment in 0..2 {
        let buses = BusRange { first: 0, last: 8 };
        let mut bridge = Fabric::host_bridge(segment, buses);
        bridge.windows = vec![IO, memory32_window(0, 512 * MIB)];
        let host = fabric.add_host(bridge);
        let large = integrated(1).bar(0, BarModel::memory32(16 * MIB));
        fabric.add_root(host, 1, 0, large);
        let small = integrated(2)
            .bar(0, BarModel::memory32(4 * KIB))
            .bar(1, BarModel::io(0x100));
        fabric.add_root(host, 2, 0, small);
        let model = endpoint(3).bar(0, BarModel::memory32(4 * KIB));
        below_port(&mut fabric, host, 3, ALL_WINDOWS, model);
    }
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    let of = |segment, bus, device| Sbdf::new(segment, bus, device, 0);
    // From 16 MiB on 16 MiB; between that and 8 KiB further on is what is on
    // bus 1, in the other segment, or I/O.
    write(&mut machine, of(0, 0, 1), 0x10, 0);
    write(&mut machine, of(0, 0, 2), 0x14, 0x1000);
    write(&mut machine, of(0, 1, 0), 0x10, 0x2000);
    write(&mut machine, of(1, 0, 2), 0x10, 0x3000);
    write(&mut machine, of(0, 0, 2), 0x10, 0x4000);
    let found = machine.checked();
    let expected =
        "0000:00:02.0: BAR 0x4000 to 0x4fff overlaps BAR 0x0 to 0xffffff of 0000:00:01.0";
    assert!(found.iter().any(|text| text == expected), "{found:?}");
    let overlaps = found.iter().filter(|text| text.contains("overlaps"));
    // The windows of the port at 00:03.0 are in those 16 MiB, too.
    let others = overlaps.filter(|text| !text.starts_with("0000:00:03.0"));
    assert_eq!(others.count(), 1, "{found:?}");
}

#[test]
fn a_bar_on_top_of_the_window_of_a_port_beside_it_is_reported() {
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    fabric.add_root(host, 1, 0, root_port(ALL_WINDOWS));
    let model = integrated(1)
        .bar(0, BarModel::memory32(MIB))
        .bar(1, BarModel::io(0x100))
        .bar(2, BarModel::memory64(MIB));
    fabric.add_root(host, 2, 0, model);
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    let bridge = machine.bridge(at(0, 1, 0));
    let windows = [bridge.memory, bridge.io, bridge.prefetchable];
    for (offset, window) in [0x10, 0x14, 0x18].into_iter().zip(windows) {
        let window = window.expect("open");
        let before = machine.register(at(0, 2, 0), offset, Width::Dword);
        write(&mut machine, at(0, 2, 0), offset, window.base() as u32);
        let found = machine.checked();
        assert_eq!(found.len(), 1, "{found:?}");
        let text = format!(" window {:#x} to {:#x}", window.base(), window.limit());
        assert!(
            found[0].contains("overlaps") && found[0].contains(&text),
            "{found:?}"
        );
        write(&mut machine, at(0, 2, 0), offset, before);
        assert_eq!(machine.checked(), [""; 0]);
    }
}

#[test]
fn functions_that_are_not_cached_are_skipped() {
    let mut machine = tree();
    // Outside of every window above.
    let offset = ConfigOffset::wrapping(0x20);
    let fabric = machine.config.access_mut();
    fabric.write(DOWN, offset, Width::Dword, 0x4000_4000);
    let mut config = ConfigCache::new(fabric.clone());
    assert_eq!(verify_assignment(&machine.topology, &config), []);
    // The port alone: what is above it is not known.
    config.probe(DOWN);
    config.walk(DOWN).expect("it answers");
    config.capture(DOWN);
    assert_eq!(verify_assignment(&machine.topology, &config), []);
    // With the bridge above it.
    let above = at(1, 0, 0);
    config.probe(above);
    config.walk(above).expect("it answers");
    config.capture(above);
    let found = verify_assignment(&machine.topology, &config);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].function, DOWN);
}

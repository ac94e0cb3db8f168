use warmbus_pci::{ConfigAccess, ConfigOffset, PortType, Sbdf, Width};
use warmbus_pcie_sim::{
    BridgeWindows, ExpressModel, Fabric, FunctionModel, Outcome, ProtocolViolation, Quirk,
    SlotModel, topologies,
};

use crate::{ABSENT, Bench, endpoint, ids, port, root_port};

#[test]
fn a_bridge_out_of_reset_forwards_nothing() {
    let mut bench = Bench::new();
    let port = bench.fabric.add_root(bench.host, 1, 0, root_port());
    bench.fabric.add_below(port, 0, 0, endpoint(7));
    for bus in 1..=255 {
        assert_eq!(bench.r32((bus, 0, 0), 0), ABSENT);
    }
    assert_eq!(bench.fabric.log().count(Outcome::NoBridge), 255);
}

#[test]
fn the_secondary_bus_number_decides_where_a_function_is() {
    let mut bench = Bench::new();
    let port = bench.fabric.add_root(bench.host, 1, 0, root_port());
    bench.fabric.add_below(port, 0, 0, endpoint(7));
    bench.number((0, 1, 0), 0, 5, 9);
    assert_eq!(bench.r32((5, 0, 0), 0), ids(7));
    assert_eq!(bench.r32((6, 0, 0), 0), ABSENT);
    bench.number((0, 1, 0), 0, 0x80, 0x80);
    assert_eq!(bench.r32((5, 0, 0), 0), ABSENT);
    assert_eq!(bench.r32((0x80, 0, 0), 0), ids(7));
    // Subordinate below secondary: forwards nothing.
    bench.number((0, 1, 0), 0, 0x80, 0x7f);
    assert_eq!(bench.r32((0x80, 0, 0), 0), ABSENT);
}

#[test]
fn a_root_bus_need_not_be_bus_0() {
    let mut bench = Bench::with_buses(0x40, 0x4f);
    let port = bench.fabric.add_root(bench.host, 2, 0, root_port());
    bench.fabric.add_below(port, 0, 0, endpoint(7));
    assert_eq!(bench.r32((0x40, 2, 0), 0), ids(4));
    bench.number((0x40, 2, 0), 0x40, 0x41, 0x4f);
    assert_eq!(bench.r32((0x41, 0, 0), 0), ids(7));
    assert_eq!(bench.r32((0, 2, 0), 0), ABSENT);
    assert_eq!(bench.fabric.log().count(Outcome::NoHost), 1);
    let outside = Sbdf::new(0, 0, 2, 0);
    let expected = ProtocolViolation::OutsideHosts { function: outside };
    assert_eq!(bench.fabric.log().violations(), [expected]);
}

#[test]
fn a_downstream_port_hands_on_device_0_alone_without_ari_forwarding() {
    let mut bench = Bench::new();
    let port = bench.fabric.add_root(bench.host, 1, 0, root_port());
    bench.fabric.add_below(port, 0, 0, endpoint(7).ari(1));
    bench.fabric.add_below(port, 0, 1, endpoint(8).ari(9));
    bench.fabric.add_below_devfn(port, 9, endpoint(9).ari(0));
    bench.number((0, 1, 0), 0, 1, 1);
    assert_eq!(bench.r32((1, 0, 1), 0), ids(8));
    assert_eq!(bench.r32((1, 1, 1), 0), ABSENT);
    assert_eq!(bench.fabric.log().count(Outcome::DeviceFiltered), 1);
    // Received Master Abort in Secondary Status of the port.
    assert_eq!(bench.r16((0, 1, 0), 0x1e), 0x2000);
    // ARI Forwarding Enable: device 1 function 1 is function number 9.
    bench.w16((0, 1, 0), 0x68, 0x20);
    assert_eq!(bench.r32((1, 1, 1), 0), ids(9));
    assert_eq!(bench.r32((1, 1, 0), 0), ABSENT);
    assert_eq!(bench.fabric.log().count(Outcome::NoFunction), 1);
}

#[test]
fn a_device_without_ari_shows_itself_32_times_once_ari_forwarding_is_on() {
    let mut bench = Bench::new();
    let port = bench.fabric.add_root(bench.host, 1, 0, root_port());
    bench.fabric.add_below(port, 0, 0, endpoint(7));
    bench.number((0, 1, 0), 0, 1, 1);
    bench.w16((0, 1, 0), 0x68, 0x20);
    for device in 0..32 {
        assert_eq!(bench.r32((1, device, 0), 0), ids(7));
        assert_eq!(bench.r32((1, device, 1), 0), ABSENT);
    }
}

#[test]
fn ari_forwarding_stays_off_in_a_port_that_does_not_support_it() {
    for express in [
        ExpressModel::new(PortType::RootPort),
        ExpressModel::new(PortType::RootPort).version(1),
    ] {
        let mut bench = Bench::new();
        let model = port(express).link_up();
        let port = bench.fabric.add_root(bench.host, 1, 0, model);
        bench.fabric.add_below_devfn(port, 8, endpoint(9).ari(0));
        bench.number((0, 1, 0), 0, 1, 1);
        bench.w16((0, 1, 0), 0x68, 0x20);
        assert_eq!(bench.r16((0, 1, 0), 0x68), 0);
        assert_eq!(bench.r32((1, 1, 0), 0), ABSENT);
    }
}

#[test]
fn the_internal_bus_of_a_switch_has_ports_at_their_own_device_numbers() {
    let mut bench = Bench::new();
    bench.fabric = topologies::switch();
    bench.number((0, 1, 0), 0, 1, 6);
    bench.number((1, 0, 0), 1, 2, 6);
    for (device, bus) in [(0, 3), (1, 4), (2, 5), (3, 6)] {
        assert_eq!(bench.r32((2, device, 0), 0), 0x8233_1b36);
        bench.number((2, device, 0), 2, bus, bus);
    }
    assert_eq!(bench.r32((2, 4, 0), 0), ABSENT);
    let found = [3, 4, 5, 6].map(|bus| bench.r32((bus, 0, 0), 0));
    let expected = [0x0010_1b36, 0x0010_1b36, 0x1041_1af4, 0x10d3_8086];
    assert_eq!(found, expected);
    assert!(bench.fabric.log().violations().is_empty());
}

#[test]
fn a_conventional_bus_has_any_device_number_and_no_extended_space() {
    let mut bench = Bench::new();
    bench.fabric = topologies::switch();
    bench.number((0, 2, 0), 0, 1, 2);
    bench.number((1, 7, 0), 1, 2, 2);
    let present = |bench: &mut Bench, bus| -> Vec<u8> {
        (0..32)
            .filter(|device| bench.r32((bus, *device, 0), 0) != ABSENT)
            .collect()
    };
    assert_eq!(present(&mut bench, 1), [3, 5, 7]);
    assert_eq!(present(&mut bench, 2), [1, 2]);
    assert_eq!(bench.r32((2, 1, 0), 0x100), ABSENT);
    assert_eq!(bench.fabric.log().count(Outcome::NoExtendedSpace), 1);
    // The PCI Express to PCI bridge itself has it, the host bridge has not.
    assert_eq!(bench.r32((0, 2, 0), 0x100), 0x0002_0001);
    assert_eq!(bench.r32((0, 0, 0), 0x100), ABSENT);
}

#[test]
fn a_bridge_that_drops_the_extended_number_repeats_the_first_256_bytes() {
    let mut bench = Bench::new();
    let model = FunctionModel::bridge(1, 2, BridgeWindows::default())
        .express(ExpressModel::new(PortType::PcieToPciBridge))
        .quirk(Quirk::RepeatsLowSpace);
    let bridge = bench.fabric.add_root(bench.host, 2, 0, model);
    let card = FunctionModel::endpoint(0x1234, 3, 0).subsystem(5, 6);
    bench.fabric.add_below(bridge, 4, 0, card);
    bench.number((0, 2, 0), 0, 1, 1);
    for repeat in (0..0x1000).step_by(0x100) {
        assert_eq!(bench.r32((1, 4, 0), repeat), ids(3));
        assert_eq!(bench.r32((1, 4, 0), repeat + 0x2c), 0x0006_0005);
    }
}

#[test]
fn single_function_devices_may_answer_on_every_function_number() {
    let mut bench = Bench::new();
    let model = endpoint(3).quirk(Quirk::EveryFunction);
    bench.fabric.add_root(bench.host, 2, 0, model);
    let model = endpoint(4).quirk(Quirk::EveryDevice);
    bench.fabric.add_root(bench.host, 3, 1, model);
    for function in 0..8 {
        assert_eq!(bench.r32((0, 2, function), 0), ids(3));
    }
    assert_eq!(bench.r32((0, 9, 1), 0), ids(4));
    assert_eq!(bench.r32((0, 9, 0), 0), ABSENT);
    let mut bench = Bench::new();
    let model = root_port().quirk(Quirk::ForwardsEveryDevice);
    let port = bench.fabric.add_root(bench.host, 1, 0, model);
    bench.fabric.add_below(port, 0, 0, endpoint(5));
    bench.number((0, 1, 0), 0, 1, 1);
    assert_eq!(bench.r32((1, 31, 0), 0), ids(5));
}

#[test]
fn nothing_is_below_a_port_whose_link_is_down() {
    let slot = SlotModel {
        number: 1,
        hot_plug: true,
        power_controller: true,
    };
    let express = ExpressModel::new(PortType::RootPort)
        .slot(slot)
        .active_reporting();
    let mut bench = Bench::new();
    let empty = bench.fabric.add_root(bench.host, 1, 0, port(express));
    bench.fabric.add_below(empty, 0, 0, endpoint(7));
    bench.number((0, 1, 0), 0, 1, 1);
    // No Link Active, no speed, no width; Presence Detect State 0.
    assert_eq!(bench.r16((0, 1, 0), 0x52), 0x1000);
    assert_eq!(bench.r16((0, 1, 0), 0x5a), 0);
    assert_eq!(bench.r32((1, 0, 0), 0), ABSENT);
    let late = bench
        .fabric
        .add_root(bench.host, 2, 0, port(express).link_up_at(50_000));
    bench.fabric.add_below(late, 0, 0, endpoint(8));
    bench.number((0, 2, 0), 0, 2, 2);
    // Training.
    assert_eq!(bench.r16((0, 2, 0), 0x52), 0x1800);
    assert_eq!(bench.r32((2, 0, 0), 0), ABSENT);
    assert_eq!(bench.fabric.log().count(Outcome::LinkDown), 2);
    bench.fabric.clock().advance(50_000);
    // Active, 16 GT/s, x4, slot clock; present.
    assert_eq!(bench.r16((0, 2, 0), 0x52), 0x3044);
    assert_eq!(bench.r16((0, 2, 0), 0x5a), 0x40);
    assert_eq!(bench.r32((2, 0, 0), 0), ids(8));
}

#[test]
fn link_disable_and_slot_power_take_the_device_away() {
    let slot = SlotModel {
        number: 1,
        hot_plug: true,
        power_controller: true,
    };
    let express = ExpressModel::new(PortType::RootPort).slot(slot);
    let mut bench = Bench::new();
    let port = bench
        .fabric
        .add_root(bench.host, 1, 0, port(express).link_up());
    bench.fabric.add_below(port, 0, 0, endpoint(7));
    bench.number((0, 1, 0), 0, 1, 1);
    for (control, bit) in [(0x50, 0x10), (0x58, 0x400)] {
        let value = bench.r16((0, 1, 0), control);
        bench.w16((1, 0, 0), 4, 4);
        bench.w16((0, 1, 0), control, value | bit);
        assert_eq!(bench.r32((1, 0, 0), 0), ABSENT);
        bench.w16((0, 1, 0), control, value);
        assert_eq!(bench.r32((1, 0, 0), 0), ABSENT, "still training");
        bench.fabric.clock().advance(20_000_000);
        assert_eq!(bench.r32((1, 0, 0), 0), ids(7));
        assert_eq!(bench.r16((1, 0, 0), 4), 0, "COMMAND was reset");
    }
    // Command Completed.
    assert_eq!(bench.r16((0, 1, 0), 0x5a) & 0x10, 0x10);
}

#[test]
fn two_bridges_for_one_bus_and_a_wrong_primary_are_recorded() {
    let mut bench = Bench::new();
    let first = bench.fabric.add_root(bench.host, 1, 0, root_port());
    let second = bench.fabric.add_root(bench.host, 2, 0, root_port());
    bench.fabric.add_below(first, 0, 0, endpoint(7));
    bench.fabric.add_below(second, 0, 0, endpoint(8));
    bench.number((0, 1, 0), 0, 1, 4);
    bench.number((0, 2, 0), 9, 3, 4);
    assert_eq!(bench.r32((1, 0, 0), 0), ids(7));
    assert!(bench.fabric.log().violations().is_empty());
    bench.r32((3, 0, 0), 0);
    bench.number((0, 1, 0), 0, 1, 1);
    assert_eq!(bench.r32((3, 0, 0), 0), ids(8));
    let expected = [
        ProtocolViolation::ClaimedTwice {
            bus: 3,
            first,
            second,
        },
        ProtocolViolation::WrongPrimary {
            bridge: second,
            bus: 0,
            primary: 9,
        },
    ];
    assert_eq!(bench.fabric.log().violations(), expected);
}

#[test]
fn segments_are_apart() {
    let mut fabric = Fabric::new();
    let all = warmbus_pci::BusRange {
        first: 0,
        last: 255,
    };
    for segment in [0, 3] {
        let host = fabric.add_host(Fabric::host_bridge(segment, all));
        fabric.add_root(host, 1, 0, endpoint(segment + 1));
    }
    let mut read = |segment| {
        let function = Sbdf::new(segment, 0, 1, 0);
        fabric.read(function, ConfigOffset::wrapping(2), Width::Word)
    };
    assert_eq!([0, 1, 3].map(&mut read), [1, 0xffff, 4]);
}

#[test]
fn reachable_lists_what_the_bus_numbers_lead_to() {
    let mut bench = Bench::new();
    let port = bench.fabric.add_root(bench.host, 1, 0, root_port());
    let below = bench.fabric.add_below(port, 0, 0, endpoint(7));
    let at = |bench: &Bench| -> Vec<Sbdf> { bench.fabric.reachable().into_keys().collect() };
    assert_eq!(at(&bench), [Sbdf::new(0, 0, 1, 0)]);
    bench.number((0, 1, 0), 0, 6, 6);
    assert_eq!(at(&bench), [Sbdf::new(0, 0, 1, 0), Sbdf::new(0, 6, 0, 0)]);
    assert_eq!(bench.fabric.reachable()[&Sbdf::new(0, 6, 0, 0)], below);
}

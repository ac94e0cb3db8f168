//! Which bus numbers bridges get, and what is reported about them.

use warmbus_pci::{BusRange, PortType, ScanPolicy, enumerate};
use warmbus_pcie_sim::{
    BridgeWindows, ExpressModel, Fabric, Fault, FunctionModel, SlotModel, devices,
};
use warmbus_pcsc::ConfigCache;

use crate::{Machine, at, boot, boot_with, endpoint, machine, root_port};

/// Secondary and subordinate number of each root port, by device number.
fn numbers(machine: &Machine, count: u8) -> Vec<(u8, u8)> {
    let ports = (1..=count).map(|device| machine.function(at(0, device, 0)));
    ports
        .map(|port| port.bridge.expect("a bridge"))
        .map(|bridge| (bridge.secondary, bridge.subordinate))
        .collect()
}

#[test]
fn spare_buses_leave_one_number_for_each_bridge_that_follows() {
    // Three hot-plug capable ports, each to have five spare numbers.
    let policy = ScanPolicy {
        spare_buses: 5,
        ..ScanPolicy::default()
    };
    for (last, expected) in [
        (18, [(1, 6), (7, 12), (13, 18)]),
        (17, [(1, 6), (7, 12), (13, 17)]),
        (12, [(1, 6), (7, 11), (12, 12)]),
        (9, [(1, 6), (7, 8), (9, 9)]),
        (8, [(1, 6), (7, 7), (8, 8)]),
        (7, [(1, 5), (6, 6), (7, 7)]),
        (4, [(1, 2), (3, 3), (4, 4)]),
        (3, [(1, 1), (2, 2), (3, 3)]),
    ] {
        let (mut fabric, host) = machine(0, last);
        for device in 1..=3 {
            fabric.add_root(host, device, 0, devices::root_port(device.into()));
        }
        let mut machine = boot_with(fabric, &policy, |_| {});
        machine.assert_sound();
        assert_eq!(numbers(&machine, 3), expected, "last bus {last}");
        assert_eq!(machine.complaints(), [""; 0]);
    }
}

/// Below the first root port a switch with four hot-plug capable ports, of which
/// the last has a device; below the second root port another device.
fn switch_and_device(last: u8) -> Fabric {
    let (mut fabric, host) = machine(0, last);
    let first = fabric.add_root(host, 1, 0, root_port().link_up());
    let switch = fabric.add_below(first, 0, 0, devices::upstream_port());
    for device in 0..4 {
        let mut port = devices::downstream_port(device.into());
        if device == 3 {
            port = port.link_up();
        }
        let port = fabric.add_below(switch, device, 0, port);
        if device == 3 {
            fabric.add_below(port, 0, 0, endpoint(7));
        }
    }
    let second = fabric.add_root(host, 2, 0, root_port().link_up());
    fabric.add_below(second, 0, 0, endpoint(8));
    fabric
}

#[test]
fn spare_buses_never_leave_a_device_without_a_number() {
    // Seven bridges, four of which are hot-plug capable: 7 numbers, 11 with
    // spare ones.
    for (last, second) in [(11, 11), (10, 7), (8, 7), (7, 7)] {
        let mut machine = boot(switch_and_device(last));
        machine.assert_sound();
        assert_eq!(machine.complaints(), [""; 0], "last bus {last}");
        assert_eq!(machine.function(at(second, 0, 0)).device_id, 8);
        // What is cached is what exists.
        let cached: Vec<_> = machine.config.blocks().map(|(sbdf, _)| sbdf).collect();
        assert_eq!(cached.len(), machine.addresses().len());
    }
    // One number less, and there is none for the second port.
    let machine = boot(switch_and_device(6));
    let complaint = "0000:00:02.0: no bus number is left below it, the last is 06";
    assert_eq!(machine.complaints(), [complaint]);
}

#[test]
fn a_bridge_that_is_not_hot_plug_capable_gets_the_numbers_in_use_and_no_more() {
    let (mut fabric, host) = machine(0, 255);
    for device in 1..=2 {
        let port = fabric.add_root(host, device, 0, root_port().link_up());
        fabric.add_below(port, 0, 0, endpoint(7));
    }
    let mut machine = boot(fabric);
    machine.assert_sound();
    assert_eq!(numbers(&machine, 2), [(1, 1), (2, 2)]);
}

#[test]
fn the_buses_in_use_of_each_host_bridge_are_reported() {
    let mut fabric = Fabric::new();
    for (segment, first, ports) in [(0, 0, 3), (1, 0x20, 0), (2, 0x40, 1)] {
        let buses = BusRange {
            first,
            last: first + 0x1f,
        };
        let host = fabric.add_host(Fabric::host_bridge(segment, buses));
        for device in 0..ports {
            let port = fabric.add_root(host, device, 0, root_port().link_up());
            fabric.add_below(port, 0, 0, endpoint(7));
        }
    }
    let machine = boot(fabric);
    let hosts = machine.topology.hosts().iter();
    let buses: Vec<_> = hosts.map(|(_, buses)| (buses.first, buses.last)).collect();
    assert_eq!(buses, [(0, 3), (0x20, 0x20), (0x40, 0x41)]);
}

#[test]
fn a_port_behind_the_last_bus_number_leads_nowhere_and_forwards_nothing() {
    let (mut fabric, host) = machine(0x10, 0x11);
    for device in 1..=2 {
        let port = fabric.add_root(host, device, 0, root_port().link_up());
        fabric.add_below(port, 0, 0, endpoint(7));
        // What a loader has left there.
        fabric.poke(port, 0x18, warmbus_pci::Width::Dword, 0x0015_1200);
    }
    let mut machine = boot(fabric);
    let second = at(0x10, 2, 0);
    let text = "0000:10:02.0: no bus number is left below it, the last is 11";
    assert_eq!(machine.complaints(), [text]);
    let held = machine.hardware(second, 0x18, warmbus_pci::Width::Dword);
    assert_eq!(held, 0x0000_0010);
    assert_eq!(machine.topology.functions().len(), 3);
}

#[test]
fn every_access_that_aborts_is_reported_however_many_there_are() {
    // The machine remembers 64 of them: they have to be collected in time.
    let (mut fabric, host) = machine(0, 255);
    let aborting = |from: u16| {
        FunctionModel::endpoint(0x1234, 7, 0x08_8000)
            .multi_function()
            .fault(Fault::Aborts { from, to: from + 4 })
    };
    for number in 0..240_u8 {
        fabric.add_root(host, number / 8, number % 8, aborting(8));
    }
    let machine = boot(fabric);
    let text = "access to offset 008 ended in an external abort and reads as all ones";
    for number in 0..240_u8 {
        let function = machine.function(at(0, number / 8, number % 8));
        let first = function.anomalies.first().map(ToString::to_string);
        assert_eq!(first.as_deref(), Some(text));
    }
}

#[test]
fn spare_numbers_keep_clear_of_the_bus_of_another_root_complex() {
    // Bus 3 answers for a root complex that no description names.
    let mut fabric = Fabric::new();
    let foreign = BusRange { first: 3, last: 3 };
    let foreign = fabric.add_host(Fabric::host_bridge(0, foreign));
    fabric.add_root(foreign, 0, 0, root_port());
    let all = BusRange {
        first: 0,
        last: 255,
    };
    let host = fabric.add_host(Fabric::host_bridge(0, all));
    let express = ExpressModel::new(PortType::RootPort)
        .slot(SlotModel::HOT_PLUG)
        .active_reporting();
    for device in 1..3 {
        let port = FunctionModel::bridge(0x1234, 4, BridgeWindows::default())
            .express(express)
            .link_up();
        let port = fabric.add_root(host, device, 0, port);
        fabric.add_below(port, 0, 0, endpoint(7));
    }
    let mut clock = fabric.clock();
    let hosts = &fabric.host_bridges()[1..];
    let mut config = ConfigCache::new(fabric);
    let topology = enumerate(hosts, &ScanPolicy::default(), &mut config, &mut clock);
    let addresses: Vec<_> = topology.functions().iter().map(|one| one.sbdf).collect();
    assert_eq!(
        addresses,
        [at(0, 1, 0), at(0, 2, 0), at(1, 0, 0), at(2, 0, 0)]
    );
}

//! Devices that are not ready when they are first looked for.

use std::time::Duration;

use warmbus_pci::{BusRange, Readiness, Sbdf, ScanPolicy};
use warmbus_pcie_sim::{Fabric, HostId, MILLISECOND, Outcome, devices};

use crate::{at, boot, boot_with, endpoint, machine, root_port};

#[test]
fn a_device_that_is_given_up_is_reported_with_the_time_of_the_policy() {
    for milliseconds in [50, 250, 1000] {
        let (mut fabric, host) = machine(0, 255);
        let port = fabric.add_root(host, 1, 0, root_port().link_up());
        fabric.add_below(port, 0, 0, endpoint(7).ready_at(u64::MAX));
        let policy = ScanPolicy {
            not_ready_timeout: Duration::from_millis(milliseconds),
            ..ScanPolicy::default()
        };
        let machine = boot_with(fabric, &policy, |_| {});
        let text = format!("0000:01:00.0: not ready after {milliseconds} ms, excluded");
        assert_eq!(machine.complaints(), [text]);
        assert_eq!(machine.topology.excluded(), [at(1, 0, 0)]);
        let time = machine.fabric().clock().time();
        assert!(time >= milliseconds * MILLISECOND, "{time}");
        assert!(time < (milliseconds + 5) * MILLISECOND, "{time}");
    }
}

/// A port with a switch that is ready after 300 ms and has two ports.
fn add_slow_switch(fabric: &mut Fabric, host: HostId, device: u8) {
    let port = fabric.add_root(host, device, 0, root_port().link_up());
    let upstream = devices::upstream_port().ready_at(300 * MILLISECOND);
    let upstream = fabric.add_below(port, 0, 0, upstream);
    for device in 0..2 {
        let down = crate::FunctionModel::bridge(0x1234, 6, crate::BridgeWindows::default())
            .express(
                crate::ExpressModel::new(warmbus_pci::PortType::DownstreamPort).active_reporting(),
            )
            .link_up();
        let down = fabric.add_below(upstream, device, 0, down);
        fabric.add_below(down, 0, 0, endpoint(8));
    }
}

#[test]
fn what_comes_late_gets_the_numbers_that_were_kept_for_it_on_every_host_bridge() {
    let mut fabric = Fabric::new();
    for segment in 0..2 {
        let buses = BusRange { first: 0, last: 32 };
        let host = fabric.add_host(Fabric::host_bridge(segment, buses));
        add_slow_switch(&mut fabric, host, 1);
        for device in 2..5 {
            let port = fabric.add_root(host, device, 0, root_port().link_up());
            fabric.add_below(port, 0, 0, endpoint(7));
        }
    }
    let mut machine = boot(fabric);
    machine.assert_sound();
    assert_eq!(machine.complaints(), [""; 0]);
    for segment in 0..2 {
        let numbers = |bus, device| {
            let bridge = machine.function(Sbdf::new(segment, bus, device, 0)).bridge;
            bridge.map(|bridge| (bridge.secondary, bridge.subordinate))
        };
        // Four numbers are kept beyond that of the port.
        assert_eq!(numbers(0, 1), Some((1, 5)));
        assert_eq!(numbers(1, 0), Some((2, 4)));
        assert_eq!(numbers(2, 0), Some((3, 3)));
        assert_eq!(numbers(2, 1), Some((4, 4)));
        for (device, bus) in [(2, 6), (3, 7), (4, 8)] {
            assert_eq!(numbers(0, device), Some((bus, bus)));
        }
    }
}

#[test]
fn a_late_switch_that_needs_more_numbers_than_were_kept_is_numbered_again() {
    for not_ready_spare_buses in [0, 1, 2, 3] {
        let (mut fabric, host) = machine(0, 255);
        add_slow_switch(&mut fabric, host, 1);
        let port = fabric.add_root(host, 2, 0, root_port().link_up());
        fabric.add_below(port, 0, 0, endpoint(7));
        let policy = ScanPolicy {
            not_ready_spare_buses,
            ..ScanPolicy::default()
        };
        let mut machine = boot_with(fabric, &policy, |_| {});
        machine.assert_sound();
        assert_eq!(machine.complaints(), [""; 0]);
        let bridge = machine.function(at(0, 1, 0)).bridge.expect("a port");
        assert_eq!((bridge.secondary, bridge.subordinate), (1, 4));
        assert_eq!(machine.function(at(5, 0, 0)).device_id, 7);
    }
}

#[test]
fn each_function_has_the_time_at_which_it_was_found_and_how_often_it_was_looked_for() {
    let (mut fabric, host) = machine(0, 255);
    let mut ports = Vec::new();
    for (device, ready) in [(1, 0), (2, 40), (3, 700)] {
        let port = fabric.add_root(host, device, 0, root_port().link_up());
        let model = endpoint(7).ready_at(ready * MILLISECOND);
        let node = fabric.add_below(port, 0, 0, model);
        ports.push((device, ready, node));
    }
    let machine = boot(fabric);
    for (device, ready, node) in ports {
        let port = machine.function(at(0, device, 0));
        assert_eq!(port.readiness, Readiness::default());
        let bus = port.bridge.expect("a port").secondary;
        let found = machine.function(at(bus, 0, 0)).readiness;
        // Each look in vain is one that the device answered with RRS.
        let entries = machine.fabric().log().entries().iter();
        let in_vain = entries
            .filter(|access| access.node == Some(node) && access.outcome == Outcome::NotReady)
            .count();
        assert_eq!(found.retries as usize, in_vain, "{ready} ms");
        assert_eq!(found.after.is_some(), ready > 0);
        let after = found.after.unwrap_or_default();
        let ready = Duration::from_millis(ready);
        assert!(after >= ready && after < ready + LONGEST_WAIT, "{after:?}");
    }
}

/// The longest wait between two looks, and what accesses take.
const LONGEST_WAIT: Duration = Duration::from_millis(105);

#[test]
fn a_link_that_comes_up_late_is_part_of_the_time_of_what_is_below() {
    let (mut fabric, host) = machine(0, 255);
    let port = fabric.add_root(host, 1, 0, root_port().link_up_at(300 * MILLISECOND));
    fabric.add_below(port, 0, 0, endpoint(7));
    let machine = boot(fabric);
    let found = machine.function(at(1, 0, 0)).readiness;
    let after = found.after.expect("it was waited for");
    let link = Duration::from_millis(300);
    assert!(after >= link && after < link + LONGEST_WAIT, "{after:?}");
    assert!(found.retries > 1);
}

#[test]
fn what_was_waited_for_is_known_after_buses_are_numbered_again() {
    let (mut fabric, host) = machine(0, 255);
    let port = fabric.add_root(host, 2, 0, root_port().link_up());
    fabric.add_below(port, 0, 0, endpoint(7));
    add_slow_switch(&mut fabric, host, 1);
    let policy = ScanPolicy {
        not_ready_spare_buses: 1,
        ..ScanPolicy::default()
    };
    let machine = boot_with(fabric, &policy, |_| {});
    let slow: Vec<_> = machine
        .topology
        .functions()
        .iter()
        .filter(|function| function.readiness.retries > 0)
        .map(|function| (function.sbdf, function.readiness.after.expect("a time")))
        .collect();
    // The switch with all that is below it.
    let addresses: Vec<_> = slow.iter().map(|one| one.0).collect();
    assert_eq!(
        addresses,
        [
            at(1, 0, 0),
            at(2, 0, 0),
            at(2, 1, 0),
            at(3, 0, 0),
            at(4, 0, 0)
        ]
    );
    for (sbdf, after) in slow {
        let ready = Duration::from_millis(300);
        assert!(
            after >= ready && after < ready + LONGEST_WAIT,
            "{sbdf} {after:?}"
        );
    }
}

/// The policy with a timeout of its own for the port at device number `device`.
fn patient_with(device: u8, milliseconds: u64) -> ScanPolicy {
    ScanPolicy {
        port_timeouts: vec![(at(0, device, 0), Duration::from_millis(milliseconds))],
        ..ScanPolicy::default()
    }
}

#[test]
fn a_link_that_is_down_is_waited_for_below_a_port_of_the_policy_only() {
    let (mut fabric, host) = machine(0, 255);
    for device in [1, 2] {
        let port = root_port().link_starts_late(300 * MILLISECOND);
        let port = fabric.add_root(host, device, 0, port);
        fabric.add_below(port, 0, 0, endpoint(7));
    }
    let machine = boot_with(fabric, &patient_with(1, 2_000), |_| {});
    assert_eq!(machine.addresses().len(), 3, "{:?}", machine.addresses());
    assert_eq!(machine.function(at(1, 0, 0)).device_id, 7);
    assert!(machine.fabric().clock().time() < 500 * MILLISECOND);
}

#[test]
fn each_device_is_given_up_after_the_timeout_of_its_own_port() {
    let (mut fabric, host) = machine(0, 255);
    for (device, ready) in [(1, 3_000 * MILLISECOND), (2, u64::MAX), (3, u64::MAX)] {
        let port = fabric.add_root(host, device, 0, root_port().link_up());
        fabric.add_below(port, 0, 0, endpoint(7).ready_at(ready));
    }
    let mut policy = patient_with(1, 4_000);
    policy
        .port_timeouts
        .push((at(0, 2, 0), Duration::from_millis(50)));
    let machine = boot_with(fabric, &policy, |_| {});
    let found = machine.topology.functions().iter();
    assert_eq!(found.filter(|function| function.device_id == 7).count(), 1);
    let complaints = machine.complaints();
    for time in ["not ready after 50 ms", "not ready after 1000 ms"] {
        let of_it = complaints.iter().filter(|one| one.contains(time));
        assert_eq!(of_it.count(), 1, "{complaints:?}");
    }
    assert_eq!(complaints.len(), 2);
}

#[test]
fn a_link_that_stops_training_without_coming_up_is_given_up_at_once() {
    let (mut fabric, host) = machine(0, 255);
    let port = root_port()
        .link_up_at(100 * MILLISECOND)
        .link_drops_at(50 * MILLISECOND);
    let port = fabric.add_root(host, 1, 0, port);
    fabric.add_below(port, 0, 0, endpoint(7));
    let machine = boot(fabric);
    assert_eq!(machine.complaints(), [""; 0]);
    let time = machine.fabric().clock().time();
    assert!((100..500).contains(&(time / MILLISECOND)), "{time}");
}

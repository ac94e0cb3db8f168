//! What is not there, not yet there, or no longer there.

use warmbus_pci::ScanPolicy;
use warmbus_pcie_sim::{Fabric, MILLISECOND, Outcome, SECOND, devices, topologies};

use crate::{at, boot, boot_with, endpoint, machine, root_port};

#[test]
fn nothing_below_a_link_that_is_down_is_touched() {
    let (mut fabric, host) = machine(0, 255);
    for device in 1..4 {
        let port = fabric.add_root(host, device, 0, root_port());
        fabric.add_below(port, 0, 0, endpoint(7));
    }
    let mut machine = boot(fabric);
    machine.assert_sound();
    assert_eq!(machine.topology.functions().len(), 3);
    assert_eq!(machine.fabric().log().count(Outcome::LinkDown), 0);
    let links = machine
        .topology
        .functions()
        .iter()
        .map(|f| f.bridge.unwrap().link_up);
    assert!(links.eq([Some(false); 3]));
}

#[test]
fn a_device_number_without_a_device_costs_one_read() {
    let (mut fabric, host) = machine(0, 255);
    fabric.add_root(host, 1, 0, endpoint(7));
    let machine = boot(fabric);
    let mut absent: Vec<_> = machine
        .fabric()
        .log()
        .ended(Outcome::NoFunction)
        .map(|access| access.function)
        .collect();
    assert_eq!(absent.len(), 31, "the other device numbers of the bus");
    absent.dedup();
    assert_eq!(absent.len(), 31, "each once");
}

#[test]
fn an_empty_hot_plug_slot_gets_the_spare_buses_of_the_policy() {
    for spare_buses in [0, 1, 5] {
        let (mut fabric, host) = topologies::empty();
        fabric.add_root(host, 1, 0, devices::root_port(1));
        fabric.add_root(host, 2, 0, devices::root_port(2));
        let policy = ScanPolicy {
            spare_buses,
            ..ScanPolicy::default()
        };
        let mut machine = boot_with(fabric, &policy, |_| {});
        machine.assert_sound();
        let first = machine.function(at(0, 1, 0)).bridge.unwrap();
        let second = machine.function(at(0, 2, 0)).bridge.unwrap();
        assert!(first.hot_plug);
        assert_eq!((first.secondary, first.subordinate), (1, 1 + spare_buses));
        assert_eq!(second.secondary, 2 + spare_buses);
    }
}

/// A port with a device that is ready after `ready` nanoseconds, and another.
fn with_slow_device(ready: u64) -> Fabric {
    let (mut fabric, host) = machine(0, 255);
    let slow = fabric.add_root(host, 1, 0, root_port().link_up());
    fabric.add_below(slow, 0, 0, endpoint(7).ready_at(ready));
    let quick = fabric.add_root(host, 2, 0, root_port().link_up());
    fabric.add_below(quick, 0, 0, endpoint(8));
    fabric
}

#[test]
fn a_slow_device_is_found_before_the_deadline_and_given_up_after_it() {
    let mut machine = boot(with_slow_device(700 * MILLISECOND));
    machine.assert_sound();
    assert_eq!(machine.topology.functions().len(), 4);
    assert_eq!(machine.complaints(), [""; 0]);
    let machine = boot(with_slow_device(3 * SECOND));
    assert_eq!(machine.topology.functions().len(), 3);
    assert_eq!(machine.complaints().len(), 1);
    assert!(machine.fabric().clock().time() < 2 * SECOND);
}

#[test]
fn one_deadline_serves_all_slow_devices() {
    let (mut fabric, host) = machine(0, 255);
    for device in 0..30 {
        let port = fabric.add_root(host, device, 0, root_port().link_up());
        fabric.add_below(port, 0, 0, endpoint(7).ready_at(u64::MAX));
    }
    let machine = boot(fabric);
    assert_eq!(machine.topology.functions().len(), 30);
    assert_eq!(machine.complaints().len(), 30);
    assert!(machine.fabric().clock().time() < 2 * SECOND);
    assert!(machine.fabric().log().count(Outcome::NotReady) < 30 * 64);
}

#[test]
fn a_slow_switch_still_gets_numbers_for_what_is_below_it() {
    let (mut fabric, host) = machine(0, 255);
    let slow = fabric.add_root(host, 1, 0, root_port().link_up());
    let upstream = devices::upstream_port().ready_at(300 * MILLISECOND);
    let upstream = fabric.add_below(slow, 0, 0, upstream);
    let port = devices::downstream_port(1).link_up();
    let port = fabric.add_below(upstream, 0, 0, port);
    fabric.add_below(port, 0, 0, devices::nvme());
    let quick = fabric.add_root(host, 2, 0, root_port().link_up());
    fabric.add_below(quick, 0, 0, endpoint(8));
    let mut machine = boot(fabric);
    machine.assert_sound();
    assert_eq!(machine.topology.functions().len(), 6);
}

#[test]
fn a_link_that_comes_up_late_is_waited_for() {
    let (mut fabric, host) = machine(0, 255);
    let late = root_port().link_up_at(150 * MILLISECOND);
    let late = fabric.add_root(host, 1, 0, late);
    fabric.add_below(late, 0, 0, endpoint(7));
    let mut machine = boot(fabric);
    machine.assert_sound();
    assert_eq!(machine.topology.functions().len(), 2);
}

#[test]
fn a_stopped_clock_ends_the_wait_too() {
    let fabric = with_slow_device(u64::MAX);
    fabric.clock().stop();
    let machine = boot(fabric);
    assert_eq!(machine.topology.functions().len(), 3);
    assert_eq!(machine.complaints().len(), 1);
}

#[test]
fn a_link_that_drops_in_the_middle_of_it_ends_well() {
    for time in (0..400).map(|n| n * 3_000) {
        let (mut fabric, host) = machine(0, 255);
        let port = root_port().link_up().link_drops_at(time);
        let port = fabric.add_root(host, 1, 0, port);
        fabric.add_below(port, 0, 0, devices::nvme());
        fabric.add_root(host, 2, 0, endpoint(8));
        let machine = boot(fabric);
        assert!(machine.addresses().contains(&at(0, 2, 0)), "{time} ns");
    }
}

//! Bus numbers that are to be preserved: which are followed, and which are
//! reported with what is below left alone.

use warmbus_pci::{BusRange, Sbdf, ScanPolicy, Width};
use warmbus_pcie_sim::{Fabric, FunctionModel, HostId, NodeId, devices};

use crate::{Machine, at, boot_with, endpoint, machine, root_port};

impl Machine {
    /// What was reported before the registers were verified at the end.
    pub(crate) fn complaints_of_scan(&self) -> Vec<String> {
        let verified = ["do not nest in", "is outside of what", " overlaps "];
        let mut all = self.complaints();
        all.retain(|text| !verified.iter().any(|part| text.contains(part)));
        all
    }
}

fn preserve(fabric: Fabric) -> Machine {
    let machine = boot_with(fabric, &ScanPolicy::default(), |host| {
        host.preserve_config = true;
    });
    assert_eq!(machine.fabric().log().writes(), 0);
    machine
}

/// Gives a bridge its numbers, as a loader has.
fn number(fabric: &mut Fabric, bridge: NodeId, primary: u8, secondary: u8, subordinate: u8) {
    let numbers = u32::from_le_bytes([primary, secondary, subordinate, 0]);
    fabric.poke(bridge, 0x18, Width::Dword, numbers);
}

/// A root port with an endpoint below.
fn add_port(fabric: &mut Fabric, host: HostId, device: u8) -> NodeId {
    let port = fabric.add_root(host, device, 0, root_port().link_up());
    fabric.add_below(port, 0, 0, endpoint(7));
    port
}

/// One port with these numbers, on a host bridge of buses 0 to `last`.
fn one_port(last: u8, secondary: u8, subordinate: u8) -> Machine {
    let (mut fabric, host) = machine(0, last);
    let port = add_port(&mut fabric, host, 1);
    number(&mut fabric, port, 0, secondary, subordinate);
    preserve(fabric)
}

fn refused(bridge: Sbdf, numbers: [u8; 3], last: u8) -> String {
    let [primary, secondary, subordinate] = numbers;
    format!(
        "{bridge}: bus numbers primary {primary:02x}, secondary {secondary:02x}, subordinate {subordinate:02x} do not fit between bus {:02x} and {last:02x}; what is below is left alone",
        bridge.bus()
    )
}

#[test]
fn numbers_within_those_of_the_host_bridge_are_followed() {
    for (last, secondary, subordinate) in [
        (255, 1, 1),
        (255, 1, 255),
        (255, 255, 255),
        (8, 5, 7),
        (8, 8, 8),
    ] {
        let machine = one_port(last, secondary, subordinate);
        assert_eq!(machine.complaints_of_scan(), [""; 0]);
        assert_eq!(machine.addresses(), [at(0, 1, 0), at(secondary, 0, 0)]);
        let bridge = machine.function(at(0, 1, 0)).bridge.unwrap();
        assert_eq!(
            (bridge.secondary, bridge.subordinate),
            (secondary, subordinate)
        );
        let last = machine.topology.hosts()[0].1.last;
        assert_eq!(last, subordinate, "the last bus in use");
    }
}

#[test]
fn a_bridge_without_numbers_leads_nowhere_and_is_not_reported() {
    let machine = one_port(255, 0, 0);
    assert_eq!(machine.complaints_of_scan(), [""; 0]);
    assert_eq!(machine.addresses(), [at(0, 1, 0)]);
    assert_eq!(machine.topology.hosts()[0].1.last, 0);
}

#[test]
fn numbers_that_cannot_be_are_reported_and_kept() {
    for (last, secondary, subordinate) in [(255, 0, 5), (255, 5, 4), (8, 8, 9), (8, 9, 9)] {
        let machine = one_port(last, secondary, subordinate);
        let expected = refused(at(0, 1, 0), [0, secondary, subordinate], last);
        assert_eq!(machine.complaints_of_scan(), [expected]);
        assert_eq!(machine.addresses(), [at(0, 1, 0)]);
        let bridge = machine.function(at(0, 1, 0)).bridge.unwrap();
        assert_eq!(
            (bridge.secondary, bridge.subordinate),
            (secondary, subordinate)
        );
        assert_eq!(machine.topology.hosts()[0].1.last, 0);
    }
}

#[test]
fn numbers_below_a_bridge_lie_within_its_own() {
    for (secondary, subordinate, is_valid) in [
        (2, 2, true),
        (2, 3, true),
        (3, 3, true),
        (1, 1, false),
        (1, 3, false),
        (2, 4, false),
        (4, 4, false),
    ] {
        let (mut fabric, host) = machine(0, 255);
        let root = fabric.add_root(host, 1, 0, root_port().link_up());
        let upstream = fabric.add_below(root, 0, 0, devices::upstream_port());
        number(&mut fabric, root, 0, 1, 3);
        number(&mut fabric, upstream, 1, secondary, subordinate);
        let machine = preserve(fabric);
        let expected = if is_valid {
            vec![]
        } else {
            vec![refused(at(1, 0, 0), [1, secondary, subordinate], 3)]
        };
        assert_eq!(machine.complaints_of_scan(), expected);
    }
}

#[test]
fn the_primary_number_counts_in_a_conventional_bridge() {
    for (primary, is_valid) in [(0, true), (7, false)] {
        let (mut fabric, host) = machine(0, 255);
        let bridge = fabric.add_root(host, 1, 0, devices::pci_bridge());
        let card = FunctionModel::endpoint(0x1234, 7, 0);
        fabric.add_below(bridge, 1, 0, card);
        number(&mut fabric, bridge, primary, 1, 1);
        let machine = preserve(fabric);
        let expected = if is_valid {
            vec![]
        } else {
            vec![refused(at(0, 1, 0), [primary, 1, 1], 255)]
        };
        assert_eq!(machine.complaints_of_scan(), expected);
        assert_eq!(machine.addresses().contains(&at(1, 1, 0)), is_valid);
    }
}

#[test]
fn a_bus_that_another_bridge_leads_to_is_not_entered_again() {
    let (mut fabric, host) = machine(0, 255);
    let first = add_port(&mut fabric, host, 1);
    let second = add_port(&mut fabric, host, 2);
    let third = add_port(&mut fabric, host, 3);
    // Not in the order of their devices, which is allowed.
    number(&mut fabric, first, 0, 4, 5);
    number(&mut fabric, second, 0, 1, 2);
    number(&mut fabric, third, 0, 3, 4);
    let machine = preserve(fabric);
    let expected = refused(at(0, 3, 0), [0, 3, 4], 255);
    assert_eq!(machine.complaints_of_scan(), [expected]);
    let found = [1, 2, 3].map(|device| at(0, device, 0));
    let below = [at(4, 0, 0), at(1, 0, 0)];
    assert_eq!(machine.addresses(), [&found[..], &below].concat());
    assert_eq!(machine.topology.hosts()[0].1.last, 5);
}

#[test]
fn host_bridges_of_other_segments_may_use_the_same_numbers() {
    let mut fabric = Fabric::new();
    for segment in 0..2 {
        let buses = BusRange { first: 0, last: 9 };
        let host = fabric.add_host(Fabric::host_bridge(segment, buses));
        let port = add_port(&mut fabric, host, 1);
        number(&mut fabric, port, 0, 1, 1);
    }
    let machine = preserve(fabric);
    assert_eq!(machine.complaints_of_scan(), [""; 0]);
    assert_eq!(machine.topology.functions().len(), 4);
}

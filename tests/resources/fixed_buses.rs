//! Bus numbers below a bridge that Enhanced Allocation fixes (PCIe 7.8.5.2).

use warmbus_pci::Width;
use warmbus_pcie_sim::{Fabric, HostId, devices};

use crate::{ALL_WINDOWS, HIGH, KIB, LOW, at, root_port, set_up};

/// A port whose numbers are fixed, at 00:`device`.0 with a disk below it.
fn fixed_port(fabric: &mut Fabric, host: HostId, device: u8, buses: (u8, u8)) {
    let model = root_port(ALL_WINDOWS).enhanced_allocation(&[], buses);
    let port = fabric.add_root(host, device, 0, model);
    fabric.add_below(port, 0, 0, devices::nvme());
}

#[test]
fn fixed_bus_numbers_are_used_and_the_next_port_follows_them() {
    let (mut fabric, host) = Fabric::with_windows(&[LOW, HIGH]);
    fixed_port(&mut fabric, host, 1, (4, 6));
    let port = fabric.add_root(host, 2, 0, root_port(ALL_WINDOWS));
    fabric.add_below(port, 0, 0, devices::nvme());
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    assert_eq!(machine.all_reported(), [""; 0]);
    let first = machine.bridge(at(0, 1, 0));
    assert_eq!((first.secondary, first.subordinate), (4, 6));
    let second = machine.bridge(at(0, 2, 0));
    assert_eq!((second.secondary, second.subordinate), (7, 7));
    let numbers = machine.register(at(0, 1, 0), 0x18, Width::Dword);
    assert_eq!(numbers, 0x0006_0400);
    assert!(machine.decodes(at(4, 0, 0), 0, 16 * KIB));
    assert!(machine.decodes(at(7, 0, 0), 0, 16 * KIB));
}

#[test]
fn fixed_bus_numbers_that_are_taken_or_impossible_are_reported() {
    for (buses, text) in [
        ((1, 2), "fixed bus numbers 01 to 02 are not free"),
        ((6, 5), "fixed bus numbers 06 to 05 are not free"),
        ((9, 0), "fixed bus numbers 09 to 00 are not free"),
    ] {
        let (mut fabric, host) = Fabric::with_windows(&[LOW, HIGH]);
        let port = fabric.add_root(host, 1, 0, root_port(ALL_WINDOWS));
        fabric.add_below(port, 0, 0, devices::nvme());
        fixed_port(&mut fabric, host, 2, buses);
        let machine = set_up(fabric);
        assert_eq!(machine.reported(at(0, 2, 0)), [text]);
        assert_eq!(machine.bridge(at(0, 2, 0)).secondary, 0);
        assert!(machine.decodes(at(1, 0, 0), 0, 16 * KIB));
        assert_eq!(machine.topology.functions().len(), 3);
    }
    // Beyond the last bus of the host bridge.
    let (mut fabric, host) = Fabric::with_buses(0, 4);
    fixed_port(&mut fabric, host, 1, (4, 5));
    let machine = set_up(fabric);
    let text = "fixed bus numbers 04 to 05 are not free";
    assert_eq!(machine.reported(at(0, 1, 0)), [text]);
}

//! Functions that are noted as absent for as long as the machine is on: only
//! where nothing can appear later (PCIe 2.3.1, PCI 3.0 4.3.2).

use std::collections::BTreeSet;

use warmbus_pci::Sbdf;
use warmbus_pcie_sim::{FunctionModel, devices};

use crate::{Machine, at, boot, endpoint, machine, root_port};

/// The functions of `bus` that are noted as absent.
fn absent(machine: &Machine, bus: u8) -> BTreeSet<Sbdf> {
    let absent = machine.topology.absent().iter().copied();
    let of_bus: Vec<Sbdf> = absent.filter(|function| function.bus() == bus).collect();
    let set: BTreeSet<_> = of_bus.iter().copied().collect();
    assert_eq!(set.len(), of_bus.len(), "noted twice");
    set
}

/// Function 0 of all devices of `bus` but these.
fn all_devices_but(bus: u8, there: &[u8]) -> BTreeSet<Sbdf> {
    let devices = (0..32).filter(|device| !there.contains(device));
    devices.map(|device| at(bus, device, 0)).collect()
}

#[test]
fn on_a_root_bus_every_number_that_does_not_answer_is_absent() {
    let (mut fabric, host) = machine(0, 255);
    fabric.add_root(host, 3, 0, endpoint(7));
    fabric.add_root(host, 5, 0, endpoint(7).multi_function());
    fabric.add_root(host, 5, 4, endpoint(7).multi_function());
    let machine = boot(fabric);
    let mut expected = all_devices_but(0, &[3, 5]);
    expected.extend([1, 2, 3, 5, 6, 7].map(|function| at(0, 5, function)));
    assert_eq!(absent(&machine, 0), expected);
}

#[test]
fn below_a_link_functions_of_a_device_that_answers_are_absent() {
    let (mut fabric, host) = machine(0, 255);
    let port = fabric.add_root(host, 1, 0, root_port().link_up());
    for function in [0, 2] {
        fabric.add_below(port, 0, function, endpoint(7).multi_function());
    }
    let machine = boot(fabric);
    let expected = [1, 3, 4, 5, 6, 7].map(|function| at(1, 0, function));
    assert_eq!(absent(&machine, 1), expected.into());
}

#[test]
fn a_device_that_does_not_answer_below_a_link_may_come_later() {
    let (mut fabric, host) = machine(0, 255);
    fabric.add_root(host, 1, 0, root_port().link_up());
    let machine = boot(fabric);
    assert_eq!(absent(&machine, 1), BTreeSet::new());
    assert_eq!(machine.topology.functions().len(), 1);
}

#[test]
fn on_the_bus_inside_a_switch_every_number_that_does_not_answer_is_absent() {
    let (mut fabric, host) = machine(0, 255);
    let port = fabric.add_root(host, 1, 0, root_port().link_up());
    let upstream = fabric.add_below(port, 0, 0, devices::upstream_port());
    for device in [2, 9] {
        let down = devices::downstream_port(device.into());
        fabric.add_below(upstream, device, 0, down);
    }
    let machine = boot(fabric);
    assert_eq!(absent(&machine, 2), all_devices_but(2, &[2, 9]));
}

#[test]
fn below_a_hot_plug_capable_port_nothing_is_absent() {
    let (mut fabric, host) = machine(0, 255);
    let port = fabric.add_root(host, 1, 0, devices::root_port(1).link_up());
    let upstream = fabric.add_below(port, 0, 0, devices::upstream_port());
    let down = devices::downstream_port(1).link_up();
    let down = fabric.add_below(upstream, 0, 0, down);
    fabric.add_below(down, 0, 0, devices::nvme().multi_function());
    let machine = boot(fabric);
    assert!(machine.addresses().contains(&at(3, 0, 0)));
    for bus in 1..=255 {
        assert_eq!(absent(&machine, bus), BTreeSet::new(), "bus {bus}");
    }
    assert_eq!(absent(&machine, 0), all_devices_but(0, &[1]));
}

#[test]
fn on_a_conventional_bus_nothing_is_absent() {
    let (mut fabric, host) = machine(0, 255);
    for (device, bridge) in [devices::pcie_to_pci_bridge(), devices::pci_bridge()]
        .into_iter()
        .enumerate()
    {
        let bridge = fabric.add_root(host, device as u8 + 1, 0, bridge);
        let card = FunctionModel::endpoint(0x1234, 7, 0).multi_function();
        fabric.add_below(bridge, 4, 0, card);
    }
    let machine = boot(fabric);
    for bus in [1, 2] {
        assert!(machine.addresses().contains(&at(bus, 4, 0)));
        assert_eq!(absent(&machine, bus), BTreeSet::new(), "bus {bus}");
    }
}

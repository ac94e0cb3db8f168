use warmbus_pci::{ScanPolicy, Width};
use warmbus_pcie_sim::FunctionModel;

use crate::{at, boot, boot_with, endpoint, machine, root_port};

/// A port with an ARI device of these functions in list order.
fn with_functions(port: FunctionModel, functions: &[u8]) -> crate::Machine {
    let (mut fabric, host) = machine(0, 255);
    let port = fabric.add_root(host, 1, 0, port.link_up());
    for (index, devfn) in functions.iter().enumerate() {
        let next = functions.get(index + 1).copied().unwrap_or(0);
        let model = endpoint(0x100 + u16::from(*devfn)).ari(next);
        fabric.add_below_devfn(port, *devfn, model);
    }
    boot(fabric)
}

#[test]
fn the_function_list_of_an_ari_device_is_followed_beyond_device_0() {
    let functions = [0, 3, 8, 0x40, 0xff];
    let mut machine = with_functions(root_port(), &functions);
    machine.assert_sound();
    let found: Vec<_> = machine.addresses()[1..].iter().map(|f| f.devfn()).collect();
    assert_eq!(found, functions);
    assert!(machine.function(at(0, 1, 0)).bridge.unwrap().ari_forwarding);
}

#[test]
fn a_port_without_ari_forwarding_shows_the_first_eight_functions_at_most() {
    let express = warmbus_pcie_sim::ExpressModel::new(warmbus_pci::PortType::RootPort);
    let port = FunctionModel::bridge(0x1234, 2, warmbus_pcie_sim::BridgeWindows::default())
        .express(express);
    let machine = with_functions(port, &[0, 8]);
    assert_eq!(machine.addresses(), [at(0, 1, 0), at(1, 0, 0)]);
}

#[test]
fn ari_forwarding_stays_off_above_a_device_without_ari() {
    let (mut fabric, host) = machine(0, 255);
    let port = fabric.add_root(host, 1, 0, root_port().link_up());
    fabric.add_below(port, 0, 0, endpoint(7).multi_function());
    fabric.add_below(port, 0, 5, endpoint(8).multi_function());
    let mut machine = boot(fabric);
    machine.assert_sound();
    assert_eq!(machine.topology.functions().len(), 3);
    assert!(!machine.function(at(0, 1, 0)).bridge.unwrap().ari_forwarding);
}

#[test]
fn a_function_list_that_does_not_lead_on_is_reported_and_left() {
    for next in [0x00, 0x01, 0x03, 0x08, 0x20] {
        let (mut fabric, host) = machine(0, 255);
        let port = fabric.add_root(host, 1, 0, root_port().link_up());
        fabric.add_below_devfn(port, 0, endpoint(7).ari(8));
        fabric.add_below_devfn(port, 8, endpoint(8).ari(next));
        let machine = boot(fabric);
        assert_eq!(machine.topology.functions().len(), 3);
        assert_eq!(machine.complaints().len(), usize::from(next != 0));
    }
}

#[test]
fn ari_forwarding_of_a_preserved_port_stays_as_it_is() {
    const DEVICE_CONTROL_2: u16 = 0x68;

    for is_enabled in [false, true] {
        let (mut fabric, host) = machine(0, 255);
        let port = fabric.add_root(host, 1, 0, root_port().link_up());
        for (devfn, next) in [(0, 8), (8, 0)] {
            fabric.add_below_devfn(port, devfn, endpoint(7).ari(next));
        }
        fabric.poke(port, 0x18, Width::Dword, 0x0001_0100);
        let control = u32::from(is_enabled) << 5;
        fabric.poke(port, DEVICE_CONTROL_2, Width::Word, control);
        let machine = boot_with(fabric, &ScanPolicy::default(), |host| {
            host.preserve_config = true;
        });
        assert_eq!(machine.fabric().log().writes(), 0);
        let bridge = machine.function(at(0, 1, 0)).bridge.unwrap();
        assert_eq!(bridge.ari_forwarding, is_enabled);
        let found = machine.topology.functions().len();
        assert_eq!(found, if is_enabled { 3 } else { 2 });
    }
}

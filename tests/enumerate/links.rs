//! What the registers of a port say about its link and slot, and what is done
//! by it (PCIe 7.5.3.7 to 7.5.3.12).

use warmbus_pci::{PortType, Width};
use warmbus_pcie_sim::{
    BridgeWindows, ExpressModel, FunctionModel, MILLISECOND, Outcome, SlotModel,
};

use crate::{Machine, at, boot, endpoint, machine};

/// The PCI Express capability of [`port`] is at 0x40.
const LINK_STATUS: u16 = 0x52;
const SLOT_CAPABILITIES: u16 = 0x54;
const SLOT_STATUS: u16 = 0x5a;
const ROOT_CONTROL: u16 = 0x5c;

fn port(express: ExpressModel) -> FunctionModel {
    FunctionModel::bridge(0x1234, 4, BridgeWindows::default()).express(express)
}

fn express() -> ExpressModel {
    ExpressModel::new(PortType::RootPort)
}

fn slot(hot_plug: bool) -> SlotModel {
    SlotModel {
        number: 1,
        hot_plug,
        power_controller: false,
    }
}

/// `port` at 00:01.0 with an endpoint below, recording.
fn above_endpoint(port: FunctionModel) -> Machine {
    let (mut fabric, host) = machine(0, 255);
    let port = fabric.add_root(host, 1, 0, port);
    fabric.add_below(port, 0, 0, endpoint(7));
    boot(fabric)
}

/// What was found out about the link and the device below it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    link_up: Option<bool>,
    found: bool,
    /// Whether the device was looked for while the link was down.
    probed: bool,
    waited: bool,
}

fn seen(machine: &Machine) -> Seen {
    Seen {
        link_up: machine.function(at(0, 1, 0)).bridge.unwrap().link_up,
        found: machine.topology.functions().len() == 2,
        probed: machine.fabric().log().count(Outcome::LinkDown) > 0,
        waited: machine.fabric().clock().time() > 10 * MILLISECOND,
    }
}

const UP: Seen = Seen {
    link_up: Some(true),
    found: true,
    probed: false,
    waited: false,
};
const DOWN: Seen = Seen {
    link_up: Some(false),
    found: false,
    ..UP
};

#[test]
fn a_link_that_is_up_is_followed_and_one_that_is_down_is_not() {
    for express in [
        express(),
        express().slot(slot(false)),
        express().slot(slot(true)),
    ] {
        let express = express.active_reporting();
        assert_eq!(seen(&above_endpoint(port(express).link_up())), UP);
        assert_eq!(seen(&above_endpoint(port(express))), DOWN);
    }
}

#[test]
fn presence_of_a_port_without_a_slot_says_nothing() {
    // Without a slot Presence Detect State reads 1 (PCIe 7.5.3.11).
    let model = port(express().active_reporting()).set(SLOT_STATUS, Width::Word, 0x40);
    assert_eq!(seen(&above_endpoint(model)), DOWN);
}

#[test]
fn an_occupied_slot_is_waited_for_although_its_link_does_not_train_yet() {
    for hot_plug in [false, true] {
        let express = express().slot(slot(hot_plug)).active_reporting();
        let model = port(express).link_starts_late(50 * MILLISECOND);
        let machine = above_endpoint(model);
        let expected = Seen { waited: true, ..UP };
        assert_eq!(seen(&machine), expected, "hot-plug {hot_plug}");
        assert!(machine.fabric().clock().time() >= 50 * MILLISECOND);
    }
}

#[test]
fn a_link_that_trains_is_waited_for_whether_or_not_the_port_reports_its_state() {
    for express in [express(), express().active_reporting()] {
        let reports = express == express.active_reporting();
        let machine = above_endpoint(port(express).link_up_at(50 * MILLISECOND));
        let link_up = reports.then_some(true);
        let expected = Seen {
            link_up,
            waited: true,
            ..UP
        };
        assert_eq!(seen(&machine), expected);
    }
}

#[test]
fn a_port_that_does_not_report_its_link_is_probed_unless_a_hot_plug_slot_is_empty() {
    let unknown = Seen {
        link_up: None,
        ..UP
    };
    let empty = Seen {
        link_up: None,
        found: false,
        probed: true,
        waited: false,
    };
    for (express, below_empty) in [
        (express(), &empty),
        // Boards leave Presence Detect of a fixed slot unwired.
        (express().slot(slot(false)), &empty),
        (express().slot(slot(true)), &DOWN),
    ] {
        let occupied = above_endpoint(port(express).link_up());
        assert_eq!(seen(&occupied), unknown);
        assert_eq!(&seen(&above_endpoint(port(express))), below_empty);
    }
}

#[test]
fn link_status_that_reads_ones_is_no_link() {
    let model = port(express().active_reporting()).link_up();
    let from = LINK_STATUS - 2;
    let to = from + 4;
    let model = model.fault(warmbus_pcie_sim::Fault::Hole { from, to });
    assert_eq!(seen(&above_endpoint(model)), DOWN);
}

#[test]
fn a_port_is_hot_plug_capable_if_it_has_a_slot_that_is() {
    for (express, garbage, expected) in [
        (express(), 0, false),
        // Slot Capabilities means nothing without a slot.
        (express(), 0x40, false),
        (express().slot(slot(false)), 0, false),
        (express().slot(slot(true)), 0, true),
    ] {
        let mut model = port(express.active_reporting());
        if garbage != 0 {
            model = model.set(SLOT_CAPABILITIES, Width::Dword, garbage);
        }
        let machine = above_endpoint(model);
        let bridge = machine.function(at(0, 1, 0)).bridge.unwrap();
        assert_eq!(bridge.hot_plug, expected, "{express:?}");
        // One number is spare below such a port.
        let last = if expected { 2 } else { 1 };
        assert_eq!((bridge.secondary, bridge.subordinate), (1, last));
    }
}

#[test]
fn root_ports_show_functions_that_are_not_ready_where_they_can() {
    const ENABLE: u32 = 1 << 4;

    for (model, before, expected, writes) in [
        (express(), 0, ENABLE, 1),
        // System Error enables are kept.
        (express(), 0x7, ENABLE | 0x7, 1),
        (express(), ENABLE, ENABLE, 0),
        (express().without_rrs_visibility(), 0x7, 0x7, 0),
    ] {
        let (mut fabric, host) = machine(0, 255);
        let node = fabric.add_root(host, 1, 0, port(model).link_up());
        fabric.add_below(node, 0, 0, endpoint(7));
        fabric.poke(node, ROOT_CONTROL, Width::Word, before);
        let machine = boot(fabric);
        let control = machine.fabric().peek(node, ROOT_CONTROL, Width::Word);
        assert_eq!(control, expected, "{before:#x}");
        let entries = machine.fabric().log().entries().iter();
        let written = entries.filter(|access| {
            access.write && access.node == Some(node) && access.offset.get() == ROOT_CONTROL
        });
        assert_eq!(written.count(), writes, "{before:#x}");
    }
    // Other ports have no Root Control.
    let (mut fabric, host) = machine(0, 255);
    let root = fabric.add_root(host, 1, 0, port(express()).link_up());
    let upstream = port(ExpressModel::new(PortType::UpstreamPort));
    let upstream = fabric.add_below(root, 0, 0, upstream);
    let down = port(ExpressModel::new(PortType::DownstreamPort))
        .set(ROOT_CONTROL + 2, Width::Word, 1)
        .writable(ROOT_CONTROL, Width::Word, 0x1f);
    let down = fabric.add_below(upstream, 0, 0, down);
    let machine = boot(fabric);
    let control = machine.fabric().peek(down, ROOT_CONTROL, Width::Word);
    assert_eq!(control, 0);
}

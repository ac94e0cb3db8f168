//! Devices that come after the scan, below ports that were empty.

use warmbus_boot::pipeline::{Captured, Pipeline};
use warmbus_pci::{LatePort, LateState, PortType};
use warmbus_pcie_sim::{
    BridgeWindows, ExpressModel, Fabric, FunctionModel, HostId, MILLISECOND, SlotModel,
};

use crate::{at, endpoint, machine, root_port};

/// Longer than any device is waited for.
const LATER: u64 = 60_000 * MILLISECOND;

/// Scans the machine that `add` makes, and looks at its empty ports `LATER`.
/// What comes of it, and how many accesses the look took.
fn late(add: impl FnOnce(&mut Fabric, HostId)) -> (Vec<LatePort>, u64) {
    late_after(add, |_| ())
}

/// The same, with what `happen` does to the hardware before the look.
fn late_after(
    add: impl FnOnce(&mut Fabric, HostId),
    happen: impl FnOnce(&mut Fabric),
) -> (Vec<LatePort>, u64) {
    let (mut fabric, host) = machine(0, 255);
    add(&mut fabric, host);
    let mut clock = fabric.clock();
    let hosts = fabric.host_bridges();
    let mut captured: Captured<Fabric> =
        Pipeline::default().run(&hosts, fabric, &mut clock, &mut ());
    clock.advance(LATER);
    happen(captured.config.access_mut());
    let before = captured.config.access().log().reads();
    let writes = captured.config.access().log().writes();
    captured.look_again(&mut ());
    let log = captured.config.access().log();
    assert_eq!(log.writes(), writes, "a look writes nothing");
    (captured.late, log.reads() - before)
}

fn of_port(state: LateState) -> Vec<LatePort> {
    vec![LatePort {
        port: at(0, 1, 0),
        state,
    }]
}

fn port(express: ExpressModel) -> FunctionModel {
    FunctionModel::bridge(0x1234, 4, BridgeWindows::default()).express(express)
}

#[test]
fn a_device_whose_link_came_up_after_the_scan_answers() {
    let (late, _) = late(|fabric, host| {
        let port = fabric.add_root(host, 1, 0, root_port().link_starts_late(LATER / 2));
        fabric.add_below(port, 0, 0, endpoint(7));
    });
    assert_eq!(late, of_port(LateState::Answers));
}

#[test]
fn a_device_that_came_after_the_scan_and_is_not_ready_is_one() {
    let add = |express: fn(ExpressModel) -> ExpressModel| {
        move |fabric: &mut Fabric, host| {
            let model = ExpressModel::new(PortType::RootPort).active_reporting();
            let port = port(express(model)).link_starts_late(LATER / 2);
            let port = fabric.add_root(host, 1, 0, port);
            fabric.add_below(port, 0, 0, endpoint(7).ready_at(u64::MAX));
        }
    };
    let (shown, _) = late(add(|express| express));
    assert_eq!(shown, of_port(LateState::NotReady));
    // A port that hides Request Retry Status returns all ones.
    let (hidden, _) = late(add(ExpressModel::without_rrs_visibility));
    assert_eq!(hidden, of_port(LateState::LinkUp));
}

#[test]
fn a_card_without_a_link_may_still_get_one() {
    let express = ExpressModel::new(PortType::RootPort)
        .slot(SlotModel::HOT_PLUG)
        .active_reporting();
    let empty = late(|fabric, host| {
        fabric.add_root(host, 1, 0, port(express).named("port"));
    });
    assert_eq!(empty.0, []);
    let (card, _) = late_after(
        |fabric, host| {
            fabric.add_root(host, 1, 0, port(express).named("port"));
        },
        |fabric| {
            let port = fabric.find("port").unwrap();
            fabric.insert_without_link(port);
        },
    );
    assert_eq!(card, of_port(LateState::Training));
}

#[test]
fn a_port_that_reports_no_link_and_has_no_device_stays_empty() {
    let (late, reads) = late(|fabric, host| {
        fabric.add_root(host, 1, 0, port(ExpressModel::new(PortType::RootPort)));
    });
    assert_eq!(late, []);
    assert!(reads > 0, "it was looked at");
}

#[test]
fn ports_with_a_device_and_endpoints_are_not_looked_at() {
    let (late, reads) = late(|fabric, host| {
        let port = fabric.add_root(host, 1, 0, root_port().link_up());
        fabric.add_below(port, 0, 0, endpoint(7));
        fabric.add_root(host, 2, 0, endpoint(8));
    });
    assert_eq!((late, reads), (vec![], 0));
}

#[test]
fn a_device_that_was_given_up_is_not_looked_for_again() {
    let (late, reads) = late(|fabric, host| {
        let port = fabric.add_root(host, 1, 0, root_port().link_up());
        fabric.add_below(port, 0, 0, endpoint(7).ready_at(LATER / 2));
    });
    assert_eq!((late, reads), (vec![], 0));
}

//! Each row is what is known of host bridges, and what follows for the boot tree.

use alloc::string::ToString;
use alloc::vec;

use warmbus_pci::{BusRange, HostBridge, PhysAddr, Sbdf};

use super::*;
use crate::unassigned::UnassignedReason;

const BAR: UnassignedReason = UnassignedReason::Bar(2);

fn gap(reason: UnassignedReason) -> ReassignReason {
    let function = Sbdf::new(0, 1, 0, 0);
    ReassignReason::Unassigned(Unassigned { function, reason })
}

fn host(name: &str, reassign: Option<ReassignReason>) -> HostFacts {
    HostFacts {
        name: name.into(),
        reassign,
    }
}

fn node(path: &str, has_domain: bool, probe_only: Option<bool>) -> HostNode {
    HostNode {
        path: path.into(),
        has_domain,
        probe_only,
    }
}

#[test]
fn bars_are_assigned_below_the_host_bridges_that_need_it_and_below_no_other() {
    let good = || host("/good", None);
    let rows = [
        (vec![], vec![]),
        (vec![good()], vec![]),
        (
            vec![good(), host("/x", Some(ReassignReason::Excluded))],
            vec!["/x"],
        ),
        (
            vec![host("/x", Some(ReassignReason::ResetByDriver)), good()],
            vec!["/x"],
        ),
        (
            vec![
                host("/a", Some(gap(BAR))),
                good(),
                host("/b", Some(gap(UnassignedReason::MemoryWindow))),
            ],
            vec!["/a", "/b"],
        ),
    ];
    for (hosts, names) in rows {
        let PciPolicy::Keep { except } = PciPolicy::for_device_tree(&hosts) else {
            panic!("bus numbers are kept: {hosts:?}");
        };
        let found: Vec<_> = except.iter().map(|host| host.name.as_str()).collect();
        assert_eq!(found, names);
    }
}

#[test]
fn a_bus_number_that_is_missing_has_linux_number_all_buses_again() {
    let vfs = UnassignedReason::VirtualFunctions {
        total_vfs: 8,
        bus: 256,
    };
    for reason in [
        UnassignedReason::Excluded,
        UnassignedReason::CardBus,
        UnassignedReason::BusNumbers,
        vfs,
    ] {
        let bad = host("/bad", Some(gap(reason)));
        let hosts = [
            host("/x", Some(ReassignReason::Excluded)),
            bad.clone(),
            host("/good", None),
        ];
        let policy = PciPolicy::for_device_tree(&hosts);
        assert_eq!(policy, PciPolicy::Reassign(bad));
        assert!(!policy.is_probe_only());
        let nodes = [node("/x", true, None), node("/good", true, None)];
        assert_eq!(policy.node_edits(&nodes, &Topology::default()), []);
    }
}

#[test]
fn nodes_get_what_they_do_not_say_and_nothing_else() {
    let buses = BusRange { first: 0, last: 1 };
    let kept = |segment, name: &str| {
        let host = HostBridge::ecam(segment, PhysAddr(0x40_0000_0000), buses).with_name(name);
        (host, buses)
    };
    let mut reset = kept(7, "/reset");
    reset.0.survives_linux_driver = false;
    let topology = Topology::new(
        vec![kept(4, "/a"), kept(5, "/b"), kept(6, "/bar"), reset],
        vec![],
    );
    let policy = PciPolicy::Keep {
        except: vec![
            host("/bar", Some(gap(BAR))),
            host("/reset", Some(ReassignReason::ResetByDriver)),
            host("/x", Some(ReassignReason::Excluded)),
            host("/y", Some(ReassignReason::Excluded)),
        ],
    };
    let nodes = [
        node("/a", false, None),
        node("/b", true, Some(true)),
        node("/bar", false, None),
        node("/reset", false, Some(true)),
        node("/x", false, None),
        node("/y", true, Some(false)),
    ];
    let edits = policy.node_edits(&nodes, &topology);
    let edit = |path: &str, domain, probe_only| NodeEdit {
        path: path.into(),
        domain,
        probe_only,
    };
    assert_eq!(
        edits,
        [
            edit("/a", Some(4), None),
            edit("/bar", Some(6), Some(false)),
            edit("/reset", None, Some(false)),
            edit("/x", None, Some(false)),
        ]
    );
    // One that says that it is not kept and is: it no longer hides /chosen.
    let nodes = [node("/b", true, Some(false))];
    let found = policy.node_edits(&nodes, &topology);
    assert_eq!(found, [edit("/b", None, Some(true))]);
    // Where the tree is to stay as it is, only segment numbers are added.
    for policy in [
        PciPolicy::AsFound,
        PciPolicy::Reassign(host("/bar", Some(gap(UnassignedReason::CardBus)))),
    ] {
        let nodes = [node("/a", false, None), node("/x", false, None)];
        let found = policy.node_edits(&nodes, &topology);
        assert_eq!(found, [edit("/a", Some(4), None)]);
    }
}

#[test]
fn sentences_name_the_host_bridge_and_the_reason() {
    let policy = |except: Vec<HostFacts>| PciPolicy::Keep { except };
    let x = || host("/x", Some(ReassignReason::Excluded));
    let rows = [
        (policy(vec![]), "Linux keeps all bus numbers and BARs"),
        (
            policy(vec![x(), host("/y", Some(gap(BAR)))]),
            "Linux keeps all bus numbers and BARs; it assigns BARs below /x (excluded), /y (0000:01:00.0: BAR 2 has no address)",
        ),
        (
            PciPolicy::Reassign(host("/z", Some(ReassignReason::ResetByDriver))),
            "Linux assigns again because of /z (reset by its Linux driver)",
        ),
        (
            PciPolicy::AsFound,
            "Linux keeps what it finds, as /chosen says",
        ),
    ];
    for (policy, text) in rows {
        assert_eq!(policy.to_string(), text);
    }
}

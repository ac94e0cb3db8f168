//! Host bridges that are supported beside some that are not.

use super::*;

const MIXED: &[u8] = include_bytes!("../../../../tests/fixtures/device-trees/mixed-hosts.dtb");

#[test]
fn every_enabled_host_bridge_counts_supported_or_not() {
    let machine = machine(MIXED);
    let nodes: Vec<_> = machine
        .host_nodes
        .iter()
        .map(|node| (node.path.as_str(), node.has_domain, node.probe_only))
        .collect();
    assert_eq!(
        nodes,
        [
            ("/pcie@4000000000", false, None),
            ("/pcie@4c300000", true, Some(false)),
            ("/bare", false, None),
            ("/pcie@4100000000", true, None),
            ("/pcie@4200000000", true, Some(true)),
            ("/pcie@4300000000", true, None),
            ("/soc/block@4cde0000/pcie@4400000000", false, None),
            ("/soc/bus-with-clock/pcie@4500000000", false, None),
            ("/soc/pcie@4600000000", false, None),
            ("/soc/bus/pcie@4700000000", false, None),
            ("/narrow/pcie@a0000000", false, None),
        ]
    );
    assert_eq!(machine.unusable_host_bridges, 4);
    assert!(!machine.chosen_probe_only);
    assert_eq!(
        machine.warnings,
        [
            "/pcie@4000000000: its window has room for buses 10-1f of 10-ff",
            "/pcie@4c300000 is excluded: example,host-bridge-v2, example,host-bridge is not supported",
            "/bare is excluded: a host bridge without a compatible property is not supported",
            "/pcie@4100000000 is excluded: segment 0000 already belongs to /pcie@4c300000",
            "/pcie@4300000000 is excluded: segment 0009 already belongs to /pcie@4200000000",
        ]
    );
}

#[test]
fn segment_numbers_of_disabled_and_unsupported_nodes_are_not_given_again() {
    let segments: Vec<_> = machine(MIXED)
        .hosts
        .iter()
        .map(|host| host.segment)
        .collect();
    // 0 is that of one that is not supported, 1 of a disabled one, 2 of a root
    // port, 3 of one below a disabled bus, 9 is the low half of its cell.
    assert_eq!(segments, [4, 9, 5, 6, 7, 8, 10]);
}

#[test]
fn what_is_above_a_host_bridge_decides_whether_it_needs_a_driver() {
    let machine = machine(MIXED);
    let depends = machine.hosts.iter().map(|host| {
        let depends_on = host.depends_on.as_deref();
        // What has to be started is neither written to nor found again.
        assert_eq!(
            host.survives_linux_driver,
            depends_on.is_none() && !host.mechanism.is_controller()
        );
        let is_preserved = host.preserve_config;
        (host.name.as_str(), depends_on, is_preserved)
    });
    let depends: Vec<_> = depends.collect();
    assert_eq!(
        depends,
        [
            ("/pcie@4000000000", None, false),
            ("/pcie@4200000000", None, true),
            (
                "/soc/block@4cde0000/pcie@4400000000",
                Some("/soc/block@4cde0000"),
                true
            ),
            (
                "/soc/bus-with-clock/pcie@4500000000",
                Some("/soc/bus-with-clock"),
                true
            ),
            (
                "/soc/pcie@4600000000",
                Some("the power domain of /soc/pcie@4600000000"),
                true
            ),
            ("/soc/bus/pcie@4700000000", None, false),
            ("/narrow/pcie@a0000000", None, true),
        ]
    );
}

#[test]
fn a_window_that_is_too_small_cuts_the_buses() {
    let machine = machine(MIXED);
    let host = &machine.hosts[0];
    let (first, last) = (0x10, 0x1f);
    assert_eq!(host.buses, BusRange { first, last });
    assert_eq!(host.regions(), [region(0x40_0000_0000, 0x100_0000)]);
}

#[test]
fn an_empty_region_keeps_the_names_of_those_after_it() {
    let machine = machine(MIXED);
    let port = machine.hosts.last().expect("there is one");
    assert_eq!(
        port.mechanism,
        Mechanism::DesignWare {
            dbi: PhysAddr(0xa000_0000),
            atu: Some(PhysAddr(0xa020_0000)),
        }
    );
    assert_eq!(port.ecam_base, PhysAddr(0xa030_0000));
    // The region that the name `dbi` has here is the empty one.
    let shifted = replaced(MIXED, b"dbi\0elbi\0", b"elbi\0dbi\0");
    let warnings = super::machine(&shifted).warnings;
    let refused =
        "/narrow/pcie@a0000000 is excluded: it has no port or no window in its reg-names property";
    assert!(warnings.iter().any(|warning| warning == refused));
}

#[test]
fn psci_that_is_disabled_is_not_called() {
    let psci = |tree: &[u8]| EarlyDevices::from_device_tree(tree).psci;
    assert_eq!(psci(MIXED), Psci::None);
    let enabled = replaced(MIXED, b"disabled\0", b"okay\0\0\0\0\0");
    assert_eq!(psci(&enabled), Psci::By(PsciConduit::Smc));
    // Nothing says how it is called, or that there is one.
    let by_nothing = replaced(&enabled, b"smc\0", b"xyz\0");
    assert_eq!(psci(&by_nothing), Psci::None);
    let of_another = replaced(MIXED, b"arm,psci-1.0\0", b"arm,psci-9.0\0");
    assert_eq!(psci(&of_another), Psci::None);
    assert_eq!(psci(&MIXED[..16]), Psci::NotKnown);
    // Damage after the node does not enable it.
    let node = MIXED.windows(12).position(|bytes| bytes == b"arm,psci-1.0");
    let after = node.expect("the tree has it") + 60;
    let mut damaged = MIXED.to_vec();
    damaged[after..after + 8].fill(0xff);
    assert_eq!(psci(&damaged), Psci::None);
}

#[test]
fn the_second_of_two_host_bridges_with_one_segment_is_excluded() {
    let used = |tree: &[u8]| {
        let machine = machine(tree);
        let hosts = machine.hosts.into_iter();
        let hosts = hosts.filter(|host| host.segment == 9);
        hosts.map(|host| host.name).collect::<Vec<_>>()
    };
    assert_eq!(used(MIXED), ["/pcie@4200000000"]);
    // Disabled or not supported, the first one still has its segment.
    let first = b"pcie@4200000000\0";
    let node = MIXED.windows(first.len()).position(|here| here == first);
    let (before, from_node) = MIXED.split_at(node.expect("the node is there"));
    let name = b"pci-host-ecam-generic\0";
    let at = from_node.windows(name.len()).position(|here| here == name);
    let mut tree = MIXED.to_vec();
    tree[before.len() + at.expect("it has a name")] = b'x';
    assert_eq!(used(&tree), [""; 0]);
}

#[test]
fn nodes_of_one_path_are_all_excluded() {
    let tree = replaced(MIXED, b"pcie@4200000000\0", b"pcie@4000000000\0");
    let machine = machine(&tree);
    let is_refused = |warning: &&String| warning.ends_with("there are several nodes of this path");
    assert_eq!(machine.warnings.iter().filter(is_refused).count(), 2);
    assert!(
        machine
            .hosts
            .iter()
            .all(|host| host.name != "/pcie@4000000000")
    );
}

//! How many virtual functions are shown, by policy and by what was found, and
//! what the topology says of SR-IOV.

use warmbus_pci::{Sbdf, ScanPolicy, SrIovInfo, VfPolicy, VfScope, Width};
use warmbus_pcie_sim::{Fabric, Fault, FunctionModel, SrIovModel, VfLayout};

use crate::captured_vfs::{a_vf, boot};
use crate::{Machine, at, boot_with, endpoint, machine, root_port};

const PHYSICAL: Sbdf = Sbdf::new(0, 1, 0, 0);

/// A physical function below a root port.
fn physical(total_vfs: u16, layout: VfLayout) -> FunctionModel {
    let sriov = SrIovModel {
        total_vfs,
        layout,
        vf_device: 0xabcd,
        ..SrIovModel::default()
    };
    endpoint(7).ari(0).sriov(sriov, a_vf())
}

fn below_port(model: FunctionModel) -> Fabric {
    let (mut fabric, host) = machine(0, 8);
    let port = fabric.add_root(host, 1, 0, root_port().link_up());
    fabric.add_below(port, 0, 0, model);
    fabric
}

fn scope(scope: VfScope) -> VfPolicy {
    VfPolicy {
        scope,
        ..VfPolicy::default()
    }
}

fn listed(count: u16) -> VfPolicy {
    VfPolicy {
        scope: VfScope::Off,
        listed: vec![(PHYSICAL, count)],
        keep: false,
    }
}

/// A machine that a loader has set up, with `enabled` of 8 VFs enabled.
fn set_up_by_a_loader(enabled: u16) -> Fabric {
    let policy = VfPolicy {
        keep: true,
        ..listed(enabled)
    };
    let machine = boot(below_port(physical(8, |_, _| (1, 1))), &policy, false);
    assert_eq!(machine.vfs().len(), usize::from(enabled));
    let mut fabric = machine.config.access().clone();
    fabric.log_mut().clear();
    fabric
}

fn sriov(machine: &Machine) -> SrIovInfo {
    machine.function(PHYSICAL).sriov.expect("SR-IOV")
}

#[test]
fn vfs_that_are_enabled_where_nothing_may_be_written_are_shown_as_they_are() {
    for (policy, shown) in [
        (scope(VfScope::Found), 5),
        (scope(VfScope::All), 5),
        (listed(3), 5),
        (listed(8), 5),
        (listed(0), 5),
        (scope(VfScope::Off), 0),
    ] {
        let machine = boot(set_up_by_a_loader(5), &policy, true);
        assert_eq!(machine.fabric().log().writes(), 0);
        assert_eq!(machine.vfs().len(), shown, "{policy:?}");
        assert_eq!(machine.complaints(), [""; 0], "{policy:?}");
        let sriov = sriov(&machine);
        assert_eq!((sriov.num_vfs, sriov.vfs_enabled), (5, true), "{policy:?}");
    }
}

#[test]
fn vfs_that_are_not_enabled_where_nothing_may_be_written_are_missed_only_if_listed() {
    for (policy, is_reported) in [
        (scope(VfScope::Off), false),
        (scope(VfScope::Found), false),
        (scope(VfScope::All), false),
        (listed(0), false),
        (listed(3), true),
    ] {
        let machine = boot(set_up_by_a_loader(0), &policy, true);
        assert_eq!(machine.fabric().log().writes(), 0);
        assert_eq!(machine.vfs(), []);
        let expected = if is_reported {
            vec![format!(
                "{PHYSICAL}: 3 VFs were requested, but are not enabled, and nothing may be written"
            )]
        } else {
            vec![]
        };
        assert_eq!(machine.complaints(), expected, "{policy:?}");
        let sriov = sriov(&machine);
        assert_eq!((sriov.num_vfs, sriov.vfs_enabled), (0, false), "{policy:?}");
    }
}

#[test]
fn where_everything_is_assigned_the_policy_decides() {
    for (policy, shown) in [
        (scope(VfScope::Off), 0),
        (scope(VfScope::Found), 5),
        (scope(VfScope::All), 8),
        (listed(3), 3),
        (listed(0), 0),
    ] {
        let mut machine = boot(set_up_by_a_loader(5), &policy, false);
        assert_eq!(machine.vfs().len(), shown, "{policy:?}");
        assert_eq!(machine.complaints(), [""; 0], "{policy:?}");
        // They are disabled again, even those of a loader.
        let control = machine.sr_iov(PHYSICAL) + 8;
        assert_eq!(machine.hardware(PHYSICAL, control, Width::Word) & 1, 0);
        assert!(!sriov(&machine).vfs_enabled);
    }
}

#[test]
fn num_vfs_is_total_vfs_again_where_fewer_vfs_have_no_place() {
    // Three VFs would be on a bus that is there but was not reserved for them,
    // eight are not.
    let layout: VfLayout = |num_vfs, _| if num_vfs == 3 { (0x200, 1) } else { (1, 1) };
    let mut machine = boot(below_port(physical(8, layout)), &listed(3), false);
    assert_eq!(machine.vfs(), []);
    let expected = format!(
        "{PHYSICAL}: its VFs are excluded: the last of 3 would be on bus 0x3, beyond bus 01"
    );
    assert_eq!(machine.complaints(), [expected]);
    let num_vfs = machine.sr_iov(PHYSICAL) + 0x10;
    assert_eq!(machine.hardware(PHYSICAL, num_vfs, Width::Word), 8);
    let control = machine.sr_iov(PHYSICAL) + 8;
    assert_eq!(machine.hardware(PHYSICAL, control, Width::Word) & 1, 0);
    assert_eq!(machine.config.self_check().differences, []);
}

#[test]
fn the_registers_of_sr_iov_are_in_the_topology() {
    for (total_vfs, layout, offset, stride, last_bus) in [
        (8, (|_, _| (1, 1)) as VfLayout, 1, 1, 1),
        (1, |_, _| (0x7f, 0), 0x7f, 0, 1),
        (3, |_, _| (0xfe, 1), 0xfe, 1, 2),
        (2, |_, _| (0xfe, 1), 0xfe, 1, 1),
        (4, |_, _| (0x100, 0x100), 0x100, 0x100, 5),
    ] {
        let fabric = below_port(physical(total_vfs, layout));
        let machine = boot_with(fabric, &ScanPolicy::default(), |_| {});
        let found = sriov(&machine);
        let routing = (found.total_vfs, found.first_vf_offset, found.vf_stride);
        assert_eq!(routing, (total_vfs, offset, stride));
        assert_eq!((found.vf_device_id, found.last_bus), (0xabcd, last_bus));
        assert_eq!((found.num_vfs, found.vfs_enabled), (0, false));
        assert_eq!(found.num_vfs_register, Some(total_vfs));
        assert_eq!(machine.complaints(), [""; 0]);
    }
}

#[test]
fn vfs_on_top_of_each_other_or_beyond_the_last_bus_are_reported_and_take_no_bus() {
    for (total_vfs, layout, text) in [
        (
            8,
            (|_, _| (0, 1)) as VfLayout,
            "VF offset 0 and stride 1 put 8 VFs on top of each other",
        ),
        (
            2,
            |_, _| (1, 0),
            "VF offset 1 and stride 0 put 2 VFs on top of each other",
        ),
        (
            1,
            |_, _| (0, 0),
            "VF offset 0 and stride 0 put 1 VFs on top of each other",
        ),
        (
            8,
            |_, _| (0x7fa, 1),
            "8 VFs would end on bus 0x9, beyond the last bus 08 of the host bridge",
        ),
    ] {
        let fabric = below_port(physical(total_vfs, layout));
        let machine = boot_with(fabric, &ScanPolicy::default(), |_| {});
        assert_eq!(machine.complaints(), [format!("{PHYSICAL}: {text}")]);
        assert_eq!(sriov(&machine).last_bus, 1);
    }
    // The last VF is the last function of the last bus.
    let fabric = below_port(physical(8, |_, _| (0x7f8, 1)));
    let machine = boot_with(fabric, &ScanPolicy::default(), |_| {});
    assert_eq!(machine.complaints(), [""; 0]);
    assert_eq!(sriov(&machine).last_bus, 8);
}

#[test]
fn a_function_without_a_vf_is_not_written_and_has_none_enabled() {
    let mut fabric = below_port(physical(0, |_, _| (0, 0)));
    let node = fabric.nodes().last().expect("the function");
    // What a loader might have done.
    fabric.poke(node, 0x100 + 8 + 8, Width::Word, 1);
    fabric.poke(node, 0x100 + 8 + 0x10, Width::Word, 3);
    let machine = boot_with(fabric, &ScanPolicy::default(), |_| {});
    let base = machine.sr_iov(PHYSICAL);
    assert_eq!(base, 0x108);
    let entries = machine.fabric().log().entries().iter();
    let written = entries
        .filter(|access| access.write && access.node == Some(node) && access.offset.get() >= base);
    assert_eq!(written.count(), 0);
    let sriov = sriov(&machine);
    assert_eq!((sriov.num_vfs, sriov.vfs_enabled), (0, false));
}

#[test]
fn a_function_that_vanishes_has_no_sr_iov_of_ones() {
    for accesses in 0..60 {
        let model = physical(8, |_, _| (1, 1)).fault(Fault::Vanishes { accesses });
        let machine = boot_with(below_port(model), &ScanPolicy::default(), |_| {});
        let functions = machine.topology.functions().iter();
        for sriov in functions.filter_map(|function| function.sriov) {
            assert_ne!(sriov.total_vfs, u16::MAX, "after {accesses} accesses");
        }
        assert!(machine.addresses().contains(&at(0, 1, 0)));
    }
}

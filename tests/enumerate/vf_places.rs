//! Which routing IDs virtual functions take, and which are refused to them.

use warmbus_pci::{Sbdf, VfPolicy, VfScope, Width, probe_vf_routing};
use warmbus_pcie_sim::{Fabric, FunctionModel, SrIovModel, VF_ENABLE_TIME, VfLayout};

use crate::captured_vfs::{a_vf, boot};
use crate::{Machine, at, endpoint, machine, root_port};

const ALL: VfPolicy = VfPolicy {
    scope: VfScope::All,
    listed: Vec::new(),
    keep: false,
};
const PHYSICAL: Sbdf = Sbdf::new(0, 1, 0, 0);

/// A port with one physical function for each of these layouts, in one device.
fn device(total_vfs: u16, layouts: &[VfLayout]) -> Fabric {
    let (mut fabric, host) = machine(0, 8);
    let port = fabric.add_root(host, 1, 0, root_port().link_up());
    for (number, layout) in (0_u8..).zip(layouts) {
        let sriov = SrIovModel {
            total_vfs,
            layout: *layout,
            lowest: number == 0,
            ..SrIovModel::default()
        };
        let is_last = usize::from(number) + 1 == layouts.len();
        let next = if is_last { 0 } else { number + 1 };
        let model = endpoint(7).multi_function().ari(next).sriov(sriov, a_vf());
        fabric.add_below(port, 0, number, model);
    }
    fabric
}

#[test]
fn one_vf_needs_no_stride() {
    let machine = boot(device(1, &[|_, _| (0x7f, 0)]), &ALL, false);
    assert_eq!(machine.vfs(), [Sbdf::from_devfn(0, 1, 0x7f)]);
    assert_eq!(machine.complaints(), [""; 0]);
    let machine = boot(device(2, &[|_, _| (0x7f, 0)]), &ALL, false);
    assert_eq!(machine.vfs(), []);
    let text = "0000:01:00.0: its VFs are excluded: offset 127 and stride 0 put 2 of them on top of each other";
    assert!(machine.complaints().contains(&text.to_string()));
}

#[test]
fn vfs_of_two_functions_may_lie_between_each_other_but_not_on_top() {
    // 2, 4, 6 and 3, 5, 7.
    let between: [VfLayout; 2] = [|_, _| (2, 2), |_, _| (2, 2)];
    let machine = boot(device(3, &between), &ALL, false);
    let expected = [2, 4, 6, 3, 5, 7].map(|devfn| Sbdf::from_devfn(0, 1, devfn));
    assert_eq!(machine.vfs(), expected);
    assert_eq!(machine.complaints(), [""; 0]);
    // 2, 4, 6 twice.
    let on_top: [VfLayout; 2] = [|_, _| (2, 2), |_, _| (1, 2)];
    let machine = boot(device(3, &on_top), &ALL, false);
    let expected = [2, 4, 6].map(|devfn| Sbdf::from_devfn(0, 1, devfn));
    assert_eq!(machine.vfs(), expected);
    let text = "0000:01:00.1: its VFs are excluded: VF 1 of 3 would be at 0000:01:00.2, where there is another function";
    assert_eq!(machine.complaints(), [text]);
    // Only the last one meets one of the first function.
    let last: [VfLayout; 2] = [|_, _| (8, 1), |_, _| (1, 3)];
    let machine = boot(device(3, &last), &ALL, false);
    assert_eq!(machine.vfs().len(), 3);
    let text = "0000:01:00.1: its VFs are excluded: VF 3 of 3 would be at 0000:01:01.0, where there is another function";
    assert_eq!(machine.complaints(), [text]);
}

#[test]
fn vfs_that_were_enabled_may_be_on_any_bus_of_the_host_bridge() {
    // All 64 would end beyond the last bus, so that none is reserved.
    for (first, shown) in [(0x200, 2), (0x7fe, 2), (0x7ff, 0)] {
        let layout: VfLayout = match first {
            0x200 => |_, _| (0x200, 1),
            0x7fe => |_, _| (0x7fe, 1),
            _ => |_, _| (0x7ff, 1),
        };
        let mut fabric = device(0x700, &[layout]);
        let nodes: Vec<_> = fabric.nodes().collect();
        fabric.poke(nodes[0], 0x18, Width::Dword, 0x0008_0100);
        fabric.poke(nodes[0], 0x68, Width::Word, 0x20);
        // NumVFs, then VF Enable, as a loader does.
        for (offset, value) in [(0x10, 2), (8, 0x11)] {
            let offset = warmbus_pci::ConfigOffset::wrapping(0x108 + offset);
            warmbus_pci::ConfigAccess::write(&mut fabric, PHYSICAL, offset, Width::Word, value);
        }
        fabric.clock().advance(VF_ENABLE_TIME);
        fabric.log_mut().clear();
        let machine = boot(fabric, &VfPolicy::default(), true);
        assert_eq!(machine.fabric().log().writes(), 0);
        assert_eq!(machine.vfs().len(), shown, "{first:#x}");
        let refused = "its VFs are excluded: the last of 2 would be on bus 0x9, beyond bus 08";
        let reported = machine.complaints();
        let is_refused = reported.iter().any(|text| text.ends_with(refused));
        assert_eq!(is_refused, shown == 0, "{reported:?}");
    }
}

#[test]
fn a_vf_has_the_header_layout_alone() {
    let vf = FunctionModel::multi_function(a_vf());
    let (mut fabric, host) = machine(0, 8);
    let port = fabric.add_root(host, 1, 0, root_port().link_up());
    let model = endpoint(7).ari(0).sriov(SrIovModel::default(), vf);
    fabric.add_below(port, 0, 0, model);
    let machine = boot(fabric, &ALL, false);
    assert_eq!(machine.vfs().len(), 8);
    for vf in machine.vfs() {
        let function = machine.function(vf);
        assert_eq!(function.header_type, 0);
        assert!(!function.multi_function);
        assert_eq!((function.class_code, function.revision), (0x01_0802, 0));
    }
}

/// The values of NumVFs that are written while routing is probed.
fn probed(machine: &mut Machine, max_runs: usize) -> Vec<u32> {
    let log = machine.config.access_mut().log_mut();
    log.clear();
    log.record();
    probe_vf_routing(&machine.topology, max_runs, &mut machine.config);
    let entries = machine.fabric().log().entries().iter();
    let written = entries.filter(|access| access.write);
    written.map(|access| access.value).collect()
}

#[test]
fn routing_is_probed_until_as_many_answers_differ_as_can_be_used() {
    // Every value of NumVFs has another answer.
    let layout: VfLayout = |num_vfs, _| (num_vfs, 1);
    for max_runs in [1, 2, 3, 6] {
        let policy = VfPolicy::default();
        let mut machine = boot(device(8, &[layout]), &policy, false);
        // That of TotalVFs is known; the one too many ends it.
        let mut expected: Vec<u32> = (1..8).rev().take(max_runs).collect();
        expected.push(8);
        assert_eq!(probed(&mut machine, max_runs), expected, "{max_runs}");
    }
    let mut machine = boot(device(8, &[layout]), &VfPolicy::default(), false);
    assert_eq!(probed(&mut machine, 20), [7, 6, 5, 4, 3, 2, 1, 8]);
}

#[test]
fn a_function_with_one_vf_is_not_probed() {
    let mut machine = boot(device(1, &[|_, _| (1, 1)]), &VfPolicy::default(), false);
    assert_eq!(probed(&mut machine, 20), [0; 0]);
    assert_eq!(machine.addresses(), [at(0, 1, 0), PHYSICAL]);
    let accesses = machine.fabric().log().entries().len();
    assert_eq!(accesses, 0);
}

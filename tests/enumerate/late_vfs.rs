//! Virtual functions that answer later than 100 ms after VF Enable, or never
//! (PCIe 9.3.3.3.1 and 2.3.1).

use warmbus_pci::{Sbdf, VfPolicy, VfScope};
use warmbus_pcie_sim::{Fabric, MICROSECOND, MILLISECOND, SECOND, SrIovModel};

use crate::captured_vfs::{a_vf, boot};
use crate::{at, endpoint, machine, root_port};

const ALL: VfPolicy = VfPolicy {
    scope: VfScope::All,
    listed: Vec::new(),
    keep: true,
};
const PHYSICAL: Sbdf = Sbdf::new(0, 1, 0, 0);

/// `count` VFs that are ready `late` nanoseconds after they may be accessed.
fn vfs(count: u16, late: u64) -> Fabric {
    let (mut fabric, host) = machine(0, 8);
    let port = fabric.add_root(host, 1, 0, root_port().link_up());
    let sriov = SrIovModel {
        total_vfs: count,
        ..SrIovModel::default()
    };
    let model = endpoint(7).ari(0).sriov(sriov, a_vf().ready_at(late));
    fabric.add_below(port, 0, 0, model);
    fabric
}

#[test]
fn vfs_that_are_ready_in_time_are_captured_at_once() {
    let machine = boot(vfs(8, 0), &ALL, false);
    assert_eq!(machine.vfs().len(), 8);
    assert_eq!(machine.complaints(), [""; 0]);
    assert!(machine.fabric().clock().time() < 105 * MILLISECOND);
}

#[test]
fn late_vfs_are_waited_for_until_one_second_after_vf_enable() {
    for late in [1, 30, 300, 600, 850, 890] {
        let machine = boot(vfs(8, late * MILLISECOND), &ALL, false);
        assert_eq!(machine.vfs().len(), 8, "{late} ms");
        assert_eq!(machine.complaints(), [""; 0], "{late} ms");
        assert_eq!(machine.fabric().log().violations(), [], "{late} ms");
        let time = machine.fabric().clock().time();
        assert!(time >= (100 + late) * MILLISECOND, "{late} ms");
        // Never more than one of the longest pauses too late.
        assert!(time < (210 + late) * MILLISECOND, "{late} ms: {time}");
    }
}

#[test]
fn vfs_that_take_longer_are_given_up_and_reported() {
    for late in [1_000 * MILLISECOND, u64::MAX / 2] {
        let machine = boot(vfs(8, late), &ALL, false);
        assert_eq!(machine.vfs(), []);
        let expected = format!(
            "{PHYSICAL}: 8 of 8 VFs do not answer and are excluded, first VF 1 at 0000:01:00.1"
        );
        assert_eq!(machine.complaints(), [expected]);
        let time = machine.fabric().clock().time();
        assert!(time < SECOND + 50 * MILLISECOND, "{time}");
    }
}

#[test]
fn a_round_over_many_silent_vfs_ends_in_time() {
    let mut fabric = vfs(300, u64::MAX / 2);
    // With two reads each, one round over them takes 600 ms.
    fabric.set_access_time(1000 * MICROSECOND);
    let before = fabric.clock().time();
    let machine = boot(fabric, &ALL, false);
    assert_eq!(machine.vfs(), []);
    let entries = machine.fabric().log().entries().iter();
    let of_vfs = entries.filter(|access| access.vf.is_some());
    let (first, last) = of_vfs.fold((u64::MAX, before), |(first, last), access| {
        (first.min(access.time), last.max(access.time))
    });
    // The first comes 100 ms after VF Enable, the last no later than 1,100 ms.
    let took = last - first;
    assert!(took <= SECOND + 5 * MILLISECOND, "{took} ns");
    assert!(took > 900 * MILLISECOND, "{took} ns");
}

#[test]
fn vfs_that_answer_are_captured_beside_some_that_never_do() {
    let (mut fabric, host) = machine(0, 8);
    for (device, late) in [(1, 0), (2, u64::MAX / 2), (3, 200 * MILLISECOND)] {
        let port = fabric.add_root(host, device, 0, root_port().link_up());
        let sriov = SrIovModel {
            total_vfs: 3,
            ..SrIovModel::default()
        };
        let model = endpoint(7).ari(0).sriov(sriov, a_vf().ready_at(late));
        fabric.add_below(port, 0, 0, model);
    }
    let machine = boot(fabric, &ALL, false);
    let vf = |bus, number| Sbdf::from_devfn(0, bus, number);
    let expected = [vf(1, 1), vf(1, 2), vf(1, 3), vf(3, 1), vf(3, 2), vf(3, 3)];
    assert_eq!(machine.vfs(), expected);
    assert_eq!(machine.complaints().len(), 1);
    // Each stands right behind its physical function, whose index it has.
    for (index, function) in machine.topology.functions().iter().enumerate() {
        if let Some(info) = function.virtual_function {
            assert_eq!(info.physical + usize::from(info.number), index);
            let physical = &machine.topology.functions()[info.physical];
            assert_eq!(physical.sbdf, at(function.sbdf.bus(), 0, 0));
            assert_eq!(function.parent, physical.parent);
            let parent = function.parent.expect("a port is above");
            let port = machine.topology.functions()[parent].bridge.expect("a port");
            assert_eq!(port.secondary, function.sbdf.bus());
        }
    }
}

/// A watchdog that a loader left running is not refreshed (docs/boards.md), so that
/// the waits must not add up.
#[test]
fn many_devices_that_never_answer_cost_the_timeouts_of_one() {
    const NEVER: u64 = u64::MAX / 2;
    let (mut fabric, host) = machine(0, 255);
    for device in 1..24 {
        let port = fabric.add_root(host, device, 0, root_port().link_up());
        let model = if device % 2 == 0 {
            endpoint(7).ready_at(NEVER)
        } else {
            let model = endpoint(7).ari(0);
            model.sriov(SrIovModel::default(), a_vf().ready_at(NEVER))
        };
        fabric.add_below(port, 0, 0, model);
    }
    let machine = boot(fabric, &ALL, false);
    assert_eq!(machine.vfs(), []);
    assert_eq!(machine.complaints().len(), 23);
    let time = machine.fabric().clock().time();
    assert!(time > 2 * SECOND, "{time}");
    assert!(time < 2_300 * MILLISECOND, "{time}");
}

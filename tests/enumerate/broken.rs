//! Hardware that breaks the rules: each ends in a topology.

use warmbus_pci::{ConfigAccess, Width};
use warmbus_pcie_sim::{
    BarModel, Fault, FunctionModel, Outcome, Quirk, RrsHandling, SECOND, devices,
};

use crate::handover::Start;
use crate::{Machine, at, boot, endpoint, machine, root_port};

/// A machine with `broken` below a root port and a sound function beside it,
/// which must be found whatever the other does.
fn beside(broken: FunctionModel) -> Machine {
    let (mut fabric, host) = machine(0, 255);
    let port = fabric.add_root(host, 1, 0, root_port().link_up());
    fabric.add_below(port, 0, 0, broken);
    let sound = endpoint(8).bar(0, BarModel::memory64(0x4000));
    let port = fabric.add_root(host, 2, 0, root_port().link_up());
    let node = fabric.add_below(port, 0, 0, sound);
    let machine = boot(fabric);
    let reachable = machine.fabric().reachable();
    let sbdf = reachable
        .iter()
        .find(|(_, id)| **id == node)
        .map(|(s, _)| *s);
    let sbdf = sbdf.expect("the sound function cannot be reached");
    let function = machine.function(sbdf);
    assert!(function.bars[0].address.is_some());
    assert!(function.anomalies.is_empty());
    let decoded = machine.fabric().decoded();
    assert!(decoded.iter().any(|d| d.node == node && d.size == 0x4000));
    machine
}

#[test]
fn capability_lists_that_lead_astray_end() {
    let model = || endpoint(7).power_management(false, 0).serial_number(1);
    for next in [0x40, 0x7c, 0x7d, 0x04, 0x3c, 0xff, 0xfc, 0x80, 0x41] {
        beside(model().link_capability(0x7c, next));
        beside(model().set(0x34, Width::Byte, next.into()));
    }
    for next in [0x100, 0x102, 0x0fc, 0xffc, 0xfff, 0x104, 0x004] {
        beside(model().link_extended(0x100, next));
    }
}

#[test]
fn every_header_type_is_survived() {
    for header in 0..=0xff {
        let machine = beside(endpoint(7).set(0x0e, Width::Byte, header));
        if header & 0x7f > 2 {
            assert!(!machine.complaints().is_empty(), "{header:#x}");
        }
    }
}

#[test]
fn a_function_may_vanish_after_any_access() {
    for accesses in 0..120 {
        let machine = beside(devices::nvme().fault(Fault::Vanishes { accesses }));
        let fabric = machine.fabric();
        let node = fabric.find("nvme").expect("it has a name");
        // Whenever it is, it is told, unless nobody ever knew of it.
        let is_missed = accesses > 0 && fabric.accesses(node) > accesses;
        let complaints = machine.complaints();
        let is_told = complaints
            .iter()
            .any(|text| text.contains("stopped answering while"));
        assert_eq!(is_told, is_missed, "{accesses}: {complaints:?}");
        beside(devices::upstream_port().fault(Fault::Vanishes { accesses }));
    }
}

#[test]
fn all_ones_aborts_and_noise_anywhere_are_survived() {
    for from in (0..0x140).step_by(4) {
        let to = from + 4;
        beside(devices::nvme().fault(Fault::Hole { from, to }));
        let mut machine = beside(devices::nvme().fault(Fault::Aborts { from, to }));
        if machine.fabric().log().count(Outcome::Aborted) > 0 {
            let waiting = machine.config.take_fault().is_some();
            assert!(waiting || !machine.complaints().is_empty(), "{from:#x}");
        }
        for seed in 0..3 {
            beside(devices::nvme().fault(Fault::Noise { from, to, seed }));
            beside(devices::upstream_port().fault(Fault::Noise { from, to, seed }));
        }
    }
}

#[test]
fn a_device_that_is_never_ready_holds_nobody_up() {
    let machine = beside(endpoint(7).ready_at(u64::MAX));
    assert!(machine.fabric().clock().time() < 2 * SECOND);
    let (mut fabric, host) = machine_with_repeats();
    let port = fabric.add_root(host, 1, 0, root_port().link_up());
    fabric.add_below(port, 0, 0, endpoint(7).ready_at(u64::MAX));
    assert_eq!(boot(fabric).topology.functions().len(), 1);
}

fn machine_with_repeats() -> (warmbus_pcie_sim::Fabric, warmbus_pcie_sim::HostId) {
    let (mut fabric, host) = machine(0, 255);
    fabric.set_rrs_handling(RrsHandling::Repeat(SECOND));
    (fabric, host)
}

#[test]
fn bridges_whose_numbers_do_not_stick_are_left_alone() {
    for stuck in [0, 0x00ff_0000, 0x0001_0100, 0xffff_ffff, 0x0002_0102] {
        let machine = beside(devices::upstream_port().hardwired(0x18, Width::Dword, stuck));
        assert!(!machine.complaints().is_empty(), "{stuck:#x}");
    }
    for mask in [0x00ff_ff00, 0x00ff_00ff, 0x0000_ffff, 0x000f_0f0f] {
        beside(devices::upstream_port().writable(0x18, Width::Dword, mask));
    }
}

#[test]
fn bridges_with_hardwired_windows_are_survived() {
    for offset in [0x1c, 0x20, 0x24, 0x28, 0x2c, 0x30] {
        for value in [0, 0xffff_ffff, 0x1234_5678, 0x0000_fff0, 0xfff0_0000] {
            beside(devices::upstream_port().hardwired(offset, Width::Dword, value));
        }
    }
}

#[test]
fn a_loop_of_bridges_ends_and_the_machine_beside_it_is_found() {
    for length in 1..4 {
        let (mut fabric, host) = machine(0, 255);
        let port = fabric.add_root(host, 1, 0, root_port().link_up());
        let first = fabric.add_below(port, 0, 0, devices::upstream_port());
        let mut last = first;
        for _ in 1..length {
            last = fabric.add_below(last, 0, 0, devices::downstream_port(1).link_up());
        }
        fabric.loop_back(last, first);
        fabric.add_root(host, 2, 0, endpoint(8));
        let mut machine = boot(fabric);
        assert!(machine.addresses().contains(&at(0, 2, 0)), "{length}");
        let complaints = machine.complaints();
        let is_told = complaints.iter().any(|text| text.contains("form a loop"));
        assert!(is_told, "{length}: {complaints:?}");
        assert_ne!(machine.start, Start::Keeping, "{length}");
        assert_eq!(machine.config.self_check().differences, [], "{length}");
    }
}

#[test]
fn bars_with_impossible_masks_are_survived() {
    for (value, mask) in [
        (0, 0x0f0f_0f0f),
        (0, 0xffff_ffff),
        (0, 0x0000_0010),
        (6, 0xffff_fff0),
        (4, 0x0000_0000),
        (4, 0x8000_0000),
        (1, 0x0000_0001),
        (1, 0xffff_fffe),
        (2, 0xfffe_0000),
        (0xffff_ffff, 0),
        (0x1234_5678, 0),
    ] {
        for offset in (0x10..0x34).step_by(4) {
            let model = endpoint(7)
                .set(offset, Width::Dword, value)
                .writable(offset, Width::Dword, mask)
                .writable(4, Width::Word, 0x547);
            beside(model);
        }
    }
}

#[test]
fn a_device_that_answers_on_every_number_is_found_once_below_a_link() {
    let model = root_port().link_up().quirk(Quirk::ForwardsEveryDevice);
    let (mut fabric, host) = machine(0, 255);
    let port = fabric.add_root(host, 1, 0, model);
    let broken = endpoint(7)
        .quirk(Quirk::EveryDevice)
        .quirk(Quirk::EveryFunction);
    fabric.add_below(port, 0, 0, broken);
    let machine = boot(fabric);
    assert_eq!(machine.addresses(), [at(0, 1, 0), at(1, 0, 0)]);
}

#[test]
fn a_device_on_every_number_of_the_root_bus_is_survived() {
    let (mut fabric, host) = machine(0, 255);
    let broken = root_port().link_up().quirk(Quirk::EveryDevice);
    let port = fabric.add_root(host, 0, 0, broken);
    fabric.add_below(port, 0, 0, endpoint(7));
    boot(fabric);
}

#[test]
fn multi_function_devices_may_have_holes() {
    let (mut fabric, host) = machine(0, 255);
    for function in [0, 3, 7] {
        fabric.add_root(host, 4, function, endpoint(7).multi_function());
    }
    // Without a function 0 there is no device.
    fabric.add_root(host, 5, 2, endpoint(8).multi_function());
    // Not announced as multi-function: the others are not looked for.
    fabric.add_root(host, 6, 0, endpoint(9).quirk(Quirk::EveryFunction));
    let machine = boot(fabric);
    let expected = [at(0, 4, 0), at(0, 4, 3), at(0, 4, 7), at(0, 6, 0)];
    assert_eq!(machine.addresses(), expected);
}

#[test]
fn buses_that_run_out_are_told() {
    for last in 0..8 {
        let (mut fabric, host) = machine(0, last);
        for device in 0..6 {
            let port = fabric.add_root(host, device, 0, root_port().link_up());
            fabric.add_below(port, 0, 0, endpoint(7));
        }
        let machine = boot(fabric);
        let expected = 6 + usize::from(last.min(6));
        assert_eq!(machine.topology.functions().len(), expected);
        assert_eq!(machine.complaints().len(), usize::from(6 - last.min(6)));
        assert_eq!(machine.fabric().log().violations(), []);
    }
}

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
fn capability_lists_with_invalid_pointers_end() {
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
fn a_function_is_used_as_far_as_its_header_layout_is_known() {
    for header in 0..=0xff_u8 {
        let bar = BarModel::memory32(0x1000);
        let model = endpoint(7)
            .bar(0, bar)
            .set(0x0e, Width::Byte, header.into());
        let machine = beside(model);
        let layout = header & 0x7f;
        let function = machine.function(at(1, 0, 0));
        assert_eq!(function.header_type, layout);
        assert_eq!(function.multi_function, header & 0x80 != 0);
        assert_eq!(function.bridge.is_some(), layout == 1, "{header:#x}");
        let has_bar = function.bars.iter().any(|bar| bar.address.is_some());
        assert_eq!(has_bar, layout < 2, "{header:#x}");
        let reported = machine.complaints();
        match layout {
            0 | 2 => assert_eq!(reported, [""; 0], "{header:#x}"),
            // The registers of a bridge are not there.
            1 => assert!(
                reported[0].contains("bus numbers do not stick"),
                "{reported:?}"
            ),
            _ => {
                let text = format!(
                    "0000:01:00.0: header type {layout:02x} is not known; only its first 16 bytes are read"
                );
                assert_eq!(reported, [text]);
            }
        }
        let is_kept = machine.start == Start::Keeping;
        assert_eq!(is_kept, layout != 1 && layout != 2, "{header:#x}");
    }
}

#[test]
fn a_function_may_vanish_after_any_access() {
    for accesses in 0..120 {
        let machine = beside(devices::nvme().fault(Fault::Vanishes { accesses }));
        let fabric = machine.fabric();
        let node = fabric.find("nvme").expect("it has a name");
        // Whenever it is, it is reported, unless nobody ever knew of it.
        let is_missed = accesses > 0 && fabric.accesses(node) > accesses;
        let complaints = machine.complaints();
        let is_reported = complaints
            .iter()
            .any(|text| text.contains("stopped answering while"));
        assert_eq!(is_reported, is_missed, "{accesses}: {complaints:?}");
        beside(devices::upstream_port().fault(Fault::Vanishes { accesses }));
    }
}

/// Whether the disk at 01:00.0 was found and has an address, without which it
/// must not decode.
fn disk_is_assigned(machine: &Machine) -> bool {
    let mut functions = machine.topology.functions().iter();
    let disk = functions.find(|function| function.sbdf == at(1, 0, 0));
    let is_assigned = disk.is_some_and(|disk| disk.bars.iter().any(|bar| bar.address.is_some()));
    let node = machine.fabric().find("nvme").expect("it has a name");
    let is_decoded = machine.fabric().decoded().iter().any(|d| d.node == node);
    assert!(is_assigned || !is_decoded);
    is_assigned
}

#[test]
fn registers_that_read_ones_abort_or_change_cost_only_what_depends_on_them() {
    for from in (0..0x140).step_by(4) {
        let to = from + 4;
        // Without IDs, Header Type or the BAR itself there is no address.
        let is_needed = [0x00, 0x0c, 0x10].contains(&from);
        let machine = beside(devices::nvme().fault(Fault::Hole { from, to }));
        assert_eq!(disk_is_assigned(&machine), !is_needed, "{from:#x}");
        assert_eq!(machine.fabric().misrouted(), [""; 0], "{from:#x}");
        let mut machine = beside(devices::nvme().fault(Fault::Aborts { from, to }));
        assert_eq!(disk_is_assigned(&machine), !is_needed, "{from:#x}");
        if machine.fabric().log().count(Outcome::Aborted) > 0 {
            let waiting = machine.config.take_fault().is_some();
            let mut texts = (from..to)
                .map(|offset| format!("access to offset {offset:03x} ended in an external abort"));
            let complaints = machine.complaints();
            let names = |text: String| complaints.iter().any(|one| one.contains(&text));
            let is_reported = texts.any(names);
            assert!(waiting || is_reported, "{from:#x}");
        }
        for seed in 0..3 {
            let machine = beside(devices::nvme().fault(Fault::Noise { from, to, seed }));
            disk_is_assigned(&machine);
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

/// Whether something is below the upstream port at 01:00.0 was not looked for,
/// and what was reported names its numbers as they are.
fn assert_left_alone(mut machine: Machine, expected: u32) {
    let [primary, secondary, subordinate, _] = expected.to_le_bytes();
    let text = format!(
        "0000:01:00.0: bus numbers do not stick: wrote 01/02/ff, read {primary:02x}/{secondary:02x}/{subordinate:02x}; what is below is left alone"
    );
    assert_eq!(machine.complaints_of_scan(), [text]);
    let bridge = machine.function(at(1, 0, 0)).bridge.expect("a bridge");
    let numbers = [bridge.primary, bridge.secondary, bridge.subordinate];
    assert_eq!(numbers, [primary, secondary, subordinate]);
    // The port beside it follows the one bus that was given away.
    let found = [at(0, 1, 0), at(0, 2, 0), at(1, 0, 0), at(3, 0, 0)];
    assert_eq!(machine.addresses(), found);
    assert_ne!(machine.start, Start::Keeping);
    assert_eq!(machine.config.self_check().differences, []);
}

#[test]
fn what_is_below_a_bridge_whose_numbers_do_not_hold_is_left_alone() {
    for stuck in [0, 0x00ff_0000, 0x0001_0100, 0x00ff_ffff, 0x0002_0102] {
        let model = devices::upstream_port().hardwired(0x18, Width::Dword, stuck);
        assert_left_alone(beside(model), stuck);
    }
    for (mask, expected) in [
        (0x00ff_00ff, 0x00ff_0001),
        (0x0000_ffff, 0x0000_0201),
        (0x000f_0f0f, 0x000f_0201),
        (0x00ff_fdff, 0x00ff_0001),
    ] {
        let model = devices::upstream_port().writable(0x18, Width::Dword, mask);
        assert_left_alone(beside(model), expected);
    }
}

#[test]
fn a_bridge_whose_memory_windows_are_not_those_of_the_topology_is_reported() {
    for offset in [0x1c, 0x20, 0x24, 0x28, 0x2c, 0x30] {
        for value in [0, 0xffff_ffff, 0x1234_5678, 0x0000_fff0, 0xfff0_0000] {
            let model = devices::upstream_port().hardwired(offset, Width::Dword, value);
            let mut machine = beside(model);
            let bridge = machine.function(at(1, 0, 0)).bridge.expect("a bridge");
            let mut read = |offset| machine.hardware(at(1, 0, 0), offset, Width::Dword);
            // What a window that is open in the topology has to hold.
            let memory = bridge.memory.is_none_or(|window| {
                u64::from(read(0x20)) == window.base() >> 16 | window.limit() & 0xfff0_0000
            });
            let prefetchable = bridge.prefetchable.is_none_or(|window| {
                let uppers = (u64::from(read(0x28)), u64::from(read(0x2c)));
                uppers == (window.base() >> 32, window.limit() >> 32)
            });
            // A window that is closed there has its base above its limit, or
            // is not implemented.
            let low = read(0x24);
            let is_closed = low == 0 || low & 0xfff0 > low >> 16 & 0xfff0;
            let holds = memory && prefetchable && (bridge.prefetchable.is_some() || is_closed);
            let reported = machine.complaints_of_scan();
            // A window that is hardwired shut is reported, too.
            let is_reported = !reported.is_empty();
            assert!(is_reported || holds, "{offset:#x} {value:#x}");
            assert!(!is_reported || offset != 0x30);
            if offset == 0x1c {
                // No base and no limit is how a bridge without a window reads.
                assert_eq!(is_reported, value & 0xf0f0 != 0);
                let text = format!(
                    "I/O window is hardwired: wrote 00f0, read {:04x}",
                    value as u16
                );
                assert!(!is_reported || reported[0].contains(&text), "{reported:?}");
                continue;
            }
            if is_reported {
                assert!(
                    reported[0].contains(&format!("{value:08x}")),
                    "{reported:?}"
                );
                assert_ne!(machine.start, Start::Keeping);
            }
            let io = read_io(&mut machine);
            let is_open = bridge
                .io
                .map(|window| window.base() >> 8 | window.limit() & 0xf000);
            assert!(is_open.is_none_or(|open| open == io), "{value:#x}");
        }
    }
}

/// I/O Base and Limit of the bridge at 01:00.0.
fn read_io(machine: &mut Machine) -> u64 {
    (machine.hardware(at(1, 0, 0), 0x1c, Width::Word) & 0xf0f0).into()
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
        let is_reported = complaints.iter().any(|text| text.contains("form a loop"));
        assert!(is_reported, "{length}: {complaints:?}");
        assert_ne!(machine.start, Start::Keeping, "{length}");
        assert_eq!(machine.config.self_check().differences, [], "{length}");
    }
}

#[test]
fn a_bar_has_an_address_that_its_register_holds_or_none() {
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
            let mut machine = beside(model);
            let function = at(1, 0, 0);
            let bars = machine.function(function).bars.clone();
            let reported = machine.complaints();
            let held = machine.hardware(function, offset, Width::Dword);
            let command = machine.hardware(function, 4, Width::Word);
            let what = format!("{value:#x}, {mask:#x} at {offset:#x}: {bars:?} {reported:?}");
            for bar in &bars {
                let register = if bar.index == 6 {
                    0x30
                } else {
                    0x10 + 4 * u16::from(bar.index)
                };
                assert_eq!(register, offset, "{what}");
                if let Some(address) = bar.address {
                    let size = bar.size.expect("it was sized");
                    assert_eq!(u64::from(held) & !(size - 1), address, "{what}");
                    assert_eq!(address % size, 0, "{what}");
                } else {
                    assert_eq!(reported.len(), 1, "{what}");
                }
            }
            // What was refused holds no address that it could be rid of, and
            // decodes nothing.
            if bars.iter().all(|bar| bar.address.is_none()) {
                assert_eq!(held & mask & 0xffff_f800, 0, "{what}");
                assert_eq!(command & 3, 0, "{what}");
            }
            let names_it = |text: &String| {
                text.contains("BAR ") || offset == 0x30 && text.contains("expansion ROM")
            };
            assert!(reported.iter().all(names_it), "{what}");
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
fn a_device_on_every_number_of_the_root_bus_does_not_take_the_buses_of_others() {
    let (mut fabric, host) = machine(0, 255);
    let broken = root_port().link_up().quirk(Quirk::EveryDevice);
    let port = fabric.add_root(host, 0, 0, broken);
    fabric.add_below(port, 0, 0, endpoint(7));
    let machine = boot(fabric);
    let buses = |f: &warmbus_pci::Function| f.bridge.map(|b| (b.secondary, b.subordinate));
    let root = (0..32).map(|device| at(0, device, 0));
    let found: Vec<_> = machine
        .addresses()
        .into_iter()
        .filter(|f| f.bus() == 0)
        .collect();
    assert!(root.eq(found));
    let mut numbers: Vec<_> = machine
        .topology
        .functions()
        .iter()
        .filter_map(buses)
        .collect();
    numbers.sort_unstable();
    for pair in numbers.windows(2) {
        assert!(pair[0].1 < pair[1].0, "{numbers:x?}");
    }
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
fn buses_that_run_out_are_reported() {
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

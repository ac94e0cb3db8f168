//! What keeps an operating system from using the assignment as it is, rule by
//! rule: each broken once, with neighbors that are no gap.

use warmbus_boot::unassigned::unassigned_below;
use warmbus_pci::{BusRange, HostWindow, Sbdf, Width};
use warmbus_pcie_sim::{
    BarModel, Fabric, FunctionModel, SrIovModel, memory32_window, memory64_window,
};

use crate::{
    ALL_WINDOWS, HIGH, IO, KIB, LOW, MIB, Machine, at, below_port, endpoint, hot_plug_port,
    integrated, preserve, root_port, set_up,
};

const F: Sbdf = Sbdf::new(0, 0, 1, 0);

/// Where the first gap is, and what it is.
fn gap(machine: &Machine) -> Option<(Sbdf, String)> {
    unassigned_below(&machine.topology, 0).map(|gap| (gap.function, gap.reason.to_string()))
}

fn with_windows(windows: &[HostWindow], model: FunctionModel) -> Machine {
    let (mut fabric, host) = Fabric::with_windows(windows);
    fabric.add_root(host, 1, 0, model);
    set_up(fabric)
}

#[test]
fn a_machine_with_every_address_has_no_gap() {
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    let model = endpoint(7)
        .bar(0, BarModel::memory32(MIB))
        .bar(1, BarModel::io(0x20))
        .rom(2 << 10);
    below_port(&mut fabric, host, 1, ALL_WINDOWS, model);
    fabric.add_root(host, 2, 0, hot_plug_port());
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    assert_eq!(gap(&machine), None);
}

#[test]
fn a_function_that_was_excluded_is_a_gap_before_all_others() {
    let (mut fabric, host) = Fabric::with_windows(&[memory32_window(0x1000_0000, 4 * MIB)]);
    let model = integrated(1).set(0x0e, Width::Byte, 2);
    fabric.add_root(host, 1, 0, model);
    let (function, text) = gap(&set_up(fabric.clone())).expect("a gap");
    assert_eq!(function, F);
    assert!(text.contains("CardBus"), "{text}");
    // Two devices that never become ready.
    for device in 2..4 {
        let model = endpoint(7).ready_at(u64::MAX);
        below_port(&mut fabric, host, device, ALL_WINDOWS, model);
    }
    let machine = set_up(fabric);
    let excluded = machine.topology.excluded();
    assert_eq!(excluded.len(), 2);
    let (function, text) = gap(&machine).expect("a gap");
    assert_eq!(function, excluded[0]);
    assert!(text.contains("excluded"), "{text}");
}

/// A machine with these functions on its root bus.
fn with_functions(windows: &[HostWindow], models: Vec<FunctionModel>) -> Machine {
    let (mut fabric, host) = Fabric::with_windows(windows);
    for (device, model) in (1..).zip(models) {
        fabric.add_root(host, device, 0, model);
    }
    set_up(fabric)
}

fn memory_bar(size: u64) -> FunctionModel {
    integrated(1).bar(0, BarModel::memory32(size))
}

#[test]
fn a_bar_that_another_assignment_may_place_is_a_gap() {
    // Either the BAR of 8 MiB has a place or the seven of 1 MiB: Linux decides
    // otherwise than the firmware.
    let mut models = vec![memory_bar(8 * MIB)];
    models.extend((0..7).map(|_| memory_bar(MIB)));
    let small = memory32_window(0x1080_0000, 14 * MIB);
    let machine = with_functions(&[small], models.clone());
    assert_eq!(machine.address(F, 0), None);
    assert_eq!(gap(&machine), Some((F, "BAR 0 has no address".into())));
    let machine = with_functions(&[LOW], models);
    assert_eq!(gap(&machine), None);
}

#[test]
fn a_bar_that_no_window_holds_costs_itself_alone() {
    let small = memory32_window(0x1000_0000, MIB);
    let model = integrated(1)
        .bar(0, BarModel::memory32(4 * KIB))
        .bar(3, BarModel::memory32(32 * MIB));
    let machine = with_windows(&[small], model);
    assert_eq!(machine.address(F, 3), None);
    assert!(machine.address(F, 0).is_some());
    assert_eq!(machine.reported(F).len(), 1);
    assert_eq!(gap(&machine), None);
    // Without any window the same is true of every BAR.
    let machine = with_windows(&[], memory_bar(4 * KIB));
    assert_eq!(gap(&machine), None);
}

#[test]
fn the_last_of_too_many_bars_of_one_size_costs_itself_alone() {
    // Two aligned places of 256 MiB, for three.
    let window = memory32_window(0x1000_0000, 600 * MIB);
    let models = (0..3).map(|_| memory_bar(256 * MIB)).collect();
    let machine = with_functions(&[window], models);
    let placed = [1, 2, 3].map(|device| machine.address(at(0, device, 0), 0).is_some());
    assert_eq!(placed, [true, true, false]);
    assert_eq!(gap(&machine), None);
    // A prefetchable window is a place for one that may be in it.
    let spare = warmbus_pcie_sim::prefetchable_window(memory64_window(0x80_0000_0000, 256 * MIB));
    let machine = with_functions(
        &[window, spare],
        (0..3).map(|_| memory_bar(256 * MIB)).collect(),
    );
    assert_eq!(gap(&machine), None);
    let mut models: Vec<FunctionModel> = (0..2).map(|_| memory_bar(256 * MIB)).collect();
    let flexible = BarModel::memory64(256 * MIB).prefetchable();
    models.push(integrated(1).bar(0, flexible));
    let machine = with_functions(&[window, spare], models);
    assert!(machine.address(at(0, 3, 0), 0).is_some());
}

#[test]
fn io_bars_beyond_the_io_window_cost_themselves_alone() {
    // An I/O window of a bridge has 4 KiB at least: 15 above the ports of
    // legacy devices.
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    for device in 1..=18 {
        let model = endpoint(7)
            .bar(0, BarModel::io(0x40))
            .bar(1, BarModel::memory32(4 * KIB));
        below_port(&mut fabric, host, device, ALL_WINDOWS, model);
    }
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    let lost = (1..=18).filter(|&bus| machine.address(at(bus, 0, 0), 0).is_none());
    assert_eq!(lost.count(), 3);
    for bus in 1..=18 {
        assert!(machine.decodes(at(bus, 0, 0), 1, 4 * KIB));
        let is_reported = !machine.reported(at(bus, 0, 0)).is_empty();
        assert_eq!(is_reported, machine.address(at(bus, 0, 0), 0).is_none());
    }
    assert_eq!(gap(&machine), None);
}

#[test]
fn a_rom_and_vf_bars_without_a_place_cost_themselves_alone() {
    let small = memory32_window(0x1000_0000, 8 * MIB);
    let vfs = SrIovModel {
        vf_bars: [Some(BarModel::memory32(MIB)), None, None, None, None, None],
        ..SrIovModel::default()
    };
    let rom = integrated(1)
        .bar(0, BarModel::memory32(4 * MIB))
        .rom(8 << 20);
    for (model, index) in [
        (rom, 6),
        (
            memory_bar(4 * MIB).sriov(vfs, FunctionModel::virtual_function(0)),
            7,
        ),
    ] {
        let machine = with_windows(&[small], model);
        assert_eq!(machine.address(F, index), None);
        assert!(machine.decodes(F, 0, 4 * MIB));
        assert_eq!(machine.reported(F).len(), 1);
        assert_eq!(gap(&machine), None);
    }
}

#[test]
fn a_bar_of_a_bridge_without_a_place_costs_itself_alone() {
    let model = root_port(ALL_WINDOWS).bar(0, BarModel::memory32(32 * MIB));
    let machine = with_windows(&[memory32_window(0x1000_0000, 4 * MIB)], model);
    assert_eq!(machine.address(F, 0), None);
    assert_eq!(machine.reported(F).len(), 1);
    assert_eq!(gap(&machine), None);
}

#[test]
fn what_a_loader_did_not_assign_is_a_gap_even_if_it_is_optional() {
    let narrow = warmbus_pcie_sim::io_window(0x1000, 4 * KIB);
    let model = integrated(1).bar(2, BarModel::io(8 * KIB));
    let mut machine = with_windows(&[narrow, LOW], model);
    assert_eq!(machine.address(F, 2), None);
    assert_eq!(gap(&machine), None);
    // Nothing was assigned, so that nothing is known of what would fit.
    machine.change_function(F, |function| function.anomalies.clear());
    assert_eq!(gap(&machine), Some((F, "BAR 2 has no address".into())));
}

#[test]
fn the_host_bridge_of_the_function_itself_decides() {
    let mut fabric = Fabric::new();
    let buses = BusRange { first: 0, last: 8 };
    for (segment, windows) in (0..).zip([vec![IO, LOW], vec![LOW]]) {
        let mut bridge = Fabric::host_bridge(segment, buses);
        bridge.windows = windows;
        let host = fabric.add_host(bridge);
        let model = integrated(1).bar(2, BarModel::io(0x20));
        fabric.add_root(host, 1, 0, model);
    }
    assert_eq!(gap(&set_up(fabric)), None);
}

#[test]
fn a_card_bus_bridge_is_a_gap_and_an_unknown_header_is_none() {
    for (header, is_gap) in [(0, false), (2, true), (3, false), (0x7f, false)] {
        let model = integrated(1).set(0x0e, Width::Byte, header);
        let machine = with_windows(&[LOW], model);
        let found = gap(&machine);
        assert_eq!(found.is_some(), is_gap, "header type {header:#x}");
        if let Some((function, text)) = found {
            assert_eq!(function, F);
            assert!(text.contains("CardBus"), "{text}");
        }
    }
    // A function that Linux does not use may have reported anything.
    let model = integrated(1)
        .set(0x0e, Width::Byte, 3)
        .bar(0, BarModel::memory32(MIB));
    let machine = with_windows(&[], model);
    assert!(!machine.reported(F).is_empty());
    assert_eq!(gap(&machine), None);
}

#[test]
fn a_bridge_without_a_memory_window_is_a_gap() {
    let machine = with_windows(&[IO, HIGH], root_port(ALL_WINDOWS));
    assert_eq!(machine.bridge(F).memory, None);
    assert_ne!(machine.bridge(F).secondary, 0);
    let text = "the bridge has no memory window";
    assert_eq!(gap(&machine), Some((F, text.into())));
    let machine = with_windows(&[LOW], root_port(ALL_WINDOWS));
    assert_eq!(gap(&machine), None);
}

/// A port that a loader has given a memory window and these bus numbers.
fn port_of_a_loader(numbers: u32) -> Machine {
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    let port = fabric.add_root(host, 1, 0, root_port(ALL_WINDOWS));
    fabric.poke(port, 0x18, Width::Dword, numbers);
    fabric.poke(port, 0x20, Width::Dword, 0x1000_1000);
    preserve(fabric)
}

#[test]
fn a_bridge_without_bus_numbers_is_a_gap() {
    let machine = port_of_a_loader(0);
    assert!(machine.bridge(F).memory.is_some());
    assert_eq!(machine.reported(F), [""; 0]);
    let text = "the bridge has no bus number";
    assert_eq!(gap(&machine), Some((F, text.into())));
    let machine = port_of_a_loader(0x0001_0100);
    assert_eq!(gap(&machine), None);
}

#[test]
fn a_bridge_with_a_window_that_is_not_what_was_written_is_a_gap() {
    let model = root_port(ALL_WINDOWS).hardwired(0x20, Width::Dword, 0x3ff0_3000);
    let machine = with_windows(&[IO, LOW, HIGH], model);
    assert!(machine.bridge(F).memory.is_some() && machine.bridge(F).secondary == 1);
    let (function, text) = gap(&machine).expect("a gap");
    assert_eq!(function, F);
    assert_eq!(machine.reported(F), [text]);
}

/// The second of two ports has a physical function whose `total_vfs` VFs are
/// `offset` further on; the last bus of the host bridge is `last`.
fn with_vfs(total_vfs: u16, offset_is_next_bus: bool, last: u8) -> Machine {
    let (mut fabric, host) = Fabric::with_buses(0, last);
    for device in 1..=2 {
        let port = fabric.add_root(host, device, 0, root_port(ALL_WINDOWS));
        let mut model = endpoint(7);
        if device == 2 {
            let sriov = SrIovModel {
                total_vfs,
                layout: if offset_is_next_bus {
                    |_, _| (0x100, 1)
                } else {
                    |_, _| (1, 1)
                },
                ..SrIovModel::default()
            };
            model = model.sriov(sriov, FunctionModel::virtual_function(0));
        }
        fabric.add_below(port, 0, 0, model);
    }
    set_up(fabric)
}

#[test]
fn vfs_beyond_the_last_bus_are_a_gap_where_other_numbers_would_do() {
    // The function is on bus 2; on bus 1 the same VFs would be on bus 2.
    let machine = with_vfs(8, true, 2);
    let text = "the last of 8 VFs has no bus number: it would be on bus 0x3";
    assert_eq!(gap(&machine), Some((at(2, 0, 0), text.into())));
    for (total_vfs, next_bus, last) in [
        // Bus 3 is there.
        (8, true, 3),
        // The last VF is the last function of bus 2, or of bus 3.
        (255, false, 2),
        (256, true, 3),
        // No VF.
        (0, true, 2),
    ] {
        let machine = with_vfs(total_vfs, next_bus, last);
        assert_eq!(gap(&machine), None, "{total_vfs} VFs, last bus {last}");
    }
    // One VF more is on the bus behind.
    let text = "the last of 256 VFs has no bus number: it would be on bus 0x3";
    let machine = with_vfs(256, false, 2);
    assert_eq!(gap(&machine), Some((at(2, 0, 0), text.into())));
}

#[test]
fn vfs_that_no_numbering_has_buses_for_are_no_gap() {
    // Even on bus 1 the last VF would be on bus 3.
    let machine = with_vfs(257, true, 2);
    assert_eq!(gap(&machine), None);
    let machine = with_vfs(u16::MAX, true, 2);
    assert_eq!(gap(&machine), None);
}

#[test]
fn vfs_of_a_function_on_the_root_bus_are_counted_from_the_root_bus() {
    for (last, is_gap) in [(0, false), (1, false)] {
        let (mut fabric, host) = Fabric::with_buses(0, last);
        let sriov = SrIovModel {
            layout: |_, _| (0x100, 1),
            ..SrIovModel::default()
        };
        let model = integrated(1).sriov(sriov, FunctionModel::virtual_function(0));
        fabric.add_root(host, 1, 0, model);
        let machine = set_up(fabric);
        // With one bus there is no numbering that helps.
        assert_eq!(gap(&machine).is_some(), is_gap, "last bus {last}");
    }
}

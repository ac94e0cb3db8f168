//! What the Command register enables after assignment.

use warmbus_pci::{HostWindow, Sbdf, Width};
use warmbus_pcie_sim::{
    BarModel, Fabric, FunctionModel, HostId, NodeId, SrIovModel, io_window, memory32_window,
};

use crate::{
    ALL_WINDOWS, HIGH, IO, KIB, LOW, MIB, Machine, at, endpoint, hot_plug_port, integrated,
    root_port, set_up,
};

const F: Sbdf = Sbdf::new(0, 0, 1, 0);
const IO_ENABLE: u32 = 1;
const MEMORY_ENABLE: u32 = 2;

fn command(machine: &Machine, sbdf: Sbdf) -> u32 {
    machine.register(sbdf, 4, Width::Word) & 7
}

/// `model` at 00:01.0 of a host bridge with these windows.
fn with_windows(windows: &[HostWindow], model: FunctionModel) -> Machine {
    let (mut fabric, host) = Fabric::with_windows(windows);
    fabric.add_root(host, 1, 0, model);
    set_up(fabric)
}

#[test]
fn each_space_in_which_a_function_has_a_bar_is_enabled_and_no_other() {
    for (model, expected) in [
        (integrated(1), 0),
        (integrated(1).bar(0, BarModel::io(0x20)), IO_ENABLE),
        (integrated(1).bar(0, BarModel::memory32(KIB)), MEMORY_ENABLE),
        (integrated(1).bar(0, BarModel::memory64(KIB)), MEMORY_ENABLE),
        (
            integrated(1)
                .bar(0, BarModel::memory64(KIB))
                .bar(2, BarModel::io(0x20)),
            IO_ENABLE | MEMORY_ENABLE,
        ),
        // A ROM decodes by a bit in its own register, which stays clear.
        (integrated(1).rom(2 << 10), 0),
    ] {
        let mut machine = with_windows(&[IO, LOW, HIGH], model);
        machine.assert_consistent();
        assert_eq!(command(&machine, F), expected);
        assert_eq!(machine.register(F, 0x30, Width::Dword) & 1, 0);
    }
}

#[test]
fn a_space_in_which_one_bar_has_no_address_stays_disabled() {
    let small = memory32_window(0x1000_0000, 16 * MIB);
    let model = integrated(1)
        .bar(0, BarModel::memory32(4 * KIB))
        .bar(1, BarModel::memory32(32 * MIB))
        .bar(2, BarModel::io(0x20));
    let mut machine = with_windows(&[IO, small], model);
    machine.assert_consistent();
    assert!(machine.address(F, 0).is_some() && machine.address(F, 1).is_none());
    assert_eq!(command(&machine, F), IO_ENABLE);
    assert_eq!(machine.register(F, 0x14, Width::Dword), 0);

    let model = integrated(1)
        .bar(0, BarModel::memory32(4 * KIB))
        .bar(1, BarModel::io(0x20))
        .bar(2, BarModel::io(8 * KIB));
    let narrow = io_window(0x1000, 4 * KIB);
    let mut machine = with_windows(&[narrow, small], model);
    machine.assert_consistent();
    assert!(machine.address(F, 1).is_some() && machine.address(F, 2).is_none());
    assert_eq!(command(&machine, F), MEMORY_ENABLE);
}

#[test]
fn a_rom_or_vf_bars_without_addresses_disable_nothing() {
    let small = memory32_window(0x1000_0000, MIB);
    let mut vf_bars = [None; 6];
    vf_bars[0] = Some(BarModel::memory32(MIB));
    vf_bars[1] = Some(BarModel::memory64(MIB));
    let sriov = SrIovModel {
        vf_bars,
        ..SrIovModel::default()
    };
    let model = integrated(1)
        .bar(0, BarModel::memory32(4 * KIB))
        .rom(16 << 20)
        .sriov(sriov, FunctionModel::virtual_function(0));
    let mut machine = with_windows(&[small], model);
    machine.assert_consistent();
    for index in [6, 7, 8] {
        assert_eq!(machine.address(F, index), None, "BAR {index}");
    }
    assert_eq!(command(&machine, F), MEMORY_ENABLE);
    assert_eq!(machine.reported(F).len(), 3);
}

#[test]
fn a_bridge_decodes_the_spaces_of_its_windows() {
    let tiny = memory32_window(0x1000_0000, MIB);
    for (windows, expected) in [
        (vec![IO, LOW, HIGH], IO_ENABLE | MEMORY_ENABLE),
        (vec![LOW, HIGH], MEMORY_ENABLE),
        (vec![IO], IO_ENABLE),
        (vec![tiny], MEMORY_ENABLE),
        (vec![HIGH], MEMORY_ENABLE),
        (vec![], 0),
    ] {
        let mut machine = with_windows(&windows, root_port(ALL_WINDOWS));
        machine.assert_consistent();
        assert_eq!(command(&machine, F), expected, "{windows:x?}");
    }
}

#[test]
fn a_bridge_whose_own_bar_has_no_address_does_not_decode_memory() {
    let small = memory32_window(0x1000_0000, 16 * MIB);
    let model = root_port(ALL_WINDOWS).bar(0, BarModel::memory32(32 * MIB));
    let mut machine = with_windows(&[IO, small], model);
    machine.assert_consistent();
    assert_eq!(machine.address(F, 0), None);
    assert_eq!(command(&machine, F), IO_ENABLE);
}

/// A machine that a loader has enabled, with its bus numbers.
fn enabled_by_a_loader() -> (Fabric, HostId, [NodeId; 3]) {
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    let model = endpoint(7)
        .bar(0, BarModel::memory32(4 * KIB))
        .bar(1, BarModel::io(0x20));
    let port = fabric.add_root(host, 1, 0, root_port(ALL_WINDOWS));
    let below = fabric.add_below(port, 0, 0, model);
    let empty = fabric.add_root(host, 2, 0, hot_plug_port());
    for node in [port, below, empty] {
        fabric.poke(node, 4, Width::Word, 7);
    }
    fabric.poke(port, 0x18, Width::Dword, 0x0001_0100);
    (fabric, host, [port, below, empty])
}

#[test]
fn decode_and_bus_mastering_are_off_while_bars_are_probed_and_bus_mastering_stays_off() {
    let (fabric, ..) = enabled_by_a_loader();
    let mut machine = set_up(fabric);
    // The fabric reports ones that are written into a BAR which decodes.
    machine.assert_consistent();
    for function in [at(0, 1, 0), at(1, 0, 0), at(0, 2, 0)] {
        let expected = IO_ENABLE | MEMORY_ENABLE;
        assert_eq!(command(&machine, function), expected, "{function}");
    }
}

#[test]
fn other_bits_of_command_are_kept() {
    let (mut fabric, _, nodes) = enabled_by_a_loader();
    // Parity Error Response and SERR# Enable.
    fabric.poke(nodes[1], 4, Width::Word, 0x147);
    let machine = set_up(fabric);
    assert_eq!(machine.register(at(1, 0, 0), 4, Width::Word), 0x143);
}

#[test]
fn command_is_not_written_where_nothing_was_enabled_and_nothing_is_assigned() {
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    let node = fabric.add_root(host, 1, 0, integrated(1));
    fabric.log_mut().record();
    let machine = set_up(fabric);
    let mut accesses = machine.fabric().log().entries().iter();
    let is_write = |access: &warmbus_pcie_sim::Access| {
        access.write && access.node == Some(node) && access.offset.get() == 4
    };
    assert!(!accesses.any(is_write));
}

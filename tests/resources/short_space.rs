//! Host bridges with little space, or with windows at unusual places: each BAR
//! that has a place is placed.

use warmbus_boot::unassigned::{UnassignedReason, unassigned_below};
use warmbus_pci::{BusRange, HostWindow};
use warmbus_pcie_sim::{
    BarModel, BridgeWindows, Fabric, FunctionModel, io_window, memory32_window, memory64_window,
    prefetchable_window,
};

use crate::{ALL_WINDOWS, GIB, IO, KIB, LOW, MIB, Machine, at, below_port, endpoint, set_up};

/// A machine with a root port above each of these functions.
fn behind_ports(windows: &[HostWindow], models: Vec<FunctionModel>) -> Machine {
    behind(windows, ALL_WINDOWS, models)
}

fn behind(windows: &[HostWindow], forwards: BridgeWindows, models: Vec<FunctionModel>) -> Machine {
    let (mut fabric, host) = Fabric::with_windows(windows);
    for (device, model) in (1..).zip(models) {
        below_port(&mut fabric, host, device, forwards, model);
    }
    set_up(fabric)
}

/// A device whose memory is prefetchable, with 64-bit addresses.
fn gpu(size: u64) -> FunctionModel {
    endpoint(7)
        .bar(0, BarModel::memory64(size).prefetchable())
        .bar(2, BarModel::memory32(16 * KIB))
}

/// Every BAR is decoded, and Linux may keep it so.
fn all_placed(machine: &mut Machine) {
    machine.assert_consistent();
    assert_eq!(machine.all_reported(), [""; 0]);
    assert_eq!(machine.outcome.disabled, 0);
    assert_eq!(unassigned_below(&machine.topology, 0), None);
}

#[test]
fn holes_below_aligned_bars_are_used() {
    // 80 GiB from 516 GiB on: 32 GiB are aligned at 544 GiB only.
    let high = memory64_window(0x81_0000_0000, 80 * GIB);
    let sizes = [32, 8, 8, 16];
    let models = sizes.map(|size| gpu(size * GIB));
    let mut machine = behind_ports(&[IO, LOW, high], models.into());
    all_placed(&mut machine);
    for (bus, size) in (1..).zip(sizes) {
        assert!(machine.decodes(at(bus, 0, 0), 0, size * GIB));
    }
}

#[test]
fn a_64_bit_bar_falls_back_below_4_gib() {
    let high = memory64_window(0x80_0000_0000, 64 * MIB);
    let models = vec![gpu(256 * MIB), gpu(16 * MIB)];
    let mut machine = behind_ports(&[IO, LOW, high], models);
    all_placed(&mut machine);
    assert!(machine.address(at(1, 0, 0), 0) < Some(4 * GIB));
    assert!(machine.address(at(2, 0, 0), 0) > Some(4 * GIB));
}

#[test]
fn prefetchable_windows_below_4_gib_are_used() {
    let low = memory32_window(0x1000_0000, 16 * MIB);
    for prefetchable in [
        memory32_window(0x2000_0000, 496 * MIB),
        memory64_window(0x2000_0000, 496 * MIB),
    ] {
        let windows = [IO, low, prefetchable_window(prefetchable)];
        let models = vec![gpu(256 * MIB), gpu(4 * MIB)];
        let mut machine = behind_ports(&windows, models);
        all_placed(&mut machine);
        assert!(machine.address(at(1, 0, 0), 0) >= Some(0x2000_0000));
        // With 32-bit prefetchable windows, too.
        let narrow = BridgeWindows {
            io_bits: 16,
            prefetchable_bits: 32,
        };
        let models = vec![
            gpu(256 * MIB),
            endpoint(8).bar(0, BarModel::memory32(64 * MIB).prefetchable()),
        ];
        all_placed(&mut behind(&windows, narrow, models));
    }
}

#[test]
fn the_lower_part_of_a_window_across_4_gib_is_used() {
    // Nothing else is below 4 GiB.
    let across = memory64_window(0xc000_0000, 8 * GIB);
    let mut machine = behind_ports(&[IO, across], vec![gpu(2 * GIB), gpu(4 * GIB)]);
    all_placed(&mut machine);
    assert!(machine.address(at(1, 0, 0), 2) < Some(4 * GIB));
    assert!(machine.address(at(2, 0, 0), 0) >= Some(4 * GIB));
}

#[test]
fn a_bar_that_is_not_prefetchable_is_never_in_prefetchable_memory() {
    let only = prefetchable_window(memory32_window(0x2000_0000, 64 * MIB));
    let model = endpoint(7)
        .bar(0, BarModel::memory64(MIB).prefetchable())
        .bar(2, BarModel::memory64(MIB));
    let mut machine = behind_ports(&[only], vec![model]);
    machine.assert_consistent();
    assert!(machine.address(at(1, 0, 0), 0).is_some());
    assert_eq!(machine.address(at(1, 0, 0), 2), None);
}

#[test]
fn overlapping_host_windows_are_used_once() {
    let windows = [
        memory32_window(0x1000_0000, 8 * MIB),
        memory32_window(0x1040_0000, 8 * MIB),
        prefetchable_window(memory32_window(0x1000_0000, 16 * MIB)),
    ];
    let models = (0..12).map(|_| endpoint(7).bar(0, BarModel::memory32(MIB)));
    let mut machine = behind_ports(&windows, models.collect());
    all_placed(&mut machine);
}

#[test]
fn many_ports_with_bars_of_many_sizes_are_placed() {
    let models = (0..31_u64).map(|number| {
        endpoint(7)
            .bar(0, BarModel::memory32((4 * KIB) << (number % 11)))
            .bar(2, BarModel::memory64(MIB << (number % 6)).prefetchable())
            .rom(64 << 10)
    });
    let mut machine = behind_ports(&[IO, LOW], models.collect());
    all_placed(&mut machine);
}

#[test]
fn a_bridge_with_many_bars_is_not_lost_for_one_with_a_single_one() {
    // Four windows of bridges, for five bridges: that with six BARs comes first, and
    // each of its BARs is larger than those of the others.
    let low = memory32_window(0x1000_0000, 4 * MIB);
    let many = (0..6).fold(endpoint(7), |model, bar| {
        model.bar(bar, BarModel::memory32(8 * KIB))
    });
    let few = (0..4).map(|_| endpoint(8).bar(0, BarModel::memory32(4 * KIB)));
    let models = core::iter::once(many).chain(few).collect();
    let mut machine = behind_ports(&[low], models);
    machine.assert_consistent();
    assert_eq!(machine.outcome.disabled, 1);
    assert!((0..6).all(|bar| machine.address(at(1, 0, 0), bar).is_some()));
}

#[test]
fn an_io_bar_that_linux_places_below_0x1000_is_assigned_again() {
    // 16 KiB have three windows of bridges from 0x1000 on. In the I/O window of
    // another host bridge Linux uses a fourth one, from 0 on.
    let machine = |hosts: u16| {
        let io = io_window(0, 16 * KIB);
        let (mut fabric, host) = Fabric::with_windows(&[io, LOW]);
        for device in 1..=4 {
            let model = endpoint(7).bar(0, BarModel::io(256));
            below_port(&mut fabric, host, device, ALL_WINDOWS, model);
        }
        for segment in 1..hosts {
            fabric.add_host(Fabric::host_bridge(segment, BusRange::ALL));
        }
        set_up(fabric)
    };
    let alone = machine(1);
    assert_eq!(alone.outcome.disabled, 1);
    assert_eq!(unassigned_below(&alone.topology, 0), None);
    let unassigned = unassigned_below(&machine(2).topology, 0);
    let reason = unassigned.expect("it is assigned again").reason;
    assert_eq!(reason, UnassignedReason::Bar(0));
    // Nobody places what a bridge does not forward.
    let windows = BridgeWindows {
        io_bits: 0,
        prefetchable_bits: 64,
    };
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW]);
    let model = endpoint(7).bar(0, BarModel::io(256));
    below_port(&mut fabric, host, 1, windows, model);
    fabric.add_host(Fabric::host_bridge(1, BusRange::ALL));
    assert_eq!(unassigned_below(&set_up(fabric).topology, 0), None);
}

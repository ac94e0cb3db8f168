//! What bridges of QEMU ask to be reserved for devices that are plugged in later.

use warmbus_pci::{BridgeInfo, PciRange};
use warmbus_pcie_sim::{BarModel, Fabric, FunctionModel, SlotModel};

use crate::{
    ALL_WINDOWS, ExpressModel, GIB, HIGH, IO, KIB, LOW, MIB, PortType, at, below_port, endpoint,
    memory32_window, set_up,
};

/// The capability of a bridge that asks for so much: buses, I/O, memory,
/// prefetchable memory of 32 bits and of 64 bits. All ones ask for nothing.
fn capability(buses: u32, io: u64, memory: u32, low: u32, high: u64) -> Vec<u8> {
    let mut body = vec![32, 1];
    body.extend(buses.to_le_bytes());
    body.extend(io.to_le_bytes());
    body.extend(memory.to_le_bytes());
    body.extend(low.to_le_bytes());
    body.extend(high.to_le_bytes());
    body
}

const NONE: u32 = u32::MAX;
const NONE_64: u64 = u64::MAX;

/// An empty port of this vendor that asks for something.
fn port(vendor: u16, is_hot_plug: bool, capability: &[u8]) -> FunctionModel {
    let express = ExpressModel::new(PortType::RootPort).active_reporting();
    let express = if is_hot_plug {
        express.slot(SlotModel::HOT_PLUG)
    } else {
        express
    };
    FunctionModel::bridge(vendor, 0x000c, ALL_WINDOWS)
        .express(express)
        .capability(9, capability)
}

fn size(window: Option<PciRange>) -> u64 {
    window.map_or(0, |window| window.limit() - window.base() + 1)
}

/// Spare buses, and the sizes of the windows.
fn found(bridge: BridgeInfo) -> (u8, [u64; 3]) {
    (
        bridge.subordinate - bridge.secondary,
        [bridge.io, bridge.memory, bridge.prefetchable].map(size),
    )
}

#[test]
fn a_bridge_gets_what_it_asks_for() {
    let asks = capability(4, 8 * KIB, 64 << 20, NONE, 32 * GIB);
    let granted = (4, [8 * KIB, 64 * MIB, 32 * GIB]);
    let padded = (1, [4 * KIB, 2 * MIB, 2 * MIB]);
    let empty = (0, [4 * KIB, MIB, MIB]);
    let cases = [
        (0x1b36, true, asks.clone(), granted),
        (0x1b36, false, asks.clone(), granted),
        // Vendors give their own meaning to such a capability.
        (0x1b37, true, asks.clone(), padded),
        (0x1b37, false, asks, empty),
        // Less than any hot-plug port gets, prefetchable below 4 GiB, no I/O.
        (
            0x1b36,
            true,
            capability(NONE, 0, 1 << 20, 128 << 20, NONE_64),
            (1, [4 * KIB, 2 * MIB, 128 * MIB]),
        ),
        (
            0x1b36,
            true,
            capability(NONE, NONE_64, NONE, NONE, NONE_64),
            padded,
        ),
        // More than there is: what a port gets that asks for nothing.
        (
            0x1b36,
            true,
            capability(NONE, NONE_64, 0x8000_0000, NONE, 1024 * GIB),
            padded,
        ),
    ];
    for (vendor, is_hot_plug, asks, expected) in cases {
        let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
        fabric.add_root(host, 1, 0, port(vendor, is_hot_plug, &asks));
        let model = endpoint(7).bar(0, BarModel::memory32(4 * KIB));
        below_port(&mut fabric, host, 2, ALL_WINDOWS, model);
        let mut machine = set_up(fabric);
        machine.assert_consistent();
        let bridge = machine.bridge(at(0, 1, 0));
        assert_eq!(
            found(bridge),
            expected,
            "{vendor:x} {is_hot_plug} {asks:x?}"
        );
    }
}

#[test]
fn what_exists_goes_before_what_is_asked_for() {
    // 32 MiB for a BAR of 16 and a wish of 24.
    let (mut fabric, host) = Fabric::with_windows(&[memory32_window(0x1000_0000, 32 * MIB)]);
    let asks = capability(250, NONE_64, 24 << 20, NONE, NONE_64);
    fabric.add_root(host, 1, 0, port(0x1b36, true, &asks));
    for device in 2..12 {
        let size = if device == 2 { 16 * MIB } else { 4 * KIB };
        let model = endpoint(7).bar(0, BarModel::memory32(size));
        below_port(&mut fabric, host, device, ALL_WINDOWS, model);
    }
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    assert_eq!(machine.topology.functions().len(), 21);
    assert_eq!(machine.outcome.disabled, 0);
    let (_, [_, memory, _]) = found(machine.bridge(at(0, 1, 0)));
    assert_eq!(memory, 2 * MIB);
}

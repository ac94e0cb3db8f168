use warmbus_pcie_sim::{BarModel, FunctionModel};

use crate::{Bench, endpoint, root_port};

const PORT: (u8, u8, u8) = (0, 1, 0);
const F: (u8, u8, u8) = (1, 0, 0);

/// An endpoint with an I/O, a 32-bit and a 64-bit BAR below a port, all
/// addresses set and nothing wrong.
fn routed() -> Bench {
    let mut bench = Bench::new();
    let port = bench.fabric.add_root(bench.host, 1, 0, root_port());
    let model = endpoint(7)
        .bar(0, BarModel::memory32(0x10_0000))
        .bar(1, BarModel::io(0x100))
        .bar(2, BarModel::memory64(0x20_0000).prefetchable())
        .rom(0x1_0000);
    bench.fabric.add_below(port, 0, 0, model);
    bench.number(PORT, 0, 1, 1);
    bench.w32(F, 0x10, 0x1010_0000);
    bench.w32(F, 0x14, 0x2000);
    bench.w32(F, 0x18, 0x0020_0000);
    bench.w32(F, 0x1c, 0x80);
    bench.w32(F, 0x30, 0x1020_0001);
    bench.w16(F, 4, 7);
    // I/O 2000-2fff, memory 10100000-102fffff, prefetchable 8000200000-80003fffff.
    bench.w16(PORT, 0x1c, 0x2020);
    bench.w32(PORT, 0x20, 0x1020_1010);
    bench.w32(PORT, 0x24, 0x0030_0020);
    bench.w32(PORT, 0x28, 0x80);
    bench.w32(PORT, 0x2c, 0x80);
    bench.w16(PORT, 4, 7);
    bench
}

fn wrong(bench: &Bench) -> String {
    bench.fabric.misrouted().join("; ")
}

#[test]
fn addresses_that_nest_are_right_and_all_are_listed() {
    let bench = routed();
    assert_eq!(wrong(&bench), "");
    let decoded = bench.fabric.decoded();
    let ranges: Vec<_> = decoded
        .iter()
        .map(|d| (d.index, d.io, d.base, d.size))
        .collect();
    let expected = [
        (0, false, 0x1010_0000, 0x10_0000),
        (1, true, 0x2000, 0x100),
        (2, false, 0x80_0020_0000, 0x20_0000),
        (6, false, 0x1020_0000, 0x1_0000),
    ];
    assert_eq!(ranges, expected);
}

#[test]
fn a_range_outside_the_window_above_is_reported() {
    let mut bench = routed();
    bench.w32(F, 0x10, 0x1030_0000);
    let text = wrong(&bench);
    assert!(
        text.starts_with("BAR 0 of function #1  at 0x10300000-0x103fffff is in no window"),
        "{text}"
    );
    // The window of the port is outside of those of the host bridge.
    let mut bench = routed();
    bench.w16(PORT, 0x26, 0x0030);
    bench.w32(PORT, 0x2c, 0x100);
    assert!(wrong(&bench).contains("is in no window of /pcie0-00"));
    // Memory is not forwarded at all.
    let mut bench = routed();
    bench.w16(PORT, 4, 5);
    assert_eq!(bench.fabric.misrouted().len(), 3);
}

#[test]
fn overlaps_are_reported_even_with_the_bar_of_the_bridge_itself() {
    let mut bench = routed();
    bench.w32(F, 0x30, 0x1018_0001);
    assert!(wrong(&bench).contains("overlaps BAR 0 of function #1"));
    let mut bench = routed();
    let card = FunctionModel::endpoint(1, 2, 0).bar(0, BarModel::memory32(0x1000));
    bench.fabric.add_root(bench.host, 2, 0, card);
    bench.w32((0, 2, 0), 0x10, 0x102f_f000);
    assert_eq!(wrong(&bench), "", "not enabled");
    bench.w16((0, 2, 0), 4, 2);
    assert!(wrong(&bench).contains("overlaps the memory window"));
    // An open window that covers another function's address.
    bench.w32((0, 2, 0), 0x10, 0x1030_0000);
    assert_eq!(wrong(&bench), "");
}

#[test]
fn a_range_that_starts_inside_a_long_one_overlaps_even_with_one_between() {
    let mut bench = Bench::new();
    for (device, size, base) in [
        (1, 0x100_0000, 0x1100_0000),
        (2, 0x1000, 0x1100_2000),
        (3, 0x1000, 0x11f0_0000),
    ] {
        let card = FunctionModel::endpoint(1, 2, 0).bar(0, BarModel::memory32(size));
        bench.fabric.add_root(bench.host, device, 0, card);
        bench.w32((0, device, 0), 0x10, base);
        bench.w16((0, device, 0), 4, 2);
    }
    assert_eq!(bench.fabric.misrouted().len(), 2);
}

#[test]
fn the_last_address_of_a_range_counts() {
    // A BAR of 16 bytes in the last 16 bytes of a window, and just behind it.
    for (base, wrong) in [(0x102f_fff0, true), (0x1030_0000, false)] {
        let mut bench = routed();
        let card = FunctionModel::endpoint(1, 2, 0).bar(0, BarModel::memory32(16));
        bench.fabric.add_root(bench.host, 2, 0, card);
        bench.w32((0, 2, 0), 0x10, base);
        bench.w16((0, 2, 0), 4, 2);
        assert_eq!(!bench.fabric.misrouted().is_empty(), wrong, "{base:#x}");
    }
}

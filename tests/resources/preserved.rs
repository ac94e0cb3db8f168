//! What is read of a machine whose assignment is to be preserved.

use warmbus_pci::{Bar, BarKind, BridgeInfo, PciRange, Sbdf, Width};
use warmbus_pcie_sim::{Fabric, FunctionModel};

use crate::{ALL_WINDOWS, HIGH, IO, LOW, Machine, integrated, preserve, root_port};

const F: Sbdf = Sbdf::new(0, 0, 1, 0);

/// `model` at 00:01.0 of a machine that is only read.
fn read(model: FunctionModel) -> Machine {
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    fabric.add_root(host, 1, 0, model);
    let machine = preserve(fabric);
    assert_eq!(machine.fabric().log().writes(), 0);
    machine
}

const fn bar(index: u8, kind: BarKind, prefetchable: bool, address: u64) -> Bar {
    Bar {
        index,
        kind,
        prefetchable,
        fixed: false,
        address: Some(address),
        size: None,
    }
}

#[test]
fn every_kind_of_bar_is_read_as_its_register_says() {
    let registers = [
        (0x10, 0x1000_0000),
        (0x14, 0x1100_0008),
        (0x18, 0x2000_000c),
        (0x1c, 0x0000_0080),
        (0x20, 0x0000_c001),
        (0x24, 0x1200_0002),
        (0x30, 0x1300_0001),
    ];
    let mut model = integrated(1);
    for (offset, value) in registers {
        model = model.set(offset, Width::Dword, value);
    }
    let machine = read(model);
    let expected = [
        bar(0, BarKind::Memory32, false, 0x1000_0000),
        bar(1, BarKind::Memory32, true, 0x1100_0000),
        bar(2, BarKind::Memory64, true, 0x80_2000_0000),
        bar(4, BarKind::Io, false, 0xc000),
        bar(5, BarKind::Memory32, false, 0x1200_0000),
        bar(6, BarKind::Rom, false, 0x1300_0000),
    ];
    assert_eq!(machine.function(F).bars, expected);
    assert_eq!((machine.outcome.assigned, machine.outcome.disabled), (6, 0));
}

#[test]
fn registers_that_hold_nothing_ones_or_the_reserved_type_are_no_bars() {
    let model = integrated(1)
        .set(0x10, Width::Dword, 0)
        .set(0x14, Width::Dword, 0xffff_ffff)
        .set(0x18, Width::Dword, 0x1000_0006)
        .set(0x1c, Width::Dword, 0x1000_0000)
        .set(0x30, Width::Dword, 0xffff_ffff);
    let machine = read(model);
    let expected = [bar(3, BarKind::Memory32, false, 0x1000_0000)];
    assert_eq!(machine.function(F).bars, expected);
}

#[test]
fn a_bridge_has_two_bars_and_its_rom_behind_the_windows() {
    let model = root_port(ALL_WINDOWS)
        .set(0x10, Width::Dword, 0x2000_0004)
        .set(0x14, Width::Dword, 0x80)
        .set(0x30, Width::Dword, 0x0001_0001)
        .set(0x38, Width::Dword, 0x1300_0000);
    let machine = read(model);
    let expected = [
        bar(0, BarKind::Memory64, false, 0x80_2000_0000),
        bar(6, BarKind::Rom, false, 0x1300_0000),
    ];
    assert_eq!(machine.function(F).bars, expected);
    for header in [2, 3] {
        let model =
            integrated(1)
                .set(0x0e, Width::Byte, header)
                .set(0x10, Width::Dword, 0x1000_0000);
        assert_eq!(read(model).function(F).bars, [], "header type {header}");
    }
}

/// The windows of a bridge whose registers hold these values.
fn windows(registers: &[(u16, u32)]) -> [Option<PciRange>; 3] {
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    let port = fabric.add_root(host, 1, 0, root_port(ALL_WINDOWS));
    for (offset, value) in registers {
        let width = if *offset == 0x1c {
            Width::Word
        } else {
            Width::Dword
        };
        fabric.poke(port, *offset, width, *value);
    }
    let BridgeInfo {
        io,
        memory,
        prefetchable,
        ..
    } = preserve(fabric).bridge(F);
    [io, memory, prefetchable]
}

fn range(base: u64, limit: u64) -> PciRange {
    PciRange::new(base, limit).expect("it is open")
}

#[test]
fn windows_are_read_with_their_granularity() {
    let found = windows(&[
        (0x1c, 0x3020),
        (0x20, 0x1010_1000),
        (0x24, 0x0031_0021),
        (0x28, 0x80),
        (0x2c, 0x81),
    ]);
    let expected = [
        Some(range(0x2000, 0x3fff)),
        Some(range(0x1000_0000, 0x101f_ffff)),
        Some(range(0x80_0020_0000, 0x81_003f_ffff)),
    ];
    assert_eq!(found, expected);
    // A 32-bit window has no upper registers, whatever is read there.
    let found = windows(&[(0x24, 0x0030_0020), (0x28, 0x80), (0x2c, 0x80)]);
    assert_eq!(found[2], Some(range(0x20_0000, 0x3f_ffff)));
    // One granule: base and limit are equal.
    let found = windows(&[(0x1c, 0x2020), (0x20, 0x1000_1000), (0x24, 0x0020_0020)]);
    let expected = [
        Some(range(0x2000, 0x2fff)),
        Some(range(0x1000_0000, 0x100f_ffff)),
        Some(range(0x20_0000, 0x2f_ffff)),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_window_of_zeros_is_closed() {
    // As after reset, where nothing was ever written.
    let found = windows(&[(0x1c, 0), (0x20, 0), (0x24, 0), (0x28, 0), (0x2c, 0)]);
    assert_eq!(found, [None; 3]);
    // The type bits of the prefetchable window are not an address.
    assert_eq!(windows(&[(0x24, 0x0001_0001)]), [None; 3]);
    // Above 4 GiB 0 is an address like any other.
    let found = windows(&[(0x24, 0x0001_0001), (0x28, 0x80), (0x2c, 0x80)]);
    assert_eq!(found[2], Some(range(0x80_0000_0000, 0x80_000f_ffff)));
    // So it is in a window that is larger than that.
    assert_eq!(
        windows(&[(0x20, 0x0010_0000)])[1],
        Some(range(0, 0x1f_ffff))
    );
    assert_eq!(windows(&[(0x1c, 0x1000)])[0], Some(range(0, 0x1fff)));
    assert_eq!(
        windows(&[(0x24, 0x0010_0000)])[2],
        Some(range(0, 0x1f_ffff))
    );
}

#[test]
fn a_window_whose_base_is_above_its_limit_is_closed() {
    let found = windows(&[(0x1c, 0x00f0), (0x20, 0x0000_fff0), (0x24, 0x0001_fff1)]);
    assert_eq!(found, [None; 3]);
    let found = windows(&[
        (0x1c, 0x1020),
        (0x20, 0x0fff_1000),
        (0x24, 0x0031_0021),
        (0x28, 0x81),
        (0x2c, 0x80),
    ]);
    assert_eq!(found, [None; 3]);
}

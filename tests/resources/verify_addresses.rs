//! The checker of finished assignments, rule by rule: every range lies inside
//! of a window above it, and is what its registers hold.

use warmbus_pci::{Sbdf, Width};
use warmbus_pcie_sim::{BarModel, EaEntry, Fabric, FunctionModel, SrIovModel, memory32_window};

use crate::verify::write;
use crate::{
    ALL_WINDOWS, GIB, HIGH, IO, KIB, LOW, MIB, Machine, below_port, endpoint, integrated, preserve,
    root_port, run, set_up,
};

const PORT: Sbdf = Sbdf::new(0, 0, 1, 0);
const BELOW: Sbdf = Sbdf::new(0, 1, 0, 0);
const ROOT: Sbdf = Sbdf::new(0, 0, 2, 0);

/// Every kind of BAR, below a port and on the root bus.
fn model() -> FunctionModel {
    let mut vf_bars = [None; 6];
    vf_bars[0] = Some(BarModel::memory32(4 * KIB));
    let sriov = SrIovModel {
        total_vfs: 4,
        vf_bars,
        ..SrIovModel::default()
    };
    endpoint(7)
        .bar(0, BarModel::memory32(4 * KIB))
        .bar(1, BarModel::io(0x20))
        .bar(2, BarModel::memory64(64 * KIB).prefetchable())
        .rom(2 << 10)
        .sriov(sriov, FunctionModel::virtual_function(0))
}

fn machine() -> Machine {
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    below_port(&mut fabric, host, 1, ALL_WINDOWS, model());
    fabric.add_root(host, 2, 0, model());
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    machine
}

/// Register, kind, bytes: what [`model`] has. SR-IOV is at 0x100.
const RANGES: [(u16, &str, u64); 5] = [
    (0x10, "BAR", 4 * KIB),
    (0x14, "BAR", 0x20),
    (0x18, "BAR", 64 * KIB),
    (0x30, "BAR", 2 * KIB),
    (0x124, "VF BARs", 16 * KIB),
];

fn outside(function: Sbdf, name: &str, base: u64, size: u64) -> String {
    let last = base + size - 1;
    format!(
        "{function}: {name} {base:#x} to {last:#x} is outside of what the bridge above forwards"
    )
}

#[test]
fn a_range_outside_of_the_windows_above_is_reported_with_its_addresses() {
    for function in [BELOW, ROOT] {
        for (offset, name, size) in RANGES {
            let mut machine = machine();
            // Neither the host nor the port forwards these.
            let value = if offset == 0x14 {
                0x3_0000
            } else {
                0x4000_0000
            };
            write(&mut machine, function, offset, value);
            let upper = if offset == 0x18 {
                u64::from(machine.register(function, 0x1c, Width::Dword)) << 32
            } else {
                0
            };
            // BAR 2 is still beyond 4 GiB, inside of the host window there.
            if offset == 0x18 && function == ROOT {
                assert_eq!(machine.checked(), [""; 0]);
                write(&mut machine, function, 0x1c, 0x7f);
                let base = 0x7f_4000_0000;
                assert_eq!(machine.checked(), [outside(function, name, base, size)]);
                continue;
            }
            let base = upper | u64::from(value);
            assert_eq!(machine.checked(), [outside(function, name, base, size)]);
        }
    }
}

#[test]
fn the_first_and_the_last_place_of_a_window_are_inside_of_it() {
    let mut machine = machine();
    let bridge = machine.bridge(PORT);
    let [io, memory] = [bridge.io, bridge.memory].map(|window| window.expect("open"));
    let end = |last: u64, size: u64| u32::try_from(last + 1 - size).expect("32 bits");
    write(&mut machine, BELOW, 0x10, end(memory.limit(), 4 * KIB));
    assert_eq!(machine.checked(), [""; 0]);
    write(&mut machine, BELOW, 0x14, end(io.limit(), 0x20));
    assert_eq!(machine.checked(), [""; 0]);
    write(&mut machine, BELOW, 0x14, end(io.limit(), 0));
    let base = io.limit() + 1;
    assert_eq!(machine.checked(), [outside(BELOW, "BAR", base, 0x20)]);
    write(&mut machine, BELOW, 0x14, io.base() as u32);
    // A 64-bit BAR may be in either memory window.
    write(&mut machine, BELOW, 0x1c, 0);
    write(
        &mut machine,
        BELOW,
        0x18,
        end(memory.limit(), 64 * KIB) & !0xf_ffff | 0x4_0000,
    );
    assert_eq!(machine.checked(), [""; 0]);
}

#[test]
fn io_does_not_nest_in_a_memory_window_nor_memory_in_an_io_window() {
    let window = memory32_window(0, 512 * MIB);
    let (mut fabric, host) = Fabric::with_windows(&[window, HIGH]);
    let model = endpoint(7)
        .bar(0, BarModel::memory32(4 * KIB))
        .bar(1, BarModel::io(0x20));
    below_port(&mut fabric, host, 1, ALL_WINDOWS, model);
    fabric.add_root(host, 2, 0, integrated(1).bar(0, BarModel::io(0x20)));
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    // The topology says that they have addresses; the registers say which.
    for (function, index, offset) in [(BELOW, 1, 0x14), (ROOT, 0, 0x10)] {
        assert_eq!(machine.address(function, index), None);
        machine.change_function(function, |function| {
            let bars = function.bars.iter_mut();
            bars.filter(|bar| bar.index == index)
                .for_each(|bar| bar.address = Some(0));
        });
        let base = machine.bridge(PORT).memory.expect("open").base();
        write(&mut machine, function, offset, base as u32);
        let found = machine.checked();
        assert_eq!(found, [outside(function, "BAR", base, 0x20)]);
        machine.change_function(function, |function| {
            function.bars.retain(|bar| bar.index != index);
        });
    }
}

#[test]
fn windows_nest_in_the_windows_above() {
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    let root = fabric.add_root(host, 1, 0, root_port(ALL_WINDOWS));
    let inner = FunctionModel::bridge(0x1234, 6, ALL_WINDOWS);
    fabric.add_below(root, 0, 0, inner);
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    let bridge = machine.bridge(BELOW);
    let [io, memory, prefetchable] =
        [bridge.io, bridge.memory, bridge.prefetchable].map(|window| window.expect("open"));

    // One granule below, and one granule longer.
    let value = (memory.base() >> 16) as u32 | (memory.limit() & 0xfff0_0000) as u32;
    for (value, base, limit) in [
        (value - 0x10, memory.base() - MIB, memory.limit()),
        (value + 0x10_0000, memory.base(), memory.limit() + MIB),
    ] {
        write(&mut machine, BELOW, 0x20, value);
        let expected = outside(BELOW, "window", base, limit - base + 1);
        assert_eq!(machine.checked(), [expected]);
    }
    write(&mut machine, BELOW, 0x20, value);
    assert_eq!(machine.checked(), [""; 0]);

    write(&mut machine, BELOW, 0x2c, 0x81);
    let expected = outside(
        BELOW,
        "window",
        prefetchable.base(),
        prefetchable.limit() - prefetchable.base() + 1 + 4 * GIB,
    );
    assert_eq!(machine.checked(), [expected]);
    write(&mut machine, BELOW, 0x2c, 0x80);

    let value = machine.register(BELOW, 0x1c, Width::Word);
    write(&mut machine, BELOW, 0x1c, value + 0x1000);
    let expected = outside(
        BELOW,
        "window",
        io.base(),
        io.limit() + 0x1000 - io.base() + 1,
    );
    assert_eq!(machine.checked(), [expected]);
}

#[test]
fn a_closed_window_forwards_nothing() {
    for (offset, closed, ranges) in [
        (0x1c, 0x00f0, vec![0x14]),
        (0x20, 0xfff0, vec![0x10, 0x30, 0x124]),
        (0x24, 0x0001_fff1, vec![0x18]),
    ] {
        let mut machine = machine();
        write(&mut machine, PORT, offset, closed);
        if offset == 0x24 {
            write(&mut machine, PORT, 0x28, 0);
            write(&mut machine, PORT, 0x2c, 0);
        }
        let found = machine.checked();
        let expected: Vec<String> = RANGES
            .iter()
            .filter(|(register, ..)| ranges.contains(register))
            .map(|(register, name, size)| {
                let low = u64::from(machine.register(BELOW, *register, Width::Dword));
                let high = if *register == 0x18 { 0x80 << 32 } else { 0 };
                outside(BELOW, name, high | low & !0xf, *size)
            })
            .collect();
        assert_eq!(found, expected, "{offset:#x}");
    }
}

#[test]
fn ranges_on_a_root_bus_have_to_be_inside_of_a_host_window() {
    let first = LOW.pci_address;
    let last = LOW.pci_address + LOW.size - 4 * KIB;
    for (base, is_inside) in [
        (first, true),
        (last, true),
        (first - 4 * KIB, false),
        (last + 4 * KIB, false),
        (0, false),
    ] {
        let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
        let model = integrated(1).bar(0, BarModel::memory32(4 * KIB));
        fabric.add_root(host, 2, 0, model);
        let mut machine = set_up(fabric);
        write(&mut machine, ROOT, 0x10, base as u32);
        let expected = if is_inside {
            vec![]
        } else {
            vec![outside(ROOT, "BAR", base, 4 * KIB)]
        };
        assert_eq!(machine.checked(), expected, "{base:#x}");
    }
}

#[test]
fn the_last_byte_of_a_host_window_is_the_last_that_may_be_used() {
    // One byte short of 1 MiB, as some trees have it.
    for (size, is_inside) in [(MIB - 1, false), (MIB, true)] {
        let window = memory32_window(0x1000_0000, size);
        let (mut fabric, host) = Fabric::with_windows(&[window, LOW]);
        let model = integrated(1).bar(0, BarModel::memory32(MIB));
        fabric.add_root(host, 2, 0, model);
        let mut machine = set_up(fabric);
        machine.change_host(|host| host.windows.truncate(1));
        write(&mut machine, ROOT, 0x10, 0x1000_0000);
        let expected = if is_inside {
            vec![]
        } else {
            vec![outside(ROOT, "BAR", 0x1000_0000, MIB)]
        };
        assert_eq!(machine.checked(), expected, "{size:#x} bytes");
    }
}

#[test]
fn one_host_window_is_not_joined_with_the_next() {
    // Two windows that meet: a BAR across both is in neither.
    let windows = [
        memory32_window(0x1000_0000, MIB),
        memory32_window(0x1010_0000, 8 * MIB),
    ];
    let (mut fabric, host) = Fabric::with_windows(&windows);
    let model = integrated(1).bar(0, BarModel::memory32(2 * MIB));
    fabric.add_root(host, 2, 0, model);
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    write(&mut machine, ROOT, 0x10, 0x1000_0000);
    let expected = outside(ROOT, "BAR", 0x1000_0000, 2 * MIB);
    assert_eq!(machine.checked(), [expected]);
}

#[test]
fn without_host_windows_only_a_preserved_host_bridge_may_forward_anything() {
    let fabric = |preserved: bool| {
        let windows = if preserved { vec![] } else { vec![LOW] };
        let (mut fabric, host) = Fabric::with_windows(&windows);
        let model = root_port(ALL_WINDOWS).set(0x20, Width::Dword, 0x3ff0_3000);
        fabric.add_root(host, 1, 0, model);
        fabric
    };
    let expected = "0000:00:01.0: window 0x30000000 to 0x3fffffff is outside of what the bridge above forwards";
    // What ACPI does not say is not known to be wrong.
    assert_eq!(preserve(fabric(true)).checked(), [""; 0]);
    assert_eq!(preserve(fabric(false)).checked(), [expected]);
    let mut machine = run(fabric(true), |host| host.preserve_config = true);
    machine.change_host(|host| host.preserve_config = false);
    assert_eq!(machine.checked(), [expected]);
}

#[test]
fn addresses_are_taken_from_the_registers_and_not_from_the_topology() {
    let mut machine = machine();
    machine.change_function(BELOW, |function| {
        for bar in &mut function.bars {
            bar.address = Some(0x7777_0000);
        }
    });
    assert_eq!(machine.checked(), [""; 0]);
    // A BAR without an address claims nothing, whatever its register holds.
    let mut machine = self::machine();
    write(&mut machine, BELOW, 0x10, 0x4000_0000);
    assert_eq!(machine.checked().len(), 1);
    machine.change_function(BELOW, |function| {
        for bar in &mut function.bars {
            bar.address = bar.address.filter(|_| bar.index != 0);
        }
    });
    assert_eq!(machine.checked(), [""; 0]);
}

#[test]
fn fixed_ranges_are_checked_like_others() {
    let entries = |base| {
        [EaEntry {
            bei: 0,
            properties: 0,
            base,
            size: 0x3000,
        }]
    };
    for (base, is_inside) in [
        (LOW.pci_address + 64 * KIB, true),
        (LOW.pci_address + LOW.size - 0x3000, true),
        (LOW.pci_address + LOW.size - 0x2000, false),
        (0x8000_0000, false),
    ] {
        let (mut fabric, host) = Fabric::with_windows(&[LOW]);
        let model = integrated(1).enhanced_allocation(&entries(base), (0, 0));
        fabric.add_root(host, 2, 0, model);
        let machine = set_up(fabric);
        let expected = if is_inside {
            vec![]
        } else {
            vec![outside(ROOT, "BAR", base, 0x3000)]
        };
        assert_eq!(machine.checked(), expected);
    }
    // Two functions that are fixed to the same place.
    let (mut fabric, host) = Fabric::with_windows(&[LOW]);
    for device in 2..4 {
        let model = integrated(1).enhanced_allocation(&entries(LOW.pci_address), (0, 0));
        fabric.add_root(host, device, 0, model);
    }
    let found = set_up(fabric).checked();
    let expected = "0000:00:03.0: BAR 0x10000000 to 0x10002fff overlaps BAR 0x10000000 to 0x10002fff of 0000:00:02.0";
    assert_eq!(found, [expected]);
}

//! BARs that may be made larger: none is, and which may be is known.

use warmbus_pci::{ResizableBar, Width};
use warmbus_pcie_sim::{BarModel, Fabric};

use crate::{HIGH, IO, LOW, MIB, at, endpoint, preserve, set_up};

/// The entries of Resizable BAR, and the first BAR that may be larger.
type Case = (&'static [(u8, u32, u8)], Option<ResizableBar>);

const CASES: [Case; 6] = [
    (&[(2, 0b111, 0)], Some(next(2, 2 * MIB))),
    // The size after the next one may be the only one.
    (&[(0, 0b1001, 0)], Some(next(0, 8 * MIB))),
    (&[(0, 0b1000, 3)], None),
    (&[(0, 0b111, 2), (2, 0b11, 0)], Some(next(2, 2 * MIB))),
    (&[(0, 0, 0)], None),
    // There is no BAR 6.
    (&[(6, 0b11, 0)], None),
];

const fn next(index: u8, next_size: u64) -> ResizableBar {
    ResizableBar { index, next_size }
}

#[test]
fn a_bar_that_may_be_larger_is_named_and_keeps_its_size() {
    for (entries, expected) in CASES {
        for boot in [set_up, preserve] {
            let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
            let model = endpoint(7)
                .bar(0, BarModel::memory64(MIB).prefetchable())
                .bar(2, BarModel::memory64(MIB).prefetchable())
                .resizable(entries);
            let node = fabric.add_root(host, 1, 0, model);
            let control = |fabric: &Fabric| {
                (0..0x40_u16)
                    .map(|dword| fabric.peek(node, 0x100 + 4 * dword, Width::Dword))
                    .collect::<Vec<u32>>()
            };
            let before = control(&fabric);
            let machine = boot(fabric);
            let function = machine.function(at(0, 1, 0));
            assert_eq!(function.resizable, expected, "{entries:?}");
            assert_eq!(control(machine.fabric()), before);
        }
    }
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    fabric.add_root(host, 1, 0, endpoint(7));
    assert_eq!(set_up(fabric).function(at(0, 1, 0)).resizable, None);
}

/// The first entry has the number of entries; what is behind them is not one.
#[test]
fn what_is_behind_the_last_entry_is_no_bar() {
    // BAR 0 has its only size; BAR 2 could have 2 MiB.
    let [only, larger] = [1 << 4, 0b11 << 4];
    for (count, expected) in [(1, None), (2, Some(next(2, 2 * MIB)))] {
        let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
        let model = endpoint(7)
            .bar(0, BarModel::memory64(MIB).prefetchable())
            .bar(2, BarModel::memory64(MIB).prefetchable())
            .extended(0x15, 1, &[only, count << 5, larger, 2]);
        fabric.add_root(host, 1, 0, model);
        let machine = set_up(fabric);
        let function = machine.function(at(0, 1, 0));
        assert_eq!(function.resizable, expected, "{count} entries");
    }
}

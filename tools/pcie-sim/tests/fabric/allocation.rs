//! The ranges of Enhanced Allocation are decoded as its registers say.

use warmbus_pci::Width;
use warmbus_pcie_sim::{EaEntry, FunctionModel, SrIovModel};

use crate::{Bench, endpoint};

const F: (u8, u8, u8) = (0, 1, 0);

const fn entry(bei: u8, properties: u8, base: u64, size: u64) -> EaEntry {
    EaEntry {
        bei,
        properties,
        base,
        size,
    }
}

fn ranges(bench: &Bench) -> Vec<(u8, bool, u64, u64)> {
    bench
        .fabric
        .decoded()
        .iter()
        .map(|d| (d.index, d.io, d.base, d.size))
        .collect()
}

#[test]
fn entries_decode_while_their_space_is_enabled_in_command() {
    let entries = [
        entry(0, 0, 0x1000_0000, 0x1000),
        entry(1, 2, 0xc000, 0x20),
        entry(2, 1, 0x80_0000_0000, 0x2_0000_0000),
        entry(8, 0, 0x1010_0000, 0x800),
    ];
    let model = FunctionModel::endpoint(1, 2, 0)
        .writable(4, Width::Word, 7)
        .enhanced_allocation(&entries, (0, 0));
    let mut bench = Bench::with_function(model);
    assert_eq!(ranges(&bench), []);
    bench.w16(F, 4, 1);
    assert_eq!(ranges(&bench), [(1, true, 0xc000, 0x20)]);
    bench.w16(F, 4, 2);
    let memory = [
        (0, false, 0x1000_0000, 0x1000),
        (2, false, 0x80_0000_0000, 0x2_0000_0000),
        (6, false, 0x1010_0000, 0x800),
    ];
    assert_eq!(ranges(&bench), memory);
}

#[test]
fn an_entry_that_is_disabled_or_stands_for_no_bar_decodes_nothing() {
    let entries = [
        entry(0, 0, 0x1000_0000, 0x1000),
        entry(7, 0, 0x1020_0000, 0x1000),
        entry(1, 0xff, 0x1030_0000, 0x1000),
    ];
    let model = FunctionModel::endpoint(1, 2, 0)
        .writable(4, Width::Word, 7)
        .enhanced_allocation(&entries, (0, 0))
        // Enable of the first entry.
        .set(0x47, Width::Byte, 0);
    let mut bench = Bench::with_function(model);
    bench.w16(F, 4, 7);
    assert_eq!(ranges(&bench), []);
}

#[test]
fn an_entry_for_a_vf_bar_takes_its_range_once_for_each_vf() {
    let sriov = SrIovModel {
        total_vfs: 6,
        ..SrIovModel::default()
    };
    let model = endpoint(1)
        .writable(4, Width::Word, 7)
        .enhanced_allocation(&[entry(9, 4, 0x1000_0000, 0x4000)], (0, 0))
        .sriov(sriov, FunctionModel::virtual_function(0));
    let mut bench = Bench::with_function(model);
    bench.w16(F, 4, 2);
    assert_eq!(ranges(&bench), [(7, false, 0x1000_0000, 6 * 0x4000)]);
}

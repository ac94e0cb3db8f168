//! Tables of real machines, damaged at random. `PROPTEST_CASES` sets how often.

extern crate std;

use core::time::Duration;
use std::vec;

use super::acpi::Tables;
use super::acpi_hosts::machines;
use super::*;
use proptest::prelude::any;
use proptest::sample::Index;
use warmbus_pci::AccessWidths;

/// What is done to a table.
#[derive(Clone, Debug)]
enum Damage {
    /// One byte is another one.
    Byte(Index, u8),
    /// Some bytes are copied to another place.
    Copy(Index, Index, u8),
    /// The table ends earlier.
    Cut(Index),
}

fn damage() -> impl proptest::strategy::Strategy<Value = Damage> {
    use proptest::strategy::Strategy;

    let byte = (any::<Index>(), any::<u8>()).prop_map(|(at, value)| Damage::Byte(at, value));
    let copy = (any::<Index>(), any::<Index>(), any::<u8>());
    let copy = copy.prop_map(|(from, to, size)| Damage::Copy(from, to, size));
    let cut = any::<Index>().prop_map(Damage::Cut);
    proptest::prop_oneof![8 => byte, 3 => copy, 1 => cut]
}

fn apply(damage: &Damage, table: &mut Vec<u8>) {
    let size = table.len();
    match damage {
        Damage::Byte(at, value) => table[at.index(size)] = *value,
        Damage::Copy(from, to, count) => {
            let (from, to) = (from.index(size), to.index(size));
            let count = usize::from(*count).min(size - from.max(to));
            table.copy_within(from..from + count, to);
        }
        // What is left has a header.
        Damage::Cut(at) => table.truncate(36 + at.index(size - 35)),
    }
}

/// The processor time of this thread, which others on the machine do not add to.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat");
    let text = text.expect("Linux counts the time of threads");
    let nanoseconds = text
        .split(' ')
        .next()
        .and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.expect("the first number is that time"))
}

std::thread_local! {
    static SETS: Vec<Vec<Vec<u8>>> = machines().into_iter().map(|set| set.tables).collect();
}

proptest::proptest! {
    #[test]
    fn no_damage_of_tables_makes_the_reader_fail_otherwise(
        set in any::<Index>(),
        hits in proptest::collection::vec((any::<Index>(), damage()), 1..8),
        is_sealed in proptest::bool::weighted(0.9),
    ) {
        let tables = SETS.with(|sets| set.get(sets).clone());
        let mut tables = Tables::assemble(&tables);
        let rsdp = tables.rsdp();
        for (piece, damage) in &hits {
            let index = piece.index(tables.0.len());
            let table = &mut tables.0[index].1;
            apply(damage, table);
            if is_sealed && !table.starts_with(b"RSD PTR ") {
                *table = super::acpi::sealed(core::mem::take(table));
            }
        }
        let start = processor_time();
        let machine = tables.machine_at(rsdp);
        proptest::prop_assert!(processor_time().saturating_sub(start) < Duration::from_secs(1));
        let Ok(machine) = machine else { return Ok(()) };
        let mut used = vec![];
        for host in &machine.hosts {
            proptest::prop_assert!(host.preserve_config && host.ecam_base.0 != 0);
            proptest::prop_assert!(host.buses.first <= host.buses.last);
            proptest::prop_assert!(host.widths == AccessWidths::All || host.segment < 16);
            let region = host.regions()[0];
            proptest::prop_assert!(region.fits() && region.size == host.ecam_size);
            proptest::prop_assert!(used.iter().all(|other| !region.overlaps(*other)));
            used.push(region);
        }
        proptest::prop_assert!(machine.warnings.len() < 4096);
    }
}

//! Whole machines: made up, random and planned.

use proptest::prelude::*;
use warmbus_pci::{ConfigAccess, ConfigOffset, Sbdf, Width};
use warmbus_pcie_sim::{Fabric, Outcome, proptest_config, random, random_topology, topologies};

/// Numbers all buses below `bus`, depth first, in the plainest way, and
/// returns the highest number that it used.
fn number(fabric: &mut Fabric, segment: u16, bus: u8, mut last: u8) -> u8 {
    for devfn in 0..=255 {
        let function = Sbdf::from_devfn(segment, bus, devfn);
        let read = |fabric: &mut Fabric, offset| {
            fabric.read(function, ConfigOffset::wrapping(offset), Width::Dword)
        };
        if read(fabric, 0) == 0xffff_ffff || read(fabric, 0xc) >> 16 & 0x7f != 1 {
            continue;
        }
        if last == 255 {
            break;
        }
        let secondary = last + 1;
        let write = |fabric: &mut Fabric, subordinate| {
            let numbers = u32::from_le_bytes([bus, secondary, subordinate, 0]);
            fabric.write(
                function,
                ConfigOffset::wrapping(0x18),
                Width::Dword,
                numbers,
            );
        };
        write(fabric, 255);
        if read(fabric, 0x18) != u32::from_le_bytes([bus, secondary, 255, 0]) {
            continue;
        }
        last = number(fabric, segment, secondary, secondary);
        write(fabric, last);
    }
    last
}

fn number_all(fabric: &mut Fabric) {
    for host in fabric.host_bridges() {
        let first = host.buses.first;
        number(fabric, host.segment, first, first);
    }
}

#[test]
fn every_function_of_the_known_machines_can_be_reached() {
    let machines = [
        (topologies::small(), 9, 3),
        (topologies::switch(), 17, 8),
        (topologies::fan(32), 65, 32),
        (topologies::sriov(4, 127), 9, 4),
    ];
    for (mut fabric, functions, bridges) in machines {
        assert_eq!(fabric.nodes().count(), functions);
        number_all(&mut fabric);
        let found = fabric.reachable();
        assert_eq!(found.len(), functions);
        let last = found.keys().map(|f| f.bus()).max();
        assert_eq!(last, Some(bridges));
        assert_eq!(fabric.log().violations(), []);
    }
}

#[test]
fn a_random_fabric_is_the_same_every_time_and_bounded() {
    let shape = |fabric: &mut Fabric| {
        fabric.log_mut().record();
        number_all(fabric);
        let log = fabric.log().entries();
        log.iter()
            .map(|a| (a.function, a.value))
            .collect::<Vec<_>>()
    };
    let mut sizes = [0; random::MAX_FUNCTIONS + 1];
    for seed in 0..200 {
        let mut fabric = random::from_seed(seed);
        sizes[fabric.nodes().count()] += 1;
        let again = shape(&mut random::from_seed(seed));
        assert_eq!(shape(&mut fabric), again);
    }
    let different = sizes.iter().filter(|count| **count > 0).count();
    assert!(different > 12, "{sizes:?}");
}

#[test]
fn random_fabrics_have_everything_in_them_that_they_promise() {
    let mut ends = std::collections::BTreeMap::new();
    let mut faults = 0;
    for seed in 0..2000 {
        let mut fabric = random::from_seed(seed);
        number_all(&mut fabric);
        for outcome in [
            Outcome::NoBridge,
            Outcome::NoFunction,
            Outcome::DeviceFiltered,
            Outcome::LinkDown,
            Outcome::NotReady,
            Outcome::Gone,
            Outcome::Aborted,
        ] {
            *ends.entry(outcome).or_insert(0) += fabric.log().count(outcome);
        }
        while fabric.take_fault().is_some() {
            faults += 1;
        }
    }
    assert!(faults > 0);
    assert!(ends.values().all(|count| *count > 0), "{ends:?}");
}

#[test]
fn any_bytes_make_a_fabric() {
    for length in 0..64 {
        for byte in [0, 1, 0x55, 0x7f, 0xff] {
            let fabric = random::from_bytes(&vec![byte; length]);
            assert!(fabric.nodes().count() <= random::MAX_FUNCTIONS);
        }
    }
}

proptest! {
    #![proptest_config(proptest_config::properties(64))]

    #[test]
    fn arbitrary_bytes_make_a_fabric_that_can_be_walked(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut fabric = random::from_bytes(&bytes);
        number_all(&mut fabric);
        prop_assert!(fabric.nodes().count() <= random::MAX_FUNCTIONS);
    }

    #[test]
    fn every_function_of_a_planned_machine_can_be_reached(plan in random_topology::plan()) {
        let mut fabric = plan.build();
        number_all(&mut fabric);
        let missing: Vec<_> = {
            let found: Vec<_> = fabric.reachable().into_values().collect();
            fabric.nodes().filter(|n| !found.contains(n)).collect()
        };
        prop_assert!(missing.is_empty(), "{missing:?}");
        prop_assert!(fabric.log().violations().is_empty());
    }
}

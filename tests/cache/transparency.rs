//! Whatever is read and written through the cache must return what it would
//! have returned without.

use proptest::prelude::*;
use warmbus::pci::{ConfigAccess, ConfigOffset, Sbdf, Width};
use warmbus::pcsc::Cached;
use warmbus_fabric::{Fabric, topologies};

use crate::common::captured;

/// One access, its target chosen among the functions and registers that exist.
#[derive(Clone, Copy, Debug)]
struct Step {
    function: prop::sample::Index,
    register: prop::sample::Index,
    /// Where in the dword an access starts that is narrower.
    lane: u16,
    width: Width,
    write: Option<u32>,
}

fn step() -> impl Strategy<Value = Step> {
    let width = prop_oneof![Just(Width::Byte), Just(Width::Word), Just(Width::Dword)];
    // Writes of real software set, clear and probe.
    let value = prop_oneof![
        Just(0),
        Just(u32::MAX),
        any::<u32>(),
        (0..32u32).prop_map(|bit| 1 << bit)
    ];
    (
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        0..4u16,
        width,
        prop::option::of(value),
    )
        .prop_map(|(function, register, lane, width, write)| Step {
            function,
            register,
            lane,
            width,
            write,
        })
}

/// Runs `steps` on a captured copy of `fabric` and on one without a cache.
fn run_both(mut fabric: Fabric, steps: &[Step]) -> Result<(), TestCaseError> {
    // The two make different numbers of accesses: time must not tell.
    fabric.set_access_time(0);
    let (mut cached, topology) = captured(fabric);
    let mut plain = cached.access().clone();
    // What is worth reading and writing: the dwords of known registers.
    let registers: Vec<(Sbdf, Vec<u16>)> = cached
        .blocks()
        .map(|(function, block)| {
            (
                function,
                block.cacheable_dwords().map(ConfigOffset::get).collect(),
            )
        })
        .collect();
    let hits = cached.statistics().hits;
    for (function, dwords) in &registers {
        for offset in dwords.iter().copied().map(ConfigOffset::new) {
            cached.read(*function, offset, Width::Dword);
        }
    }
    prop_assert!(cached.statistics().hits > hits, "nothing was served");
    let mut done = Vec::new();
    for step in steps {
        let (function, dwords) = step.function.get(&registers);
        let aligned = step.lane & !(step.width.bytes() - 1);
        let offset = ConfigOffset::new(step.register.get(dwords) + aligned);
        let function = *function;
        done.push((function, offset, step.width, step.write));
        match step.write {
            Some(value) => {
                cached.write(function, offset, step.width, value);
                plain.write(function, offset, step.width, value);
            }
            None => {
                let served = cached.read(function, offset, step.width);
                let real = plain.read(function, offset, step.width);
                prop_assert_eq!(served, real, "after {:x?}", done);
            }
        }
    }
    // Then everything that is still served.
    for function in topology.functions.iter().map(|function| function.sbdf) {
        for offset in (0..0x1000).step_by(4).map(ConfigOffset::new) {
            let served = cached.read(function, offset, Width::Dword);
            let real = plain.read(function, offset, Width::Dword);
            prop_assert_eq!(served, real, "{} {} after {:x?}", function, offset, done);
        }
    }
    Ok(())
}

#[test]
fn a_write_to_a_function_that_was_never_walked_is_seen() {
    const CACHE_LINE_SIZE: ConfigOffset = ConfigOffset::new(0x0c);
    let mut cached = Cached::new(topologies::small());
    let function = Sbdf::from_devfn(0, 0, 8);
    cached.probe(function);
    cached.read(function, CACHE_LINE_SIZE, Width::Byte);
    cached.write(function, CACHE_LINE_SIZE, Width::Byte, 0x5a);
    assert_eq!(cached.read(function, CACHE_LINE_SIZE, Width::Byte), 0x5a);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn any_accesses_to_a_small_machine_are_transparent(
        steps in prop::collection::vec(step(), 1..200)
    ) {
        run_both(topologies::small(), &steps)?;
    }

    #[test]
    fn any_accesses_to_a_machine_with_a_switch_are_transparent(
        steps in prop::collection::vec(step(), 1..200)
    ) {
        run_both(topologies::switch(), &steps)?;
    }

    #[test]
    fn any_accesses_to_physical_functions_are_transparent(
        steps in prop::collection::vec(step(), 1..200)
    ) {
        run_both(topologies::sriov(2, 4), &steps)?;
    }
}

/// Cases a property; `PROPTEST_CASES` asks for more.
fn cases() -> u32 {
    ProptestConfig::default().cases.max(256)
}

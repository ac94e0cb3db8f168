//! Whatever is read and written through the cache must return what it would
//! have returned without.

use proptest::prelude::*;
use warmbus_pci::ConfigSpace;
use warmbus_pci::{ConfigAccess, ConfigOffset, Sbdf, Width};
use warmbus_pcie_sim::random_topology::plan;
use warmbus_pcie_sim::{Fabric, MILLISECOND, proptest_config, topologies};
use warmbus_pcsc::{ConfigCache, FunctionCache};

use crate::common::captured;

/// Something that software does, its target chosen among the functions and
/// registers that exist.
#[derive(Clone, Copy, Debug)]
enum Step {
    Access(Access),
    /// Nothing, for so many milliseconds.
    Wait(u64),
}

#[derive(Clone, Copy, Debug)]
struct Access {
    function: prop::sample::Index,
    register: prop::sample::Index,
    /// One of the registers that decide about others, not just any.
    decisive: bool,
    /// Where in the dword an access starts that is narrower.
    lane: u16,
    width: Width,
    write: Option<u32>,
}

fn step() -> impl Strategy<Value = Step> {
    let width = prop_oneof![Just(Width::Byte), Just(Width::Word), Just(Width::Dword)];
    let bus = 0..8_u32;
    // Writes of real software set, clear and probe, and give bus numbers.
    let value = prop_oneof![
        2 => Just(0),
        2 => Just(u32::MAX),
        2 => any::<u32>(),
        4 => (0..32u32).prop_map(|bit| 1 << bit),
        2 => (bus.clone(), bus.clone(), bus)
            .prop_map(|(primary, first, last)| primary | first << 8 | last << 16),
    ];
    let access = (
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        any::<bool>(),
        0..4u16,
        width,
        prop::option::of(value),
    )
        .prop_map(|(function, register, decisive, lane, width, write)| {
            Step::Access(Access {
                function,
                register,
                decisive,
                lane,
                width,
                write,
            })
        });
    prop_oneof![
        15 => access,
        1 => prop_oneof![Just(10), Just(100), Just(1_000)].prop_map(Step::Wait),
    ]
}

/// What is worth reading and writing of one function.
struct Registers {
    function: Sbdf,
    /// The dwords of known registers.
    all: Vec<u16>,
    /// Those of them that decide about other registers or functions.
    decisive: Vec<u16>,
}

impl Registers {
    fn of(function: Sbdf, block: &FunctionCache) -> Self {
        let mut decisive = vec![0x04, 0x0c];
        if block.header_type() == 1 {
            decisive.extend([0x18, 0x3c]);
        }
        let capability = |id, registers: &[u16]| {
            let at = block.capability(id);
            at.map(|at| {
                registers
                    .iter()
                    .map(move |register| at + register)
                    .collect()
            })
        };
        let extended = |id, registers: &[u16]| {
            let at = block.extended_capability(id);
            at.map(|at| {
                registers
                    .iter()
                    .map(move |register| at + register)
                    .collect()
            })
        };
        let lists: [Option<Vec<u16>>; 6] = [
            // Power state; MSI and MSI-X enable.
            capability(0x01, &[4]),
            capability(0x05, &[0]),
            capability(0x11, &[0]),
            // Device, link, slot and root control, Device Control 2.
            capability(0x10, &[0x08, 0x10, 0x18, 0x1c, 0x28]),
            // SR-IOV Control, NumVFs, System Page Size.
            extended(0x10, &[0x08, 0x10, 0x20]),
            // Resizable BAR Control.
            extended(0x15, &[0x08]),
        ];
        decisive.extend(lists.into_iter().flatten().flatten());
        decisive.retain(|offset| *offset < block.size());
        Self {
            function,
            all: block.cacheable_dwords().map(ConfigOffset::get).collect(),
            decisive,
        }
    }
}

impl Access {
    /// The function and the register that are meant.
    fn target(&self, registers: &[Registers]) -> (Sbdf, ConfigOffset) {
        let of = self.function.get(registers);
        let dwords = if self.decisive { &of.decisive } else { &of.all };
        let lane = self.lane & !(self.width.bytes() - 1);
        let offset = self.register.get(dwords) + lane;
        (of.function, ConfigOffset::wrapping(offset))
    }
}

/// Runs `steps` on a captured copy of `fabric` and on one without a cache.
fn run_both(mut fabric: Fabric, steps: &[Step]) -> Result<(), TestCaseError> {
    // The two make different numbers of accesses: time must not tell.
    fabric.set_access_time(0);
    let (mut cached, topology) = captured(fabric);
    let mut plain = cached.access().clone();
    let clock = plain.clock();
    let registers: Vec<_> = cached
        .blocks()
        .map(|(function, block)| Registers::of(function, block))
        .collect();
    let hits = cached.statistics().hits;
    for of in &registers {
        for offset in of.all.iter().copied().map(ConfigOffset::wrapping) {
            cached.read(of.function, offset, Width::Dword);
        }
    }
    prop_assert!(cached.statistics().hits > hits, "nothing was served");
    let mut done = Vec::new();
    for step in steps {
        let access = match step {
            Step::Wait(milliseconds) => {
                clock.advance(milliseconds * MILLISECOND);
                continue;
            }
            Step::Access(access) => access,
        };
        let (function, offset) = access.target(&registers);
        done.push((function, offset, access.width, access.write));
        match access.write {
            Some(value) => {
                cached.write(function, offset, access.width, value);
                plain.write(function, offset, access.width, value);
            }
            None => {
                let served = cached.read(function, offset, access.width);
                let real = plain.read(function, offset, access.width);
                prop_assert_eq!(served, real, "after {:x?}", done);
            }
        }
    }
    // Then everything that is still served.
    for function in topology.functions().iter().map(|function| function.sbdf) {
        for offset in (0..0x1000).step_by(4).map(ConfigOffset::wrapping) {
            let mut bytes = (offset.get()..offset.get() + 4).map(ConfigOffset::wrapping);
            let block = cached.block(function);
            if !block.is_some_and(|block| bytes.any(|byte| block.is_cached(byte))) {
                continue;
            }
            let served = cached.read(function, offset, Width::Dword);
            let real = plain.read(function, offset, Width::Dword);
            prop_assert_eq!(served, real, "{} {} after {:x?}", function, offset, done);
        }
    }
    Ok(())
}

#[test]
fn a_write_to_a_function_that_was_never_walked_is_seen() {
    const CACHE_LINE_SIZE: ConfigOffset = ConfigOffset::wrapping(0x0c);
    let mut cached = ConfigCache::new(topologies::small());
    let function = Sbdf::from_devfn(0, 0, 8);
    cached.probe(function);
    cached.read(function, CACHE_LINE_SIZE, Width::Byte);
    cached.write(function, CACHE_LINE_SIZE, Width::Byte, 0x5a);
    assert_eq!(cached.read(function, CACHE_LINE_SIZE, Width::Byte), 0x5a);
}

#[test]
fn bus_numbers_may_be_written_in_parts_that_are_no_range_between() {
    const BUS_NUMBERS: ConfigOffset = ConfigOffset::wrapping(0x18);
    let (mut cached, _) = captured(topologies::small());
    let port = Sbdf::from_devfn(0, 0, 8);
    let mut plain = cached.access().clone();
    // 04 to 03, and then 00 to 03, where other ports have their buses.
    for (width, value) in [(Width::Dword, 0x0003_0400), (Width::Word, 0)] {
        cached.write(port, BUS_NUMBERS, width, value);
        plain.write(port, BUS_NUMBERS, width, value);
    }
    for bus in 1..=3 {
        let function = Sbdf::from_devfn(0, bus, 0);
        let ids = ConfigOffset::wrapping(0);
        let real = plain.read(function, ids, Width::Dword);
        assert_eq!(cached.read(function, ids, Width::Dword), real, "{function}");
        assert_eq!(real, u32::MAX, "{function}");
    }
}

proptest! {
    #![proptest_config(proptest_config::properties(256))]

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

    #[test]
    fn any_accesses_to_any_well_formed_machine_are_transparent(
        plan in plan(),
        steps in prop::collection::vec(step(), 1..200)
    ) {
        run_both(plan.build(), &steps)?;
    }
}

//! Whatever is read and written through the cache must return what it would
//! have returned without.

use proptest::prelude::*;
use warmbus_pci::{ConfigAccess, ConfigOffset, ConfigSpace, Sbdf, VfIdentity, VfRouting, Width};
use warmbus_pcie_sim::random_topology::plan;
use warmbus_pcie_sim::{Fabric, MILLISECOND, NodeId, devices, proptest_config, topologies};
use warmbus_pcsc::ConfigCache;

use crate::common::captured;
use crate::entangled::entangled;
use crate::targets::{Choice, Registers};
use crate::twin::SR_IOV;

/// Something that happens to a machine, its target chosen among the functions
/// and registers that exist.
#[derive(Clone, Copy, Debug)]
enum Step {
    Access(Access),
    /// Nothing, for so many milliseconds.
    Wait(u64),
    /// Software looks for a function and walks it again.
    Rescan(prop::sample::Index),
    /// Software enables so many VFs of a physical function and walks them.
    EnableVfs(prop::sample::Index, u16),
    /// What is below a port is unplugged, which an access shows, and one of
    /// two other devices is plugged in.
    Exchange(prop::sample::Index, bool),
}

#[derive(Clone, Copy, Debug)]
struct Access {
    function: prop::sample::Index,
    register: prop::sample::Index,
    choice: Choice,
    /// Where in the dword an access starts that is narrower.
    lane: u16,
    width: Width,
    write: Option<u32>,
}

fn access() -> impl Strategy<Value = Access> {
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
    let choice = prop_oneof![
        8 => Just(Choice::Cacheable),
        8 => Just(Choice::Decisive),
        1 => Just(Choice::Any),
    ];
    (
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        choice,
        0..4u16,
        width,
        prop::option::of(value),
    )
        .prop_map(|(function, register, choice, lane, width, write)| Access {
            function,
            register,
            choice,
            lane,
            width,
            write,
        })
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        60 => access().prop_map(Step::Access),
        4 => prop_oneof![Just(10), Just(100), Just(1_000)].prop_map(Step::Wait),
        8 => index().prop_map(Step::Rescan),
        3 => (index(), 1..20u16).prop_map(|(index, count)| Step::EnableVfs(index, count)),
        2 => (index(), any::<bool>()).prop_map(|(index, which)| Step::Exchange(index, which)),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..200)
}

/// The machine behind a cache and without.
struct Both {
    cached: ConfigCache<Fabric>,
    plain: Fabric,
    /// What there is to access, VFs once they were there.
    registers: Vec<Registers>,
    /// What was done so far, for a failure to be understood.
    done: Vec<String>,
}

impl Both {
    fn read(&mut self, function: Sbdf, offset: u16, width: Width) -> Result<u32, TestCaseError> {
        let at = ConfigOffset::wrapping(offset);
        let served = self.cached.read(function, at, width);
        let real = self.plain.read(function, at, width);
        self.done.push(format!("{function} {at} {width:?}"));
        prop_assert_eq!(served, real, "after {:#?}", self.done);
        Ok(real)
    }

    fn write(&mut self, function: Sbdf, offset: u16, width: Width, value: u32) {
        let at = ConfigOffset::wrapping(offset);
        self.cached.write(function, at, width, value);
        self.plain.write(function, at, width, value);
        self.done
            .push(format!("{function} {at} {width:?} = {value:x}"));
    }

    fn access(&mut self, access: Access) -> Result<(), TestCaseError> {
        let of = access.function.get(&self.registers);
        let function = of.function;
        let offset = of.choose(access.choice, access.register, access.lane, access.width);
        match access.write {
            Some(value) => self.write(function, offset.get(), access.width, value),
            None => drop(self.read(function, offset.get(), access.width)?),
        }
        Ok(())
    }

    /// Walks a function again, if it is there and no VF.
    fn rescan(&mut self, index: prop::sample::Index) -> Result<(), TestCaseError> {
        let function = index.get(&self.registers).function;
        let vendor = self.read(function, 0, Width::Dword)? & 0xffff;
        if !matches!(vendor, 0xffff | 0x0000 | 0x0001) {
            self.done.push(format!("{function} walked"));
            self.cached.infer(function);
            self.cached.capture(function);
        }
        Ok(())
    }

    fn enable_vfs(&mut self, index: prop::sample::Index, count: u16) -> Result<(), TestCaseError> {
        let start = |registers: &&Registers| {
            let block = self.cached.block(registers.function)?;
            let start = block.extended_capability(SR_IOV)?;
            Some((registers.function, start))
        };
        let physical: Vec<_> = self.registers.iter().filter_map(|r| start(&r)).collect();
        if physical.is_empty() {
            return Ok(());
        }
        let (physical, start) = *index.get(&physical);
        if self.read(physical, 0, Width::Word)? == 0xffff {
            return Ok(());
        }
        let control = self.read(physical, start + 8, Width::Word)?;
        self.write(physical, start + 8, Width::Word, control & !1);
        let num_vfs = count.min(self.read(physical, start + 0xe, Width::Word)? as u16);
        self.write(physical, start + 0x10, Width::Word, num_vfs.into());
        let routing = self.read(physical, start + 0x14, Width::Dword)?;
        self.write(physical, start + 8, Width::Word, control | 1);
        self.plain.clock().advance(100 * MILLISECOND);
        let routing = VfRouting {
            num_vfs,
            offset: routing as u16,
            stride: (routing >> 16) as u16,
        };
        for number in 1..=num_vfs {
            let vf = routing.address(physical, number);
            // Not where another function is, which software would not do.
            let is_free = self.read(vf, 0, Width::Dword)? == u32::MAX;
            if !is_free || self.read(vf, 8, Width::Dword)? == u32::MAX {
                continue;
            }
            self.done.push(format!("{vf} added"));
            let identity = VfIdentity {
                physical,
                number,
                routing,
            };
            self.cached.probe_vf(vf, identity);
            if self.cached.infer(vf).is_some() {
                self.cached.capture(vf);
            }
            if let Some(block) = self.cached.block(vf) {
                self.registers.push(Registers::of(vf, block));
            }
        }
        Ok(())
    }

    /// The ports with one device of a single function below, by name.
    fn sockets(&self) -> Vec<(NodeId, NodeId)> {
        let of = |name| Some((self.plain.find("socket")?, self.plain.find(name)?));
        of("plugged").into_iter().collect()
    }

    fn exchange(&mut self, index: prop::sample::Index, which: bool) -> Result<(), TestCaseError> {
        let sockets = self.sockets();
        if sockets.is_empty() {
            return Ok(());
        }
        let (port, node) = *index.get(&sockets);
        let reachable = self.plain.reachable();
        let place = |node| {
            reachable
                .iter()
                .find(|(_, n)| **n == node)
                .map(|(at, _)| *at)
        };
        let (at_port, at) = (place(port), place(node));
        self.done.push(format!("{at:?} exchanged"));
        self.cached.access_mut().drop_link(port);
        self.plain.drop_link(port);
        if let (Some(at_port), Some(at)) = (at_port, at) {
            // Slot Status shows it, and a register that is never cached.
            let express = self.cached.block(at_port).and_then(|b| b.capability(0x10));
            if let Some(express) = express {
                self.read(at_port, express + 0x1a, Width::Word)?;
            }
            self.read(at, 6, Width::Word)?;
        }
        let model = if which {
            devices::nvme().named("plugged")
        } else {
            devices::virtio_network().named("plugged")
        };
        self.cached.access_mut().plug_in(port, node, model.clone());
        self.plain.plug_in(port, node, model);
        Ok(())
    }

    /// Everything that is still served.
    fn check(&mut self) -> Result<(), TestCaseError> {
        for function in self.cached.blocks().map(|(f, _)| f).collect::<Vec<_>>() {
            for offset in (0..0x1000).step_by(4) {
                let mut bytes = (offset..offset + 4).map(ConfigOffset::wrapping);
                let block = self.cached.block(function);
                if block.is_some_and(|block| bytes.any(|byte| block.is_cached(byte))) {
                    self.read(function, offset, Width::Dword)?;
                }
            }
        }
        Ok(())
    }
}

/// Runs `steps` on a captured copy of `fabric` and on one without a cache.
fn run_both(mut fabric: Fabric, steps: &[Step]) -> Result<(), TestCaseError> {
    // The two make different numbers of accesses: time must not show it.
    fabric.set_access_time(0);
    let (cached, _) = captured(fabric);
    let mut both = Both {
        plain: cached.access().clone(),
        registers: Registers::of_all(&cached),
        cached,
        done: Vec::new(),
    };
    let hits = both.cached.statistics().hits;
    both.check()?;
    prop_assert!(both.cached.statistics().hits > hits, "nothing was served");
    both.done.clear();
    for &step in steps {
        match step {
            Step::Wait(milliseconds) => both.plain.clock().advance(milliseconds * MILLISECOND),
            Step::Access(access) => both.access(access)?,
            Step::Rescan(index) => both.rescan(index)?,
            Step::EnableVfs(index, count) => both.enable_vfs(index, count)?,
            Step::Exchange(index, which) => both.exchange(index, which)?,
        }
    }
    both.check()
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
    fn any_accesses_to_a_small_machine_are_transparent(steps in steps()) {
        run_both(topologies::small(), &steps)?;
    }

    #[test]
    fn any_accesses_to_a_machine_with_a_switch_are_transparent(steps in steps()) {
        run_both(topologies::switch(), &steps)?;
    }

    #[test]
    fn any_accesses_to_physical_functions_are_transparent(steps in steps()) {
        run_both(topologies::sriov(2, 16), &steps)?;
    }

    #[test]
    fn any_accesses_to_entangled_registers_are_transparent(steps in steps()) {
        run_both(entangled(), &steps)?;
    }

    #[test]
    fn any_accesses_to_any_well_formed_machine_are_transparent(plan in plan(), steps in steps()) {
        run_both(plan.build(), &steps)?;
    }
}

//! Replays a trace through the cache and classifies every read.

use std::collections::{BTreeMap, BTreeSet};

use warmbus_pci::registers::{BUS_NUMBERS, header_type};
use warmbus_pci::{ConfigAccess, ConfigOffset, Sbdf, Width};
use warmbus_pci::{ConfigSpace, Probe};
use warmbus_pcsc::names::{Layout, RegisterMap};
use warmbus_pcsc::{ByteClass, ConfigCache, FunctionCache, Statistics};

use super::Step;
use super::hardware::Hardware;
use super::outcome::{Outcome, Run, Stale};
use crate::input::Capture;

/// Replays `steps` with an empty cache or, if it is to be `warm`, with one that
/// is filled from `capture`.
pub(super) fn replay(steps: &[Step], capture: &Capture, warm: bool) -> Run {
    let mut cache = ConfigCache::new(Hardware::new(steps, capture));
    if warm {
        fill(&mut cache, capture);
    }
    let mut driver = Driver {
        before: cache.statistics(),
        cache,
        names: BTreeMap::new(),
        common: common(),
        invalidated: BTreeMap::new(),
        inferred: BTreeSet::new(),
        run: Run::default(),
    };
    for (index, step) in steps.iter().enumerate() {
        driver.cache.access_mut().begin(index, step);
        if step.is_read {
            driver.read(step);
        } else {
            driver.write(step);
        }
    }
    let mut run = driver.run;
    run.own_reads = driver.cache.access().own_reads;
    run.invalidations = driver.cache.statistics().invalidations - driver.before.invalidations;
    run
}

/// Fills the cache with what was captured and nothing else.
fn fill(cache: &mut ConfigCache<Hardware>, capture: &Capture) {
    for (&function, space) in &capture.spaces {
        if !matches!(cache.probe(function), Probe::Present { .. })
            || cache.infer(function).is_none()
        {
            continue;
        }
        cache.capture(function);
        let masks = space.extension.iter().flat_map(|found| &found.masks);
        for mask in masks {
            teach(cache, function, mask.offset);
        }
        let missing: BTreeSet<u16> = (0..space.bytes.len() as u16)
            .filter(|&offset| space.byte(offset).is_none())
            .filter(|&offset| {
                cache
                    .block(function)
                    .is_some_and(|block| block.is_cached(ConfigOffset::wrapping(offset)))
            })
            .map(|offset| offset & !3)
            .collect();
        for dword in missing {
            cache.invalidate_register(function, dword);
        }
    }
    cache.access_mut().end_of_filling(capture);
}

/// Lets the cache learn the writable bits of a register as usual: from the
/// value that is read back after a write.
fn teach(cache: &mut ConfigCache<Hardware>, function: Sbdf, dword: u16) {
    let Some(block) = cache.block(function) else {
        return;
    };
    let Some(value) = block.dword(dword) else {
        return;
    };
    // Other bus numbers would evict all functions below.
    let is_bus_numbers = block.header_type() == 1 && dword == BUS_NUMBERS;
    let written = if is_bus_numbers { value } else { u32::MAX };
    let offset = ConfigOffset::wrapping(dword);
    cache.write(function, offset, Width::Dword, written);
    cache.read(function, offset, Width::Dword);
    cache.write(function, offset, Width::Dword, value);
    cache.read(function, offset, Width::Dword);
}

struct Driver {
    cache: ConfigCache<Hardware>,
    before: Statistics,
    /// The names of each function's registers, with the IDs for which they
    /// hold: another function may get the same address.
    names: BTreeMap<Sbdf, (Option<u32>, RegisterMap)>,
    common: RegisterMap,
    /// For each byte that was invalidated, the write that did it: the function,
    /// its first and last byte, the register.
    invalidated: BTreeMap<(Sbdf, u16), (Sbdf, u16, String)>,
    /// Functions that were inferred since the cache has them.
    inferred: BTreeSet<Sbdf>,
    run: Run,
}

impl Driver {
    fn read(&mut self, step: &Step) {
        let &Step {
            function,
            offset,
            width,
            value: recorded,
            ..
        } = step;
        let was_known = self.cache.block(function).is_some();
        let class = self.worst_class(function, offset, width);
        let cause = (0..width.bytes())
            .map(|lane| (function, offset.get() + lane))
            .filter(|(_, byte)| !self.is_cached(function, *byte))
            .find_map(|key| self.invalidated.get(&key).cloned());
        let before = self.cache.statistics();
        let value = self.cache.read(function, offset, width);
        let after = self.cache.statistics();
        let is_known = self.cache.block(function).is_some();
        let outcome = if after.hits > before.hits {
            Outcome::Hit
        } else if !is_known && recorded == width.ones() {
            Outcome::Absent
        } else if !is_known {
            Outcome::Forgotten
        } else if !was_known {
            Outcome::FirstSight
        } else if after.misses > before.misses {
            match &cause {
                Some((by, dword, _)) if (*by, *dword) == (function, offset.dword().get()) => {
                    Outcome::Written
                }
                Some(_) => Outcome::WrittenElsewhere,
                None => Outcome::Cold,
            }
        } else {
            match class {
                Some(ByteClass::Volatile) => Outcome::Volatile,
                Some(ByteClass::SideEffect | ByteClass::PassThrough) => Outcome::SideEffect,
                Some(_) => Outcome::Unknown,
                None => Outcome::Reset,
            }
        };
        if is_known {
            self.run.functions.insert(function);
        }
        self.infer(function);
        let name = self.name(function, offset, width);
        if outcome == Outcome::Hit && value != recorded {
            self.run.stale.push(Stale {
                line: step.line,
                function,
                register: name.clone(),
                cached: value,
                recorded,
            });
        }
        let by = cause
            .filter(|_| {
                use Outcome::{Forgotten, Written, WrittenElsewhere};
                matches!(outcome, Forgotten | Written | WrittenElsewhere)
            })
            .map(|(_, _, register)| register);
        let of_register = self.run.registers.entry(name).or_default();
        for tally in [&mut self.run.total, of_register] {
            tally.reads += 1;
            *tally.outcomes.entry(outcome).or_default() += 1;
            if let Some(by) = &by {
                *tally.invalidated_by.entry(by.clone()).or_default() += 1;
            }
        }
    }

    fn write(&mut self, step: &Step) {
        self.run.writes += 1;
        let name = self.name(step.function, step.offset, step.width);
        let before: Vec<(Sbdf, Vec<u8>)> = self
            .cache
            .blocks()
            .map(|(sbdf, block)| (sbdf, block.cached_bitmap().to_vec()))
            .collect();
        self.cache
            .write(step.function, step.offset, step.width, step.value);
        for (sbdf, bitmap) in before {
            let block = self.cache.block(sbdf);
            let now = block.map_or(&[][..], FunctionCache::cached_bitmap);
            if block.is_none() {
                self.inferred.remove(&sbdf);
            }
            if now == bitmap {
                continue;
            }
            for offset in 0..bitmap.len() as u16 * 8 {
                let (byte, bit) = (usize::from(offset / 8), offset % 8);
                let is_set = |map: &[u8]| map.get(byte).is_some_and(|bits| bits >> bit & 1 != 0);
                if is_set(&bitmap) && !is_set(now) {
                    let by = (step.function, step.offset.dword().get(), name.clone());
                    self.invalidated.insert((sbdf, offset), by);
                }
            }
        }
    }

    /// Decides what of a function may be cached as soon as it is known, as the
    /// consumer does.
    fn infer(&mut self, function: Sbdf) {
        let Some(block) = self.cache.block(function) else {
            self.inferred.remove(&function);
            return;
        };
        if block.header_type() == header_type::LAYOUT && self.inferred.insert(function) {
            self.cache.infer(function);
        }
    }

    fn is_cached(&self, function: Sbdf, byte: u16) -> bool {
        self.cache
            .block(function)
            .is_some_and(|block| block.is_cached(ConfigOffset::wrapping(byte)))
    }

    /// The class that keeps the bytes of an access out of the cache, if one
    /// does.
    fn worst_class(&self, function: Sbdf, offset: ConfigOffset, width: Width) -> Option<ByteClass> {
        let block = self.cache.block(function)?;
        let classes = (0..width.bytes()).map(|lane| (offset.wrapping_add(lane), block));
        classes
            .filter(|(byte, block)| !block.is_cacheable(*byte))
            .map(|(byte, block)| block.class(byte))
            .max_by_key(|class| match class {
                ByteClass::SideEffect => 3,
                ByteClass::PassThrough => 2,
                ByteClass::Volatile => 1,
                _ => 0,
            })
    }

    /// The registers that an access touches. A function that the cache does
    /// not know has the names that it had last.
    fn name(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> String {
        let block = self
            .cache
            .block(function)
            .filter(|block| block.header_type() != header_type::LAYOUT);
        if let Some(block) = block {
            let ids = block.dword(0);
            if self.names.get(&function).is_none_or(|(of, _)| *of != ids) {
                let map = RegisterMap::new(&Layout {
                    header_type: block.header_type(),
                    capabilities: block.capabilities(),
                    extended_capabilities: block.extended_capabilities(),
                    bytes: block.data(),
                });
                self.names.insert(function, (ids, map));
            }
        }
        let names = self.names.get(&function).map(|(_, names)| names);
        names
            .unwrap_or(&self.common)
            .describe(offset.get(), width.bytes())
    }
}

/// The names that every function has.
fn common() -> RegisterMap {
    RegisterMap::new(&Layout {
        header_type: header_type::LAYOUT,
        capabilities: &[],
        extended_capabilities: &[],
        bytes: &[],
    })
}

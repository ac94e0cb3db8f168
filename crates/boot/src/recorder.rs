//! Records what each phase of a boot takes.

use alloc::vec::Vec;

use warmbus_pci::{AccessCounts, ConfigAccess, ConfigOffset};
use warmbus_pcsc::{ConfigCache, Statistics};

use crate::measured_access::{MeasuredAccess, Ticks};
use crate::phase::{Observer, Phase};

/// What one phase took, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhaseTime {
    /// The phase.
    pub phase: Phase,
    /// All of it.
    pub ticks: u64,
    /// What of it configuration accesses took.
    pub config_ticks: u64,
}

/// What the cache had cost and saved before it was compared with the hardware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheFigures {
    /// What the cache did.
    pub statistics: Statistics,
    /// Reads of the cacheable dword that was read most often.
    pub max_reads: u8,
    /// Dwords with a cacheable byte.
    pub cacheable_dwords: u64,
}

/// An [`Observer`] that measures phases and accesses with a counter `T`.
#[derive(Debug)]
pub struct Recorder<T> {
    counter: T,
    /// When the boot began, in ticks.
    began: u64,
    /// The phases that have ended, in order.
    pub phases: Vec<PhaseTime>,
    /// Accesses that reached the hardware, those of the comparison with it
    /// excepted.
    pub accesses: AccessCounts,
    /// Figures of the cache.
    pub cache: CacheFigures,
    start: Start,
}

/// How things stood when the phase began that has not ended.
#[derive(Clone, Copy, Debug, Default)]
struct Start {
    ticks: u64,
    config_ticks: u64,
    accesses: AccessCounts,
}

impl<T: Ticks> Recorder<T> {
    /// Nothing was recorded yet of what began at `began` ticks of `counter`.
    pub fn new(counter: T, began: u64) -> Self {
        Self {
            counter,
            began,
            phases: Vec::new(),
            accesses: AccessCounts::default(),
            cache: CacheFigures::default(),
            start: Start::default(),
        }
    }

    /// What all that was recorded took so far, with what was in no phase as
    /// [`Phase::Other`].
    pub fn all_phases(&self) -> impl Iterator<Item = PhaseTime> {
        let all = self.counter.ticks().saturating_sub(self.began);
        let in_phases = self.phases.iter().map(|phase| phase.ticks).sum();
        let other = PhaseTime {
            phase: Phase::Other,
            ticks: all.saturating_sub(in_phases),
            config_ticks: 0,
        };
        self.phases.iter().copied().chain([other])
    }
}

impl<A, T> Observer<MeasuredAccess<A, T>> for Recorder<T>
where
    A: ConfigAccess,
    T: Ticks,
{
    fn phase_begins(&mut self, _: Phase, config: Option<&ConfigCache<MeasuredAccess<A, T>>>) {
        let access = config.map(ConfigCache::access);
        let now = self.counter.ticks();
        if self.phases.is_empty() {
            self.phases.push(PhaseTime {
                phase: Phase::Start,
                ticks: now.saturating_sub(self.began),
                config_ticks: 0,
            });
        }
        self.start = Start {
            ticks: now,
            config_ticks: access.map_or(0, MeasuredAccess::ticks),
            accesses: access.map_or_else(AccessCounts::default, MeasuredAccess::counts),
        };
    }

    fn phase_ends(&mut self, phase: Phase, config: Option<&ConfigCache<MeasuredAccess<A, T>>>) {
        let ticks = self.counter.ticks().saturating_sub(self.start.ticks);
        let mut config_ticks = 0;
        if let Some(config) = config {
            let access = config.access();
            config_ticks = access.ticks().saturating_sub(self.start.config_ticks);
            if phase == Phase::Verify {
                self.cache = figures(config);
            }
            if phase != Phase::SelfCheck {
                add(&mut self.accesses, self.start.accesses, access.counts());
            }
        }
        self.phases.push(PhaseTime {
            phase,
            ticks,
            config_ticks,
        });
    }
}

/// Adds to `sum` the accesses made between `before` and `after`.
fn add(sum: &mut AccessCounts, before: AccessCounts, after: AccessCounts) {
    sum.reads += after.reads - before.reads;
    sum.writes += after.writes - before.writes;
    sum.absent_probes += after.absent_probes - before.absent_probes;
    sum.read_backs += after.read_backs - before.read_backs;
}

fn figures<A: ConfigAccess, T: Ticks>(config: &ConfigCache<MeasuredAccess<A, T>>) -> CacheFigures {
    let mut figures = CacheFigures {
        statistics: config.statistics(),
        ..CacheFigures::default()
    };
    let access = config.access();
    for (function, block) in config.blocks() {
        figures.cacheable_dwords += block.cacheable_dwords().count() as u64;
        let is_cacheable = |dword: ConfigOffset| {
            let mut bytes = (0..4).map(|byte| dword.wrapping_add(byte));
            bytes.any(|byte| block.is_cacheable(byte))
        };
        // Nearly every dword is read once, so that those that were read more
        // often are quickly looked through.
        let repeated = access.repeated_reads(function);
        let repeated = repeated.filter(|(dword, _)| is_cacheable(*dword));
        let most = repeated.map(|(_, times)| times).max().unwrap_or(0);
        let once = || {
            let mut dwords = block.cacheable_dwords();
            dwords.any(|dword| access.dword_read_count(function, dword) != 0)
        };
        if most > figures.max_reads || figures.max_reads == 0 && once() {
            figures.max_reads = most.max(1);
        }
    }
    figures
}

//! From host bridges to a full cache: enumerate, assign, capture, check.

use alloc::string::String;
use alloc::vec::Vec;

use log::info;
use warmbus::machine::Options;
use warmbus::pci::{
    AccessCounts, AssignPolicy, Counted, HostBridge, ScanPolicy, Topology, assign, check, enumerate,
};
use warmbus::pcsc::{Cached, SelfCheck, Statistics};

use crate::ecam::Ecam;
use crate::timed::Timed;
use crate::timer::Timer;

/// The way to the hardware: the cache, what is counted, what is timed.
pub(crate) type Config = Cached<Counted<Timed<Ecam>>>;

/// One part of the boot, in timer ticks.
#[derive(Clone, Copy)]
pub(crate) struct Phase {
    pub(crate) name: &'static str,
    pub(crate) ticks: u64,
    /// Ticks of it that configuration accesses took.
    pub(crate) config_ticks: u64,
}

/// What the pipeline has made.
pub(crate) struct Outcome {
    pub(crate) topology: Topology,
    pub(crate) config: Config,
    pub(crate) phases: Vec<Phase>,
    /// Accesses and statistics as they were before the self-check.
    pub(crate) accesses: AccessCounts,
    pub(crate) statistics: Statistics,
    /// Reads of the cacheable dword that was read most often.
    pub(crate) most_reads: u8,
    /// Dwords with a cacheable byte.
    pub(crate) cacheable_dwords: u64,
    pub(crate) self_check: Option<SelfCheck>,
    /// Why the result is not to be used, if it is not.
    pub(crate) failure: Option<String>,
}

/// Runs the pipeline over `hosts`.
pub(crate) fn run(hosts: &[HostBridge], options: &Options, ecam: Ecam, timer: Timer) -> Outcome {
    let mut config = Cached::new(Counted::new(Timed::new(ecam, timer)));
    let mut phases = Phases {
        timer,
        done: Vec::new(),
    };
    let mut policy = ScanPolicy::default();
    if let Some(buses) = options.hotplug_buses {
        policy.spare_buses = buses;
    }
    let mut topology = phases.run("enumerate", &mut config, |config| {
        enumerate(hosts, &policy, config, &mut timer.clone())
    });
    info!("{} functions found", topology.functions.len());
    let assigned = phases.run("assign", &mut config, |config| {
        assign(&mut topology, &AssignPolicy::default(), config)
    });
    info!(
        "{} BARs have an address, {} do not fit",
        assigned.assigned, assigned.disabled
    );
    phases.run("capture", &mut config, |config| {
        for function in &topology.functions {
            config.capture(function.sbdf);
        }
        topology.note_faults(config);
    });
    let found = phases.run("check", &mut config, |config| check(&topology, config));
    let failure = found.first().map(|anomaly| {
        alloc::format!(
            "the assignment is not consistent in {} places, first {anomaly}",
            found.len()
        )
    });
    topology.anomalies.extend(found);
    let accesses = config.access().counts();
    let statistics = config.statistics();
    let (most_reads, cacheable_dwords) = reads_of_cacheable_dwords(&config);
    let self_check = options
        .verify
        .then(|| phases.run("self-check", &mut config, Cached::self_check));
    let failure = failure.or_else(|| {
        let differences = &self_check.as_ref()?.differences;
        let first = differences.first()?;
        Some(alloc::format!(
            "{} cached bytes differ from the hardware, first {} offset {}: cached {:02x}, hardware {:02x}",
            differences.len(),
            first.function,
            first.offset,
            first.cached,
            first.hardware
        ))
    });
    Outcome {
        topology,
        config,
        phases: phases.done,
        accesses,
        statistics,
        most_reads,
        cacheable_dwords,
        self_check,
        failure,
    }
}

/// How often the cacheable dword that was read most often was read, and how
/// many cacheable dwords there are.
fn reads_of_cacheable_dwords(config: &Config) -> (u8, u64) {
    let mut most = 0;
    let mut count = 0;
    for (function, block) in config.blocks() {
        for dword in block.cacheable_dwords() {
            most = most.max(config.access().reads_of_dword(function, dword));
            count += 1;
        }
    }
    (most, count)
}

struct Phases {
    timer: Timer,
    done: Vec<Phase>,
}

impl Phases {
    fn run<T>(
        &mut self,
        name: &'static str,
        config: &mut Config,
        phase: impl FnOnce(&mut Config) -> T,
    ) -> T {
        let config_ticks = |config: &Config| config.access().access().ticks();
        let (start, before) = (self.timer.ticks(), config_ticks(config));
        let result = phase(config);
        self.done.push(Phase {
            name,
            ticks: self.timer.ticks() - start,
            config_ticks: config_ticks(config) - before,
        });
        result
    }
}

//! From host bridges to a full cache: enumerate, assign, capture, check.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use log::{info, warn};
use warmbus_boot::capture::{capture_evicted, capture_vfs};
use warmbus_boot::options::Options;
use warmbus_boot::unassigned::first_unassigned;
use warmbus_machine::{Machine, MachineError};
use warmbus_pci::time::Clock;
use warmbus_pci::{
    AccessCounts, AssignPolicy, Assigned, CountingAccess, HostBridge, HostBridgeAccess,
    PrefetchedAccess, Sbdf, ScanPolicy, assign, enable_vfs, enumerate, probe_vf_routing,
    verify_assignment,
};
use warmbus_pcsc::{ConfigCache, SelfCheck, Statistics};
use warmbus_pcsc_format::MAX_ROUTINGS;

use crate::arch::mmu::Mmu;
use crate::arch::timer::Timer;
use crate::mmio::{self, Mmio};
use crate::parallel_capture::{self, Cores};
use crate::phase_times::Phases;
use crate::timed_access::TimedAccess;

/// The way to the hardware: the cache, what is counted, what is timed.
pub(crate) type Config =
    ConfigCache<CountingAccess<PrefetchedAccess<TimedAccess<HostBridgeAccess<Mmio>>>>>;

/// What the pipeline has made.
pub(crate) struct Outcome {
    pub(crate) topology: Assigned,
    pub(crate) config: Config,
    /// Accesses and statistics as they were before the self-check.
    pub(crate) accesses: AccessCounts,
    pub(crate) statistics: Statistics,
    /// Reads of the cacheable dword that was read most often.
    pub(crate) max_reads: u8,
    /// Dwords with a cacheable byte.
    pub(crate) cacheable_dwords: u64,
    pub(crate) self_check: Option<SelfCheck>,
    /// Why the result is not to be used, if it is not.
    pub(crate) failure: Option<String>,
    /// Why the assignment is not complete, if it is not.
    pub(crate) gap: Option<String>,
    /// The time of the timer before which SR-IOV capabilities may not be read.
    pub(crate) settled_at: Option<Duration>,
}

/// The host bridges of `machine` that can be reached, and the way to them.
pub(crate) fn open(
    machine: &Machine,
    options: &Options,
    mmu: &mut Mmu,
) -> Result<(Vec<HostBridge>, HostBridgeAccess<Mmio>), MachineError> {
    let mut hosts = machine.host_bridges()?.to_vec();
    // A controller whose clocks stand still may never answer, and nothing in
    // the tree tells whether they do.
    hosts.retain(|host| {
        let usable = options.controllers || !host.mechanism.is_controller();
        if !usable {
            warn!(
                "{} is left out: only with warmbus.controllers, once a loader has set it up",
                host.name
            );
        }
        usable
    });
    let reach = mmio::open(&mut hosts, mmu);
    if hosts.is_empty() {
        let refused = machine.unusable_host_bridges + machine.hosts.len();
        return Err(MachineError::NoHostBridge { refused });
    }
    for host in &mut hosts {
        host.preserve |= options.preserve;
    }
    Ok((hosts, reach))
}

/// Runs the pipeline over `hosts`.
pub(crate) fn run(
    hosts: &[HostBridge],
    options: &Options,
    cores: Cores<'_>,
    reach: HostBridgeAccess<Mmio>,
    timer: Timer,
    phases: &mut Phases,
) -> Outcome {
    let mut config = ConfigCache::new(CountingAccess::new(PrefetchedAccess::new(
        TimedAccess::new(reach, timer),
    )));
    let mut policy = ScanPolicy::default();
    if let Some(buses) = options.hotplug_buses {
        policy.spare_buses = buses;
    }
    let topology = run_phase(phases, "enumerate", &mut config, |config| {
        enumerate(hosts, &policy, config, &mut timer.clone())
    });
    info!("{} functions found", topology.functions().len());
    let topology = run_phase(phases, "assign", &mut config, |config| {
        assign(topology, &AssignPolicy::default(), config)
    });
    let assigned = topology.counts();
    info!(
        "{} BARs have an address, {} do not fit",
        assigned.assigned, assigned.disabled
    );
    let (mut topology, vfs) = run_phase(phases, "capture", &mut config, |config| {
        // They take their time to get ready, which is used.
        let (topology, vfs) = enable_vfs(topology, &options.vfs, config, &mut timer.clone());
        parallel_capture::read_ahead(&topology, config, cores, timer);
        let mut functions: Vec<Sbdf> = topology.functions().iter().map(|f| f.sbdf).collect();
        // As the answers of other cores are sorted.
        Sbdf::sort(&mut functions);
        for function in functions {
            config.capture(function);
        }
        config.access_mut().access_mut().discard();
        let topology = capture_evicted(topology, config).with_faults(config);
        (topology, vfs)
    });
    let mut settled_at = None;
    if let Some(vfs) = vfs {
        run_phase(phases, "vf-wait", &mut config, |_| {
            vfs.wait(&mut timer.clone());
        });
        (topology, settled_at) = run_phase(phases, "vfs", &mut config, |config| {
            capture_vfs(vfs, topology, config, &mut timer.clone())
        });
    }
    let found = run_phase(phases, "check", &mut config, |config| {
        verify_assignment(&topology, config)
    });
    let failure = found.first().map(|anomaly| {
        alloc::format!(
            "the assignment is not consistent in {} places, first {anomaly}",
            found.len()
        )
    });
    let gap = first_unassigned(&topology).map(|gap| alloc::format!("{gap}"));
    let topology = topology.with_anomalies(found);
    let mut accesses = config.access().counts();
    accesses.reads += config.access().access().discarded();
    let statistics = config.statistics();
    let (max_reads, cacheable_dwords) = reads_of_cacheable_dwords(&config);
    if options.verify {
        settle(settled_at, timer);
    }
    let self_check = options
        .verify
        .then(|| run_phase(phases, "self-check", &mut config, ConfigCache::self_check));
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
        accesses,
        statistics,
        max_reads,
        cacheable_dwords,
        self_check,
        failure,
        gap,
        settled_at,
    }
}

/// Finds out where VFs would be, for a kernel that can use the answers.
pub(crate) fn ask_routing(outcome: &mut Outcome, timer: Timer, phases: &mut Phases) {
    settle(outcome.settled_at, timer);
    let before = outcome.config.access().counts();
    let topology = &outcome.topology;
    run_phase(phases, "vf-routing", &mut outcome.config, |config| {
        probe_vf_routing(topology, MAX_ROUTINGS, config);
    });
    let after = outcome.config.access().counts();
    outcome.accesses.reads += after.reads - before.reads;
    outcome.accesses.writes += after.writes - before.writes;
    outcome.accesses.read_backs += after.read_backs - before.read_backs;
}

/// Waits until SR-IOV capabilities may be read again.
pub(crate) fn settle(settled_at: Option<Duration>, mut timer: Timer) {
    if let Some(at) = settled_at {
        let left = at.saturating_sub(timer.now());
        timer.wait(left);
    }
}

/// How often the cacheable dword that was read most often was read, and how
/// many cacheable dwords there are.
fn reads_of_cacheable_dwords(config: &Config) -> (u8, u64) {
    let mut most = 0;
    let mut count = 0;
    for (function, block) in config.blocks() {
        for dword in block.cacheable_dwords() {
            most = most.max(config.access().dword_read_count(function, dword));
            count += 1;
        }
    }
    (most, count)
}

/// Runs one part of the pipeline.
fn run_phase<T>(
    phases: &mut Phases,
    name: &'static str,
    config: &mut Config,
    phase: impl FnOnce(&mut Config) -> T,
) -> T {
    phases.run_with(
        name,
        config,
        |config| config.access().access().access().ticks(),
        phase,
    )
}

//! From host bridges to a full cache: enumerate, assign, capture, virtual
//! functions, verify, compare with the hardware.

use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use log::{debug, warn};
use warmbus_linux::pci_parameters::PciParameters;
use warmbus_pci::time::Clock;
use warmbus_pci::{
    Anomaly, AnomalyKind, AssignPolicy, Assigned, ConfigAccess, HostBridge, LatePort, Sbdf,
    ScanPolicy, VfPolicy, assign, enable_vfs, enumerate, has_empty_ports, late_ports,
    probe_vf_routing, verify_assignment,
};
use warmbus_pcsc::{ConfigCache, Difference, SelfCheck};
use warmbus_pcsc_format::MAX_ROUTINGS;

use crate::capture::{capture_evicted, capture_vfs};
use crate::options::Options;
use crate::phase::{Observer, Phase};
use crate::reserve::unmet_wishes;

/// What the pipeline is to do.
#[derive(Clone, Debug, Default)]
pub struct Pipeline {
    /// How enumeration numbers buses.
    pub scan: ScanPolicy,
    /// How addresses are assigned.
    pub assign: AssignPolicy,
    /// Which virtual functions are captured.
    pub vfs: VfPolicy,
    /// Compare every cached byte with the hardware afterwards.
    pub self_check: bool,
}

impl Pipeline {
    /// What the boot arguments ask for.
    #[must_use]
    pub fn from_options(options: &Options) -> Self {
        let mut scan = ScanPolicy::default();
        if let Some(buses) = options.hotplug_buses {
            scan.spare_buses = buses;
        }
        if let Some(wait) = options.wait {
            scan.not_ready_timeout = wait;
        }
        scan.port_timeouts.clone_from(&options.port_waits);
        Self {
            scan,
            assign: AssignPolicy::default(),
            vfs: options.vfs.clone(),
            self_check: options.verify,
        }
    }

    /// The same with the space for hot-plug ports that the kernel command line
    /// asks for; `warmbus.hotplug_buses=` overrides the number of buses.
    #[must_use]
    pub fn with_pci_parameters(mut self, parameters: &PciParameters, options: &Options) -> Self {
        if let (Some(buses), None) = (parameters.hot_plug_buses, options.hotplug_buses) {
            // Linux counts the bus of the port itself as well.
            self.scan.spare_buses = buses.saturating_sub(1);
        }
        let set = |policy: &mut u64, size: Option<u64>| *policy = size.unwrap_or(*policy);
        set(&mut self.assign.hot_plug_memory, parameters.hot_plug_memory);
        set(
            &mut self.assign.hot_plug_prefetchable,
            parameters.hot_plug_prefetchable,
        );
        set(&mut self.assign.hot_plug_io, parameters.hot_plug_io);
        self
    }

    /// Runs every stage over what is below `hosts`, which `access` reaches.
    pub fn run<A, C, O>(
        &self,
        hosts: &[HostBridge],
        access: A,
        clock: &mut C,
        observer: &mut O,
    ) -> Captured<A>
    where
        A: ConfigAccess,
        C: Clock,
        O: Observer<A>,
    {
        let prepared = self.prepare(hosts, access, clock, observer);
        self.capture(prepared, clock, observer)
    }

    /// Runs the stages before the capture: every function has its bus numbers
    /// and addresses then, and only what they take is cached.
    pub fn prepare<A, C, O>(
        &self,
        hosts: &[HostBridge],
        access: A,
        clock: &mut C,
        observer: &mut O,
    ) -> Prepared<A>
    where
        A: ConfigAccess,
        C: Clock,
        O: Observer<A>,
    {
        let mut config = ConfigCache::new(access);
        let topology = observe(observer, Phase::Enumerate, &mut config, |config, _| {
            enumerate(hosts, &self.scan, config, clock)
        });
        debug!("{} functions found", topology.functions().len());
        let topology = observe(observer, Phase::Assign, &mut config, |config, _| {
            assign(topology, &self.assign, config)
        });
        for wish in unmet_wishes(&topology) {
            warn!("{wish}");
        }
        let assigned = topology.counts();
        debug!(
            "{} BARs have an address, {} do not fit",
            assigned.assigned, assigned.disabled
        );
        Prepared { topology, config }
    }

    /// Runs the capture and the stages after it.
    pub fn capture<A, C, O>(
        &self,
        prepared: Prepared<A>,
        clock: &mut C,
        observer: &mut O,
    ) -> Captured<A>
    where
        A: ConfigAccess,
        C: Clock,
        O: Observer<A>,
    {
        let Prepared {
            topology,
            mut config,
        } = prepared;
        let (mut topology, vfs) = observe(observer, Phase::Capture, &mut config, |config, _| {
            // Virtual functions become ready while the others are captured.
            let (topology, vfs) = enable_vfs(topology, &self.vfs, config, clock);
            let mut functions: Vec<Sbdf> = topology.functions().iter().map(|f| f.sbdf).collect();
            functions.sort_unstable();
            for function in functions {
                config.capture(function);
            }
            let topology = capture_evicted(topology, config).with_faults(config);
            (topology, vfs)
        });
        let mut sriov_readable_at = None;
        if let Some(vfs) = vfs {
            observe(observer, Phase::VfWait, &mut config, |_, _| vfs.wait(clock));
            (topology, sriov_readable_at) =
                observe(observer, Phase::Vfs, &mut config, |config, _| {
                    capture_vfs(vfs, topology, config, clock)
                });
        }
        let inconsistencies = observe(observer, Phase::Verify, &mut config, |config, _| {
            verify_assignment(&topology, config)
        });
        let topology = topology.with_anomalies(inconsistencies.iter().copied());
        let mut captured = Captured {
            topology,
            config,
            inconsistencies,
            late: Vec::new(),
            self_check: None,
            sriov_readable_at,
        };
        captured.exclude_faulty();
        if self.self_check {
            captured.wait_until_sriov_readable(clock);
            let check = observe(
                observer,
                Phase::SelfCheck,
                &mut captured.config,
                |config, _| config.self_check(),
            );
            captured.self_check = Some(check);
            captured.exclude_faulty();
        }
        captured
    }
}

/// A hierarchy with bus numbers and addresses.
#[derive(Debug)]
pub struct Prepared<A: ConfigAccess> {
    /// What was found.
    pub topology: Assigned,
    /// What is cached so far.
    pub config: ConfigCache<A>,
}

/// A hierarchy whose cacheable bytes are all cached.
#[derive(Debug)]
pub struct Captured<A: ConfigAccess> {
    /// What was found.
    pub topology: Assigned,
    /// What is cached.
    pub config: ConfigCache<A>,
    /// What the independent check of bus numbers and addresses found; with
    /// any of it the cache is not to be used.
    pub inconsistencies: Vec<Anomaly>,
    /// Ports that were empty and may have a device now, as
    /// [`Captured::look_again`] found them.
    pub late: Vec<LatePort>,
    /// What the comparison with the hardware found, if there was one.
    pub self_check: Option<SelfCheck>,
    /// When SR-IOV capabilities may be read again, by the clock; `None` where
    /// they may be read now.
    pub sriov_readable_at: Option<Duration>,
}

impl<A: ConfigAccess> Captured<A> {
    /// Why the cache is not to be used, if it is not.
    #[must_use]
    pub fn failure(&self) -> Option<PipelineFailure> {
        if let Some(first) = self.inconsistencies.first() {
            return Some(PipelineFailure::Inconsistent {
                count: self.inconsistencies.len(),
                first: *first,
            });
        }
        let differences = &self.self_check.as_ref()?.differences;
        Some(PipelineFailure::CacheDiffers {
            count: differences.len(),
            first: *differences.first()?,
        })
    }

    /// Has Linux read every function from the hardware of which an access was
    /// refused: what the cache has of it may be the all ones of that access, or
    /// lack the effect of a write that was never made.
    fn exclude_faulty(&mut self) {
        self.topology.record_faults(&mut self.config);
        let is_fault = |kind: &AnomalyKind| matches!(kind, AnomalyKind::ExternalAbort { .. });
        for function in self.topology.functions() {
            if function.anomalies.iter().any(is_fault) {
                self.config.exclude(function.sbdf);
            }
        }
        for anomaly in self.topology.anomalies() {
            if is_fault(&anomaly.kind) {
                self.config.exclude(anomaly.function);
            }
        }
    }

    /// Waits until SR-IOV capabilities may be read.
    pub fn wait_until_sriov_readable(&self, clock: &mut impl Clock) {
        if let Some(at) = self.sriov_readable_at {
            let left = at.saturating_sub(clock.now());
            clock.wait(left);
        }
    }

    /// Looks once more at the ports that were empty, for a kernel that would
    /// keep what was assigned.
    pub fn look_again<O: Observer<A>>(&mut self, observer: &mut O) {
        if !has_empty_ports(&self.topology) {
            return;
        }
        let topology = &self.topology;
        self.late = observe(observer, Phase::LatePorts, &mut self.config, |config, _| {
            late_ports(topology, config)
        });
        self.exclude_faulty();
    }

    /// Probes the routing IDs that virtual functions would have, for a kernel
    /// that uses them.
    pub fn probe_vf_routing<C: Clock, O: Observer<A>>(&mut self, clock: &mut C, observer: &mut O) {
        self.wait_until_sriov_readable(clock);
        let topology = &self.topology;
        observe(observer, Phase::VfRouting, &mut self.config, |config, _| {
            probe_vf_routing(topology, MAX_ROUTINGS, config);
        });
        self.exclude_faulty();
    }
}

/// Why what the pipeline made is not to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PipelineFailure {
    /// The independent check found bus numbers or addresses that cannot be.
    Inconsistent {
        /// How many.
        count: usize,
        /// The first of them.
        first: Anomaly,
    },
    /// The hardware returns something else than the cache.
    CacheDiffers {
        /// Bytes that differ.
        count: usize,
        /// The first of them.
        first: Difference,
    },
}

impl fmt::Display for PipelineFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inconsistent { count, first } => write!(
                f,
                "the assignment is not consistent in {count} places, first {first}"
            ),
            Self::CacheDiffers { count, first } => write!(
                f,
                "{count} cached bytes differ from the hardware, first {} offset {}: cached {:02x}, hardware {:02x}",
                first.function, first.offset, first.cached, first.hardware
            ),
        }
    }
}

impl core::error::Error for PipelineFailure {}

/// Runs one phase that accesses configuration space.
fn observe<A: ConfigAccess, O: Observer<A>, T>(
    observer: &mut O,
    phase: Phase,
    config: &mut ConfigCache<A>,
    run: impl FnOnce(&mut ConfigCache<A>, &mut O) -> T,
) -> T {
    observer.phase_begins(phase, Some(config));
    let result = run(config, observer);
    observer.phase_ends(phase, Some(config));
    result
}

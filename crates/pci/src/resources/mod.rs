//! Assigns addresses to BARs and bridge windows.
//!
//! First every register is [probed](probe), with decode off. Then I/O and
//! memory of each host bridge are [allocated](allocate): all that asks for
//! addresses is [arranged](packing) at once. Last the registers are
//! [programmed](program). What does not fit stays disabled and is an anomaly,
//! with its size and the largest free range.
//!
//! Whatever fits is placed, as far as the search goes:
//!
//! - of a few BARs and bridges every arrangement is considered, of many the
//!   most promising ones (see [`packing`]);
//! - a BAR that the memory windows and the prefetchable windows of the bridges
//!   above can forward is tried in both (see [`ways`]);
//! - a 64-bit BAR may be below 4 GiB, a prefetchable one in memory that is not
//!   prefetchable; the reverse is never done;
//! - a BAR is always in windows of one kind, up to the root bus. A bridge
//!   may have its prefetchable window in the memory window of the bridge above,
//!   which gains nothing but two windows instead of one, and is not considered.
//!
//! Below a host bridge that is preserved, addresses are read as they are.

mod allocate;
mod apertures;
mod attempt;
mod excess;
mod host;
mod packing;
mod probe;
mod program;
mod resizable;
mod shortage;
mod ways;

use alloc::vec::Vec;
use core::ops::Deref;

use super::decode::{read_bars, read_windows};
use super::{Anomaly, AnomalyKind, ConfigAccess, ConfigOffset, ConfigSpace, Step, Topology, Width};
use host::HostAssignment;
use probe::{ProbedResources, ResourceProbe};
pub use resizable::ResizableBar;

/// What assignment may decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssignPolicy {
    /// Bytes of memory that are assigned to a hot-plug capable port at least.
    pub hot_plug_memory: u64,
    /// Bytes of prefetchable memory that are assigned to a hot-plug capable
    /// port at least.
    pub hot_plug_prefetchable: u64,
    /// Bytes of I/O space that are assigned to a hot-plug capable port at
    /// least.
    pub hot_plug_io: u64,
}

impl Default for AssignPolicy {
    fn default() -> Self {
        Self {
            hot_plug_memory: 2 << 20,
            hot_plug_prefetchable: 2 << 20,
            hot_plug_io: 4 << 10,
        }
    }
}

/// How many BARs have an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AssignCounts {
    /// BARs that have an address.
    pub assigned: usize,
    /// BARs that did not fit and are disabled.
    pub disabled: usize,
}

/// A topology whose BARs and bridge windows have been assigned, or read where
/// the host bridge is preserved: a BAR without an address stays without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    pub(crate) topology: Topology,
    counts: AssignCounts,
}

impl Assigned {
    /// How many BARs have an address, those of virtual functions not counted.
    #[must_use]
    pub const fn counts(&self) -> AssignCounts {
        self.counts
    }

    /// The topology alone.
    #[must_use]
    pub fn into_topology(self) -> Topology {
        self.topology
    }

    /// As [`Topology::with_anomalies`].
    #[must_use]
    pub fn with_anomalies(mut self, anomalies: impl IntoIterator<Item = Anomaly>) -> Self {
        self.topology = self.topology.with_anomalies(anomalies);
        self
    }

    /// As [`Topology::with_faults`].
    #[must_use]
    pub fn with_faults(mut self, config: &mut impl ConfigAccess) -> Self {
        self.record_faults(config);
        self
    }

    /// Adds the accesses that the machine refused since the last call, each as
    /// an anomaly of the function that it went to.
    pub fn record_faults(&mut self, config: &mut impl ConfigAccess) {
        self.topology.record_faults(config);
    }
}

impl Deref for Assigned {
    type Target = Topology;

    fn deref(&self) -> &Topology {
        &self.topology
    }
}

/// Assigns addresses to everything in `topology`, or reads them where the
/// host bridge is preserved.
pub fn assign<S: ConfigSpace>(
    mut topology: Topology,
    policy: &AssignPolicy,
    config: &mut S,
) -> Assigned {
    let probed: Vec<ProbedResources> = (0..topology.functions.len())
        .map(|index| probe_function(&mut topology, index, config))
        .collect();
    for function in &mut topology.functions {
        function.resizable = resizable::first_resizable(function.sbdf, config);
    }
    for host in 0..topology.hosts.len() {
        if topology.hosts[host].0.preserve_config {
            read_found(&mut topology, host, config);
        } else {
            HostAssignment::new(&topology, host, &probed).assign(&mut topology, policy, config);
        }
    }
    topology.record_faults(config);
    let mut counts = AssignCounts::default();
    for bar in topology.functions.iter().flat_map(|one| &one.bars) {
        if bar.address.is_some() {
            counts.assigned += 1;
        } else {
            counts.disabled += 1;
        }
    }
    Assigned { topology, counts }
}

fn probe_function<S: ConfigSpace>(
    topology: &mut Topology,
    index: usize,
    config: &mut S,
) -> ProbedResources {
    let function = &mut topology.functions[index];
    if topology.hosts[function.host].0.preserve_config {
        return ProbedResources::default();
    }
    let total_vfs = function.sriov.map_or(0, |sriov| sriov.total_vfs);
    let found = config.is_present(function.sbdf).then(|| {
        let probe = ResourceProbe {
            config,
            function: function.sbdf,
            header_type: function.header_type,
            class_code: function.class_code,
            out: ProbedResources::default(),
        };
        probe.run(total_vfs)
    });
    // What was read of one that is gone means nothing.
    let Some(mut found) = found.filter(|_| config.is_present(function.sbdf)) else {
        let during = Step::Sizing;
        let kind = AnomalyKind::StoppedAnswering { during };
        function.anomalies.push(kind);
        topology.excluded.push(function.sbdf);
        return ProbedResources::default();
    };
    function.bars.clone_from(&found.bars);
    function.anomalies.append(&mut found.anomalies);
    found
}

/// Reads the addresses below a preserved host bridge as they are.
fn read_found<S: ConfigSpace>(topology: &mut Topology, host: usize, config: &mut S) {
    for function in topology.functions.iter_mut().filter(|f| f.host == host) {
        let sbdf = function.sbdf;
        let mut read = |offset| config.read(sbdf, ConfigOffset::wrapping(offset), Width::Dword);
        let bars = &mut function.bars;
        read_bars(function.header_type, &mut read, &mut |bar| bars.push(bar));
        if let Some(bridge) = &mut function.bridge {
            let found = read_windows(&mut read);
            bridge.io = found.io;
            bridge.memory = found.memory;
            bridge.prefetchable = found.prefetchable;
        }
    }
}

/// The three spaces that bridges forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Io,
    Memory,
    Prefetchable,
}

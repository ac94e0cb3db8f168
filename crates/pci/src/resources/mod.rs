//! Gives BARs and bridge windows their addresses.
//!
//! First every register is asked what it can do, with decode off. Then each
//! address space of each host bridge is planned by itself: sizes go up from
//! the leaves, addresses come down. Last the registers are written. What does
//! not fit stays disabled and is named, with its size and what was left.
//!
//! In a host bridge that is to be preserved, addresses are read as they are.

mod host;
mod plan;
mod pools;
mod program;
mod size;

use alloc::vec::Vec;

use super::decode::{read_bars, windows};
use super::{AnomalyKind, ConfigOffset, ConfigSpace, Step, Topology, Width};
use host::HostAssignment;
use size::{ProbedResources, ResourceProbe};

/// What assignment may decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssignPolicy {
    /// Bytes of memory that a hot-plug capable port gets at least.
    pub hot_plug_memory: u64,
    /// Bytes of prefetchable memory that a hot-plug capable port gets at
    /// least.
    pub hot_plug_prefetchable: u64,
    /// Bytes of I/O space that a hot-plug capable port gets at least.
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

/// How assignment ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AssignCounts {
    /// BARs that have an address.
    pub assigned: usize,
    /// BARs that did not fit and are disabled.
    pub disabled: usize,
}

/// Assigns addresses to everything in `topology`, or reads them where the
/// host bridge is preserved, and records them there.
pub fn assign<S: ConfigSpace>(
    topology: &mut Topology,
    policy: &AssignPolicy,
    config: &mut S,
) -> AssignCounts {
    let found: Vec<ProbedResources> = (0..topology.functions.len())
        .map(|index| size_function(topology, index, config))
        .collect();
    for host in 0..topology.hosts.len() {
        if topology.hosts[host].0.preserve {
            read_found(topology, host, config);
        } else {
            HostAssignment::new(topology, host, &found).carry_out(topology, policy, config);
        }
    }
    topology.note_faults(config);
    let mut outcome = AssignCounts::default();
    for bar in topology.functions.iter().flat_map(|one| &one.bars) {
        if bar.address.is_some() {
            outcome.assigned += 1;
        } else {
            outcome.disabled += 1;
        }
    }
    outcome
}

fn size_function<S: ConfigSpace>(
    topology: &mut Topology,
    index: usize,
    config: &mut S,
) -> ProbedResources {
    let function = &mut topology.functions[index];
    if topology.hosts[function.host].0.preserve {
        return ProbedResources::default();
    }
    let total_vfs = function.sriov.map_or(0, |sriov| sriov.total_vfs);
    let found = config.is_present(function.sbdf).then(|| {
        let sizer = ResourceProbe {
            config,
            function: function.sbdf,
            header_type: function.header_type,
            class_code: function.class_code,
            out: ProbedResources::default(),
        };
        sizer.run(total_vfs)
    });
    // What was read of one that is gone is no answer.
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

/// Takes the addresses of a preserved host bridge as they are.
fn read_found<S: ConfigSpace>(topology: &mut Topology, host: usize, config: &mut S) {
    for function in topology.functions.iter_mut().filter(|f| f.host == host) {
        let sbdf = function.sbdf;
        let mut read = |offset| config.read(sbdf, ConfigOffset::new(offset), Width::Dword);
        let bars = &mut function.bars;
        read_bars(function.header_type, &mut read, &mut |bar| bars.push(bar));
        if let Some(bridge) = &mut function.bridge {
            let found = windows(&mut read);
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

const KINDS: [Kind; 3] = [Kind::Io, Kind::Memory, Kind::Prefetchable];

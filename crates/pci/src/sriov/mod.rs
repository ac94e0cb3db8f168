//! SR-IOV virtual functions (PCIe 9): they are found through their physical
//! function, since a scan does not see them, and only while they are enabled.
//!
//! [`enable_vfs`] sets VF Enable of all physical functions whose VFs are
//! wanted; [`EnabledVfs::wait`] waits once for all of them, so that between
//! the two there is time for other work. [`EnabledVfs::find`] probes each
//! VF, and [`EnabledVfs::finish`] clears VF Enable again.
//!
//! [`probe_vf_routing`] reads the routing IDs that VFs have for every NumVFs,
//! without enabling any.
//!
//! Below a host bridge that is preserved nothing is written: only VFs that are
//! enabled already are found, and they stay enabled.

mod insert;
mod probe;
mod routing;
mod routing_ids;

use alloc::vec::Vec;
use core::time::Duration;

use super::registers::{extended, sr_iov};
use super::{Anomaly, AnomalyKind, Assigned, ConfigOffset, ConfigSpace, Sbdf, Topology, Width};
use crate::time::Clock;
use routing_ids::AllocatedRoutingIds;

pub use probe::FoundVfs;
pub use routing::probe_vf_routing;
pub use routing_ids::{VfIdentity, VfRouting};

/// Time from VF Enable to the first access to a VF (PCIe 9.3.3.3.1).
const ENABLE_TIME: Duration = Duration::from_millis(100);
/// Time for which the SR-IOV capability may not be read after VF Enable
/// was cleared (PCIe 9.3.3.3.1).
const DISABLE_TIME: Duration = Duration::from_secs(1);

/// Which VFs of a physical function are captured that the policy does not
/// list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VfScope {
    /// None.
    Off,
    /// Those that were found enabled.
    #[default]
    Found,
    /// All that it can have.
    All,
}

/// Which VFs are to be captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VfPolicy {
    /// What holds for all physical functions that are not listed.
    pub scope: VfScope,
    /// Physical functions and how many VFs of each are captured.
    pub listed: Vec<(Sbdf, u16)>,
    /// Leave VFs enabled that were enabled to be captured.
    pub keep: bool,
}

/// VFs that are enabled and not found yet.
#[derive(Debug)]
pub struct EnabledVfs {
    pfs: Vec<EnabledPf>,
    /// When VF Enable was last set; `None` where it always was.
    enabled_at: Option<Duration>,
    keep: bool,
}

/// The VFs of one physical function.
#[derive(Clone, Copy, Debug)]
struct EnabledPf {
    /// Index of the physical function in the topology.
    index: usize,
    routing: VfRouting,
    /// Whether VF Enable was set here.
    was_enabled_here: bool,
}

/// Enables the VFs that `policy` wants, as far as each has a routing ID of its
/// own. What is not done is an anomaly.
///
/// Returns the topology with the VFs that are enabled in its physical
/// functions, and what finds them; `None` where no VF is enabled.
pub fn enable_vfs<S: ConfigSpace, C: Clock>(
    mut assigned: Assigned,
    policy: &VfPolicy,
    config: &mut S,
    clock: &mut C,
) -> (Assigned, Option<EnabledVfs>) {
    let vfs = enable_wanted(&mut assigned.topology, policy, config, clock);
    (assigned, vfs)
}

fn enable_wanted<S: ConfigSpace, C: Clock>(
    topology: &mut Topology,
    policy: &VfPolicy,
    config: &mut S,
    clock: &mut C,
) -> Option<EnabledVfs> {
    for &(sbdf, _) in &policy.listed {
        let is_there = |f: &super::Function| f.sbdf == sbdf && f.sriov.is_some();
        if !topology.functions.iter().any(is_there) {
            let anomaly = Anomaly::new(sbdf, AnomalyKind::NoPhysicalFunction);
            topology.anomalies.push(anomaly);
        }
    }
    let wanted: Vec<(usize, u16)> = (0..topology.functions.len())
        .filter_map(|index| Some((index, wanted(topology, index, policy)?)))
        .collect();
    if wanted.is_empty() {
        return None;
    }
    let mut allocated = AllocatedRoutingIds::new(topology);
    let mut pfs = Vec::new();
    let mut enabled_at = None;
    for (index, num_vfs) in wanted {
        let function = &topology.functions[index];
        let is_preserved = topology.hosts[function.host].0.preserve_config;
        let was_enabled = function.sriov.is_some_and(|sriov| sriov.vfs_enabled);
        let result = if was_enabled {
            routing_of(topology, index, num_vfs, config)
                .and_then(|routing| allocated.check(topology, index, routing).map(|()| routing))
        } else if is_preserved {
            Err(AnomalyKind::VfsNotEnabled { num_vfs })
        } else {
            enable(topology, index, num_vfs, config, &allocated)
        };
        match result {
            Ok(routing) => {
                allocated.allocate(topology.functions[index].sbdf, routing);
                if !was_enabled {
                    enabled_at = Some(clock.now());
                }
                if let Some(sriov) = &mut topology.functions[index].sriov {
                    sriov.num_vfs = num_vfs;
                    sriov.vfs_enabled = true;
                    sriov.num_vfs_register = Some(num_vfs);
                }
                pfs.push(EnabledPf {
                    index,
                    routing,
                    was_enabled_here: !was_enabled,
                });
            }
            Err(kind) => {
                if let Some(sriov) = &mut topology.functions[index].sriov {
                    sriov.num_vfs = 0;
                }
                topology.functions[index].anomalies.push(kind);
            }
        }
    }
    topology.record_faults(config);
    (!pfs.is_empty()).then_some(EnabledVfs {
        pfs,
        enabled_at,
        keep: policy.keep,
    })
}

/// How many VFs of the function at `index` are wanted; `None` for none.
fn wanted(topology: &mut Topology, index: usize, policy: &VfPolicy) -> Option<u16> {
    let function = &mut topology.functions[index];
    let sriov = function.sriov?;
    let listed = policy
        .listed
        .iter()
        .rfind(|(sbdf, _)| *sbdf == function.sbdf);
    let count = match (listed, policy.scope) {
        // NumVFs cannot be changed while VFs are enabled.
        (Some(_), _) | (None, VfScope::All) if sriov.vfs_enabled => sriov.num_vfs,
        (Some(&(_, count)), _) => count,
        (None, VfScope::Off) => 0,
        (None, VfScope::Found) => sriov.num_vfs,
        (None, VfScope::All) if topology.hosts[function.host].0.preserve_config => 0,
        (None, VfScope::All) => sriov.total_vfs,
    };
    if count > sriov.total_vfs {
        function.anomalies.push(AnomalyKind::TooManyVfs {
            requested: count,
            total_vfs: sriov.total_vfs,
        });
    }
    let count = count.min(sriov.total_vfs);
    (count > 0).then_some(count)
}

/// Where the VFs of the function at `index` are while NumVFs is `num_vfs`.
fn routing_of<S: ConfigSpace>(
    topology: &Topology,
    index: usize,
    num_vfs: u16,
    config: &mut S,
) -> Result<VfRouting, AnomalyKind> {
    let sbdf = topology.functions[index].sbdf;
    let base = config
        .extended_capability(sbdf, extended::SR_IOV)
        .ok_or(AnomalyKind::PhysicalFunctionGone)?;
    let offset = ConfigOffset::wrapping(base + sr_iov::VF_OFFSET);
    let value = config.read(sbdf, offset, Width::Dword);
    Ok(VfRouting::from_dword(num_vfs, value))
}

/// Sets NumVFs and VF Enable of the function at `index`, unless its VFs would
/// not have routing IDs of their own.
fn enable<S: ConfigSpace>(
    topology: &Topology,
    index: usize,
    num_vfs: u16,
    config: &mut S,
    allocated: &AllocatedRoutingIds,
) -> Result<VfRouting, AnomalyKind> {
    let function = &topology.functions[index];
    let sbdf = function.sbdf;
    let in_register = function.sriov.and_then(|sriov| sriov.num_vfs_register);
    let base = config
        .extended_capability(sbdf, extended::SR_IOV)
        .ok_or(AnomalyKind::PhysicalFunctionGone)?;
    let write = |config: &mut S, at: u16, value: u16| {
        let offset = ConfigOffset::wrapping(base + at);
        config.write(sbdf, offset, Width::Word, u32::from(value));
    };
    if in_register != Some(num_vfs) {
        write(config, sr_iov::NUM_VFS, num_vfs);
    }
    let routing = routing_of(topology, index, num_vfs, config)?;
    if let Err(kind) = allocated.check(topology, index, routing) {
        if let Some(before) = in_register.filter(|&before| before != num_vfs) {
            write(config, sr_iov::NUM_VFS, before);
        }
        return Err(kind);
    }
    let offset = ConfigOffset::wrapping(base + sr_iov::CONTROL);
    let control = config.read(sbdf, offset, Width::Word) as u16;
    write(config, sr_iov::CONTROL, control | sr_iov::VF_ENABLE);
    Ok(routing)
}

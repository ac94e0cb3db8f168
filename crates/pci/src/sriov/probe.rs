//! Waits for virtual functions, probes them and disables them again.

use alloc::vec::Vec;
use core::time::Duration;

use super::{DISABLE_TIME, ENABLE_TIME, EnabledPf, EnabledVfs, insert};
use crate::registers::REVISION;
use crate::time::{Backoff, Clock};
use crate::{
    Anomaly, AnomalyKind, Assigned, ConfigOffset, ConfigSpace, Function, Topology, VfIdentity,
    VirtualInfo, Width,
};

/// How long after VF Enable VFs may take to answer, as after a reset
/// (PCIe 9.3.3.3.1 and 2.3.1).
const READY_TIMEOUT: Duration = Duration::from_secs(1);
/// Rounds at most, should the clock stand still.
const MAX_ROUNDS: u32 = 24;

/// The VFs that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundVfs {
    functions: Vec<Function>,
    anomalies: Vec<Anomaly>,
}

impl FoundVfs {
    /// The VFs, by physical function and number.
    #[must_use]
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }
}

/// A VF that did not answer yet.
#[derive(Clone, Copy)]
struct Unresponsive {
    /// Index in [`EnabledVfs::pfs`].
    pf: usize,
    number: u16,
}

impl EnabledVfs {
    /// Waits until the VFs may be accessed.
    pub fn wait<C: Clock>(&self, clock: &mut C) {
        if let Some(enabled_at) = self.enabled_at {
            let passed = clock.now().saturating_sub(enabled_at);
            clock.wait(ENABLE_TIME.saturating_sub(passed));
        }
    }

    /// Finds the VFs that answer. To be called after [`Self::wait`].
    pub fn find<S: ConfigSpace, C: Clock>(
        &self,
        assigned: &Assigned,
        config: &mut S,
        clock: &mut C,
    ) -> FoundVfs {
        let start = self.enabled_at.unwrap_or_else(|| clock.now());
        let mut functions = Vec::new();
        let mut unresponsive = Vec::new();
        for (index, pf) in self.pfs.iter().enumerate() {
            for number in 1..=pf.routing.num_vfs {
                match pf.probe_vf(number, assigned, config) {
                    Some(function) => functions.push(function),
                    None => unresponsive.push(Unresponsive { pf: index, number }),
                }
            }
        }
        let mut backoff = Backoff::new(start, READY_TIMEOUT, MAX_ROUNDS);
        while !unresponsive.is_empty() && backoff.wait(clock) {
            unresponsive.retain(|vf| {
                // A round over thousands of VFs takes its time, too.
                if backoff.is_overdue(clock) {
                    return true;
                }
                let found = self.pfs[vf.pf].probe_vf(vf.number, assigned, config);
                let is_unresponsive = found.is_none();
                functions.extend(found);
                is_unresponsive
            });
        }
        functions.sort_by_key(|function| {
            let vf = function.virtual_function;
            vf.map_or((0, 0), |vf| (vf.physical, vf.number))
        });
        FoundVfs {
            functions,
            anomalies: self.report_unresponsive(&unresponsive, assigned),
        }
    }

    /// Adds `found`, which [`Self::find`] returned, to the topology. VFs that
    /// were enabled for this are disabled again, unless they are to stay.
    ///
    /// Returns the topology, and the moment of `clock` before which the SR-IOV
    /// capabilities may not be read; `None` where they may be read at once.
    pub fn finish<S: ConfigSpace, C: Clock>(
        self,
        assigned: Assigned,
        found: FoundVfs,
        config: &mut S,
        clock: &mut C,
    ) -> (Assigned, Option<Duration>) {
        let mut assigned = assigned.with_anomalies(found.anomalies).with_faults(config);
        let disabled_at = self.disable(&mut assigned.topology, config, clock);
        insert::insert(&mut assigned.topology, found.functions);
        let readable_at = disabled_at.map(|at| at.saturating_add(DISABLE_TIME));
        (assigned, readable_at)
    }

    /// One anomaly for each physical function whose VFs did not all answer.
    fn report_unresponsive(
        &self,
        unresponsive: &[Unresponsive],
        topology: &Topology,
    ) -> Vec<Anomaly> {
        let by_pf = unresponsive.chunk_by(|vf, next| vf.pf == next.pf);
        let anomalies = by_pf.map(|vfs| {
            let (pf, first) = (&self.pfs[vfs[0].pf], vfs[0].number);
            let physical = topology.functions[pf.index].sbdf;
            let kind = AnomalyKind::VfsUnresponsive {
                count: vfs.len(),
                num_vfs: pf.routing.num_vfs,
                first,
                at: pf.routing.address(physical, first),
            };
            Anomaly::new(physical, kind)
        });
        anomalies.collect()
    }

    /// Clears VF Enable where it was set to find the VFs. Returns when that
    /// was, if it was.
    fn disable<S: ConfigSpace, C: Clock>(
        &self,
        topology: &mut Topology,
        config: &mut S,
        clock: &mut C,
    ) -> Option<Duration> {
        let ours = self.pfs.iter().filter(|pf| pf.was_enabled_here);
        let mut disabled_at = None;
        for pf in ours.filter(|_| !self.keep) {
            let function = &mut topology.functions[pf.index];
            let physical = function.sbdf;
            config.disable_vfs(physical, &mut pf.routing.addresses(physical));
            if let Some(sriov) = &mut function.sriov {
                sriov.vfs_enabled = false;
            }
            disabled_at = Some(clock.now());
        }
        disabled_at
    }
}

impl EnabledPf {
    /// Probes VF `number` and walks its capability lists; `None` where it does
    /// not answer.
    fn probe_vf<S: ConfigSpace>(
        &self,
        number: u16,
        topology: &Topology,
        config: &mut S,
    ) -> Option<Function> {
        let physical = &topology.functions[self.index];
        let sbdf = self.routing.address(physical.sbdf, number);
        let identity = VfIdentity {
            physical: physical.sbdf,
            number,
            routing: self.routing,
        };
        let ids = config.probe_vf(sbdf, identity).ids()?;
        let anomalies = config.walk(sbdf)?;
        let class = config.read(sbdf, ConfigOffset::wrapping(REVISION), Width::Dword);
        let lists = config.lists(sbdf)?;
        let header = u32::from(lists.header_type) << 16;
        Some(Function {
            host: physical.host,
            parent: physical.parent,
            virtual_function: Some(VirtualInfo {
                physical: self.index,
                number,
            }),
            anomalies,
            ..Function::from_header(sbdf, ids, class, header, lists)
        })
    }
}

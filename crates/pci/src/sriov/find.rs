//! Waits for VFs, takes them in, captures them.

use alloc::vec::Vec;

use super::places::place;
use super::{DISABLE_TIME, ENABLE_TIME, EnabledPf, EnabledVfs, insert};
use crate::registers::REVISION;
use crate::time::Clock;
use crate::{
    Anomaly, AnomalyKind, Assigned, ConfigOffset, ConfigSpace, Function, Probe, Sbdf, Topology,
    VfIdentity, VirtualInfo, Width,
};

/// Nanoseconds from VF Enable after which VFs that do not answer are given up:
/// as after a reset (PCIe 9.3.3.3.1 and 2.3.1).
const DEADLINE: u64 = 1_000_000_000;
/// Nanoseconds before VFs are asked a second time; doubled each round.
const FIRST_WAIT: u64 = 1_000_000;
/// Nanoseconds between rounds at most.
const LONGEST_WAIT: u64 = 100_000_000;
/// Rounds at most, should the clock stand still.
const ROUNDS: u32 = 24;

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
    group: usize,
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

    /// Adds `found`, which [`Self::find`] returned, to the topology. VFs that
    /// were enabled for this are disabled again, unless they are to stay.
    ///
    /// Returns the topology, and the moment before which the SR-IOV
    /// capabilities may not be read, in nanoseconds of `clock`; `None` where
    /// they may be read at once.
    pub fn finish<S: ConfigSpace, C: Clock>(
        self,
        assigned: Assigned,
        found: FoundVfs,
        config: &mut S,
        clock: &mut C,
    ) -> (Assigned, Option<u64>) {
        let mut assigned = assigned.with_anomalies(found.anomalies).with_faults(config);
        let disabled_at = self.disable(&mut assigned.topology, config, clock);
        insert::insert(&mut assigned.topology, found.functions);
        (
            assigned,
            disabled_at.map(|at| at.saturating_add(DISABLE_TIME)),
        )
    }

    /// Finds the VFs that answer. To be called after [`Self::wait`].
    pub fn find<S: ConfigSpace, C: Clock>(
        &self,
        topology: &Assigned,
        config: &mut S,
        clock: &mut C,
    ) -> FoundVfs {
        let start = self.enabled_at.unwrap_or_else(|| clock.now());
        let mut found = Vec::new();
        let mut silent = Vec::new();
        for (index, group) in self.groups.iter().enumerate() {
            for number in 1..=group.routing.num_vfs {
                let vf = Unresponsive {
                    group: index,
                    number,
                };
                match group.take_in(number, topology, config) {
                    Some(function) => found.push(function),
                    None => silent.push(vf),
                }
            }
        }
        let mut wait = FIRST_WAIT;
        for _ in 0..ROUNDS {
            let left = DEADLINE.saturating_sub(clock.now().saturating_sub(start));
            if silent.is_empty() || left == 0 {
                break;
            }
            clock.wait(wait.min(left));
            wait = (wait * 2).min(LONGEST_WAIT);
            silent.retain(|vf| {
                // A round over thousands takes its time, too.
                if clock.now().saturating_sub(start) > DEADLINE + LONGEST_WAIT {
                    return true;
                }
                let group = &self.groups[vf.group];
                let answer = group.take_in(vf.number, topology, config);
                let is_silent = answer.is_none();
                found.extend(answer);
                is_silent
            });
        }
        let anomalies = self.report_unresponsive(&silent, topology);
        found.sort_by_key(|function| {
            let vf = function.virtual_function;
            vf.map_or((0, 0), |vf| (vf.physical, vf.number))
        });
        FoundVfs {
            functions: found,
            anomalies,
        }
    }

    /// One anomaly for each physical function whose VFs did not all answer.
    fn report_unresponsive(&self, silent: &[Unresponsive], topology: &Topology) -> Vec<Anomaly> {
        let mut anomalies = Vec::new();
        for of_group in silent.chunk_by(|vf, next| vf.group == next.group) {
            let (group, first) = (&self.groups[of_group[0].group], of_group[0].number);
            let count = of_group.len();
            let physical = topology.functions[group.physical].sbdf;
            let at = place(physical, group.routing, first);
            let kind = AnomalyKind::VfsUnresponsive {
                count,
                num_vfs: group.routing.num_vfs,
                first,
                at,
            };
            anomalies.push(Anomaly::new(physical, kind));
        }
        anomalies
    }

    /// Clears VF Enable where it was set for the capture. Returns when that
    /// was, if it was.
    fn disable<S: ConfigSpace, C: Clock>(
        &self,
        topology: &mut Topology,
        config: &mut S,
        clock: &mut C,
    ) -> Option<u64> {
        let ours = self.groups.iter().filter(|group| group.is_ours);
        let mut disabled_at = None;
        for group in ours.filter(|_| !self.keep) {
            let function = &mut topology.functions[group.physical];
            let physical = function.sbdf;
            let vfs = 1..=group.routing.num_vfs;
            config.disable_vfs(
                physical,
                &mut vfs.map(|number| place(physical, group.routing, number)),
            );
            if let Some(sriov) = &mut function.sriov {
                sriov.vfs_enabled = false;
            }
            disabled_at = Some(clock.now());
        }
        disabled_at
    }
}

impl EnabledPf {
    /// Takes VF `number` into the cache; `None` where it does not answer.
    fn take_in<S: ConfigSpace>(
        &self,
        number: u16,
        topology: &Topology,
        config: &mut S,
    ) -> Option<Function> {
        let physical = &topology.functions[self.physical];
        let sbdf: Sbdf = place(physical.sbdf, self.routing, number);
        let identity = VfIdentity {
            physical: physical.sbdf,
            number,
            routing: self.routing,
        };
        let Probe::Present {
            vendor_id,
            device_id,
        } = config.probe_vf(sbdf, identity)
        else {
            return None;
        };
        let anomalies = config.walk(sbdf)?;
        let class = config.read(sbdf, ConfigOffset::new(REVISION), Width::Dword);
        let lists = config.lists(sbdf)?;
        Some(Function {
            sbdf,
            host: physical.host,
            parent: physical.parent,
            vendor_id,
            device_id,
            revision: class as u8,
            class_code: class >> 8,
            header_type: lists.header_type,
            multi_function: false,
            port_type: lists.port_type,
            capabilities: lists.capabilities.clone(),
            extended_capabilities: lists.extended_capabilities.clone(),
            bars: Vec::new(),
            bridge: None,
            sriov: None,
            virtual_function: Some(VirtualInfo {
                physical: self.physical,
                number,
            }),
            anomalies,
        })
    }
}

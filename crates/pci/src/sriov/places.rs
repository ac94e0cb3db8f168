//! Which routing IDs are taken.

use alloc::collections::BTreeSet;

use crate::{AnomalyKind, Sbdf, Topology, VfRouting};

/// The functions that there are, those about to be included.
pub(super) struct AllocatedRoutingIds {
    taken: BTreeSet<Sbdf>,
}

impl AllocatedRoutingIds {
    pub(super) fn new(topology: &Topology) -> Self {
        let functions = topology.functions.iter().map(|function| function.sbdf);
        let excluded = topology.excluded.iter().copied();
        Self {
            taken: functions.chain(excluded).collect(),
        }
    }

    /// Whether the VFs of the function at `index` all have a place that is
    /// reserved for them and free; what is wrong where they have not.
    pub(super) fn check(
        &self,
        topology: &Topology,
        index: usize,
        routing: VfRouting,
    ) -> Result<(), AnomalyKind> {
        let function = &topology.functions[index];
        let sbdf = function.sbdf;
        let VfRouting {
            num_vfs,
            offset,
            stride,
        } = routing;
        if offset == 0 || stride == 0 && num_vfs > 1 {
            return Err(AnomalyKind::VfsExcludedOverlap {
                offset,
                stride,
                num_vfs,
            });
        }
        let reserved = match function.sriov {
            // Who enabled them has found buses for them.
            Some(sriov) if sriov.vfs_enabled => topology.hosts[function.host].0.buses.last,
            Some(sriov) => sriov.last_bus,
            None => sbdf.bus(),
        };
        let last = routing.routing_id(sbdf, num_vfs) >> 8;
        if last > u32::from(reserved) {
            return Err(AnomalyKind::VfsExcludedBeyondBus {
                num_vfs,
                bus: last,
                reserved,
            });
        }
        for number in 1..=num_vfs {
            let at = place(sbdf, routing, number);
            if self.taken.contains(&at) {
                return Err(AnomalyKind::VfsExcludedTaken {
                    number,
                    num_vfs,
                    at,
                });
            }
        }
        Ok(())
    }

    /// Notes the places of the VFs of the function at `index`.
    pub(super) fn take(&mut self, topology: &Topology, index: usize, routing: VfRouting) {
        let sbdf = topology.functions[index].sbdf;
        let places = (1..=routing.num_vfs).map(|number| place(sbdf, routing, number));
        self.taken.extend(places);
    }
}

/// Where VF `number` of `physical` is, which [`AllocatedRoutingIds::check`] found to have a
/// routing ID.
pub(super) fn place(physical: Sbdf, routing: VfRouting, number: u16) -> Sbdf {
    let routing_id = routing.routing_id(physical, number);
    Sbdf::from_routing_id(physical.segment(), routing_id as u16)
}

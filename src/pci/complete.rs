//! Whether whoever comes next can take the assignment as it is.

use alloc::format;
use alloc::string::String;

use super::{Anomaly, Function, Topology};

/// The first thing in `topology` that has no complete bus numbers or
/// addresses, or of which that cannot be told: `None` where an operating
/// system may be asked to keep all of them.
///
/// Meant for a topology that [`assign`](super::assign) went over and in which
/// [`check`](super::check()) found nothing.
#[must_use]
pub fn first_gap(topology: &Topology) -> Option<Anomaly> {
    if let Some(anomaly) = topology.anomalies.first() {
        return Some(anomaly.clone());
    }
    topology.functions.iter().find_map(|function| {
        let last_bus = topology
            .hosts
            .get(function.host)
            .map_or(0, |(host, _)| host.buses.last);
        gap(function, last_bus).map(|text| Anomaly {
            function: function.sbdf,
            text,
        })
    })
}

fn gap(function: &Function, last_bus: u8) -> Option<String> {
    if function.header_type > 1 {
        return Some(format!(
            "what a header of type {:02x} needs is not assigned",
            function.header_type
        ));
    }
    if let Some(bar) = function.bars.iter().find(|bar| bar.address.is_none()) {
        return Some(format!("BAR {} has no address", bar.index));
    }
    if let Some(bridge) = function.bridge {
        // Linux 6.18 gives a bridge whose memory window it finds closed all
        // memory of the host bridge, if it is told to keep what it finds.
        if bridge.secondary == 0 || bridge.memory.is_none() {
            return Some("the bridge has no bus number or no memory window".into());
        }
        if let Some(text) = function.anomalies.first() {
            return Some(text.clone());
        }
    }
    let sriov = function.sriov.filter(|sriov| sriov.total_vfs > 0)?;
    // SR-IOV 2.1.2: where the last VF is.
    let last = u32::from(function.sbdf.routing_id())
        + u32::from(sriov.first_vf_offset)
        + u32::from(sriov.total_vfs - 1) * u32::from(sriov.vf_stride);
    (last >> 8 > u32::from(last_bus)).then(|| {
        format!(
            "the last of {} VFs has no bus number: it would be on bus {:#x}",
            sriov.total_vfs,
            last >> 8
        )
    })
}

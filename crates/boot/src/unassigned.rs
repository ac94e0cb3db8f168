//! Whether whoever comes next can take the assignment as it is.

use alloc::format;
use alloc::string::String;

use warmbus_pci::registers::header_type;
use warmbus_pci::{Anomaly, Bar, BarKind, Function, HostBridge, Topology, WindowKind};

/// The first thing in `topology` that has no complete bus numbers or
/// addresses, or of which that cannot be told: `None` where an operating
/// system may be asked to keep all of them. What nobody could give is no gap: an
/// I/O BAR below a host bridge that forwards no I/O, an address for a function
/// whose header nobody knows, a bus for more virtual functions than there are
/// numbers.
///
/// Meant for a topology that [`assign`](warmbus_pci::assign) went over and in which
/// [`check`](warmbus_pci::verify_assignment()) found nothing.
#[must_use]
pub fn first_unassigned(topology: &Topology) -> Option<Anomaly> {
    if let Some(&function) = topology.excluded.first() {
        let text = "there is a function that could not be taken in".into();
        return Some(Anomaly { function, text });
    }
    topology.functions.iter().find_map(|function| {
        let (host, _) = topology.hosts.get(function.host)?;
        gap(function, host).map(|text| Anomaly {
            function: function.sbdf,
            text,
        })
    })
}

fn gap(function: &Function, host: &HostBridge) -> Option<String> {
    match function.header_type {
        0 | 1 => {}
        header_type::CARDBUS => return Some("what a CardBus bridge needs is not assigned".into()),
        // Linux takes no notice of such a function.
        _ => return None,
    }
    let has_io = host
        .windows
        .iter()
        .any(|window| window.kind == WindowKind::Io);
    let is_lost = |bar: &&Bar| bar.address.is_none() && (has_io || bar.kind != BarKind::Io);
    if let Some(bar) = function.bars.iter().find(is_lost) {
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
    let distance = u32::from(sriov.first_vf_offset)
        + u32::from(sriov.total_vfs - 1) * u32::from(sriov.vf_stride);
    let last = (u32::from(function.sbdf.routing_id()) + distance) >> 8;
    // Even on the first bus that it could be on. A Linux that gives other numbers
    // counts these buses past 255 and starts over, at the bus that it is on.
    let root = host.buses.first;
    let first = u32::from(root) + u32::from(function.sbdf.bus() != root);
    let hopeless = (first << 8 | u32::from(function.sbdf.devfn())) + distance;
    let can_never_fit = hopeless >> 8 > u32::from(host.buses.last);
    (last > u32::from(host.buses.last) && !can_never_fit).then(|| {
        format!(
            "the last of {} VFs has no bus number: it would be on bus {last:#x}",
            sriov.total_vfs
        )
    })
}

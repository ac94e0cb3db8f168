//! Whether the OS can keep the assignment as it is.

use core::fmt;

use warmbus_pci::registers::header_type;
use warmbus_pci::{AnomalyKind, BarKind, Sbdf, Topology, WindowKind};

use crate::unplaceable;

/// A function whose bus numbers or addresses are not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unassigned {
    /// The function.
    pub function: Sbdf,
    /// What it lacks.
    pub reason: UnassignedReason,
}

impl fmt::Display for Unassigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.function, self.reason)
    }
}

/// What a function lacks that the OS would have to assign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnassignedReason {
    /// The function is there, but is not part of the topology.
    Excluded,
    /// A `CardBus` bridge, whose resources are never assigned.
    CardBus,
    /// A BAR without an address, by its resource index.
    Bar(u8),
    /// A bridge without a bus below it, or with its memory window closed.
    Bridge,
    /// A bridge that does not do what was assigned, or of which that is not
    /// known.
    Anomaly(AnomalyKind),
    /// Virtual functions beyond the last bus of the host bridge.
    VirtualFunctions {
        /// `TotalVFs`.
        total_vfs: u16,
        /// The bus that the last of them would be on.
        bus: u32,
    },
}

impl fmt::Display for UnassignedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Excluded => f.write_str("there is a function that was excluded"),
            Self::CardBus => f.write_str("what a CardBus bridge needs is not assigned"),
            Self::Bar(index) => write!(f, "BAR {index} has no address"),
            Self::Bridge => f.write_str("the bridge has no bus number or no memory window"),
            Self::Anomaly(kind) => kind.fmt(f),
            Self::VirtualFunctions { total_vfs, bus } => write!(
                f,
                "the last of {total_vfs} VFs has no bus number: it would be on bus {bus:#x}"
            ),
        }
    }
}

/// The first function of `topology` whose bus numbers or addresses are not
/// complete, or not known to be: `None` where the OS may be asked to keep all
/// of them.
///
/// What Linux could not assign either does not count: an I/O BAR, an expansion
/// ROM or a VF BAR for which there was no place, a memory BAR for which the host
/// windows have too few places of its size, the addresses of a function with an
/// unknown header, a bus for more virtual functions than there are routing IDs.
///
/// Meant for a topology after [`assign`](warmbus_pci::assign) in which
/// [`verify_assignment`](warmbus_pci::verify_assignment()) found nothing.
#[must_use]
pub fn first_unassigned(topology: &Topology) -> Option<Unassigned> {
    if let Some(&function) = topology.excluded().first() {
        let reason = UnassignedReason::Excluded;
        return Some(Unassigned { function, reason });
    }
    (0..topology.functions().len()).find_map(|index| {
        reason(topology, index).map(|reason| Unassigned {
            function: topology.functions()[index].sbdf,
            reason,
        })
    })
}

fn reason(topology: &Topology, index: usize) -> Option<UnassignedReason> {
    let function = &topology.functions()[index];
    let (host, _) = topology.hosts().get(function.host)?;
    match function.header_type {
        0 | 1 => {}
        header_type::CARDBUS => return Some(UnassignedReason::CardBus),
        // Linux takes no notice of such a function.
        _ => return None,
    }
    let has_io = host
        .windows
        .iter()
        .any(|window| window.kind == WindowKind::Io);
    let unassigned = function.bars.iter().filter(|bar| bar.address.is_none());
    let mut missing = unassigned.filter(|bar| {
        (has_io || bar.kind != BarKind::Io) && !unplaceable::is_lost_by_any(topology, index, bar)
    });
    if let Some(bar) = missing.next() {
        return Some(UnassignedReason::Bar(bar.index));
    }
    if let Some(bridge) = function.bridge {
        // Linux 6.18 gives a bridge whose memory window it finds closed all
        // memory of the host bridge, if it is to keep what it finds.
        if bridge.secondary == 0 || bridge.memory.is_none() {
            return Some(UnassignedReason::Bridge);
        }
        let mut anomalies = function.anomalies.iter();
        if let Some(&kind) = anomalies.find(|anomaly| unsettles_bridge(anomaly)) {
            return Some(UnassignedReason::Anomaly(kind));
        }
    }
    let sriov = function.sriov.filter(|sriov| sriov.total_vfs > 0)?;
    let routing = sriov.routing();
    let last = routing.last_bus(function.sbdf);
    // Even on the first bus that it could be on. A Linux that assigns other
    // numbers counts these buses past 255 and starts over, at the bus that it
    // is on.
    let root = host.buses.first;
    let lowest = root.saturating_add(u8::from(function.sbdf.bus() != root));
    let lowest = Sbdf::from_devfn(function.sbdf.segment(), lowest, function.sbdf.devfn());
    let can_never_fit = routing.last_bus(lowest) > u32::from(host.buses.last);
    (last > u32::from(host.buses.last) && !can_never_fit).then_some(
        UnassignedReason::VirtualFunctions {
            total_vfs: sriov.total_vfs,
            bus: last,
        },
    )
}

/// Whether an anomaly of a bridge makes its bus numbers or windows doubtful. A
/// broken capability list does not, since both are in the header, nor does
/// one of its own BARs.
fn unsettles_bridge(anomaly: &AnomalyKind) -> bool {
    let is_of_bar = matches!(
        anomaly,
        AnomalyKind::BarUnassigned { .. }
            | AnomalyKind::BarNotForwarded { .. }
            | AnomalyKind::BarType { .. }
            | AnomalyKind::BarWithoutUpperHalf { .. }
            | AnomalyKind::BarMask { .. }
            | AnomalyKind::RomMask { .. }
    );
    if is_of_bar {
        return false;
    }
    let affects = anomaly.affects();
    affects.presence || affects.buses || affects.resources || affects.access
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_list_of_a_bridge_says_nothing_about_its_windows() {
        let offset = warmbus_pci::ConfigOffset::wrapping(0x20);
        let (wrote, read) = (0x1000_1000, 0);
        let unsettling = [
            AnomalyKind::MemoryWindowHardwired { wrote, read },
            AnomalyKind::ExternalAbort { offset },
            AnomalyKind::NoBusNumberLeft { last: 7 },
            AnomalyKind::BridgeLoop,
        ];
        for anomaly in unsettling {
            assert!(unsettles_bridge(&anomaly), "{anomaly}");
        }
        let harmless = [
            AnomalyKind::CapabilityLoop {
                from: 0x41,
                to: 0x40,
            },
            AnomalyKind::ZeroPrimaryBus { bus: 1 },
        ];
        for anomaly in harmless {
            assert!(!unsettles_bridge(&anomaly), "{anomaly}");
        }
    }
}

//! Whether the OS can keep the assignment as it is.

use core::fmt;

use warmbus_pci::registers::header_type;
use warmbus_pci::{
    AnomalyKind, BarKind, Function, HostBridge, LateState, ResizableBar, Sbdf, Topology, WindowKind,
};

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
    /// A BAR that may be made larger, by its resource index: Linux does that for
    /// a driver only where it assigns BARs.
    Resizable(u8),
    /// A bridge without a bus below it.
    BusNumbers,
    /// A bridge whose memory window is closed.
    MemoryWindow,
    /// A port that was empty when it was scanned, and may have a device now.
    Late(LateState),
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

impl UnassignedReason {
    /// Whether the OS has to assign bus numbers for it, and not only addresses.
    #[must_use]
    pub const fn affects_bus_numbers(self) -> bool {
        match self {
            Self::Bar(_) | Self::Resizable(_) | Self::MemoryWindow => false,
            Self::Anomaly(kind) => {
                let affects = kind.affects();
                affects.presence || affects.buses || affects.access
            }
            // A function that is not part of the topology may be a bridge.
            Self::Excluded
            | Self::Late(_)
            | Self::CardBus
            | Self::BusNumbers
            | Self::VirtualFunctions { .. } => true,
        }
    }
}

impl fmt::Display for UnassignedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Excluded => f.write_str("there is a function that was excluded"),
            Self::CardBus => f.write_str("what a CardBus bridge needs is not assigned"),
            Self::Bar(index) => write!(f, "BAR {index} has no address"),
            Self::Resizable(index) => {
                write!(
                    f,
                    "BAR {index} may be made larger, which its driver asks Linux for"
                )
            }
            Self::BusNumbers => f.write_str("the bridge has no bus number"),
            Self::MemoryWindow => f.write_str("the bridge has no memory window"),
            Self::Late(state) => state.fmt(f),
            Self::Anomaly(kind) => kind.fmt(f),
            Self::VirtualFunctions { total_vfs, bus } => write!(
                f,
                "the last of {total_vfs} VFs has no bus number: it would be on bus {bus:#x}"
            ),
        }
    }
}

/// What is not complete, or not known to be, of bus numbers and addresses below
/// the host bridge at `index` of `topology`: of several such things the first one
/// that [affects bus numbers](UnassignedReason::affects_bus_numbers), or else the
/// first one. `None` where the OS may be asked to keep all of them.
///
/// What Linux could not assign either does not count: an I/O BAR, an expansion
/// ROM or a VF BAR for which there was no place, a memory BAR for which the host
/// windows have too few places of its size, the addresses of a function with an
/// unknown header, a bus for more virtual functions than there are routing IDs.
///
/// Meant for a topology after [`assign`](warmbus_pci::assign) in which
/// [`verify_assignment`](warmbus_pci::verify_assignment()) found nothing.
#[must_use]
pub fn unassigned_below(topology: &Topology, index: usize) -> Option<Unassigned> {
    let (host, _) = topology.hosts().get(index)?;
    let is_below = |function: &&Sbdf| {
        let buses = host.buses.first..=host.buses.last;
        host.segment == function.segment() && buses.contains(&function.bus())
    };
    if let Some(&function) = topology.excluded().iter().find(is_below) {
        let reason = UnassignedReason::Excluded;
        return Some(Unassigned { function, reason });
    }
    let functions = topology.functions();
    let below = (0..functions.len()).filter(|&function| functions[function].host == index);
    let mut all = below.filter_map(|function| unassigned_at(topology, function));
    let first = all.next()?;
    let affects_buses = |unassigned: &Unassigned| unassigned.reason.affects_bus_numbers();
    if affects_buses(&first) {
        return Some(first);
    }
    all.find(affects_buses).or(Some(first))
}

/// What the function at `index` of `topology` lacks.
fn unassigned_at(topology: &Topology, index: usize) -> Option<Unassigned> {
    let function = &topology.functions()[index];
    let (host, _) = topology.hosts().get(function.host)?;
    let reason = match function.header_type {
        0 | 1 => bus_reason(function, host).or_else(|| address_reason(topology, function, host)),
        header_type::CARDBUS => Some(UnassignedReason::CardBus),
        // Linux takes no notice of such a function.
        _ => None,
    }?;
    let function = function.sbdf;
    Some(Unassigned { function, reason })
}

/// What has no bus number, or none that can be relied on.
fn bus_reason(function: &Function, host: &HostBridge) -> Option<UnassignedReason> {
    if let Some(bridge) = function.bridge {
        if bridge.secondary == 0 {
            return Some(UnassignedReason::BusNumbers);
        }
        let anomalies = function.anomalies.iter().copied();
        let mut reasons = anomalies.map(UnassignedReason::Anomaly);
        if let Some(reason) = reasons.find(|reason| reason.affects_bus_numbers()) {
            return Some(reason);
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

/// What has no address, or none that can be relied on.
fn address_reason(
    topology: &Topology,
    function: &Function,
    host: &HostBridge,
) -> Option<UnassignedReason> {
    let has_io = host
        .windows
        .iter()
        .any(|window| window.kind == WindowKind::Io);
    let unassigned = function.bars.iter().filter(|bar| bar.address.is_none());
    let mut missing = unassigned.filter(|bar| {
        (has_io || bar.kind != BarKind::Io) && !unplaceable::is_lost_by_any(topology, function, bar)
    });
    if let Some(bar) = missing.next() {
        return Some(UnassignedReason::Bar(bar.index));
    }
    if let Some(bar) = function.resizable.filter(|bar| may_be_resized(host, bar)) {
        return Some(UnassignedReason::Resizable(bar.index));
    }
    let bridge = function.bridge?;
    // Linux 6.18 gives a bridge whose memory window it finds closed all memory
    // of the host bridge, if it is to keep what it finds.
    if bridge.memory.is_none() {
        return Some(UnassignedReason::MemoryWindow);
    }
    let mut anomalies = function.anomalies.iter();
    let found = anomalies.find(|anomaly| unsettles_bridge(anomaly));
    found.copied().map(UnassignedReason::Anomaly)
}

/// Whether a window of `host` has the bytes that `bar` would take next.
fn may_be_resized(host: &HostBridge, bar: &ResizableBar) -> bool {
    let mut windows = host.windows.iter();
    windows.any(|window| window.kind != WindowKind::Io && window.size >= bar.next_size)
}

/// Whether an anomaly of a bridge makes its bus numbers or windows doubtful. A
/// broken capability list does not, since both are in the header, nor does
/// one of its own BARs.
fn unsettles_bridge(anomaly: &AnomalyKind) -> bool {
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

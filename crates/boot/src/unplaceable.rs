//! Which BARs have no address after an assignment by Linux either.
//!
//! Linux assigns memory BARs in the order of their alignment, the largest
//! first, and those of one alignment in the order in which it finds them. So
//! it loses the same BAR as [`assign`](warmbus_pci::assign()) in two cases:
//!
//! - nothing of a function depends on the BAR: an I/O BAR, an expansion ROM or
//!   a VF BAR, which Linux treats as optional or whose driver works without;
//! - the host windows have fewer aligned places of that size than there are
//!   BARs of that size or larger, and the BAR is one of the last.

use warmbus_pci::{AnomalyKind, Bar, BarKind, Function, HostWindow, Topology, WindowKind};

const IO16_END: u64 = 1 << 16;

/// Whether `bar` of `function`, which has no address, would have none after an
/// assignment by Linux either.
///
/// `false` where nothing was assigned, as below a preserved host bridge.
pub(crate) fn is_lost_by_any(topology: &Topology, function: &Function, bar: &Bar) -> bool {
    let mut losses = function.anomalies.iter().filter_map(|anomaly| {
        let (index, is_excess, is_forwarded) = match *anomaly {
            AnomalyKind::BarUnassigned {
                index, is_excess, ..
            } => (index, is_excess, true),
            AnomalyKind::BarNotForwarded { index, .. } => (index, false, false),
            _ => return None,
        };
        (index == bar.index).then_some((is_excess, is_forwarded))
    });
    let Some((is_excess, is_forwarded)) = losses.next() else {
        return false;
    };
    match bar.kind {
        BarKind::Rom | BarKind::VfMemory32 | BarKind::VfMemory64 => true,
        BarKind::Io => !is_forwarded || has_one_usual_io_window(topology),
        BarKind::Memory32 | BarKind::Memory64 => is_excess,
    }
}

/// Whether Linux has no more I/O addresses than are assigned here.
///
/// It assigns addresses of more than 16 bits, too. And it numbers the ports of the I/O
/// windows of all host bridges one after the other, and assigns none of the first
/// 4 KiB of them: those that are ports below 0x1000 of another window, it assigns.
fn has_one_usual_io_window(topology: &Topology) -> bool {
    let hosts = topology.hosts().iter();
    let mut io = hosts
        .flat_map(|(host, _)| &host.windows)
        .filter(|window| window.kind == WindowKind::Io);
    let is_usual = |window: &HostWindow| window.pci_address.saturating_add(window.size) <= IO16_END;
    io.next().is_none_or(is_usual) && io.next().is_none()
}

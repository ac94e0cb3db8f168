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

use warmbus_pci::{AnomalyKind, Bar, BarKind, Function, HostBridge, WindowKind};

const IO16_END: u64 = 1 << 16;

/// Whether `bar` of `function`, which has no address, would have none after an
/// assignment by Linux either.
///
/// `false` where nothing was assigned, as below a preserved host bridge.
pub(crate) fn is_lost_by_any(host: &HostBridge, function: &Function, bar: &Bar) -> bool {
    let mut losses = function.anomalies.iter().filter_map(|anomaly| {
        let (index, is_excess) = match *anomaly {
            AnomalyKind::BarUnassigned {
                index, is_excess, ..
            } => (index, is_excess),
            AnomalyKind::BarNotForwarded { index, .. } => (index, false),
            _ => return None,
        };
        (index == bar.index).then_some(is_excess)
    });
    let Some(is_excess) = losses.next() else {
        return false;
    };
    match bar.kind {
        BarKind::Rom | BarKind::VfMemory32 | BarKind::VfMemory64 => true,
        // Linux assigns I/O addresses of more than 16 bits, too.
        BarKind::Io => {
            let mut io = host.windows.iter().filter(|w| w.kind == WindowKind::Io);
            io.all(|w| w.pci_address.saturating_add(w.size) <= IO16_END)
        }
        BarKind::Memory32 | BarKind::Memory64 => is_excess,
    }
}

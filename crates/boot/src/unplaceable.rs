//! Which BARs have no address after an assignment by Linux either.
//!
//! Linux assigns memory BARs in the order of their alignment, the largest
//! first, and those of one alignment in the order in which it finds them. So
//! it loses the same BAR as [`assign`](warmbus_pci::assign()) in two cases,
//! which are counted here from sizes and host windows alone:
//!
//! - nothing of a function depends on the BAR: an I/O BAR, an expansion ROM or
//!   a VF BAR, which Linux treats as optional or whose driver works without;
//! - the host windows have fewer aligned places of that size than there are
//!   BARs of that size or larger, and the BAR is one of the last.
//!
//! In all other cases another assignment may place the BAR, at the expense of
//! another one.

use warmbus_pci::{AnomalyKind, Bar, BarKind, Function, HostBridge, Topology, WindowKind};

const FOUR_GIB: u64 = 1 << 32;
const IO16_END: u64 = 1 << 16;
/// A BAR at 0 reads as one that has no address, and a window of a bridge has a
/// granularity of 1 MiB.
const FIRST_ADDRESS: u64 = 1 << 20;

/// Whether `bar` of the function at `index`, which has no address, would have
/// none after an assignment by Linux either.
///
/// `false` where nothing was assigned, as below a preserved host bridge.
pub(crate) fn is_lost_by_any(topology: &Topology, index: usize, bar: &Bar) -> bool {
    let function = &topology.functions()[index];
    let was_tried = function.anomalies.iter().any(|anomaly| {
        matches!(
            anomaly,
            AnomalyKind::BarUnassigned { index, .. } | AnomalyKind::BarNotForwarded { index, .. }
                if *index == bar.index
        )
    });
    let (true, Some(size)) = (was_tried, bar.size.filter(|size| size.is_power_of_two())) else {
        return false;
    };
    match bar.kind {
        BarKind::Rom | BarKind::VfMemory32 | BarKind::VfMemory64 => true,
        // Linux assigns I/O addresses of more than 16 bits, too.
        BarKind::Io => topology
            .hosts()
            .get(function.host)
            .is_some_and(|(host, _)| {
                let mut io = host.windows.iter().filter(|w| w.kind == WindowKind::Io);
                io.all(|w| w.pci_address.saturating_add(w.size) <= IO16_END)
            }),
        BarKind::Memory32 | BarKind::Memory64 => is_one_of_too_many(topology, index, bar, size),
    }
}

/// Which host windows a memory BAR may be in, whatever the bridges above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reach {
    /// Beyond 4 GiB.
    high: bool,
    /// In prefetchable windows.
    prefetchable: bool,
}

impl Reach {
    /// A window of a bridge reaches beyond 4 GiB only if it is prefetchable.
    fn of(function: &Function, bar: &Bar) -> Self {
        let is_behind_bridge = function.parent.is_some();
        Self {
            high: bar.kind == BarKind::Memory64 && (bar.prefetchable || !is_behind_bridge),
            prefetchable: bar.prefetchable,
        }
    }

    const fn is_within(self, other: Self) -> bool {
        (other.high || !self.high) && (other.prefetchable || !self.prefetchable)
    }

    /// Aligned places of `size` bytes in the windows of `host`.
    fn places(self, host: &HostBridge, size: u64) -> u64 {
        let windows = host.windows.iter().filter(|window| {
            window.kind != WindowKind::Io && (self.prefetchable || !window.prefetchable)
        });
        windows
            .map(|window| {
                let end = window.pci_address.saturating_add(window.size);
                let end = if self.high { end } else { end.min(FOUR_GIB) };
                let first = window.pci_address.max(FIRST_ADDRESS).div_ceil(size);
                (end / size).saturating_sub(first)
            })
            .fold(0, u64::saturating_add)
    }
}

/// Whether the BAR is one of the last of those for which there are too few
/// places of `size` bytes.
fn is_one_of_too_many(topology: &Topology, index: usize, bar: &Bar, size: u64) -> bool {
    let function = &topology.functions()[index];
    let Some((host, _)) = topology.hosts().get(function.host) else {
        return false;
    };
    let reach = Reach::of(function, bar);
    let mut taken: u64 = 0;
    for (at, other) in topology.functions().iter().enumerate() {
        if other.host != function.host || other.virtual_function.is_some() {
            continue;
        }
        let rivals = other.bars.iter().filter(|rival| {
            !rival.fixed
                && matches!(rival.kind, BarKind::Memory32 | BarKind::Memory64)
                && Reach::of(other, rival).is_within(reach)
        });
        for rival in rivals {
            let rival_size = rival.size.unwrap_or(0);
            let is_before = (at, rival.index) < (index, bar.index);
            // One that no window has a place for is in nobody's way.
            let is_possible =
                rival_size != 0 && Reach::of(other, rival).places(host, rival_size) != 0;
            if is_possible && (rival_size > size || rival_size == size && is_before) {
                taken = taken.saturating_add(rival_size / size);
            }
        }
    }
    taken >= reach.places(host, size)
}

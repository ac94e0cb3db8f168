//! The addresses below a host bridge that are free to be assigned.

use alloc::vec::Vec;

use super::Kind;
use crate::decode::MEMORY_GRANULE;
use crate::{BarKind, HostBridge, PciRange, Topology, WindowKind};

/// What is free in the windows of a host bridge, by space: each list sorted,
/// its ranges disjoint.
pub(super) struct Apertures {
    io: Vec<PciRange>,
    memory: Vec<PciRange>,
    pub(super) prefetchable: Vec<PciRange>,
    /// Whether there is memory beyond 4 GiB, which is what the prefetchable
    /// windows of bridges are for.
    pub(super) is_high: bool,
    /// Whether a host window beyond 4 GiB is prefetchable, so that only BARs
    /// that are may be put there.
    pub(super) is_high_prefetchable: bool,
}

impl Apertures {
    pub(super) fn new(topology: &Topology, host: usize) -> Self {
        /// Ports below are those of legacy devices, which decode them unassigned.
        const FIRST_IO: u64 = 0x1000;
        /// Bridges decode 16 bits of I/O addresses.
        const IO_END: u64 = 0x1_0000;
        const FOUR_GIB: u64 = 1 << 32;
        /// A BAR at 0 reads as one that has no address.
        const FIRST_MEMORY: u64 = MEMORY_GRANULE;

        let bridge: &HostBridge = &topology.hosts[host].0;
        let mut found = Self {
            io: Vec::new(),
            memory: Vec::new(),
            prefetchable: Vec::new(),
            is_high: false,
            is_high_prefetchable: false,
        };
        for window in &bridge.windows {
            let base = window.pci_address;
            let end = base.saturating_add(window.size);
            match window.kind {
                WindowKind::Io => push_clipped(&mut found.io, base.max(FIRST_IO), end.min(IO_END)),
                // A prefetchable window may merge reads, which a BAR that is
                // not prefetchable does not stand.
                WindowKind::Memory32 | WindowKind::Memory64 if end <= FOUR_GIB => {
                    if !window.prefetchable {
                        push_clipped(&mut found.memory, base.max(FIRST_MEMORY), end);
                    }
                }
                WindowKind::Memory32 => {}
                WindowKind::Memory64 => {
                    push_clipped(&mut found.prefetchable, base.max(FOUR_GIB), end);
                    found.is_high_prefetchable |= window.prefetchable;
                }
            }
        }
        let fixed = topology
            .functions
            .iter()
            .filter(|function| function.host == host)
            .flat_map(|function| function.bars.iter().map(move |bar| (function, bar)))
            .filter(|(_, bar)| bar.fixed);
        for (function, bar) in fixed {
            if let (Some(base), Some(size)) = (bar.address, bar.size) {
                // The range of a VF BAR is that of one VF (PCIe 9.3.3.14).
                let count = match bar.kind {
                    BarKind::VfMemory32 | BarKind::VfMemory64 => {
                        function.sriov.map_or(0, |sriov| sriov.total_vfs)
                    }
                    _ => 1,
                };
                let size = size.saturating_mul(count.into());
                let size = size.min(u64::MAX - base);
                let space = match bar.kind {
                    BarKind::Io => &mut found.io,
                    _ if base < FOUR_GIB => &mut found.memory,
                    _ => &mut found.prefetchable,
                };
                if let Some(range) = PciRange::from_size(base, size) {
                    reserve(space, range);
                }
            }
        }
        for space in [&mut found.io, &mut found.memory, &mut found.prefetchable] {
            space.sort_unstable();
        }
        found.is_high = !found.prefetchable.is_empty();
        found
    }

    /// The space for memory beyond 4 GiB, or what stands in for it.
    pub(super) fn prefetchable_or_memory(&self) -> Kind {
        if self.is_high {
            Kind::Prefetchable
        } else {
            Kind::Memory
        }
    }

    pub(super) fn of(&self, kind: Kind) -> &[PciRange] {
        match kind {
            Kind::Io => &self.io,
            Kind::Memory => &self.memory,
            Kind::Prefetchable => &self.prefetchable,
        }
    }
}

/// Adds `base` to `end`, which is not included, if anything is between them.
fn push_clipped(apertures: &mut Vec<PciRange>, base: u64, end: u64) {
    let size = end.saturating_sub(base);
    apertures.extend(PciRange::from_size(base, size));
}

/// Takes `reserved` out of `apertures`.
fn reserve(apertures: &mut Vec<PciRange>, reserved: PciRange) {
    for aperture in core::mem::take(apertures) {
        apertures.extend(aperture.below(reserved));
        apertures.extend(aperture.above(reserved));
    }
}

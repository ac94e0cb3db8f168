//! The addresses that a host bridge has to give.

use alloc::vec::Vec;

use super::Kind;
use super::plan::Aperture;
use crate::decode::MEMORY_GRANULE;
use crate::{BarKind, HostBridge, Topology, WindowKind};

/// What the windows of a host bridge leave free, by space.
pub(super) struct Apertures {
    io: Vec<Aperture>,
    memory: Vec<Aperture>,
    pub(super) prefetchable: Vec<Aperture>,
    /// Whether there is memory beyond 4 GiB, which is what the prefetchable
    /// windows of bridges are for.
    pub(super) is_high: bool,
    /// Whether a host window beyond 4 GiB is prefetchable, so that only BARs
    /// that are may be put there.
    pub(super) is_high_prefetchable: bool,
}

impl Apertures {
    pub(super) fn new(topology: &Topology, host: usize) -> Self {
        /// Ports below belong to devices that decode them unasked.
        const FIRST_IO: u64 = 0x1000;
        /// Bridges decode 16 bits of I/O addresses.
        const IO_END: u64 = 0x1_0000;
        const FOUR_GIB: u64 = 1 << 32;
        /// A BAR at 0 reads as one that has no address.
        const FIRST_MEMORY: u64 = MEMORY_GRANULE;

        let bridge: &HostBridge = &topology.hosts[host].0;
        let mut pools = Self {
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
                WindowKind::Io => clip(&mut pools.io, base.max(FIRST_IO), end.min(IO_END)),
                // A prefetchable window may merge reads, which a BAR that is
                // not prefetchable does not stand.
                WindowKind::Memory32 | WindowKind::Memory64 if end <= FOUR_GIB => {
                    if !window.prefetchable {
                        clip(&mut pools.memory, base.max(FIRST_MEMORY), end);
                    }
                }
                WindowKind::Memory32 => {}
                WindowKind::Memory64 => {
                    clip(&mut pools.prefetchable, base.max(FOUR_GIB), end);
                    pools.is_high_prefetchable |= window.prefetchable;
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
                let space = match bar.kind {
                    BarKind::Io => &mut pools.io,
                    _ if base < FOUR_GIB => &mut pools.memory,
                    _ => &mut pools.prefetchable,
                };
                reserve(space, base, base.saturating_add(size));
            }
        }
        for space in [&mut pools.io, &mut pools.memory, &mut pools.prefetchable] {
            space.sort_by_key(|pool| pool.base);
        }
        pools.is_high = !pools.prefetchable.is_empty();
        pools
    }

    /// The space for memory beyond 4 GiB, or what stands in for it.
    pub(super) fn prefetchable_or_memory(&self) -> Kind {
        if self.is_high {
            Kind::Prefetchable
        } else {
            Kind::Memory
        }
    }

    pub(super) fn of(&self, kind: Kind) -> &[Aperture] {
        match kind {
            Kind::Io => &self.io,
            Kind::Memory => &self.memory,
            Kind::Prefetchable => &self.prefetchable,
        }
    }
}

fn clip(pools: &mut Vec<Aperture>, base: u64, end: u64) {
    if base < end {
        pools.push(Aperture {
            base,
            size: end - base,
        });
    }
}

/// Takes `base..end` out of `pools`.
fn reserve(pools: &mut Vec<Aperture>, base: u64, end: u64) {
    for pool in core::mem::take(pools) {
        let pool_end = pool.base + pool.size;
        clip(pools, pool.base, pool_end.min(base));
        clip(pools, pool.base.max(end), pool_end);
    }
}

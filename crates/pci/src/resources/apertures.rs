//! The addresses below a host bridge that are free to be assigned.

use alloc::vec::Vec;

use crate::decode::MEMORY_GRANULE;
use crate::{BarKind, HostBridge, PciRange, Topology, WindowKind};

const FOUR_GIB: u64 = 1 << 32;

/// Sorts of apertures, as a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Places(u8);

impl Places {
    /// I/O space.
    pub(super) const IO: Self = Self(1);
    /// Memory below 4 GiB that the host bridge does not prefetch from.
    pub(super) const LOW: Self = Self(4);
    /// Memory below 4 GiB that it may prefetch from.
    pub(super) const LOW_PREFETCHABLE: Self = Self(8);
    /// Memory beyond 4 GiB that it does not prefetch from.
    pub(super) const HIGH: Self = Self(16);
    /// Memory beyond 4 GiB that it may prefetch from.
    pub(super) const HIGH_PREFETCHABLE: Self = Self(32);
    /// All memory beyond 4 GiB.
    pub(super) const ALL_HIGH: Self = Self::HIGH.or(Self::HIGH_PREFETCHABLE);
    /// All of them.
    pub(super) const ANY: Self = Self(0xff);

    pub(super) const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// How many sorts there are.
    pub(super) const fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// What is in one of both.
    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether all of it is in `other`.
    pub(super) const fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }
}

/// A range that is free to be assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aperture {
    pub(super) range: PciRange,
    /// What sort it is.
    pub(super) places: Places,
}

impl Aperture {
    /// All addresses.
    pub(super) const UNBOUNDED: Self = Self {
        range: match PciRange::new(0, u64::MAX) {
            Some(range) => range,
            None => unreachable!(),
        },
        places: Places::ANY,
    };
}

/// What is free in the windows of a host bridge, in the order of preference:
/// what only few BARs can use comes first.
pub(super) struct Apertures {
    pub(super) io: Vec<Aperture>,
    pub(super) memory: Vec<Aperture>,
}

impl Apertures {
    pub(super) fn new(topology: &Topology, host: usize) -> Self {
        /// Ports below are those of legacy devices, which decode them unassigned.
        const FIRST_IO: u64 = 0x1000;
        /// Bridges decode 16 bits of I/O addresses.
        const IO_END: u64 = 1 << 16;
        /// A BAR at 0 reads as one that has no address.
        const FIRST_MEMORY: u64 = MEMORY_GRANULE;

        let bridge: &HostBridge = &topology.hosts[host].0;
        let (mut io, mut memory) = (Vec::new(), Vec::new());
        for window in &bridge.windows {
            let base = window.pci_address;
            let end = base.saturating_add(window.size);
            if window.kind == WindowKind::Io {
                push_clipped(&mut io, base.max(FIRST_IO), end.min(IO_END), Places::IO);
                continue;
            }
            // A prefetchable window may merge reads, which a BAR that is not
            // prefetchable does not stand.
            let (low, high) = if window.prefetchable {
                (Places::LOW_PREFETCHABLE, Places::HIGH_PREFETCHABLE)
            } else {
                (Places::LOW, Places::HIGH)
            };
            let first = base.max(FIRST_MEMORY);
            push_clipped(&mut memory, first, end.min(FOUR_GIB), low);
            if window.kind == WindowKind::Memory64 {
                push_clipped(&mut memory, base.max(FOUR_GIB), end, high);
            }
        }
        for (is_io, range) in fixed_ranges(topology, host) {
            reserve(if is_io { &mut io } else { &mut memory }, range);
        }
        for space in [&mut io, &mut memory] {
            space.sort_unstable_by_key(|one| (u8::MAX - one.places.0, one.range.base()));
        }
        Self { io, memory }
    }

    /// Whether there is memory of one of these sorts.
    pub(super) fn has_memory(&self, places: Places) -> bool {
        self.memory.iter().any(|one| one.places.intersects(places))
    }
}

/// The ranges that Enhanced Allocation fixes below `host`, and whether each is
/// of I/O space.
fn fixed_ranges(topology: &Topology, host: usize) -> impl Iterator<Item = (bool, PciRange)> {
    let functions = topology.functions.iter().filter(move |f| f.host == host);
    let bars = functions.flat_map(|function| function.bars.iter().map(move |bar| (function, bar)));
    bars.filter(|(_, bar)| bar.fixed)
        .filter_map(|(function, bar)| {
            // The range of a VF BAR is that of one VF (PCIe 9.3.3.14).
            let count = match bar.kind {
                BarKind::VfMemory32 | BarKind::VfMemory64 => {
                    function.sriov.map_or(0, |sriov| sriov.total_vfs)
                }
                _ => 1,
            };
            let base = bar.address?;
            let size = bar.size?.saturating_mul(count.into());
            let range = PciRange::from_size(base, size.min(u64::MAX - base))?;
            Some((bar.kind == BarKind::Io, range))
        })
}

/// Adds `base` to `end`, which is not included, as far as no other window of
/// the host bridge has it.
fn push_clipped(apertures: &mut Vec<Aperture>, base: u64, end: u64, places: Places) {
    let range = PciRange::from_size(base, end.saturating_sub(base));
    let mut added: Vec<Aperture> = range
        .into_iter()
        .map(|range| Aperture { range, places })
        .collect();
    for known in &*apertures {
        reserve(&mut added, known.range);
    }
    apertures.append(&mut added);
}

/// Removes `range` from `apertures`.
pub(super) fn reserve(apertures: &mut Vec<Aperture>, range: PciRange) {
    for aperture in core::mem::take(apertures) {
        for rest in [aperture.range.below(range), aperture.range.above(range)] {
            apertures.extend(rest.map(|range| Aperture { range, ..aperture }));
        }
    }
}

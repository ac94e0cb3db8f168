//! Allocation of one address space: sizes are summed up from the leaves to the
//! host bridge, addresses are placed from there down.
//!
//! Nothing here accesses hardware.

use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;

use crate::PciRange;

/// A request for addresses: of a BAR, or of a VF BAR for all VFs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The bridge right above, an index into [`AddressSpace::bridges`]; `None` on a
    /// root bus.
    pub(super) bridge: Option<usize>,
    /// Bytes, not 0.
    pub(super) size: u64,
    /// Alignment in bytes, a power of two.
    pub(super) align: u64,
    /// Which request is dropped first when not all fit: the lowest.
    pub(super) priority: Priority,
}

/// How much is lost when a request is not placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// VF BARs: the physical function works without.
    VirtualFunctions,
    /// Expansion ROM.
    Rom,
    /// A BAR.
    Bar,
}

/// A bridge as one address space sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bridge {
    /// The bridge above, with a lower index; `None` on a root bus.
    pub(super) parent: Option<usize>,
    /// Whether it can forward this space at all.
    pub(super) has_window: bool,
    /// Whether devices may come later.
    pub(super) hot_plug: bool,
}

/// One address space of one host bridge.
#[derive(Clone, Debug)]
pub(super) struct AddressSpace<'a> {
    pub(super) bridges: &'a [Bridge],
    pub(super) requests: &'a [Request],
    /// What is free below the host bridge: sorted by address, disjoint.
    pub(super) apertures: &'a [PciRange],
    /// Granularity of a bridge window in bytes, a power of two.
    pub(super) granule: u64,
    /// Bytes that are assigned to a hot-plug capable port at least.
    pub(super) padding: u64,
}

/// Which addresses were assigned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Placement {
    /// First address of each request; `None` where it did not fit.
    pub(super) requests: Vec<Option<u64>>,
    /// The window of each bridge; `None` where closed.
    pub(super) windows: Vec<Option<PciRange>>,
    /// What remains free of the apertures.
    pub(super) free: Vec<PciRange>,
}

impl Placement {
    /// Bytes of the largest range that remains free.
    pub(super) fn largest_free(&self) -> u64 {
        largest(&self.free)
    }
}

/// What is placed in one attempt.
#[derive(Clone, Debug)]
struct Attempt {
    keep: Vec<bool>,
    /// How many bridges, from the first, have a window even with nothing
    /// below.
    windows: usize,
    /// How many bridges, from the first, have hot-plug padding.
    padded: usize,
}

/// A part of a window, or of the apertures, that is to be placed.
#[derive(Clone, Copy, Debug)]
struct Node {
    size: u64,
    align: u64,
    kind: NodeKind,
}

#[derive(Clone, Copy, Debug)]
enum NodeKind {
    Request(usize),
    Window(usize),
}

/// The size of every window, and the offset of every node in the window above
/// it.
struct SubtreeSizes {
    /// Bytes and alignment of each bridge's window; 0 bytes where closed.
    windows: Vec<(u64, u64)>,
    request_offsets: Vec<u64>,
    window_offsets: Vec<u64>,
    root: Vec<Node>,
}

impl AddressSpace<'_> {
    /// Places as much as fits: first the requests of devices, then a window for
    /// every bridge, then padding for what may be plugged in.
    pub(super) fn place_all(&self) -> Placement {
        let bridges = self.bridges.len();
        let mut attempt = Attempt {
            keep: vec![true; self.requests.len()],
            windows: 0,
            padded: 0,
        };
        self.drop_until_it_fits(&mut attempt);
        attempt.windows = largest_passing(bridges, |windows| {
            let attempt = Attempt {
                windows,
                ..attempt.clone()
            };
            self.try_place(&attempt).is_some()
        });
        attempt.padded = largest_passing(bridges, |padded| {
            let attempt = Attempt {
                padded,
                ..attempt.clone()
            };
            self.try_place(&attempt).is_some()
        });
        self.try_place(&attempt).unwrap_or_else(|| Placement {
            requests: vec![None; self.requests.len()],
            windows: vec![None; bridges],
            free: self.apertures.to_vec(),
        })
    }

    /// Drops requests, lowest priority and largest first, until the rest fits,
    /// then restores those that still fit.
    fn drop_until_it_fits(&self, attempt: &mut Attempt) {
        /// Attempts to restore a request, each a whole placement.
        const SECOND_CHANCES: usize = 64;

        if self.try_place(attempt).is_some() {
            return;
        }
        let widest = largest(self.apertures);
        let mut order: Vec<usize> = (0..self.requests.len()).collect();
        // First what never fits, then by priority, the largest first, and of
        // one size the last, as Linux does.
        order.sort_by_key(|&index| {
            let request = &self.requests[index];
            let can_fit = request.size <= widest;
            let value = u64::from(can_fit) << 8 | request.priority as u64;
            (value, Reverse(request.size), Reverse(index))
        });
        let kept_with = |dropped: usize| {
            let mut attempt = attempt.clone();
            for &index in &order[..dropped] {
                attempt.keep[index] = false;
            }
            attempt
        };
        // With everything dropped nothing remains that could not fit.
        let kept = largest_passing(order.len(), |kept| {
            self.try_place(&kept_with(order.len() - kept)).is_some()
        });
        let dropped = order.len() - kept;
        *attempt = kept_with(dropped);
        let by_value = order[..dropped].iter().rev();
        for &index in by_value
            .filter(|&&index| self.requests[index].size <= widest)
            .take(SECOND_CHANCES)
        {
            attempt.keep[index] = true;
            if self.try_place(attempt).is_none() {
                attempt.keep[index] = false;
            }
        }
    }

    /// Places everything in `attempt`, or nothing.
    fn try_place(&self, attempt: &Attempt) -> Option<Placement> {
        let sizes = self.size_subtrees(attempt);
        let mut free = self.apertures.to_vec();
        let mut bases = vec![None; self.requests.len()];
        let mut windows = vec![None; self.bridges.len()];
        for node in &sizes.root {
            let placed = allocate_first_fit(&mut free, node)?;
            match node.kind {
                NodeKind::Request(index) => bases[index] = Some(placed.base()),
                NodeKind::Window(index) => windows[index] = Some(placed),
            }
        }
        // Addresses down: a parent comes before its children.
        for (index, bridge) in self.bridges.iter().enumerate() {
            let (size, _) = sizes.windows[index];
            if let Some(above) = bridge.parent.and_then(|parent| windows[parent]) {
                let base = above.base() + sizes.window_offsets[index];
                windows[index] = PciRange::from_size(base, size);
            }
        }
        for (index, request) in self.requests.iter().enumerate() {
            if let Some(above) = request.bridge.and_then(|bridge| windows[bridge])
                && attempt.keep[index]
            {
                bases[index] = Some(above.base() + sizes.request_offsets[index]);
            }
        }
        Some(Placement {
            requests: bases,
            windows,
            free,
        })
    }

    /// The size of every window from what is below it.
    fn size_subtrees(&self, attempt: &Attempt) -> SubtreeSizes {
        let mut sizes = SubtreeSizes {
            windows: vec![(0, 1); self.bridges.len()],
            request_offsets: vec![0; self.requests.len()],
            window_offsets: vec![0; self.bridges.len()],
            root: Vec::new(),
        };
        let mut below: Vec<Vec<Node>> = vec![Vec::new(); self.bridges.len()];
        for (index, request) in self.requests.iter().enumerate() {
            if attempt.keep[index] {
                let node = Node {
                    size: request.size,
                    align: request.align,
                    kind: NodeKind::Request(index),
                };
                match request.bridge {
                    Some(bridge) => below[bridge].push(node),
                    None => sizes.root.push(node),
                }
            }
        }
        for (index, bridge) in self.bridges.iter().enumerate().rev() {
            if !bridge.has_window {
                continue;
            }
            let mut nodes = core::mem::take(&mut below[index]);
            sort_for_packing(&mut nodes);
            let mut cursor: u64 = 0;
            let mut align = self.granule;
            for node in &nodes {
                let offset = align_up(cursor, node.align);
                match node.kind {
                    NodeKind::Request(request) => sizes.request_offsets[request] = offset,
                    NodeKind::Window(window) => sizes.window_offsets[window] = offset,
                }
                cursor = offset.saturating_add(node.size);
                align = align.max(node.align);
            }
            if bridge.hot_plug && index < attempt.padded {
                cursor = cursor.max(self.padding);
            }
            if cursor == 0 && index < attempt.windows {
                cursor = self.granule;
            }
            let size = align_up(cursor, self.granule);
            sizes.windows[index] = (size, align);
            if size > 0 {
                let node = Node {
                    size,
                    align,
                    kind: NodeKind::Window(index),
                };
                match bridge.parent {
                    Some(parent) => below[parent].push(node),
                    None => sizes.root.push(node),
                }
            }
        }
        sort_for_packing(&mut sizes.root);
        sizes
    }
}

/// Largest alignment first leaves the smallest holes.
fn sort_for_packing(nodes: &mut [Node]) {
    nodes.sort_by_key(|node| Reverse((node.align, node.size)));
}

/// Takes the first range out of `free` in which `node` fits, and what is before
/// it for its alignment.
fn allocate_first_fit(free: &mut Vec<PciRange>, node: &Node) -> Option<PciRange> {
    let (index, placed) = free.iter().enumerate().find_map(|(index, range)| {
        let base = align_up(range.base(), node.align);
        let placed = PciRange::from_size(base, node.size)?;
        range.contains(placed).then_some((index, placed))
    })?;
    match free[index].above(placed) {
        Some(rest) => free[index] = rest,
        None => {
            free.remove(index);
        }
    }
    Some(placed)
}

/// Bytes of the largest of `ranges`.
fn largest(ranges: &[PciRange]) -> u64 {
    let sizes = ranges.iter().map(|range| range.size());
    sizes.max().unwrap_or(0)
}

/// `value` rounded up to a multiple of `align`, a power of two; a value too
/// large for that stays beyond every aperture.
fn align_up(value: u64, align: u64) -> u64 {
    value
        .checked_add(align - 1)
        .map_or(u64::MAX, |value| value & !(align - 1))
}

/// The largest number up to `count` for which `fits` holds, if it holds for
/// all below it; 0 is taken to fit.
fn largest_passing(count: usize, fits: impl Fn(usize) -> bool) -> usize {
    if fits(count) {
        return count;
    }
    let (mut good, mut bad) = (0, count);
    while bad - good > 1 {
        let middle = good.midpoint(bad);
        if fits(middle) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    good
}

#[cfg(test)]
mod tests;

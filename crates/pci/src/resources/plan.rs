//! The arithmetic of assignment, one address space at a time: sizes go up
//! from the leaves to the host bridge, addresses come down.
//!
//! Nothing here touches hardware.

use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;

/// Something that wants addresses: a BAR, or the VF BARs of all VFs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The bridge right above, an index into [`AddressSpace::bridges`]; `None` on a
    /// root bus.
    pub(super) bridge: Option<usize>,
    /// Bytes, not 0.
    pub(super) size: u64,
    /// Alignment in bytes, a power of two.
    pub(super) align: u64,
    /// Who goes first when not all fit: the lowest.
    pub(super) rank: Priority,
}

/// How much is lost when something gets no addresses.
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

/// A range of addresses that is free below the host bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aperture {
    /// First address.
    pub(super) base: u64,
    /// Bytes.
    pub(super) size: u64,
}

/// One address space of one host bridge.
#[derive(Clone, Debug)]
pub(super) struct AddressSpace<'a> {
    pub(super) bridges: &'a [Bridge],
    pub(super) requests: &'a [Request],
    /// Sorted by address, disjoint.
    pub(super) pools: &'a [Aperture],
    /// Granularity of a bridge window in bytes, a power of two.
    pub(super) granule: u64,
    /// Bytes that a hot-plug capable port gets at least.
    pub(super) padding: u64,
}

/// Who got which addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Placement {
    /// First address of each request; `None` where it did not fit.
    pub(super) requests: Vec<Option<u64>>,
    /// First address and bytes of each bridge's window; `None` where closed.
    pub(super) windows: Vec<Option<(u64, u64)>>,
    /// What is left of the pools.
    pub(super) left: Vec<Aperture>,
}

impl Placement {
    /// Bytes of the largest range that is left.
    pub(super) fn largest_left(&self) -> u64 {
        self.left.iter().map(|pool| pool.size).max().unwrap_or(0)
    }
}

/// What is placed in one attempt.
#[derive(Clone, Debug)]
struct Attempt {
    keep: Vec<bool>,
    /// The first so many bridges get a window even with nothing below.
    windows: usize,
    /// The first so many bridges get hot-plug padding.
    padded: usize,
}

/// A thing to place: how large, how aligned, and what it is.
#[derive(Clone, Copy, Debug)]
struct Node {
    size: u64,
    align: u64,
    what: NodeKind,
}

#[derive(Clone, Copy, Debug)]
enum NodeKind {
    Request(usize),
    Window(usize),
}

/// Sizes and places within the window above of everything.
struct Layout {
    /// Bytes and alignment of each bridge's window; 0 bytes where closed.
    windows: Vec<(u64, u64)>,
    request_offsets: Vec<u64>,
    window_offsets: Vec<u64>,
    root: Vec<Node>,
}

impl AddressSpace<'_> {
    /// Places as much as fits: first what devices ask for, then a window for
    /// every bridge, then room for what may be plugged in.
    pub(super) fn place(&self) -> Placement {
        let bridges = self.bridges.len();
        let mut choice = Attempt {
            keep: vec![true; self.requests.len()],
            windows: 0,
            padded: 0,
        };
        self.drop_until_it_fits(&mut choice);
        choice.windows = largest(bridges, |windows| {
            let attempt = Attempt {
                windows,
                ..choice.clone()
            };
            self.attempt(&attempt).is_some()
        });
        choice.padded = largest(bridges, |padded| {
            let attempt = Attempt {
                padded,
                ..choice.clone()
            };
            self.attempt(&attempt).is_some()
        });
        self.attempt(&choice).unwrap_or_else(|| Placement {
            requests: vec![None; self.requests.len()],
            windows: vec![None; bridges],
            left: self.pools.to_vec(),
        })
    }

    /// Gives up requests, lowest rank and largest first, until the rest fits,
    /// then takes back what still finds room.
    fn drop_until_it_fits(&self, choice: &mut Attempt) {
        /// Attempts to take something back, each a whole placement.
        const SECOND_CHANCES: usize = 64;

        if self.attempt(choice).is_some() {
            return;
        }
        let widest = self.pools.iter().map(|pool| pool.size).max().unwrap_or(0);
        let mut order: Vec<usize> = (0..self.requests.len()).collect();
        // First what never fits, then by rank, the largest first.
        order.sort_by_key(|&index| {
            let request = &self.requests[index];
            let can_fit = request.size <= widest;
            let rank = u64::from(can_fit) << 8 | request.rank as u64;
            (rank, Reverse(request.size))
        });
        let kept_with = |dropped: usize| {
            let mut attempt = choice.clone();
            for &index in &order[..dropped] {
                attempt.keep[index] = false;
            }
            attempt
        };
        // With everything dropped nothing is left that could not fit.
        let kept = largest(order.len(), |kept| {
            self.attempt(&kept_with(order.len() - kept)).is_some()
        });
        let dropped = order.len() - kept;
        *choice = kept_with(dropped);
        let by_value = order[..dropped].iter().rev();
        for &index in by_value
            .filter(|&&index| self.requests[index].size <= widest)
            .take(SECOND_CHANCES)
        {
            choice.keep[index] = true;
            if self.attempt(choice).is_none() {
                choice.keep[index] = false;
            }
        }
    }

    /// Places everything in `choice`, or nothing.
    fn attempt(&self, choice: &Attempt) -> Option<Placement> {
        let layout = self.size_subtrees(choice);
        let mut pools: Vec<Aperture> = self.pools.to_vec();
        let mut bases = vec![None; self.requests.len()];
        let mut windows = vec![None; self.bridges.len()];
        for item in &layout.root {
            let base = pools.iter_mut().find_map(|pool| take(pool, item))?;
            match item.what {
                NodeKind::Request(index) => bases[index] = Some(base),
                NodeKind::Window(index) => windows[index] = Some((base, item.size)),
            }
        }
        // Addresses down: a parent comes before its children.
        for (index, bridge) in self.bridges.iter().enumerate() {
            let (size, _) = layout.windows[index];
            if let Some((base, _)) = bridge.parent.and_then(|parent| windows[parent])
                && size > 0
            {
                windows[index] = Some((base + layout.window_offsets[index], size));
            }
        }
        for (index, request) in self.requests.iter().enumerate() {
            if let Some((base, _)) = request.bridge.and_then(|bridge| windows[bridge])
                && choice.keep[index]
            {
                bases[index] = Some(base + layout.request_offsets[index]);
            }
        }
        Some(Placement {
            requests: bases,
            windows,
            left: pools,
        })
    }

    /// The size of every window from what is below it.
    fn size_subtrees(&self, choice: &Attempt) -> Layout {
        let mut layout = Layout {
            windows: vec![(0, 1); self.bridges.len()],
            request_offsets: vec![0; self.requests.len()],
            window_offsets: vec![0; self.bridges.len()],
            root: Vec::new(),
        };
        let mut below: Vec<Vec<Node>> = vec![Vec::new(); self.bridges.len()];
        for (index, request) in self.requests.iter().enumerate() {
            if choice.keep[index] {
                let item = Node {
                    size: request.size,
                    align: request.align,
                    what: NodeKind::Request(index),
                };
                match request.bridge {
                    Some(bridge) => below[bridge].push(item),
                    None => layout.root.push(item),
                }
            }
        }
        for (index, bridge) in self.bridges.iter().enumerate().rev() {
            if !bridge.has_window {
                continue;
            }
            let mut items = core::mem::take(&mut below[index]);
            sort_for_packing(&mut items);
            let mut cursor: u64 = 0;
            let mut align = self.granule;
            for item in &items {
                let offset = align_up(cursor, item.align);
                match item.what {
                    NodeKind::Request(request) => layout.request_offsets[request] = offset,
                    NodeKind::Window(window) => layout.window_offsets[window] = offset,
                }
                cursor = offset.saturating_add(item.size);
                align = align.max(item.align);
            }
            if bridge.hot_plug && index < choice.padded {
                cursor = cursor.max(self.padding);
            }
            if cursor == 0 && index < choice.windows {
                cursor = self.granule;
            }
            let size = align_up(cursor, self.granule);
            layout.windows[index] = (size, align);
            if size > 0 {
                let item = Node {
                    size,
                    align,
                    what: NodeKind::Window(index),
                };
                match bridge.parent {
                    Some(parent) => below[parent].push(item),
                    None => layout.root.push(item),
                }
            }
        }
        sort_for_packing(&mut layout.root);
        layout
    }
}

/// Largest alignment first leaves the smallest holes.
fn sort_for_packing(items: &mut [Node]) {
    items.sort_by_key(|item| Reverse((item.align, item.size)));
}

/// Takes the first place in `pool` where `item` fits.
fn take(pool: &mut Aperture, item: &Node) -> Option<u64> {
    let base = align_up(pool.base, item.align);
    let used = (base - pool.base).checked_add(item.size)?;
    pool.size = pool.size.checked_sub(used)?;
    pool.base = base.checked_add(item.size)?;
    Some(base)
}

/// `value` rounded up to a multiple of `align`, a power of two; a value too
/// large for that stays beyond every pool.
fn align_up(value: u64, align: u64) -> u64 {
    value
        .checked_add(align - 1)
        .map_or(u64::MAX, |value| value & !(align - 1))
}

/// The largest number up to `count` for which `fits` holds, if it holds for
/// all below it; 0 is taken to fit.
fn largest(count: usize, fits: impl Fn(usize) -> bool) -> usize {
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
mod tests {
    use super::*;

    const PORT: Bridge = Bridge {
        parent: None,
        has_window: true,
        hot_plug: false,
    };

    fn bar(bridge: Option<usize>, size: u64) -> Request {
        Request {
            bridge,
            size,
            align: size,
            rank: Priority::Bar,
        }
    }

    fn space<'a>(
        bridges: &'a [Bridge],
        requests: &'a [Request],
        pools: &'a [Aperture],
    ) -> AddressSpace<'a> {
        AddressSpace {
            bridges,
            requests,
            pools,
            granule: 0x10_0000,
            padding: 0x20_0000,
        }
    }

    #[test]
    fn a_window_holds_what_is_below_it_and_is_aligned_to_its_largest_part() {
        let bridges = [PORT];
        let requests = [
            bar(Some(0), 0x1000),
            bar(Some(0), 0x80_0000),
            bar(None, 0x1000),
        ];
        let pools = [Aperture {
            base: 0x1000_0000,
            size: 0x2000_0000,
        }];
        let placed = space(&bridges, &requests, &pools).place();
        assert_eq!(placed.windows, [Some((0x1000_0000, 0x90_0000))]);
        assert_eq!(placed.requests[1], Some(0x1000_0000));
        assert_eq!(placed.requests[0], Some(0x1080_0000));
        assert_eq!(placed.requests[2], Some(0x1090_0000));
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_the_rest_is_placed() {
        let requests = [bar(None, 0x4000_0000), bar(None, 0x1000)];
        let pools = [Aperture {
            base: 0x1000_0000,
            size: 0x100_0000,
        }];
        let placed = space(&[], &requests, &pools).place();
        assert_eq!(placed.requests, [None, Some(0x1000_0000)]);
        assert_eq!(placed.largest_left(), 0x100_0000 - 0x1000);
    }

    #[test]
    fn vf_bars_give_way_before_bars_do() {
        let vfs = Request {
            rank: Priority::VirtualFunctions,
            ..bar(None, 0x80_0000)
        };
        let requests = [bar(None, 0x80_0000), vfs, bar(None, 0x40_0000)];
        let pools = [Aperture {
            base: 0x1000_0000,
            size: 0x100_0000,
        }];
        let placed = space(&[], &requests, &pools).place();
        assert_eq!(placed.requests[1], None);
        assert!(placed.requests[0].is_some() && placed.requests[2].is_some());
    }

    #[test]
    fn empty_ports_get_windows_in_order_while_there_is_room() {
        let bridges = [PORT; 4];
        let pools = [Aperture {
            base: 0x1000_0000,
            size: 0x30_0000,
        }];
        let placed = space(&bridges, &[], &pools).place();
        let open: Vec<bool> = placed.windows.iter().map(Option::is_some).collect();
        assert_eq!(open, [true, true, true, false]);
    }

    #[test]
    fn a_hot_plug_port_is_padded_when_there_is_room() {
        let bridges = [Bridge {
            hot_plug: true,
            ..PORT
        }];
        let requests = [bar(Some(0), 0x1000)];
        let pools = [Aperture {
            base: 0x1000_0000,
            size: 0x100_0000,
        }];
        let placed = space(&bridges, &requests, &pools).place();
        assert_eq!(placed.windows, [Some((0x1000_0000, 0x20_0000))]);
    }

    #[test]
    fn sizes_that_overflow_do_not_fit_anywhere() {
        let bridges = [PORT];
        let requests = [
            Request {
                size: u64::MAX - 5,
                align: 1 << 63,
                ..bar(Some(0), 1)
            },
            bar(Some(0), 1 << 63),
            bar(Some(0), 0x1000),
        ];
        let pools = [Aperture {
            base: 0x1000_0000,
            size: 0x100_0000,
        }];
        let placed = space(&bridges, &requests, &pools).place();
        assert_eq!(placed.requests[..2], [None, None]);
        assert!(placed.requests[2].is_some());
    }
}

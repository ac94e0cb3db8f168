//! Allocation of one address space below a host bridge: I/O or memory.
//!
//! All that asks for addresses is known beforehand, and is placed at once:
//!
//! 1. Everything that a device needs. Where not all of it fits, what is worth
//!    least is dropped, and placed again where it fits after all.
//! 2. Wishes, in order, as long as everything fits: a window for each bridge,
//!    space for devices that are plugged in later.
//!
//! Each attempt is a whole arrangement by the [packer](super::packing): first
//! one that is found fast, and if it does not fit, the best one. Since nothing
//! is moved or repaired afterwards, an attempt cannot be left half done.
//!
//! Nothing here accesses hardware.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;

use super::apertures::{Aperture, Places, reserve};
use super::attempt::{Attempt, Request, Window, Wish};
use super::packing::{Packer, Placed, Shape, ShapeId, ShapeKind, align_up};
use crate::PciRange;

/// One address space of one host bridge.
#[derive(Clone, Debug)]
pub(super) struct AddressSpace<'a> {
    pub(super) windows: &'a [Window],
    /// What is free below the host bridge: disjoint, in the order in which it
    /// is used.
    pub(super) apertures: &'a [Aperture],
    /// How many attempts may look for the best arrangement.
    best_attempts: Cell<u32>,
}

/// Which addresses were assigned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Placement {
    /// First address of each request; `None` where it did not fit.
    pub(super) requests: Vec<Option<u64>>,
    /// Each window; `None` where closed.
    pub(super) windows: Vec<Option<PciRange>>,
}

impl<'a> AddressSpace<'a> {
    pub(super) const fn new(windows: &'a [Window], apertures: &'a [Aperture]) -> Self {
        /// Each takes some milliseconds at most.
        const BEST_ATTEMPTS: u32 = 96;

        Self {
            windows,
            apertures,
            best_attempts: Cell::new(BEST_ATTEMPTS),
        }
    }

    /// Whether a request fits into the machine if it is the only one.
    fn can_fit(&self, request: &Request) -> bool {
        let is_forwarded = request
            .window
            .is_none_or(|window| self.windows[window].exists);
        is_forwarded
            && self.apertures.iter().any(|aperture| {
                let (size, align) = (request.size, request.align);
                let base = align_up(aperture.range.base(), align);
                let range = base.and_then(|base| PciRange::from_size(base, size));
                aperture.places.intersects(request.places)
                    && range.is_some_and(|range| aperture.range.contains(range))
            })
    }

    /// Drops the requests that fit nowhere, whatever else is placed.
    pub(super) fn drop_impossible(&self, attempt: &mut Attempt) {
        for (request, keep) in attempt.requests.iter().zip(&mut attempt.keep) {
            *keep &= self.can_fit(request);
        }
    }

    /// Grants as many of `wishes` as fit, from the first on.
    pub(super) fn grant(&self, attempt: &mut Attempt, wishes: &[Wish]) {
        let wishes: Vec<Wish> = wishes
            .iter()
            .copied()
            .filter(|wish| wish.size > 0 && self.windows[wish.window].exists)
            .collect();
        let granted = largest_passing(wishes.len(), |count| {
            self.try_place(&attempt.with(&wishes[..count])).is_some()
        });
        *attempt = attempt.with(&wishes[..granted]);
    }

    /// Places everything in `attempt`, which is known to fit: the attempts that
    /// were spent on finding that out do not count any more.
    pub(super) fn place(&self, attempt: &Attempt) -> Placement {
        let fast = self.arrange(attempt, false);
        let placement = fast.or_else(|| self.arrange(attempt, true));
        placement.unwrap_or_else(|| Placement {
            requests: vec![None; attempt.requests.len()],
            windows: vec![None; self.windows.len()],
        })
    }

    /// Places everything in `attempt`, or nothing.
    pub(super) fn try_place(&self, attempt: &Attempt) -> Option<Placement> {
        let fast = self.arrange(attempt, false);
        fast.or_else(|| {
            let left = self.best_attempts.get().checked_sub(1)?;
            if !self.has_bytes_for(attempt) {
                return None;
            }
            self.best_attempts.set(left);
            self.arrange(attempt, true)
        })
    }

    /// Whether there are as many bytes as the requests have, of each sort of
    /// apertures: where not, no arrangement helps.
    fn has_bytes_for(&self, attempt: &Attempt) -> bool {
        let requests = || {
            let kept = attempt.requests.iter().zip(&attempt.keep);
            kept.filter_map(|(request, kept)| kept.then_some(request))
        };
        let have = |places: Places| {
            let apertures = self.apertures.iter();
            let matching = apertures.filter(|one| one.places.intersects(places));
            let sizes = matching.map(|one| one.range.size());
            sizes.fold(0, u64::saturating_add)
        };
        let need = |places: Places| {
            let within = requests().filter(|one| one.places.is_within(places));
            within.fold(0, |sum: u64, one| sum.saturating_add(one.size))
        };
        let mut sorts: Vec<Places> = requests().map(|one| one.places).collect();
        sorts.sort_unstable();
        sorts.dedup();
        sorts.into_iter().all(|places| need(places) <= have(places))
    }

    fn arrange(&self, attempt: &Attempt, is_exact: bool) -> Option<Placement> {
        let mut packer = Packer::new(is_exact);
        // The blocks in each window by shape, in order; those on the root bus
        // are last.
        let root = self.windows.len();
        let mut blocks: Vec<Blocks> = vec![Blocks::new(); root + 1];
        for (index, request) in attempt.requests.iter().enumerate() {
            if !attempt.keep[index] {
                continue;
            }
            let shape = packer.shape(Shape {
                kind: ShapeKind::Leaf {
                    size: request.size,
                    align: request.align,
                },
                places: request.places,
            })?;
            let above = &mut blocks[request.window.unwrap_or(root)];
            above
                .entry(shape)
                .or_default()
                .push_back(Block::Request(index));
        }
        for (index, window) in self.windows.iter().enumerate().rev() {
            let (size, align) = attempt.least[index];
            if !window.exists || size == 0 && blocks[index].is_empty() {
                continue;
            }
            let below: Vec<_> = counts(&blocks[index]);
            let places = below.iter().map(|&(shape, _)| packer.places(shape));
            let shape = packer.shape(Shape {
                places: places.fold(window.places, Places::and),
                kind: ShapeKind::Window {
                    below,
                    granule: window.granule,
                    size,
                    align,
                },
            })?;
            // The list is built from its end.
            let above = &mut blocks[window.parent.unwrap_or(root)];
            above
                .entry(shape)
                .or_default()
                .push_front(Block::Window(index));
        }
        let placed = packer.place(&counts(&blocks[root]), self.apertures)?;
        let mut result = Placement {
            requests: vec![None; attempt.requests.len()],
            windows: vec![None; root],
        };
        let mut open: Vec<Option<Placed>> = vec![None; root];
        result.fill(&placed, &mut blocks[root], &mut open);
        // A window comes before those below it.
        for index in 0..root {
            if let Some(window) = open[index] {
                let below = packer.below(&window);
                result.fill(&below, &mut blocks[index], &mut open);
            }
        }
        Some(result)
    }
}

/// What a block of an [`AddressSpace`] is.
#[derive(Clone, Copy, Debug)]
enum Block {
    Request(usize),
    Window(usize),
}

/// Blocks by shape.
type Blocks = BTreeMap<ShapeId, VecDeque<Block>>;

fn counts(blocks: &Blocks) -> Vec<(ShapeId, usize)> {
    let shapes = blocks.iter();
    shapes.map(|(&shape, these)| (shape, these.len())).collect()
}

impl Placement {
    /// Gives each of the `blocks` one of the places of its shape.
    fn fill(&mut self, placed: &[Placed], blocks: &mut Blocks, open: &mut [Option<Placed>]) {
        for one in placed {
            let block = blocks.get_mut(&one.shape).and_then(VecDeque::pop_front);
            match block {
                Some(Block::Request(index)) => self.requests[index] = Some(one.base),
                Some(Block::Window(index)) => {
                    self.windows[index] = PciRange::from_size(one.base, one.end - one.base);
                    open[index] = Some(*one);
                }
                None => {}
            }
        }
    }

    /// Bytes of the largest range of `apertures` that remains free.
    pub(super) fn largest_free(&self, attempt: &Attempt, space: &AddressSpace<'_>) -> u64 {
        let windows = self.windows.iter().zip(space.windows);
        let windows =
            windows.filter_map(|(range, window)| (*range).filter(|_| window.parent.is_none()));
        let requests = self.requests.iter().zip(&attempt.requests);
        let requests = requests.filter_map(|(base, request)| {
            let base = base.filter(|_| request.window.is_none())?;
            PciRange::from_size(base, request.size)
        });
        let mut free = space.apertures.to_vec();
        for range in windows.chain(requests) {
            reserve(&mut free, range);
        }
        let sizes = free.iter().map(|aperture| aperture.range.size());
        sizes.max().unwrap_or(0)
    }
}

/// The largest number up to `count` for which `fits` holds, if it holds for
/// all below it; 0 is taken to fit.
pub(super) fn largest_passing(count: usize, fits: impl Fn(usize) -> bool) -> usize {
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
    use crate::resources::attempt::Priority;

    /// Four blocks that fill two apertures if they are in the right one, which
    /// the fast order does not find.
    #[test]
    fn what_is_known_to_fit_is_placed_when_no_attempt_is_left() {
        const MIB: u64 = 1 << 20;
        let aperture = |base: u64, size: u64| Aperture {
            range: PciRange::from_size(base * MIB, size * MIB).unwrap(),
            places: Places::LOW,
        };
        let apertures = [aperture(16, 4), aperture(32, 6)];
        let requests = [3, 2, 2, 3].map(|size| Request {
            window: None,
            size: size * MIB,
            align: MIB,
            places: Places::LOW,
            priority: Priority::Bar,
        });
        let space = AddressSpace::new(&[], &apertures);
        let attempt = Attempt::new(requests.to_vec(), 0);
        assert!(space.arrange(&attempt, false).is_none());
        let found = space.try_place(&attempt).unwrap();
        assert!(found.requests.iter().all(Option::is_some));
        assert_eq!(found.largest_free(&attempt, &space), 0);

        space.best_attempts.set(0);
        assert_eq!(space.try_place(&attempt), None);
        assert_eq!(space.place(&attempt), found);
    }
}

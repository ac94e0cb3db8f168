//! Arranges blocks of addresses in ranges: what is placed next to what.
//!
//! A block is a BAR, or the window of a bridge with the blocks below it. Blocks
//! that do not overlap have an order by address, so that an arrangement is an
//! order, and each block of it may as well start as early as the one before it
//! permits. A block that may start earlier never ends later. So of all orders
//! of the same blocks only the one that ends first counts, and the best order of a set
//! of blocks is found from the best orders of the sets with one block less:
//! that is [`Packer::best_order`], which finds an arrangement wherever there is one.
//!
//! It takes a step for each set, so it is for few blocks, or many of few
//! shapes. [`Packer::good_order`] comes first. Next to the blocks placed so far it
//! places the one that leaves the smallest gap, of those the largest, and of those
//! the one with the fewest sorts of apertures to be in. If all
//! blocks are BARs, whose size is their alignment, that is the best order, too:
//! exchanging the contents of two aligned ranges of one size does no harm.
//!
//! Within a window only the distance to its largest alignment matters for an
//! arrangement, so that each is made once for each distance. Windows nest
//! up to 255 deep, so that no function here calls itself.
//!
//! Nothing here accesses hardware.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::apertures::{Aperture, Places};

/// Index of a shape in a [`Packer`].
pub(super) type ShapeId = usize;

/// How many sets of blocks [`Packer::best_order`] looks at.
const MAX_SETS: usize = 2048;

/// What makes two blocks exchangeable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    pub(super) kind: ShapeKind,
    /// The apertures that it may be in.
    pub(super) places: Places,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ShapeKind {
    /// Bytes and alignment of a BAR.
    Leaf { size: u64, align: u64 },
    /// A window.
    Window {
        /// The shapes of the blocks below and how many of each, sorted.
        below: Vec<(ShapeId, usize)>,
        /// Granularity in bytes, a power of two.
        granule: u64,
        /// Bytes that it has at least.
        size: u64,
        /// Alignment of these bytes, a power of two.
        align: u64,
    },
}

/// A shape with what follows from it.
struct KnownShape {
    shape: Shape,
    /// The largest alignment of anything in it.
    align: u64,
    /// Bytes that it takes from an aligned address on.
    natural_size: u64,
}

/// The arrangement of a window, relative to where it may start.
#[derive(Debug)]
struct Arrangement {
    /// First and last address, the last not included.
    base: u64,
    end: u64,
    below: Vec<Placed>,
}

/// A block that was placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) shape: ShapeId,
    /// The address from which on a place was looked for.
    pub(super) start: u64,
    /// First address.
    pub(super) base: u64,
    /// Last address, not included.
    pub(super) end: u64,
}

/// Where the next block may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    /// Index of the aperture.
    aperture: usize,
    address: u64,
}

/// Why a block was not placed.
#[derive(Clone, Copy, Debug)]
enum Stop {
    /// There is no place.
    Full,
    /// A window has to be arranged first, from this distance on.
    Unknown(ShapeId, u64),
}

/// Shapes, and what was arranged of them so far.
pub(super) struct Packer {
    shapes: Vec<KnownShape>,
    ids: BTreeMap<Shape, ShapeId>,
    arranged: BTreeMap<(ShapeId, u64), Option<Rc<Arrangement>>>,
    /// Whether windows are as small as they can be.
    is_exact: bool,
}

impl Packer {
    pub(super) const fn new(is_exact: bool) -> Self {
        Self {
            shapes: Vec::new(),
            ids: BTreeMap::new(),
            arranged: BTreeMap::new(),
            is_exact,
        }
    }

    /// The number of a shape; `None` where it is larger than 64 bits express.
    pub(super) fn shape(&mut self, shape: Shape) -> Option<ShapeId> {
        if let Some(&known) = self.ids.get(&shape) {
            return Some(known);
        }
        let id = self.shapes.len();
        let (align, natural_size) = match &shape.kind {
            ShapeKind::Leaf { size, align } => (*align, *size),
            ShapeKind::Window {
                below,
                granule,
                align,
                ..
            } => {
                let below = below.iter().map(|&(shape, _)| self.shapes[shape].align);
                (below.fold(*granule.max(align), u64::max), 0)
            }
        };
        self.shapes.push(KnownShape {
            shape: shape.clone(),
            align,
            natural_size,
        });
        if matches!(shape.kind, ShapeKind::Window { .. }) {
            let Some(arranged) = self.arrange(id, 0) else {
                self.shapes.pop();
                return None;
            };
            self.shapes[id].natural_size = arranged.end - arranged.base;
        }
        self.ids.insert(shape, id);
        Some(id)
    }

    /// Bytes that a block takes from an aligned address on.
    pub(super) fn natural_size(&self, shape: ShapeId) -> u64 {
        self.shapes[shape].natural_size
    }

    /// The apertures that a block may be in.
    pub(super) fn places(&self, shape: ShapeId) -> Places {
        self.shapes[shape].shape.places
    }

    /// The blocks below the window `placed`, with their addresses.
    pub(super) fn below(&mut self, placed: &Placed) -> Vec<Placed> {
        let distance = placed.start & (self.shapes[placed.shape].align - 1);
        let Some(arranged) = self.arrange(placed.shape, distance) else {
            return Vec::new();
        };
        let origin = placed.start - distance;
        let blocks = arranged.below.iter().map(|block| Placed {
            shape: block.shape,
            start: origin + block.start,
            base: origin + block.base,
            end: origin + block.end,
        });
        blocks.collect()
    }

    /// Places `blocks`, of each shape so many, in `apertures`, or none.
    pub(super) fn place(
        &mut self,
        blocks: &[(ShapeId, usize)],
        apertures: &[Aperture],
    ) -> Option<Vec<Placed>> {
        loop {
            let good = self.good_order(blocks, apertures, 0);
            let order = match good {
                Err(Stop::Full) if self.is_exact => self.best_order(blocks, apertures, 0),
                found => found,
            };
            match order {
                Ok(order) => return Some(order),
                Err(Stop::Full) => return None,
                Err(Stop::Unknown(shape, distance)) => {
                    self.arrange(shape, distance);
                }
            }
        }
    }

    /// Arranges a window whose start is `distance` bytes behind a multiple of
    /// its alignment; `None` where it is too large for 64 bits.
    fn arrange(&mut self, shape: ShapeId, distance: u64) -> Option<Rc<Arrangement>> {
        let mut wanted = vec![(shape, distance)];
        while let Some(&(shape, distance)) = wanted.last() {
            if self.arranged.contains_key(&(shape, distance)) {
                wanted.pop();
                continue;
            }
            let arranged = match self.try_arrange(shape, distance) {
                Ok(arranged) => Some(Rc::new(arranged)),
                Err(Stop::Full) => None,
                Err(Stop::Unknown(below, distance)) => {
                    wanted.push((below, distance));
                    continue;
                }
            };
            self.arranged.insert((shape, distance), arranged);
        }
        self.arranged.get(&(shape, distance)).cloned().flatten()
    }

    fn try_arrange(&self, shape: ShapeId, distance: u64) -> Result<Arrangement, Stop> {
        let ShapeKind::Window {
            below,
            granule,
            size,
            align,
        } = &self.shapes[shape].shape.kind
        else {
            return Err(Stop::Full);
        };
        let granule = *granule;
        let first = align_up(distance, granule.max(*align)).ok_or(Stop::Full)?;
        let anywhere = [Aperture::UNBOUNDED];
        let order = if self.is_exact {
            match self.best_order(below, &anywhere, first) {
                // There are too many sets.
                Err(Stop::Full) => self.good_order(below, &anywhere, first),
                found => found,
            }
        } else {
            self.good_order(below, &anywhere, first)
        }?;
        let end = order.last().map_or(first, |last| last.end);
        let end = align_up(end, granule).ok_or(Stop::Full)?;
        // What is below the first block belongs to others.
        let base = order.first().map_or(first, |one| one.base & !(granule - 1));
        let (base, end) = if end - base < *size {
            let least = first.checked_add(*size).ok_or(Stop::Full)?;
            let least = align_up(least, granule).ok_or(Stop::Full)?;
            (first, end.max(least))
        } else {
            (base, end)
        };
        Ok(Arrangement {
            base,
            end,
            below: order,
        })
    }

    /// The first place of a block from `position` on, and how many bytes are
    /// skipped for it.
    fn next(
        &self,
        shape: ShapeId,
        apertures: &[Aperture],
        position: Position,
    ) -> Result<(Position, Placed, u64), Stop> {
        let places = self.shapes[shape].shape.places;
        let mut skipped: u64 = 0;
        let mut at = position;
        while let Some(aperture) = apertures.get(at.aperture) {
            let start = at.address.max(aperture.range.base());
            if aperture.places.intersects(places)
                && let Some(placed) = self.placed(shape, start)?
                && placed.end - 1 <= aperture.range.limit()
            {
                at.address = placed.end;
                let skipped = skipped.saturating_add(placed.base - start);
                return Ok((at, placed, skipped));
            }
            let left = aperture.range.limit().saturating_sub(start);
            skipped = skipped.saturating_add(left);
            at = Position {
                aperture: at.aperture + 1,
                address: 0,
            };
        }
        Err(Stop::Full)
    }

    /// A block in the first place from `start` on.
    fn placed(&self, shape: ShapeId, start: u64) -> Result<Option<Placed>, Stop> {
        let known = &self.shapes[shape];
        let range = if let ShapeKind::Leaf { size, align } = known.shape.kind {
            align_up(start, align).and_then(|base| Some((base, base.checked_add(size)?)))
        } else {
            let distance = start & (known.align - 1);
            let arranged = self.arranged.get(&(shape, distance));
            let arranged = arranged.ok_or(Stop::Unknown(shape, distance))?;
            let origin = start - distance;
            arranged.as_ref().and_then(|window| {
                let base = origin.checked_add(window.base)?;
                Some((base, origin.checked_add(window.end)?))
            })
        };
        Ok(range.map(|(base, end)| Placed {
            shape,
            start,
            base,
            end,
        }))
    }

    /// An order of `blocks` that leaves small gaps.
    fn good_order(
        &self,
        blocks: &[(ShapeId, usize)],
        apertures: &[Aperture],
        start: u64,
    ) -> Result<Vec<Placed>, Stop> {
        let mut left = blocks.to_vec();
        let mut order = Vec::new();
        let mut position = Position {
            aperture: 0,
            address: start,
        };
        loop {
            let mut best: Option<(_, usize, Position, Placed)> = None;
            for (index, &(shape, count)) in left.iter().enumerate() {
                if count == 0 {
                    continue;
                }
                let (after, placed, skipped) = self.next(shape, apertures, position)?;
                let size = placed.end - placed.base;
                let inside = size.saturating_sub(self.natural_size(shape));
                let gap = skipped.saturating_add(inside);
                let known = &self.shapes[shape];
                let key = (
                    gap,
                    Reverse((known.align, size)),
                    known.shape.places.count(),
                );
                if best.as_ref().is_none_or(|best| key < best.0) {
                    best = Some((key, index, after, placed));
                }
            }
            let Some((_, index, after, placed)) = best else {
                return Ok(order);
            };
            left[index].1 -= 1;
            position = after;
            order.push(placed);
        }
    }

    /// The order of `blocks` that ends first; [`Stop::Full`] where there is
    /// none, or where there are too many sets of blocks.
    fn best_order(
        &self,
        blocks: &[(ShapeId, usize)],
        apertures: &[Aperture],
        start: u64,
    ) -> Result<Vec<Placed>, Stop> {
        // Sets are numbered: the number of blocks of each shape is a digit.
        let mut weights = Vec::with_capacity(blocks.len());
        let mut sets: usize = 1;
        for &(_, count) in blocks {
            weights.push(sets);
            sets = sets.saturating_mul(count + 1);
            if sets > MAX_SETS {
                return Err(Stop::Full);
            }
        }
        let mut best: Vec<Option<(Position, Option<Placed>)>> = vec![None; sets];
        best[0] = Some((
            Position {
                aperture: 0,
                address: start,
            },
            None,
        ));
        let digit = |set: usize, index: usize| set / weights[index] % (blocks[index].1 + 1);
        for set in 1..sets {
            for (index, &(shape, _)) in blocks.iter().enumerate() {
                if digit(set, index) == 0 {
                    continue;
                }
                let Some((position, _)) = best[set - weights[index]] else {
                    continue;
                };
                match self.next(shape, apertures, position) {
                    Ok((after, placed, _)) => {
                        if best[set].is_none_or(|(earliest, _)| after < earliest) {
                            best[set] = Some((after, Some(placed)));
                        }
                    }
                    Err(Stop::Full) => {}
                    Err(unknown) => return Err(unknown),
                }
            }
        }
        let mut order = Vec::new();
        let mut set = sets - 1;
        while set != 0 {
            let (_, placed) = best[set].ok_or(Stop::Full)?;
            let placed = placed.ok_or(Stop::Full)?;
            let mut shapes = blocks.iter();
            let index = shapes.position(|&(shape, _)| shape == placed.shape);
            set -= index.map_or(set, |index| weights[index]);
            order.push(placed);
        }
        order.reverse();
        Ok(order)
    }
}

/// `value` rounded up to a multiple of `align`, a power of two.
fn align_up(value: u64, align: u64) -> Option<u64> {
    Some(value.checked_add(align - 1)? & !(align - 1))
}


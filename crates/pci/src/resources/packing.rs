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

mod order;

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;

use super::apertures::{Aperture, Places};

/// Index of a shape in a [`Packer`].
pub(super) type ShapeId = usize;

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
}

/// `value` rounded up to a multiple of `align`, a power of two.
pub(super) fn align_up(value: u64, align: u64) -> Option<u64> {
    Some(value.checked_add(align - 1)? & !(align - 1))
}

//! In which order blocks are placed.

use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::{Packer, Placed, Position, ShapeId, ShapeKind, Stop, align_up};
use crate::resources::apertures::Aperture;

/// How many sets of blocks [`Packer::best_order`] looks at.
const MAX_SETS: usize = 2048;

impl Packer {
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
    pub(super) fn good_order(
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
    pub(super) fn best_order(
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

//! Size classes: the few sizes that small objects are allocated in.
//!
//! Objects of one class are interchangeable, so that one that was freed serves
//! the next request without a search.

use core::alloc::Layout;

/// Alignment of every object, and the smallest size.
pub const ALIGNMENT: usize = 16;

/// Number of classes.
pub const COUNT: usize = 32;

/// Bytes up to which the steps are all [`ALIGNMENT`], and half of where they are
/// twice as large.
const FIRST_STEPS: usize = 4 * ALIGNMENT;

/// Bytes of the objects of each class, ascending: four steps to 64 bytes, then
/// four a doubling, so that at most a fifth of a larger object is wasted.
const SIZES: [usize; COUNT] = {
    let mut sizes = [0; COUNT];
    let (mut class, mut size, mut step) = (0, 0, ALIGNMENT);
    while class < COUNT {
        if class >= 8 && class % 4 == 0 {
            step *= 2;
        }
        size += step;
        sizes[class] = size;
        class += 1;
    }
    sizes
};

/// Bytes of the largest objects that have a class.
pub const MAX_SIZE: usize = SIZES[COUNT - 1];

/// A size class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SizeClass(usize);

impl SizeClass {
    /// The class of the smallest objects that serve `layout`. `None` where it is
    /// larger than [`MAX_SIZE`] or needs more than [`ALIGNMENT`].
    #[must_use]
    pub fn of(layout: Layout) -> Option<Self> {
        if layout.align() > ALIGNMENT || layout.size() > MAX_SIZE {
            return None;
        }
        // Four steps from one power of two to the next, from 64 bytes on; below,
        // steps of the same 16 bytes. The last byte says which step it is in.
        let last = layout.size().saturating_sub(1);
        let doublings = (last / FIRST_STEPS)
            .checked_ilog2()
            .map_or(0, |log| log + 1);
        let step = ALIGNMENT << doublings.saturating_sub(1);
        let before = 4 * doublings.saturating_sub(1) as usize;
        Some(Self(before + last / step))
    }

    /// The class of the largest objects that fit into `bytes`; `None` where
    /// none do.
    #[must_use]
    pub fn largest_fitting(bytes: usize) -> Option<Self> {
        let fitting = SIZES.partition_point(|size| *size <= bytes);
        fitting.checked_sub(1).map(Self)
    }

    /// Its number, below [`COUNT`].
    #[must_use]
    pub const fn number(self) -> usize {
        self.0
    }

    /// Bytes of its objects, a multiple of [`ALIGNMENT`].
    #[must_use]
    pub const fn bytes(self) -> usize {
        SIZES[self.0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(size: usize, align: usize) -> Option<SizeClass> {
        SizeClass::of(Layout::from_size_align(size, align).unwrap())
    }

    #[test]
    fn every_size_gets_the_smallest_piece_that_holds_it() {
        for size in 1..=MAX_SIZE {
            let class = of(size, 8).unwrap();
            assert!(class.number() < COUNT);
            assert!(class.bytes() >= size && class.bytes().is_multiple_of(ALIGNMENT));
            assert!(class.number() == 0 || SIZES[class.number() - 1] < size);
            let wasted = class.bytes() - size;
            assert!(wasted < ALIGNMENT.max(class.bytes() / 5 + 1), "{size}");
        }
    }

    #[test]
    fn what_is_too_large_or_too_aligned_has_no_class() {
        assert_eq!(of(MAX_SIZE + 1, 8), None);
        assert_eq!(of(32, 2 * ALIGNMENT), None);
        assert_eq!(MAX_SIZE, 8192);
    }

    #[test]
    fn a_rest_is_cut_into_pieces_that_fit() {
        assert_eq!(SizeClass::largest_fitting(ALIGNMENT - 1), None);
        for size in ALIGNMENT..2 * MAX_SIZE {
            let class = SizeClass::largest_fitting(size).unwrap();
            assert!(class.bytes() <= size);
            assert!(
                SIZES
                    .get(class.number() + 1)
                    .is_none_or(|next| *next > size)
            );
        }
    }
}

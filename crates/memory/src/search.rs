//! Finding a short byte string in a long one, such as a whole kernel.
//!
//! `memchr::memmem` relies on vector registers, which the firmware does not
//! use: without NEON it took 16 times the instructions of this search, 97 % of
//! all that the firmware ran on a small machine. This one looks at the byte
//! where the needle would end and, as that mostly is no byte of the needle,
//! goes on by the length of the needle (R. N. Horspool, "Practical fast
//! searching in strings", 1980).

/// A needle, prepared for the search.
///
/// ```
/// use warmbus_memory::search::Finder;
///
/// let finder = Finder::new(b"kho-v");
/// let offsets: Vec<_> = finder.find_in(b"kho-v3 and kho-v4").collect();
/// assert_eq!(offsets, [0, 11]);
/// ```
pub struct Finder<'a> {
    needle: &'a [u8],
    /// By how much each byte, where the needle would end, lets the search go
    /// on; 0 for the last byte of the needle, at which a match may end.
    shift: [u8; 256],
    /// The same for the last byte, after a match or what looked like one.
    shift_after_match: u8,
}

impl<'a> Finder<'a> {
    /// Prepares the search for `needle`.
    ///
    /// # Panics
    ///
    /// If the needle does not have 1 to 255 bytes; at compile time where it is
    /// a constant.
    #[must_use]
    pub const fn new(needle: &'a [u8]) -> Self {
        assert!(!needle.is_empty() && needle.len() < 256);
        let last = needle.len() - 1;
        let mut shift = [needle.len() as u8; 256];
        let mut at = 0;
        while at < last {
            shift[needle[at] as usize] = (last - at) as u8;
            at += 1;
        }
        let shift_after_match = shift[needle[last] as usize];
        shift[needle[last] as usize] = 0;
        Self {
            needle,
            shift,
            shift_after_match,
        }
    }

    /// The offsets of all occurrences in `haystack`, in ascending order; they
    /// may overlap.
    pub fn find_in<'b>(&'b self, haystack: &'b [u8]) -> impl Iterator<Item = usize> + 'b {
        let last = self.needle.len() - 1;
        let mut end = last;
        core::iter::from_fn(move || {
            loop {
                // No overflow: a slice has at most half of all addresses.
                while let Some(&byte) = haystack.get(end) {
                    let shift = self.shift[usize::from(byte)];
                    if shift == 0 {
                        break;
                    }
                    end = end.wrapping_add(usize::from(shift));
                }
                let start = end - last;
                end += usize::from(self.shift_after_match);
                if haystack.get(start..)?.starts_with(self.needle) {
                    return Some(start);
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use memchr::memmem;
    use proptest::prelude::*;

    proptest! {
        /// Few different bytes, so that there is much that almost matches.
        #[test]
        fn it_finds_what_another_search_finds(
            haystack in prop::collection::vec(0_u8..3, 0..400),
            needle in prop::collection::vec(0_u8..3, 1..9),
        ) {
            let found: Vec<_> = Finder::new(&needle).find_in(&haystack).collect();
            let places = 0..haystack.len();
            let expected: Vec<_> = places
                .filter(|at| memmem::find(&haystack[*at..], &needle) == Some(0))
                .collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_needle_may_be_all_of_it_or_longer() {
        let finder = Finder::new(b"abc");
        assert_eq!(finder.find_in(b"abc").collect::<Vec<_>>(), [0]);
        assert_eq!(finder.find_in(b"ab").next(), None);
        assert_eq!(finder.find_in(b"").next(), None);
    }
}

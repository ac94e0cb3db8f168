//! Finding a few bytes in many, such as a whole kernel.
//!
//! A kernel has tens of megabytes, and without vector registers, which the
//! firmware does not use, a search that looks at each byte takes more
//! instructions than all else that the firmware does. This one looks at the byte
//! where the needle would end and, since that mostly is none of the needle's, goes
//! on by the length of the needle (Horspool 1980).

/// A needle, and how far each byte at the place of its last lets it move; 0 for
/// the last byte itself.
pub struct Finder<'a> {
    needle: &'a [u8],
    moves: [u8; 256],
    /// How far a match, or what looked like one, lets it move.
    on: u8,
}

impl<'a> Finder<'a> {
    /// Prepares the search for `needle`, which has 1 to 255 bytes.
    pub const fn new(needle: &'a [u8]) -> Self {
        assert!(!needle.is_empty() && needle.len() < 256);
        let last = needle.len() - 1;
        let mut moves = [needle.len() as u8; 256];
        let mut at = 0;
        while at < last {
            moves[needle[at] as usize] = (last - at) as u8;
            at += 1;
        }
        let on = moves[needle[last] as usize];
        moves[needle[last] as usize] = 0;
        Self { needle, moves, on }
    }

    /// All places of the needle in `haystack`, in ascending order.
    pub fn find_in<'b>(&'b self, haystack: &'b [u8]) -> impl Iterator<Item = usize> + 'b {
        let last = self.needle.len() - 1;
        let mut end = last;
        core::iter::from_fn(move || {
            loop {
                // No overflow: a slice has less than half of all addresses.
                while let Some(&byte) = haystack.get(end) {
                    let on = self.moves[usize::from(byte)];
                    if on == 0 {
                        break;
                    }
                    end = end.wrapping_add(usize::from(on));
                }
                let at = end - last;
                end += usize::from(self.on);
                if haystack.get(at..)?.starts_with(self.needle) {
                    return Some(at);
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

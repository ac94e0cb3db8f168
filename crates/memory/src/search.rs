//! Finding a short byte string in a long one, such as a whole kernel.
//!
//! `memchr::memmem` relies on vector registers, which the firmware does not
//! use: without NEON it took 16 times the instructions of this search, 97 % of
//! all that the firmware ran on a small machine. This one looks at the byte
//! where the needle would end and, as that mostly is no byte of the needle,
//! goes on by the length of the needle (R. N. Horspool, "Practical fast
//! searching in strings", 1980).

use crate::bytes::aligned_words;

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

/// A needle with a byte that is rare where it is searched: all words that have
/// that byte nowhere are passed over, eight bytes at a time. For a short needle
/// this takes less than [`Finder`].
///
/// ```
/// use warmbus_memory::search::RareByteFinder;
///
/// let finder = RareByteFinder::new(b"kho-v", 3);
/// let offsets: Vec<_> = finder.find_in(b"kho-v3 and kho-v4").collect();
/// assert_eq!(offsets, [0, 11]);
/// ```
pub struct RareByteFinder<'a> {
    needle: &'a [u8],
    place: usize,
    rare: u8,
}

impl<'a> RareByteFinder<'a> {
    /// Prepares the search for `needle`, whose rare byte is the one at `place`.
    ///
    /// # Panics
    ///
    /// If the needle has no byte there; at compile time where it is a constant.
    #[must_use]
    pub const fn new(needle: &'a [u8], place: usize) -> Self {
        Self {
            needle,
            place,
            rare: needle[place],
        }
    }

    /// The offsets of all occurrences in `haystack`, in ascending order; they
    /// may overlap.
    pub fn find_in<'b>(&'b self, haystack: &'b [u8]) -> impl Iterator<Item = usize> + 'b {
        let mut rares = ByteSearch::new(self.rare, haystack);
        core::iter::from_fn(move || {
            loop {
                let Some(start) = rares.next()?.checked_sub(self.place) else {
                    continue;
                };
                if haystack.get(start..)?.starts_with(self.needle) {
                    return Some(start);
                }
            }
        })
    }
}

/// Words that are examined at a time.
const BLOCK: usize = 4;

/// The search for one byte.
struct ByteSearch<'a> {
    byte: u8,
    haystack: &'a [u8],
    /// The offset of what is examined next. Up to `until`, byte by byte.
    at: usize,
    until: usize,
    /// The words of the block at `at`, and the blocks after it.
    words: &'a [u64],
    blocks: &'a [[u64; BLOCK]],
    /// Where the byte is in the word before `at`: the top bits of these bytes.
    found: u64,
}

impl<'a> ByteSearch<'a> {
    fn new(byte: u8, haystack: &'a [u8]) -> Self {
        let (before, words, _) = aligned_words(haystack);
        let (blocks, _) = words.as_chunks();
        Self {
            byte,
            haystack,
            at: 0,
            until: before.len(),
            words: &[],
            blocks,
            found: 0,
        }
    }

    /// The offset of the next occurrence.
    #[inline(never)]
    fn next(&mut self) -> Option<usize> {
        loop {
            if self.found != 0 {
                let place = self.found.trailing_zeros() as usize / 8;
                self.found &= self.found - 1;
                return Some(self.at - size_of::<u64>() + place);
            }
            while self.at < self.until {
                let at = self.at;
                self.at += 1;
                if *self.haystack.get(at)? == self.byte {
                    return Some(at);
                }
            }
            if let Some((word, rest)) = self.words.split_first() {
                self.found = places_of(self.byte, *word);
                self.at += size_of::<u64>();
                self.words = rest;
                continue;
            }
            let without = blocks_without(self.byte, self.blocks);
            self.at += without * size_of::<[u64; BLOCK]>();
            if let Some((block, rest)) = self.blocks.get(without..)?.split_first() {
                (self.words, self.blocks) = (block, rest);
                continue;
            }
            self.blocks = &[];
            self.until = self.haystack.len();
            if self.at >= self.until {
                return None;
            }
        }
    }
}

/// The bytes of `word` that are `byte`: the top bit of each, in the order of
/// memory from the lowest on.
fn places_of(byte: u8, word: u64) -> u64 {
    const REST: u64 = u64::from_ne_bytes([0x7f; 8]);
    let differences = u64::from_le(word) ^ u64::from_ne_bytes([byte; 8]);
    // The sum has the top bit of each byte whose other bits are not all 0.
    !(((differences & REST) + REST) | differences | REST)
}

/// How many of the first `blocks` do not have `byte`.
fn blocks_without(byte: u8, blocks: &[[u64; BLOCK]]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    let pattern = u64::from_ne_bytes([byte; 8]);
    // A word has a zero byte if and only if this has the top bit of a byte set:
    // subtracting 1 borrows into the lowest zero byte, or the byte had that bit.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word;
    let has = |block: &[u64; BLOCK]| {
        let found = block
            .iter()
            .fold(0, |all, word| all | zeros(word ^ pattern));
        found & TOPS != 0
    };
    blocks.iter().position(has).unwrap_or(blocks.len())
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
            prop_assert_eq!(&found, &expected);
            for place in 0..needle.len() {
                let finder = RareByteFinder::new(&needle, place);
                prop_assert_eq!(&finder.find_in(&haystack).collect::<Vec<_>>(), &expected);
            }
        }

        /// The byte and its neighbours, whose difference borrows, anywhere in words.
        #[test]
        fn a_rare_byte_is_found_in_every_word(
            haystack in prop::collection::vec(b','..=b'.', 0..200),
            rest in prop::collection::vec(any::<u8>(), 0..100),
            start in 0_usize..9,
        ) {
            let haystack = [haystack, rest].concat();
            let haystack = &haystack[start.min(haystack.len())..];
            let found: Vec<_> = RareByteFinder::new(b"-", 0).find_in(haystack).collect();
            let expected: Vec<_> = memchr::memchr_iter(b'-', haystack).collect();
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

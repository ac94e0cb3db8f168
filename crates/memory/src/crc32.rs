//! The CRC-32 of gzip, zlib and UEFI (polynomial 0x04c11db7, reflected), with
//! which handovers are sealed as well.
//!
//! The firmware has neither the CRC instructions nor the vector registers to
//! count on, so there are tables: for eight bytes a step, and for 64 zeros a step,
//! which is most of what is sealed: a data block has 4 KiB of configuration
//! space, of which few bytes are cached.

use crate::bytes::aligned_words;

/// The polynomial, reflected.
const POLYNOMIAL: u32 = 0xedb8_8320;

/// Words of zeros that are passed over in one step.
const ZERO_WORDS: usize = 8;

/// The remainder of each byte.
type Table = [u32; 256];

/// What each byte adds to the CRC when 0 to 3 bytes follow it, as the last four of
/// eight bytes do.
static LAST_FOUR: [Table; 4] = followed_by(0);

/// The same of 4 to 7 bytes.
static FIRST_FOUR: [Table; 4] = followed_by(4);

/// What each byte of a CRC adds to the CRC after [`ZERO_WORDS`] words of zeros:
/// the first table is for its highest byte, the last of the four bytes.
static BEFORE_ZEROS: [Table; 4] = followed_by(8 * ZERO_WORDS - 4);

/// What each byte adds when `first`, `first + 1` and so on zeros follow it.
const fn followed_by<const N: usize>(first: usize) -> [Table; N] {
    let mut alone = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut rest = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            rest = rest >> 1 ^ if rest & 1 == 0 { 0 } else { POLYNOMIAL };
            bit += 1;
        }
        alone[byte] = rest;
        byte += 1;
    }
    let mut tables = [[0; 256]; N];
    let mut table = alone;
    let mut zeros = 0;
    while zeros < first + N {
        if zeros >= first {
            tables[zeros - first] = table;
        }
        let mut byte = 0;
        while byte < 256 {
            table[byte] = table[byte] >> 8 ^ alone[(table[byte] & 0xff) as usize];
            byte += 1;
        }
        zeros += 1;
    }
    tables
}

/// The CRC-32 of `bytes`.
///
/// ```
/// assert_eq!(warmbus_memory::crc32::checksum(b"123456789"), 0xcbf4_3926);
/// ```
#[must_use]
pub fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc32::new();
    crc.update(bytes);
    crc.finalize()
}

/// The CRC-32 of `bytes` with zeros in place of the four bytes at `offset`,
/// where a format stores it; `None` where those are not all in `bytes`.
#[must_use]
pub fn checksum_around(bytes: &[u8], offset: usize) -> Option<u32> {
    let (before, rest) = bytes.split_at_checked(offset)?;
    let after = rest.get(4..)?;
    let mut crc = Crc32::new();
    crc.update(before);
    crc.update(&[0; 4]);
    crc.update(after);
    Some(crc.finalize())
}

/// A CRC-32 of bytes that come in pieces.
#[derive(Clone)]
pub struct Crc32 {
    /// The complement of the CRC so far.
    state: u32,
}

impl Default for Crc32 {
    fn default() -> Self {
        Self::new()
    }
}

impl Crc32 {
    /// The CRC-32 of no bytes so far.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: !0 }
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        let (before, words, after) = aligned_words(bytes);
        let (blocks, rest) = words.as_chunks::<ZERO_WORDS>();
        let mut state = add_bytes(self.state, before);
        for block in blocks {
            state = if block.iter().fold(0, |all, word| all | word) == 0 {
                with_zero_words(state)
            } else {
                block.iter().copied().fold(state, add_word)
            };
        }
        state = rest.iter().copied().fold(state, add_word);
        self.state = add_bytes(state, after);
    }

    /// Adds `count` zeros.
    pub fn update_zeros(&mut self, count: usize) {
        const STEP: usize = 8 * ZERO_WORDS;
        let state = (0..count / STEP).fold(self.state, |state, _| with_zero_words(state));
        self.state = state;
        self.update(&[0; STEP][..count % STEP]);
    }

    /// The CRC-32 of all bytes that were added.
    #[must_use]
    pub const fn finalize(self) -> u32 {
        !self.state
    }
}

/// Adds [`ZERO_WORDS`] words of zeros.
fn with_zero_words(state: u32) -> u32 {
    added(&BEFORE_ZEROS, state)
}

/// What four bytes add, the last by the first table.
fn added(tables: &[Table; 4], bytes: u32) -> u32 {
    let bytes = tables.iter().rev().zip(bytes.to_le_bytes());
    bytes.fold(0, |all, (table, byte)| all ^ table[usize::from(byte)])
}

fn add_bytes(state: u32, bytes: &[u8]) -> u32 {
    let [alone, ..] = &LAST_FOUR;
    bytes.iter().fold(state, |state, byte| {
        state >> 8 ^ alone[usize::from(state as u8 ^ byte)]
    })
}

/// Adds the eight bytes that `word` has in memory.
fn add_word(state: u32, word: u64) -> u32 {
    let word = u64::from_le(word) ^ u64::from(state);
    let first = added(&FIRST_FOUR, word as u32);
    // Of eight bytes the last four are often zeros, which add nothing.
    match (word >> 32) as u32 {
        0 => first,
        last => first ^ added(&LAST_FOUR, last),
    }
}

impl core::fmt::Debug for Crc32 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Crc32({:#010x})", self.clone().finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn checksums_are_those_of_another_implementation(
            bytes in prop::collection::vec(any::<u8>(), 4..100),
            split in any::<prop::sample::Index>(),
        ) {
            let at = split.index(bytes.len() - 3);
            prop_assert_eq!(checksum(&bytes), crc32fast::hash(&bytes));
            let mut crc = Crc32::new();
            crc.update(&bytes[..at]);
            crc.update(&bytes[at..]);
            prop_assert_eq!(crc.finalize(), crc32fast::hash(&bytes));
            let mut zeroed: Vec<u8> = bytes.clone();
            zeroed[at..at + 4].fill(0);
            prop_assert_eq!(checksum_around(&bytes, at), Some(crc32fast::hash(&zeroed)));
            prop_assert_eq!(checksum_around(&bytes, bytes.len() - 3), None);
        }

        /// Runs of zeros, of any length and at any place, with other bytes between.
        #[test]
        fn zeros_count_as_any_other_byte(
            pieces in prop::collection::vec((any::<u8>(), 0_usize..300), 1..8),
            start in 0_usize..9,
        ) {
            let mut bytes = Vec::new();
            for (byte, zeros) in pieces {
                bytes.push(byte);
                bytes.resize(bytes.len() + zeros, 0);
            }
            let bytes = &bytes[start.min(bytes.len())..];
            prop_assert_eq!(checksum(bytes), crc32fast::hash(bytes));
            let zeros = bytes.iter().rev().take_while(|byte| **byte == 0).count();
            let mut crc = Crc32::new();
            crc.update(&bytes[..bytes.len() - zeros]);
            crc.update_zeros(zeros);
            prop_assert_eq!(crc.finalize(), crc32fast::hash(bytes));
        }
    }
}

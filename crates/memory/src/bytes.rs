//! Integers in byte slices.
//!
//! Each function with an `offset` reads the bytes from there on, at any
//! alignment, and is `None` where they are not all in `bytes`.

use zerocopy::FromBytes as _;

/// `bytes` as aligned 64-bit words, with the bytes before the first word and
/// those after the last one. The firmware is compiled without unaligned
/// accesses, so that a word at any address is eight loads there.
#[must_use]
pub fn aligned_words(bytes: &[u8]) -> (&[u8], &[u64], &[u8]) {
    let before = bytes.as_ptr().align_offset(align_of::<u64>());
    let Some((before, rest)) = bytes.split_at_checked(before) else {
        return (bytes, &[], &[]);
    };
    match <[u64]>::ref_from_prefix_with_elems(rest, rest.len() / size_of::<u64>()) {
        Ok((words, after)) => (before, words, after),
        Err(_) => (bytes, &[], &[]),
    }
}

/// Passes the little-endian 64-bit words of `bytes` that are not 0 to `each`, with
/// their numbers, until it fails. An incomplete word at the end does not count.
///
/// # Errors
///
/// That of `each`.
///
/// ```
/// use warmbus_memory::bytes::each_nonzero_word;
///
/// let mut bytes = [0; 20];
/// (bytes[8], bytes[15]) = (1, 0x80);
/// let only = each_nonzero_word(&bytes, |number, word| Err((number, word)));
/// assert_eq!(only, Err((1, 0x8000_0000_0000_0001)));
/// ```
pub fn each_nonzero_word<E>(
    bytes: &[u8],
    mut each: impl FnMut(u64, u64) -> Result<(), E>,
) -> Result<(), E> {
    let mut pass = |(number, word)| match word {
        0 => Ok(()),
        word => each(number, word),
    };
    // A word that is aligned is one load; of others each byte is one.
    let (before, words, _) = aligned_words(bytes);
    if before.is_empty() {
        let words = words.iter().map(|&word| u64::from_le(word));
        (0..).zip(words).try_for_each(&mut pass)
    } else {
        let (words, _) = bytes.as_chunks();
        let words = words.iter().map(|&word| u64::from_le_bytes(word));
        (0..).zip(words).try_for_each(&mut pass)
    }
}

/// The `N` bytes at `offset`.
#[must_use]
pub fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

/// The little-endian 16 bits at `offset`.
#[must_use]
pub fn le_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    array(bytes, offset).map(u16::from_le_bytes)
}

/// The little-endian 32 bits at `offset`.
#[must_use]
pub fn le_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    array(bytes, offset).map(u32::from_le_bytes)
}

/// The little-endian 64 bits at `offset`.
#[must_use]
pub fn le_u64(bytes: &[u8], offset: usize) -> Option<u64> {
    array(bytes, offset).map(u64::from_le_bytes)
}

/// The big-endian 32 bits at `offset`: one cell of a device tree.
#[must_use]
pub fn be_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    array(bytes, offset).map(u32::from_be_bytes)
}

/// The big-endian 64 bits at `offset`: two cells of a device tree.
#[must_use]
pub fn be_u64(bytes: &[u8], offset: usize) -> Option<u64> {
    array(bytes, offset).map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_all_bytes_but_those_at_both_ends() {
        let bytes: [u8; 40] = core::array::from_fn(|at| at as u8);
        for start in 0..=40 {
            for end in start..=40 {
                let all = &bytes[start..end];
                let (before, words, after) = aligned_words(all);
                let middle = words.iter().flat_map(|word| word.to_ne_bytes());
                let found = before.iter().copied().chain(middle);
                assert!(found.chain(after.iter().copied()).eq(all.iter().copied()));
                assert!(before.len() < 8 && after.len() < 8, "{start} to {end}");
                assert!(words.as_ptr().addr().is_multiple_of(8));
            }
        }
    }

    #[test]
    fn integers_are_read_at_any_offset_and_not_beyond_the_end() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        assert_eq!(le_u16(&bytes, 7), Some(0x0908));
        assert_eq!(le_u32(&bytes, 1), Some(0x0504_0302));
        assert_eq!(le_u64(&bytes, 1), Some(0x0908_0706_0504_0302));
        assert_eq!(be_u32(&bytes, 5), Some(0x0607_0809));
        assert_eq!(be_u64(&bytes, 0), Some(0x0102_0304_0506_0708));
        assert_eq!(le_u16(&bytes, 8), None);
        assert_eq!(be_u64(&bytes, 2), None);
        assert_eq!(le_u32(&bytes, usize::MAX), None);
    }
}

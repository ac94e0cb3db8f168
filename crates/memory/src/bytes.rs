//! Integers in byte slices.
//!
//! Each function reads the bytes from `offset` on, at any alignment, and is
//! `None` where they are not all in `bytes`.

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

//! The CRC-32 of gzip, zlib and UEFI (polynomial 0x04c11db7, reflected), with
//! which handovers are sealed as well.

use crc::{CRC_32_ISO_HDLC, Crc, Digest, Table};

/// 16 bytes a step: a kernel has tens of megabytes, and the firmware has
/// neither the CRC instructions nor the vector registers to count on.
static CRC32: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);

/// The CRC-32 of `bytes`.
///
/// ```
/// assert_eq!(warmbus_memory::crc32::checksum(b"123456789"), 0xcbf4_3926);
/// ```
#[must_use]
pub fn checksum(bytes: &[u8]) -> u32 {
    CRC32.checksum(bytes)
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
pub struct Crc32(Digest<'static, u32, Table<16>>);

impl Default for Crc32 {
    fn default() -> Self {
        Self::new()
    }
}

impl Crc32 {
    /// The CRC-32 of no bytes so far.
    #[must_use]
    pub fn new() -> Self {
        Self(CRC32.digest())
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The CRC-32 of all bytes that were added.
    #[must_use]
    pub fn finalize(self) -> u32 {
        self.0.finalize()
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
    }
}

//! One bit for each byte of a configuration space.

use alloc::vec;
use alloc::vec::Vec;

/// Bit n belongs to byte n and is bit `n % 8` of byte `n / 8`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bitmap(Vec<u8>);

impl Bitmap {
    /// A bitmap of `bits` zeros.
    pub(super) fn new(bits: u16) -> Self {
        Self(vec![0; usize::from(bits.div_ceil(8))])
    }

    /// Whether bit `n` is set; one beyond the end is not.
    pub(super) fn get(&self, n: u16) -> bool {
        self.0
            .get(usize::from(n / 8))
            .is_some_and(|byte| byte >> (n % 8) & 1 != 0)
    }

    /// Sets bit `n` to `value`; one beyond the end is ignored.
    pub(super) fn set(&mut self, n: u16, value: bool) {
        if let Some(byte) = self.0.get_mut(usize::from(n / 8)) {
            let bit = 1 << (n % 8);
            if value {
                *byte |= bit;
            } else {
                *byte &= !bit;
            }
        }
    }

    /// Number of set bits.
    pub(super) fn count(&self) -> u16 {
        self.0.iter().map(|byte| byte.count_ones() as u16).sum()
    }

    /// The bitmap as bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

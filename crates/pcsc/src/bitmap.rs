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

    /// The dwords with a byte whose bit is set, ascending: their offsets.
    pub(super) fn dwords(&self) -> impl Iterator<Item = u16> {
        (0..).step_by(8).zip(&self.0).flat_map(|(first, &bits)| {
            let halves = [(first, bits & 0xf), (first + 4, bits >> 4)];
            let used = halves.into_iter().filter(|(_, bits)| *bits != 0);
            used.map(|(dword, _)| dword)
        })
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

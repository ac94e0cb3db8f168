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

    /// Whether all bits from `start` up to before `end` are set.
    pub(super) fn all(&self, start: u16, end: u16) -> bool {
        let (at, last) = (
            usize::from(start / 8),
            usize::from(end.saturating_sub(1) / 8),
        );
        if at != last || end <= start {
            return (start..end).all(|bit| self.get(bit));
        }
        let bits = bits_of_byte(start % 8, end - start);
        self.0.get(at).is_some_and(|byte| byte & bits == bits)
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

    /// Sets the bits from `start` up to before `end`; those beyond the end are
    /// ignored.
    pub(super) fn set_range(&mut self, start: u16, end: u16) {
        let (mut at, end) = (usize::from(start), usize::from(end));
        while at < end {
            let stop = end.min((at / 8 + 1) * 8);
            let bits = bits_of_byte((at % 8) as u16, (stop - at) as u16);
            if let Some(byte) = self.0.get_mut(at / 8) {
                *byte |= bits;
            }
            at = stop;
        }
    }

    /// Sets the bits that are set in `other` as well, and no others.
    pub(super) fn intersect(&mut self, other: &Self) {
        let others = other.0.iter().copied().chain(core::iter::repeat(0));
        for (byte, other) in self.0.iter_mut().zip(others) {
            *byte &= other;
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

/// The bits of a byte from `first` on, `count` of them, 1 to 8, of which none is
/// beyond the byte.
const fn bits_of_byte(first: u16, count: u16) -> u8 {
    (0xff_u8 >> (8 - count)) << first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_each_of_its_bits() {
        const BITS: u16 = 30;
        for start in 0..BITS + 4 {
            for end in start..BITS + 12 {
                let (mut range, mut each) = (Bitmap::new(BITS), Bitmap::new(BITS));
                range.set_range(start, end);
                (start..end).for_each(|bit| each.set(bit, true));
                assert_eq!(range, each, "{start} to {end}");
                // What is beyond the end is not set.
                for (first, last) in [(start, end), (start, end + 1), (start.max(1) - 1, end)] {
                    let all = (first..last).all(|bit| range.get(bit));
                    assert_eq!(range.all(first, last), all, "{first} to {last}");
                }
            }
        }
    }

    #[test]
    fn an_intersection_has_the_bits_of_both() {
        let (mut first, mut second) = (Bitmap::new(24), Bitmap::new(16));
        first.set_range(3, 20);
        second.set_range(0, 5);
        second.set(9, true);
        first.intersect(&second);
        let bits: Vec<_> = (0..24).filter(|bit| first.get(*bit)).collect();
        assert_eq!(bits, [3, 4, 9]);
    }
}

//! Whether a BAR has no address because there are more BARs of its size than
//! places for them.
//!
//! Who assigns BARs in the order of their alignment, the largest first, and
//! those of one alignment in the order in which they are found, then loses the
//! same BAR. In all other cases another assignment may place it, at the expense
//! of another one.

use super::apertures::{Aperture, Places};

/// A BAR that its function does not work without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contender {
    /// Bytes, and their alignment: a power of two.
    pub(super) size: u64,
    /// The apertures that it may be in, by one way or another.
    pub(super) places: Places,
}

impl Contender {
    /// How many aligned ranges of its size there are for it.
    fn count_in(self, apertures: &[Aperture]) -> u64 {
        let reached = apertures
            .iter()
            .filter(|one| one.places.intersects(self.places));
        reached
            .map(|one| {
                let end = one.range.limit().saturating_add(1);
                (end / self.size).saturating_sub(one.range.base().div_ceil(self.size))
            })
            .fold(0, u64::saturating_add)
    }
}

/// Whether there are no more aligned ranges for the last of `bars`, which are
/// in the order in which they are found, than those of its size or larger take
/// that can be nowhere else.
pub(super) fn is_one_too_many(bars: &[Contender], number: usize, apertures: &[Aperture]) -> bool {
    let bar = bars[number];
    let rivals = bars.iter().enumerate().filter(|&(at, rival)| {
        let comes_first = rival.size > bar.size || rival.size == bar.size && at < number;
        // One that has no range anywhere takes none.
        comes_first && rival.places.is_within(bar.places) && rival.count_in(apertures) != 0
    });
    let taken = rivals.fold(0, |sum: u64, (_, rival)| {
        sum.saturating_add(rival.size / bar.size)
    });
    taken >= bar.count_in(apertures)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PciRange;

    const MIB: u64 = 1 << 20;

    fn aperture(base: u64, size: u64, places: Places) -> Aperture {
        let range = PciRange::from_size(base * MIB, size * MIB).unwrap();
        Aperture { range, places }
    }

    fn bars(sizes: &[(u64, Places)]) -> alloc::vec::Vec<Contender> {
        let bars = sizes.iter().map(|&(size, places)| Contender {
            size: size * MIB,
            places,
        });
        bars.collect()
    }

    #[test]
    fn the_last_of_those_that_need_all_places_is_one_too_many() {
        // Aligned ranges of 4 MiB: one in the first, two in the second.
        let apertures = [
            aperture(2, 7, Places::LOW),
            aperture(16, 11, Places::LOW),
            aperture(64, 64, Places::HIGH),
        ];
        let low = |size| (size, Places::LOW);
        let four = bars(&[low(4), low(4), low(4), low(4)]);
        let lost = [0, 1, 2, 3].map(|number| is_one_too_many(&four, number, &apertures));
        assert_eq!(lost, [false, false, false, true]);
        // A larger one takes as many as it is long, wherever it was found, and a
        // smaller one none.
        let mixed = bars(&[low(4), low(4), low(1), low(8)]);
        let lost = [0, 1, 2, 3].map(|number| is_one_too_many(&mixed, number, &apertures));
        assert_eq!(lost, [false, true, false, false]);
    }

    #[test]
    fn what_can_be_elsewhere_or_nowhere_takes_no_place() {
        let apertures = [aperture(16, 4, Places::LOW), aperture(64, 64, Places::HIGH)];
        let anywhere = Places::LOW.or(Places::HIGH);
        let rivals = bars(&[(4, anywhere), (4096, Places::LOW), (4, Places::LOW)]);
        assert!(!is_one_too_many(&rivals, 2, &apertures));
        assert!(is_one_too_many(&rivals, 1, &apertures));
        let rival = bars(&[(4, Places::LOW), (4, Places::LOW), (4, anywhere)]);
        assert!(is_one_too_many(&rival, 1, &apertures));
        assert!(!is_one_too_many(&rival, 2, &apertures));
        // Nothing is forwarded at all.
        assert!(is_one_too_many(&rival, 0, &[]));
    }

    #[test]
    fn the_end_of_the_address_space_is_no_limit() {
        let all = [Aperture::UNBOUNDED];
        let one = [Contender {
            size: 1 << 63,
            places: Places::HIGH,
        }];
        assert!(!is_one_too_many(&one, 0, &all));
    }
}

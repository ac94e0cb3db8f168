//! Sorting by numbers, with one copy of the code.
//!
//! A sort of the standard library is about 3 KiB of code for every type of
//! element, which would be a tenth of the firmware's image. Here every order is
//! that of a number, and numbers are sorted by one copy.

/// Sorts `items` by what `number` says of each; equals keep their order. Takes
/// time in proportion to n log n for n items, and memory of n numbers.
pub(crate) fn sort_by_number<T>(items: &mut [T], number: impl FnMut(&T) -> u128) {
    items.sort_by_cached_key(number);
}

/// The number that orders by `high`, and among equals by `low`.
pub(crate) fn pair(high: impl Into<u64>, low: impl Into<u64>) -> u128 {
    u128::from(high.into()) << 64 | u128::from(low.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_decide_and_equals_stay() {
        let mut items = [(2_u32, 7_u8), (1, 9), (2, 1), (1, 3)];
        sort_by_number(&mut items, |item| item.0.into());
        assert_eq!(items, [(1, 9), (1, 3), (2, 7), (2, 1)]);
    }

    #[test]
    fn a_pair_orders_by_its_first_number() {
        assert!(pair(1_u64, u64::MAX) < pair(2_u64, 0_u64));
        assert!(pair(1_u64, 3_u8) > pair(1_u64, 2_u8));
    }
}

//! Which of two ways each BAR is forwarded: by the memory windows of the
//! bridges above it, or by their prefetchable windows.

use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;

/// With up to so many BARs that have two ways, all combinations are tried.
const MAX_COMBINED: usize = 6;

/// The combinations to try, the preferred one first: for each of `count` BARs
/// whether it is forwarded by its other way. `size` is that of a BAR that
/// has another way.
///
/// Beyond [`MAX_COMBINED`] of them, the largest is changed first, then the
/// two largest, and so on.
pub(super) fn choices(count: usize, size: impl Fn(usize) -> Option<u64>) -> Vec<Vec<bool>> {
    let mut flexible: Vec<(u64, usize)> = (0..count)
        .filter_map(|bar| Some((size(bar)?, bar)))
        .collect();
    flexible.sort_by_key(|&(size, bar)| (Reverse(size), bar));
    let combination = |is_other: &dyn Fn(usize) -> bool| {
        let mut ways = vec![false; count];
        for (rank, &(_, bar)) in flexible.iter().enumerate() {
            ways[bar] = is_other(rank);
        }
        ways
    };
    if flexible.len() <= MAX_COMBINED {
        let combinations = 0..1_usize << flexible.len();
        combinations
            .map(|bits| combination(&|rank| bits >> rank & 1 != 0))
            .collect()
    } else {
        let changed = 0..=flexible.len();
        changed
            .map(|changed| combination(&|rank| rank < changed))
            .collect()
    }
}

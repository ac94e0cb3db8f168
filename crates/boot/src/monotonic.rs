//! Time that does not go back, of a counter that may.

use core::sync::atomic::{AtomicU64, Ordering};

/// The most ticks that were counted so far.
///
/// ```
/// use warmbus_boot::monotonic::Monotonic;
///
/// let latest = Monotonic::new();
/// assert_eq!(latest.ticks(100, 130), 30);
/// assert_eq!(latest.ticks(100, 120), 30);
/// assert_eq!(latest.ticks(100, 131), 31);
/// ```
#[derive(Debug, Default)]
pub struct Monotonic(AtomicU64);

impl Monotonic {
    /// Nothing was counted yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Ticks from `start` to `now`, two values of a counter of 64 bits. A counter
    /// that goes back stands still until it is where it was.
    pub fn ticks(&self, start: u64, now: u64) -> u64 {
        let ticks = now.wrapping_sub(start);
        // Before the start, where the difference is negative.
        let ticks = if ticks > u64::MAX / 2 { 0 } else { ticks };
        self.0.fetch_max(ticks, Ordering::Relaxed).max(ticks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_goes_back_stands_still_until_it_is_where_it_was() {
        let latest = Monotonic::new();
        let counted = [5, 9, 7, 3, 9, 10].map(|now| latest.ticks(3, now));
        assert_eq!(counted, [2, 6, 6, 6, 6, 7]);
    }

    #[test]
    fn a_value_from_before_the_start_is_no_time_and_the_end_of_64_bits_is_none() {
        let latest = Monotonic::new();
        assert_eq!(latest.ticks(1000, 999), 0);
        assert_eq!(latest.ticks(1000, 0), 0);
        let latest = Monotonic::new();
        assert_eq!(latest.ticks(u64::MAX - 4, 5), 10);
        assert_eq!(latest.ticks(u64::MAX - 4, u64::MAX), 10);
    }
}

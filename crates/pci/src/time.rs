//! Time: what waits for hardware needs of it.

use core::time::Duration;

/// A monotonic clock.
pub trait Clock {
    /// The time since a fixed moment.
    ///
    /// It may stand still: every loop that waits for a moment also counts its
    /// rounds.
    fn now(&mut self) -> Duration;

    /// Waits for about `duration`.
    fn wait(&mut self, duration: Duration);
}

/// Retries with exponential back-off, until a timeout.
///
/// PCIe 2.3.1 allows a function one second after a reset before it must
/// answer. The first waits are short, since most functions are ready long
/// before that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    start: Duration,
    timeout: Duration,
    wait: Duration,
    rounds: u32,
}

impl Backoff {
    const FIRST_WAIT: Duration = Duration::from_millis(1);
    const MAX_WAIT: Duration = Duration::from_millis(100);

    /// Retries until `timeout` after `start`; at most `max_rounds` times,
    /// should the clock stand still.
    pub(crate) const fn new(start: Duration, timeout: Duration, max_rounds: u32) -> Self {
        Self {
            start,
            timeout,
            wait: Self::FIRST_WAIT,
            rounds: max_rounds,
        }
    }

    /// Waits before the next round. Returns `false` at once where there is
    /// none.
    pub(crate) fn wait(&mut self, clock: &mut impl Clock) -> bool {
        let left = self.timeout.saturating_sub(self.elapsed(clock));
        if left.is_zero() || self.rounds == 0 {
            return false;
        }
        self.rounds -= 1;
        clock.wait(self.wait.min(left));
        self.wait = (self.wait * 2).min(Self::MAX_WAIT);
        true
    }

    /// Whether a round that began in time has taken so long that it is to be
    /// ended.
    pub(crate) fn is_overdue(&self, clock: &mut impl Clock) -> bool {
        self.elapsed(clock) > self.timeout.saturating_add(Self::MAX_WAIT)
    }

    fn elapsed(&self, clock: &mut impl Clock) -> Duration {
        clock.now().saturating_sub(self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// A clock on which only waiting takes time, `speed` times as much as was
    /// asked for, with all waits.
    struct Recorder {
        now: Duration,
        speed: u32,
        waits: Vec<u128>,
    }

    impl Clock for Recorder {
        fn now(&mut self) -> Duration {
            self.now
        }

        fn wait(&mut self, duration: Duration) {
            self.waits.push(duration.as_millis());
            self.now += duration * self.speed;
        }
    }

    fn waits(speed: u32, timeout: u64, max_rounds: u32) -> Vec<u128> {
        let start = Duration::from_secs(7);
        let mut clock = Recorder {
            now: start,
            speed,
            waits: Vec::new(),
        };
        let mut backoff = Backoff::new(start, Duration::from_millis(timeout), max_rounds);
        while backoff.wait(&mut clock) {}
        clock.waits
    }

    #[test]
    fn waits_double_up_to_the_longest_and_end_at_the_timeout() {
        let expected = [1, 2, 4, 8, 16, 32, 64, 100, 100, 73];
        assert_eq!(waits(1, 400, 64), expected);
    }

    #[test]
    fn a_clock_that_stands_still_ends_after_the_last_round() {
        assert_eq!(waits(0, 400, 9).len(), 9);
    }

    #[test]
    fn nothing_is_waited_for_after_the_timeout() {
        assert_eq!(waits(1, 0, 64), []);
        assert_eq!(waits(400, 400, 64), [1]);
    }

    #[test]
    fn a_round_is_overdue_one_longest_wait_after_the_timeout() {
        let backoff = Backoff::new(Duration::ZERO, Duration::from_secs(1), 1);
        for (milliseconds, is_overdue) in [(0, false), (1100, false), (1101, true)] {
            let mut clock = Recorder {
                now: Duration::from_millis(milliseconds),
                speed: 1,
                waits: Vec::new(),
            };
            assert_eq!(backoff.is_overdue(&mut clock), is_overdue, "{milliseconds}");
        }
    }
}

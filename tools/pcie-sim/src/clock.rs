//! Simulated time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use warmbus_pci::time::Clock;

/// One nanosecond times a thousand: for readable figures.
pub const MICROSECOND: u64 = 1_000;
/// A millisecond in nanoseconds.
pub const MILLISECOND: u64 = 1_000_000;
/// A second in nanoseconds.
pub const SECOND: u64 = 1_000_000_000;

/// The clock of a fabric: a handle, all clones of which show the same time.
///
/// It advances with every configuration access, by [`Clock::wait`] and by
/// [`SimulatedClock::advance`], never by itself.
#[derive(Clone, Debug, Default)]
pub struct SimulatedClock {
    now: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
}

impl SimulatedClock {
    /// Nanoseconds since power-on, also where the clock does not show them.
    pub fn time(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// Lets `nanoseconds` pass.
    pub fn advance(&self, nanoseconds: u64) {
        // A plain load and store: there is one user at a time, and a locked
        // addition would cost more than the access it accounts for.
        let now = self.time().saturating_add(nanoseconds);
        self.now.store(now, Ordering::Relaxed);
    }

    /// Stops the clock: from now on `now` is always 0 and `wait` returns at
    /// once, as with a counter that nobody started.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

impl Clock for SimulatedClock {
    fn now(&mut self) -> Duration {
        let now = if self.is_stopped() { 0 } else { self.time() };
        Duration::from_nanos(now)
    }

    fn wait(&mut self, duration: Duration) {
        if !self.is_stopped() {
            self.advance(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_handles_show_the_same_time_and_a_stopped_clock_shows_none() {
        let clock = SimulatedClock::default();
        let mut other = clock.clone();
        other.wait(Duration::from_secs(5));
        assert_eq!(clock.time(), 5 * SECOND);
        clock.stop();
        other.wait(Duration::from_secs(1));
        assert_eq!((other.now(), other.time()), (Duration::ZERO, 5 * SECOND));
    }
}

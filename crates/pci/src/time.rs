//! Time, as far as the thinking half needs it: deadlines and back-off.

/// A monotonic clock.
pub trait Clock {
    /// Nanoseconds since some fixed moment.
    ///
    /// It may stand still: every loop that waits for a moment also counts its
    /// rounds.
    fn now(&mut self) -> u64;

    /// Lets about `nanoseconds` pass.
    fn wait(&mut self, nanoseconds: u64);
}

//! Measures how much of the time goes into configuration accesses.

use warmbus_pci::{AccessFault, ConfigAccess, ConfigOffset, Sbdf, Width};

use crate::arch::timer::Timer;

/// A [`ConfigAccess`] that sums up the timer ticks that its accesses take.
pub(crate) struct TimedAccess<A> {
    access: A,
    timer: Timer,
    ticks: u64,
}

impl<A> TimedAccess<A> {
    pub(crate) fn new(access: A, timer: Timer) -> Self {
        Self {
            access,
            timer,
            ticks: 0,
        }
    }

    /// What is timed.
    pub(crate) const fn access(&self) -> &A {
        &self.access
    }

    /// Adds `ticks` that accesses took which were made past this.
    pub(crate) const fn add(&mut self, ticks: u64) {
        self.ticks += ticks;
    }

    /// Ticks that accesses took so far.
    pub(crate) fn ticks(&self) -> u64 {
        self.ticks
    }
}

impl<A: ConfigAccess> ConfigAccess for TimedAccess<A> {
    fn read(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
        let start = self.timer.ticks();
        let value = self.access.read(function, offset, width);
        self.ticks += self.timer.ticks() - start;
        value
    }

    fn write(&mut self, function: Sbdf, offset: ConfigOffset, width: Width, value: u32) {
        let start = self.timer.ticks();
        self.access.write(function, offset, width, value);
        self.ticks += self.timer.ticks() - start;
    }

    fn take_fault(&mut self) -> Option<AccessFault> {
        self.access.take_fault()
    }
}

//! Time, from the generic timer of the processor.

use core::time::Duration;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTVCT_EL0};
use tock_registers::interfaces::Readable;
use warmbus_boot::measured_access::Ticks;
use warmbus_pci::time::Clock;

const NANOSECONDS: u64 = 1_000_000_000;

/// The system counter. It stands still at 0 where its frequency is unknown.
#[derive(Clone, Copy)]
pub(crate) struct Timer {
    start: u64,
    frequency: u64,
}

impl Timer {
    /// Starts to count now, at the frequency that the processor gives.
    pub(crate) fn start() -> Self {
        Self {
            start: counter(),
            // The upper half is RES0.
            frequency: CNTFRQ_EL0.get() & 0xffff_ffff,
        }
    }

    /// The same timer, with `frequency` ticks a second where it is given.
    pub(crate) fn with_frequency(self, frequency: Option<u32>) -> Self {
        Self {
            frequency: frequency.map_or(self.frequency, u64::from),
            ..self
        }
    }

    /// Ticks a second; 0 where it is not known.
    pub(crate) const fn frequency(&self) -> u64 {
        self.frequency
    }

    /// Nanoseconds since the start.
    pub(crate) fn nanoseconds(&self) -> u64 {
        self.to_nanoseconds(self.ticks())
    }
}

/// A number that does not repeat while the machine has power.
pub(crate) fn stamp() -> u64 {
    counter()
}

fn counter() -> u64 {
    // Without it the counter may be read ahead of what comes before.
    barrier::isb(barrier::SY);
    CNTVCT_EL0.get()
}

impl Ticks for Timer {
    /// Ticks since the start.
    fn ticks(&self) -> u64 {
        counter().wrapping_sub(self.start)
    }

    fn to_nanoseconds(&self, ticks: u64) -> u64 {
        let seconds = ticks.checked_div(self.frequency).unwrap_or(0);
        let rest = ticks.checked_rem(self.frequency).unwrap_or(0);
        // No overflow: the frequency, and so the rest, has 32 bits.
        let below = (rest * NANOSECONDS).checked_div(self.frequency);
        seconds
            .saturating_mul(NANOSECONDS)
            .saturating_add(below.unwrap_or(0))
    }
}

impl Clock for Timer {
    fn now(&mut self) -> Duration {
        Duration::from_nanos(self.nanoseconds())
    }

    fn wait(&mut self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let end = self.nanoseconds().saturating_add(nanoseconds);
        // A round takes more than four nanoseconds, so a running clock ends
        // the loop first; one that stands still does not keep it running.
        for _ in 0..=nanoseconds / 4 {
            if self.nanoseconds() >= end {
                return;
            }
            core::hint::spin_loop();
        }
    }
}

//! Time, from the generic timer of the processor.

use core::time::Duration;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTVCT_EL0};
use tock_registers::interfaces::Readable;
use warmbus_boot::measured_access::Ticks;
use warmbus_boot::monotonic::Monotonic;
use warmbus_pci::time::Clock;

const NANOSECONDS: u64 = 1_000_000_000;

/// The most ticks that any timer has counted, all of which start with the
/// program.
static LATEST: Monotonic = Monotonic::new();

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

    /// The same, where the counter was `entry` when the program was entered. That
    /// was read once, and so is not believed if it is more than a second ago.
    pub(crate) fn start_at(entry: u64) -> Self {
        let now = Self::start();
        let is_near = now.start.wrapping_sub(entry) <= now.frequency;
        Self {
            start: if is_near { entry } else { now.start },
            ..now
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

/// Reads the counter until two values are close together. On some processors a
/// single read may return a value from far away (`fsl,erratum-a008585`,
/// `hisilicon,erratum-161010101`, `allwinner,erratum-unknown1`).
fn counter() -> u64 {
    /// Ticks that two reads are apart at most, unless something interrupts them.
    const CLOSE: u64 = 1 << 8;
    /// Reads for one value, most of them only where the counter is wrong.
    const MAX_READS: usize = 8;
    // Without it the counter may be read ahead of what comes before.
    barrier::isb(barrier::SY);
    let mut last = CNTVCT_EL0.get();
    for _ in 1..MAX_READS {
        let now = CNTVCT_EL0.get();
        if now.wrapping_sub(last) < CLOSE {
            return now;
        }
        last = now;
    }
    last
}

impl Ticks for Timer {
    /// Ticks since the start. A counter that goes back stands still until it is
    /// where it was.
    fn ticks(&self) -> u64 {
        LATEST.ticks(self.start, counter())
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

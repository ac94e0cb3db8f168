//! What every configuration access of a boot passes on its way to the
//! hardware: a counter, the values that other cores have read, a stopwatch.

use alloc::vec::Vec;

use warmbus_pci::{
    AccessCounts, AccessFault, ConfigAccess, ConfigOffset, ConfigRead, CountingAccess,
    PrefetchedAccess, ReadResult, Sbdf, Width,
};

/// A counter that measures how long something takes, in its own unit.
pub trait Ticks: Clone {
    /// Ticks since some fixed moment; it may stand still. Where the counter goes
    /// back, what is measured takes no time.
    fn ticks(&self) -> u64;

    /// Nanoseconds in `ticks`; 0 where that is not known.
    fn to_nanoseconds(&self, ticks: u64) -> u64;
}

/// No counter: nothing takes any time.
impl Ticks for () {
    fn ticks(&self) -> u64 {
        0
    }

    fn to_nanoseconds(&self, _ticks: u64) -> u64 {
        0
    }
}

/// A [`ConfigAccess`] that counts and times the accesses to `A`, and returns
/// values that were read ahead instead of reading them again.
///
/// From the outside in: every read is counted, by whatever core it was made; a value that
/// was read ahead ends there; what is left reaches the hardware, and the time
/// that takes is added up.
#[derive(Debug)]
pub struct MeasuredAccess<A, T = ()> {
    counted: CountingAccess<PrefetchedAccess<TimedAccess<A, T>>>,
}

impl<A: ConfigAccess, T: Ticks> MeasuredAccess<A, T> {
    /// Measures the accesses to `hardware` from now on, with the counter
    /// `ticks`.
    pub fn new(hardware: A, ticks: T) -> Self {
        let timed = TimedAccess {
            access: hardware,
            counter: ticks,
            ticks: 0,
        };
        Self {
            counted: CountingAccess::new(PrefetchedAccess::new(timed)),
        }
    }

    fn timed(&self) -> &TimedAccess<A, T> {
        self.counted.access().access()
    }

    fn timed_mut(&mut self) -> &mut TimedAccess<A, T> {
        self.counted.access_mut().access_mut()
    }

    /// The hardware.
    pub fn hardware(&self) -> &A {
        &self.timed().access
    }

    /// The hardware; accesses made there are neither counted nor timed.
    pub fn hardware_mut(&mut self) -> &mut A {
        &mut self.timed_mut().access
    }

    /// Ticks that accesses to the hardware have taken so far.
    pub fn ticks(&self) -> u64 {
        self.timed().ticks
    }

    /// The counter of those ticks.
    pub fn counter(&self) -> &T {
        &self.timed().counter
    }

    /// Accesses that reached the hardware so far, those of other cores
    /// included, whether their values were used or not.
    pub fn counts(&self) -> AccessCounts {
        let mut counts = self.counted.counts();
        counts.reads += self.counted.access().discarded();
        counts
    }

    /// How often the dword at `offset` of `function` was read, as
    /// [`CountingAccess::dword_read_count`] has it.
    pub fn dword_read_count(&self, function: Sbdf, offset: ConfigOffset) -> u8 {
        self.counted.dword_read_count(function, offset)
    }

    /// Loads what other cores have read, in `ticks` ticks, as
    /// [`ReadBatches::into_results`](warmbus_pci::ReadBatches::into_results)
    /// returns it.
    pub fn load_prefetched(&mut self, results: Vec<(ConfigRead, ReadResult)>, ticks: u64) {
        self.timed_mut().ticks += ticks;
        self.counted.access_mut().load(results);
    }

    /// Discards what other cores have read and nothing has used.
    pub fn discard_prefetched(&mut self) {
        self.counted.access_mut().discard();
    }
}

impl<A: ConfigAccess, T: Ticks> ConfigAccess for MeasuredAccess<A, T> {
    fn read(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
        self.counted.read(function, offset, width)
    }

    fn write(&mut self, function: Sbdf, offset: ConfigOffset, width: Width, value: u32) {
        self.counted.write(function, offset, width, value);
    }

    fn narrowest_read(&self, function: Sbdf) -> Width {
        self.counted.narrowest_read(function)
    }

    fn take_fault(&mut self) -> Option<AccessFault> {
        self.counted.take_fault()
    }
}

/// Adds up the ticks that accesses take.
#[derive(Debug)]
struct TimedAccess<A, T> {
    access: A,
    counter: T,
    ticks: u64,
}

impl<A: ConfigAccess, T: Ticks> ConfigAccess for TimedAccess<A, T> {
    fn read(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
        let start = self.counter.ticks();
        let value = self.access.read(function, offset, width);
        self.ticks += self.counter.ticks().saturating_sub(start);
        value
    }

    fn write(&mut self, function: Sbdf, offset: ConfigOffset, width: Width, value: u32) {
        let start = self.counter.ticks();
        self.access.write(function, offset, width, value);
        self.ticks += self.counter.ticks().saturating_sub(start);
    }

    fn narrowest_read(&self, function: Sbdf) -> Width {
        self.access.narrowest_read(function)
    }

    fn take_fault(&mut self) -> Option<AccessFault> {
        self.access.take_fault()
    }
}

//! What every configuration access of a boot passes on its way to the
//! hardware: a counter and a stopwatch.

use warmbus_pci::{
    AccessCounts, AccessFault, ConfigAccess, ConfigOffset, CountingAccess, Sbdf, Width,
};

/// A counter that measures the time of something, in its own unit.
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

/// A [`ConfigAccess`] that counts and times the accesses to `A`.
#[derive(Debug)]
pub struct MeasuredAccess<A, T = ()> {
    counted: CountingAccess<TimedAccess<A, T>>,
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
            counted: CountingAccess::new(timed),
        }
    }

    fn timed(&self) -> &TimedAccess<A, T> {
        self.counted.access()
    }

    fn timed_mut(&mut self) -> &mut TimedAccess<A, T> {
        self.counted.access_mut()
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

    /// Accesses that reached the hardware so far.
    pub fn counts(&self) -> AccessCounts {
        self.counted.counts()
    }

    /// How often the dword at `offset` of `function` was read, as
    /// [`CountingAccess::dword_read_count`] has it.
    pub fn dword_read_count(&self, function: Sbdf, offset: ConfigOffset) -> u8 {
        self.counted.dword_read_count(function, offset)
    }

    /// The dwords of `function` that were read more than once, as
    /// [`CountingAccess::repeated_reads`] has them.
    pub fn repeated_reads(&self, function: Sbdf) -> impl Iterator<Item = (ConfigOffset, u8)> {
        self.counted.repeated_reads(function)
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

//! Counts what reaches the hardware.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

use super::{AccessFault, ConfigAccess, ConfigOffset, Sbdf, Width, registers};

/// Number of hardware accesses by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccessCounts {
    /// All reads, absent probes included.
    pub reads: u64,
    /// All writes.
    pub writes: u64,
    /// Reads of a Vendor ID that nobody answered.
    pub absent_probes: u64,
    /// Reads of a dword that was written since it was last read: sizing, and
    /// checks whether a value sticks.
    pub read_backs: u64,
}

/// How often each dword of one function was read, and whether it was written
/// since.
#[derive(Clone, Debug)]
struct Reads {
    /// Saturating; of dwords read again after a write only the first counts.
    times: Box<[u8]>,
    written: Box<[u8]>,
}

const DWORDS: usize = ConfigOffset::END as usize / 4;

impl Reads {
    fn new() -> Self {
        Self {
            times: Box::new([0; DWORDS]),
            written: Box::new([0; DWORDS / 8]),
        }
    }
}

/// A [`ConfigAccess`] that counts every access.
#[derive(Debug)]
pub struct Counted<A> {
    access: A,
    counts: AccessCounts,
    reads: BTreeMap<Sbdf, Reads>,
}

impl<A: ConfigAccess> Counted<A> {
    /// Counts the accesses to `access` from now on.
    pub fn new(access: A) -> Self {
        Self {
            access,
            counts: AccessCounts::default(),
            reads: BTreeMap::new(),
        }
    }

    /// What is counted.
    pub fn access(&self) -> &A {
        &self.access
    }

    /// What is counted; accesses made there are not.
    pub fn access_mut(&mut self) -> &mut A {
        &mut self.access
    }

    /// The counts so far.
    pub fn counts(&self) -> AccessCounts {
        self.counts
    }

    /// How often the dword at `offset` of `function` was read, reads after a
    /// write to it left out; 255 stands for more.
    pub fn reads_of_dword(&self, function: Sbdf, offset: ConfigOffset) -> u8 {
        self.reads
            .get(&function)
            .map_or(0, |reads| reads.times[offset.index() / 4])
    }
}

impl<A: ConfigAccess> ConfigAccess for Counted<A> {
    fn read(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
        let value = self.access.read(function, offset, width);
        self.counts.reads += 1;
        let reads_vendor_id = offset.get() == registers::VENDOR_ID && width != Width::Byte;
        if reads_vendor_id && value == width.ones() {
            self.counts.absent_probes += 1;
            return value;
        }
        let reads = self.reads.entry(function).or_insert_with(Reads::new);
        let dword = offset.index() / 4;
        let written = &mut reads.written[dword / 8];
        let was_written = *written >> (dword % 8) & 1 != 0;
        *written &= !(1 << (dword % 8));
        let times = &mut reads.times[dword];
        self.counts.read_backs += u64::from(was_written);
        if !was_written || *times == 0 {
            *times = times.saturating_add(1);
        }
        value
    }

    fn write(&mut self, function: Sbdf, offset: ConfigOffset, width: Width, value: u32) {
        self.counts.writes += 1;
        let reads = self.reads.entry(function).or_insert_with(Reads::new);
        let dword = offset.index() / 4;
        reads.written[dword / 8] |= 1 << (dword % 8);
        self.access.write(function, offset, width, value);
    }

    fn take_fault(&mut self) -> Option<AccessFault> {
        self.access.take_fault()
    }
}

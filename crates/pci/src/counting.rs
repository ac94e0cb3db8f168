//! Counts what reaches the hardware.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::sbdf_map::SbdfMap;
use super::{AccessFault, ConfigAccess, ConfigOffset, Sbdf, Width, registers};

/// Number of hardware accesses by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccessCounts {
    /// All reads, absent probes included.
    pub reads: u64,
    /// All writes.
    pub writes: u64,
    /// Reads of a Vendor ID that no function answered.
    pub absent_probes: u64,
    /// Reads of a dword that was written since it was last read: sizing, and
    /// checks whether a value sticks.
    pub read_backs: u64,
}

/// How often each dword of one function was read, and whether it was written
/// since. Nearly all are read once.
#[derive(Clone, Debug, Default)]
struct Reads {
    /// Dwords that were read at least once.
    once: Dwords,
    written: Dwords,
    /// Dwords that were read more often, and how often; saturating. Of those
    /// read again after a write only the first read counts.
    times: BTreeMap<u16, u8>,
}

impl Reads {
    fn times(&self, dword: u16) -> u8 {
        let more = self.times.get(&dword).copied();
        more.unwrap_or(u8::from(self.once.contains(dword)))
    }

    fn count(&mut self, dword: u16) {
        if self.once.insert(dword) {
            let times = self.times.entry(dword).or_insert(1);
            *times = times.saturating_add(1);
        }
    }
}

/// A set of dwords of configuration space, in 128 bytes as far as it reaches.
#[derive(Clone, Debug, Default)]
struct Dwords(Vec<u64>);

impl Dwords {
    fn contains(&self, dword: u16) -> bool {
        let word = self.0.get(usize::from(dword / 64));
        word.is_some_and(|word| word >> (dword % 64) & 1 != 0)
    }

    /// Returns whether it was in the set.
    fn insert(&mut self, dword: u16) -> bool {
        let index = usize::from(dword / 64);
        if self.0.len() <= index {
            self.0.resize(index + 1, 0);
        }
        let was_there = self.contains(dword);
        self.0[index] |= 1 << (dword % 64);
        was_there
    }

    /// Returns whether it was in the set.
    fn remove(&mut self, dword: u16) -> bool {
        let was_there = self.contains(dword);
        if let Some(word) = self.0.get_mut(usize::from(dword / 64)) {
            *word &= !(1 << (dword % 64));
        }
        was_there
    }
}

/// A [`ConfigAccess`] that counts every access.
#[derive(Debug)]
pub struct CountingAccess<A> {
    access: A,
    counts: AccessCounts,
    reads: SbdfMap<Reads>,
}

impl<A: ConfigAccess> CountingAccess<A> {
    /// Counts the accesses to `access` from now on.
    pub fn new(access: A) -> Self {
        Self {
            access,
            counts: AccessCounts::default(),
            reads: SbdfMap::new(),
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

    /// How often the dword at `offset` of `function` was read, not counting
    /// reads after a write to it; 255 stands for more.
    pub fn dword_read_count(&self, function: Sbdf, offset: ConfigOffset) -> u8 {
        self.reads
            .get(function)
            .map_or(0, |reads| reads.times(offset.get() / 4))
    }

    /// The dwords of `function` that were read more than once, and how often, as
    /// [`dword_read_count`](Self::dword_read_count) has it.
    pub fn repeated_reads(&self, function: Sbdf) -> impl Iterator<Item = (ConfigOffset, u8)> {
        let reads = self.reads.get(function).into_iter();
        let times = reads.flat_map(|reads| &reads.times);
        times.map(|(dword, times)| (ConfigOffset::wrapping(dword * 4), *times))
    }
}

impl<A: ConfigAccess> ConfigAccess for CountingAccess<A> {
    fn read(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
        let value = self.access.read(function, offset, width);
        self.counts.reads += 1;
        let reads_vendor_id = offset.get() == registers::VENDOR_ID && width != Width::Byte;
        if reads_vendor_id && value == width.ones() {
            self.counts.absent_probes += 1;
            return value;
        }
        let reads = self.reads.get_or_insert_with(function, Reads::default);
        let dword = offset.get() / 4;
        let was_written = reads.written.remove(dword);
        self.counts.read_backs += u64::from(was_written);
        if !was_written || reads.times(dword) == 0 {
            reads.count(dword);
        }
        value
    }

    fn write(&mut self, function: Sbdf, offset: ConfigOffset, width: Width, value: u32) {
        self.counts.writes += 1;
        let reads = self.reads.get_or_insert_with(function, Reads::default);
        reads.written.insert(offset.get() / 4);
        self.access.write(function, offset, width, value);
    }

    fn narrowest_read(&self, function: Sbdf) -> Width {
        self.access.narrowest_read(function)
    }

    fn take_fault(&mut self) -> Option<AccessFault> {
        self.access.take_fault()
    }
}

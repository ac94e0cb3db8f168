//! Configuration reads that several cores make in parallel, in advance.
//!
//! A configuration read stalls the core that makes it until the completion is
//! back, so that one core cannot have two of them in flight. Functions behind
//! different root ports do not wait for each other: their reads are put into
//! one batch a root port, cores take batches from [`ReadBatches`] until none is
//! left, and [`PrefetchedAccess`] returns the values as if they were read then.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::iter;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::{AccessFault, ConfigAccess, ConfigOffset, Sbdf, Topology, Width};
use core::cmp::Reverse;

/// One read of configuration space that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigRead {
    /// The function.
    pub function: Sbdf,
    /// Where in its space, naturally aligned.
    pub offset: ConfigOffset,
    /// How many bytes.
    pub width: Width,
}

/// The result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadResult {
    /// The value, in the low bits.
    Value(u32),
    /// The machine refused the access; it reads as all ones.
    Fault,
}

/// Reads that one core makes in order.
#[derive(Debug)]
struct Batch {
    reads: Vec<ConfigRead>,
    /// Bit 32 is set where the read was made and bit 33 where it ended in a
    /// fault; the value is below.
    results: Vec<AtomicU64>,
}

const MADE: u64 = 1 << 32;
const FAULT: u64 = 1 << 33;

/// Batches of reads, each of which one core makes in order.
///
/// No core waits for another: a core takes the next batch by one atomic
/// addition. The results do not depend on which core made a batch, or when.
#[derive(Debug)]
pub struct ReadBatches {
    batches: Vec<Batch>,
    next: AtomicUsize,
}

impl ReadBatches {
    /// The longest of `batches` are taken first, so that no core is left alone
    /// with one at the end.
    pub fn new(batches: Vec<Vec<ConfigRead>>) -> Self {
        let mut batches: Vec<Batch> = batches
            .into_iter()
            .filter(|reads| !reads.is_empty())
            .map(|reads| Batch {
                results: iter::repeat_with(AtomicU64::default)
                    .take(reads.len())
                    .collect(),
                reads,
            })
            .collect();
        // The longest first.
        batches.sort_by_key(|batch| Reverse(batch.reads.len()));
        Self {
            batches,
            next: AtomicUsize::new(0),
        }
    }

    /// Number of batches, which is also how many cores can be used.
    pub fn batches(&self) -> usize {
        self.batches.len()
    }

    /// Number of reads in all batches.
    pub fn reads(&self) -> usize {
        self.batches.iter().map(|batch| batch.reads.len()).sum()
    }

    /// Takes batches until there is none left, and makes their reads by `read`.
    ///
    /// After a fault the other reads of the same function are skipped: they are
    /// made when their values are needed.
    pub fn work(&self, read: impl Fn(ConfigRead) -> ReadResult) {
        while let Some(batch) = self.batches.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let mut faulty = None;
            for (&wanted, slot) in batch.reads.iter().zip(&batch.results) {
                if faulty == Some(wanted.function) {
                    continue;
                }
                let bits = match read(wanted) {
                    ReadResult::Value(value) => MADE | u64::from(value),
                    ReadResult::Fault => {
                        faulty = Some(wanted.function);
                        MADE | FAULT
                    }
                };
                slot.store(bits, Ordering::Release);
            }
        }
    }

    /// The reads that were made, by function, those of one function in the
    /// order of its batch. To be called when no core works any more.
    pub fn into_results(self) -> Vec<(ConfigRead, ReadResult)> {
        let mut made: Vec<(ConfigRead, ReadResult)> = self
            .batches
            .into_iter()
            .flat_map(|batch| batch.reads.into_iter().zip(batch.results))
            .filter_map(|(read, slot)| {
                let bits = slot.load(Ordering::Acquire);
                let result = if bits & FAULT == 0 {
                    ReadResult::Value(bits as u32)
                } else {
                    ReadResult::Fault
                };
                (bits & MADE != 0).then_some((read, result))
            })
            .collect();
        made.sort_by_key(|(read, _)| read.function);
        made
    }
}

/// Groups the reads that `reads` returns for each function of `topology` into
/// one batch for each function on a root bus, with all that is behind it.
pub fn group_reads_by_root_port(
    topology: &Topology,
    mut reads: impl FnMut(Sbdf) -> Vec<ConfigRead>,
) -> Vec<Vec<ConfigRead>> {
    let mut batches: Vec<Vec<ConfigRead>> = Vec::new();
    // Batch of each function, by its index: a parent comes before its children.
    let mut batch_of = Vec::with_capacity(topology.functions.len());
    for function in &topology.functions {
        let above = function.parent.and_then(|parent| batch_of.get(parent));
        let batch = above.copied().unwrap_or_else(|| {
            batches.push(Vec::new());
            batches.len() - 1
        });
        batch_of.push(batch);
        batches[batch].extend(reads(function.sbdf));
    }
    batches
}

/// A [`ConfigAccess`] that returns results of reads which were made in advance,
/// and makes all others.
///
/// Each result is used once, and only while nothing is written: a write
/// discards all of them, since what it changes is not known here.
#[derive(Debug)]
pub struct PrefetchedAccess<A> {
    access: A,
    results: VecDeque<(ConfigRead, ReadResult)>,
    faults: VecDeque<AccessFault>,
    discarded: u64,
}

impl<A: ConfigAccess> PrefetchedAccess<A> {
    /// Access without results of earlier reads.
    pub fn new(access: A) -> Self {
        Self {
            access,
            results: VecDeque::new(),
            faults: VecDeque::new(),
            discarded: 0,
        }
    }

    /// The access underneath.
    pub fn access(&self) -> &A {
        &self.access
    }

    /// The access underneath. Results stay valid whatever is written there.
    pub fn access_mut(&mut self) -> &mut A {
        &mut self.access
    }

    /// Loads results as [`ReadBatches::into_results`] returns them; the reads
    /// are expected in the same order. Results that were loaded before are
    /// discarded.
    pub fn load(&mut self, results: Vec<(ConfigRead, ReadResult)>) {
        self.discard();
        self.results = results.into();
    }

    /// Discards the results that are left.
    pub fn discard(&mut self) {
        self.discarded += self.results.len() as u64;
        self.results.clear();
    }

    /// How many results were discarded so far: reads of the hardware that no
    /// access above has counted.
    pub const fn discarded(&self) -> u64 {
        self.discarded
    }

    fn take(&mut self, wanted: ConfigRead) -> Option<ReadResult> {
        // A function that stopped answering leaves results behind.
        while self.results.front()?.0.function < wanted.function {
            self.results.pop_front();
            self.discarded += 1;
        }
        if self.results.front()?.0 != wanted {
            return None;
        }
        self.results.pop_front().map(|(_, result)| result)
    }
}

impl<A: ConfigAccess> ConfigAccess for PrefetchedAccess<A> {
    fn read(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
        let wanted = ConfigRead {
            function,
            offset,
            width,
        };
        match self.take(wanted) {
            Some(ReadResult::Value(value)) => value,
            Some(ReadResult::Fault) => {
                self.faults.push_back(AccessFault { function, offset });
                width.ones()
            }
            None => self.access.read(function, offset, width),
        }
    }

    fn write(&mut self, function: Sbdf, offset: ConfigOffset, width: Width, value: u32) {
        self.discard();
        self.access.write(function, offset, width, value);
    }

    fn narrowest_read(&self, function: Sbdf) -> Width {
        self.access.narrowest_read(function)
    }

    fn take_fault(&mut self) -> Option<AccessFault> {
        self.faults.pop_front().or_else(|| self.access.take_fault())
    }
}

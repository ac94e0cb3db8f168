//! Reads that several cores make together, ahead of whoever wants the values.
//!
//! A configuration read stalls the core that makes it until the completion is
//! back, so that one core cannot have two of them under way. Functions behind
//! different root ports do not wait for each other: their reads are put into
//! one list a root port, cores take lists from a [`ReadBatches`] until none is
//! left, and [`PrefetchedAccess`] hands out the values as if they were read now.

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

/// What came of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadResult {
    /// The value, in the low bits.
    Value(u32),
    /// The machine refused the access; it reads as all ones.
    Fault,
}

/// The reads of one core at a time.
#[derive(Debug)]
struct List {
    reads: Vec<ConfigRead>,
    /// Bit 32 is set where the read was made and bit 33 where it ended in a
    /// fault; the value is below.
    answers: Vec<AtomicU64>,
}

const MADE: u64 = 1 << 32;
const FAULT: u64 = 1 << 33;

/// Lists of reads, of which each is made by one core, in its order.
///
/// Nobody waits for anybody: a core takes the next list by one atomic
/// addition. Who made a list and when does not show in the answers.
#[derive(Debug)]
pub struct ReadBatches {
    lists: Vec<List>,
    next: AtomicUsize,
}

impl ReadBatches {
    /// A queue of `lists`. The longest ones are taken first, so that no core
    /// is left alone with one at the end.
    pub fn new(lists: Vec<Vec<ConfigRead>>) -> Self {
        let mut lists: Vec<List> = lists
            .into_iter()
            .filter(|reads| !reads.is_empty())
            .map(|reads| List {
                answers: iter::repeat_with(AtomicU64::default)
                    .take(reads.len())
                    .collect(),
                reads,
            })
            .collect();
        // The longest first.
        lists.sort_by_key(|list| Reverse(list.reads.len()));
        Self {
            lists,
            next: AtomicUsize::new(0),
        }
    }

    /// Lists, which is also how many cores can have something to do.
    pub fn lists(&self) -> usize {
        self.lists.len()
    }

    /// Reads in all lists.
    pub fn reads(&self) -> usize {
        self.lists.iter().map(|list| list.reads.len()).sum()
    }

    /// Takes lists until there is none left, and makes their reads by `read`.
    ///
    /// After a fault the other reads of the same function are left out: it
    /// is for the one who wants the values to say whether they still matter.
    pub fn work(&self, read: impl Fn(ConfigRead) -> ReadResult) {
        while let Some(list) = self.lists.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let mut faulty = None;
            for (&wanted, slot) in list.reads.iter().zip(&list.answers) {
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
    /// order of its list. To be called when no core works any more.
    pub fn into_results(self) -> Vec<(ConfigRead, ReadResult)> {
        let mut made: Vec<(ConfigRead, ReadResult)> = self
            .lists
            .into_iter()
            .flat_map(|list| list.reads.into_iter().zip(list.answers))
            .filter_map(|(read, slot)| {
                let bits = slot.load(Ordering::Acquire);
                let answer = if bits & FAULT == 0 {
                    ReadResult::Value(bits as u32)
                } else {
                    ReadResult::Fault
                };
                (bits & MADE != 0).then_some((read, answer))
            })
            .collect();
        made.sort_by_key(|(read, _)| read.function);
        made
    }
}

/// Sorts the reads that `reads` names for each function of `topology` into one
/// list for each function on a root bus, with all that is behind it.
pub fn group_reads_by_root_port(
    topology: &Topology,
    mut reads: impl FnMut(Sbdf) -> Vec<ConfigRead>,
) -> Vec<Vec<ConfigRead>> {
    let mut lists: Vec<Vec<ConfigRead>> = Vec::new();
    // List of each function, by its index: a parent comes before its children.
    let mut list_of = Vec::with_capacity(topology.functions.len());
    for function in &topology.functions {
        let above = function.parent.and_then(|parent| list_of.get(parent));
        let list = above.copied().unwrap_or_else(|| {
            lists.push(Vec::new());
            lists.len() - 1
        });
        list_of.push(list);
        lists[list].extend(reads(function.sbdf));
    }
    lists
}

/// A [`ConfigAccess`] that answers from reads which were made ahead, and asks
/// the hardware for all others.
///
/// Each answer is given once, and only while nothing is written: a write drops
/// all of them, since what it changes is not known here.
#[derive(Debug)]
pub struct PrefetchedAccess<A> {
    access: A,
    answers: VecDeque<(ConfigRead, ReadResult)>,
    faults: VecDeque<AccessFault>,
    dropped: u64,
}

impl<A: ConfigAccess> PrefetchedAccess<A> {
    /// Nothing was read ahead yet.
    pub fn new(access: A) -> Self {
        Self {
            access,
            answers: VecDeque::new(),
            faults: VecDeque::new(),
            dropped: 0,
        }
    }

    /// The way to the hardware.
    pub fn access(&self) -> &A {
        &self.access
    }

    /// The way to the hardware. What is written there is not seen here.
    pub fn access_mut(&mut self) -> &mut A {
        &mut self.access
    }

    /// Takes what was read ahead: as [`ReadBatches::into_results`] returns it,
    /// to be asked for in the same order. Answers of earlier are dropped.
    pub fn load(&mut self, answers: Vec<(ConfigRead, ReadResult)>) {
        self.drop_answers();
        self.answers = answers.into();
    }

    /// Drops what nobody asked for.
    pub fn drop_answers(&mut self) {
        self.dropped += self.answers.len() as u64;
        self.answers.clear();
    }

    /// How many answers were dropped so far: reads that reached the hardware
    /// and that nobody above knows of.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    fn take(&mut self, wanted: ConfigRead) -> Option<ReadResult> {
        // A function that stopped answering leaves answers behind.
        while self.answers.front()?.0.function < wanted.function {
            self.answers.pop_front();
            self.dropped += 1;
        }
        if self.answers.front()?.0 != wanted {
            return None;
        }
        self.answers.pop_front().map(|(_, answer)| answer)
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
        self.drop_answers();
        self.access.write(function, offset, width, value);
    }

    fn take_fault(&mut self) -> Option<AccessFault> {
        self.faults.pop_front().or_else(|| self.access.take_fault())
    }
}

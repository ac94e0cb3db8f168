//! The counts of a recording.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use warmbus_cli::trace::{self, Access};

use crate::qemu::Log;

/// The accesses of one contender to configuration space, by QEMU's trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Reads, absent probes included.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Reads of a Vendor ID that nothing answered.
    pub absent_probes: u64,
    /// Microseconds from the first access to the one with which the last
    /// function answered for the first time. Depends on the machine that runs
    /// QEMU and on what else it does.
    pub find_all_microseconds: u64,
}

impl Measure {
    /// Reads and writes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.reads + self.writes
    }

    /// What repeats from run to run: all but the time.
    #[must_use]
    pub fn counts(&self) -> [u64; 3] {
        [self.reads, self.writes, self.absent_probes]
    }

    /// Counts the accesses number `first` to `end`, exclusively, of `log`.
    #[must_use]
    pub fn of(log: &Log, [first, end]: [usize; 2]) -> Self {
        let part: Vec<(Access, Option<Duration>)> = log.trace[first..end]
            .iter()
            .filter_map(|line| Some((Access::parse(line)?, trace::time(line))))
            .filter(|(access, _)| mark(access).is_none())
            .collect();
        let accesses: Vec<Access> = part.iter().map(|(access, _)| *access).collect();
        let counts = trace::counts(&accesses);
        let mut known = BTreeSet::new();
        let found = part
            .iter()
            .filter(|(access, _)| {
                access.finds_function() && known.insert((access.bus, access.devfn))
            })
            .filter_map(|(_, time)| *time)
            .last();
        let began = part.first().and_then(|(_, time)| *time);
        let elapsed = found
            .zip(began)
            .map(|(found, began)| found.saturating_sub(began));
        Self {
            reads: counts.reads,
            writes: counts.writes,
            absent_probes: accesses
                .iter()
                .filter(|access| access.is_absent_probe())
                .count() as u64,
            find_all_microseconds: elapsed.map_or(0, |time| time.as_micros() as u64),
        }
    }
}

/// The number of a mark that the test Linux leaves in the trace: the offset of a
/// read of one byte of the last function of the last bus, where no machine here
/// has any.
#[must_use]
pub fn mark(access: &Access) -> Option<u16> {
    ((access.bus, access.devfn, access.size) == (0xff, 0xff, 1)).then_some(access.offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: &[&str]) -> Log {
        let line = |(number, words): (usize, &&str)| {
            let [kind, rest] = words.split_once(' ').map(<[&str; 2]>::from).unwrap();
            let microseconds = number * 10;
            format!(
                "9@5.{microseconds:06}:memory_region_ops_{kind} cpu 0 mr 0x1 {rest} name 'pcie-mmcfg-mmio'"
            )
        };
        Log {
            trace: lines.iter().enumerate().map(line).collect(),
            ..Log::default()
        }
    }

    #[test]
    fn the_time_ends_where_the_last_function_answers_for_the_first_time() {
        let log = log(&[
            "read addr 0x0 value 0x81b36 size 4",
            "read addr 0x8000 value 0xffffffff size 4",
            "read addr 0x10000 value 0xc1b36 size 4",
            "write addr 0x10018 value 0x10100 size 4",
            "read addr 0x0 value 0x81b36 size 4",
            "read addr 0xffff001 value 0xff size 1",
        ]);
        let measure = Measure::of(&log, [0, 6]);
        assert_eq!(measure.counts(), [4, 1, 1], "the mark is not counted");
        assert_eq!(measure.find_all_microseconds, 20);
        assert_eq!(Measure::of(&log, [3, 5]).counts(), [1, 1, 0]);
        assert_eq!(Measure::of(&log, [2, 2]), Measure::default());
    }
}

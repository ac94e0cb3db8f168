//! A guest that is stopped where a part of its work ends, and what it had done by then.

use std::path::Path;

use anyhow::{Result, ensure};
use warmbus_cli::trace::Access;

use super::measure;
use super::time::{Counted, Firmware, Timed, Work};
use super::time_kernel::{Function, Kernel};
use crate::qemu::debugger::{Debugger, Registers};
use crate::qemu::{Log, Running};

/// Where the ECAM window of the machine is.
const ECAM: u64 = 0x40_1000_0000;

/// A machine that stands still until it is run to an address.
pub(super) struct Guest {
    running: Running,
    debugger: Debugger,
    /// The instructions before each mark.
    stops: Vec<u64>,
}

impl Guest {
    /// Has `running`, which stands still and whose debugger listens at `socket`.
    pub(super) fn new(running: Running, socket: &Path) -> Result<Self> {
        Ok(Self {
            running,
            debugger: Debugger::stop(socket)?,
            stops: Vec::new(),
        })
    }

    /// Notes where the guest is now. Returns the number of the note.
    pub(super) fn stop(&mut self) -> Result<usize> {
        let number = self.stops.len();
        self.stops.push(self.running.qmp()?.instructions()?);
        self.debugger.mark(ECAM, number as u16)?;
        Ok(number)
    }

    /// Runs to the instruction at `address`, and returns the registers there.
    pub(super) fn run_to(&mut self, address: u64) -> Result<Registers> {
        self.debugger.run_to(address)
    }

    /// Runs `kernel`, whose boot begins at `entry`, to its first process. Returns the
    /// notes: its beginning, the end of its function `set_up`, the first process.
    pub(super) fn linux(
        &mut self,
        kernel: &Kernel,
        entry: u64,
        set_up: Function,
    ) -> Result<[usize; 3]> {
        self.run_to(entry)?;
        let first = self.stop()?;
        let caller = self.run_to(kernel.at(set_up))?.link()?;
        self.run_to(caller)?;
        let pci = self.stop()?;
        self.run_to(kernel.at(Function::RunInitProcess))?;
        Ok([first, pci, self.stop()?])
    }

    /// Lets Linux create virtual functions `times` times. Returns the notes before and
    /// after each time.
    pub(super) fn vfs(&mut self, kernel: &Kernel, times: usize) -> Result<Vec<[usize; 2]>> {
        let times = (0..times).map(|_| {
            let caller = self.run_to(kernel.at(Function::CreateVfs))?.link()?;
            let before = self.stop()?;
            self.run_to(caller)?;
            Ok([before, self.stop()?])
        });
        times.collect()
    }

    /// Lets Linux start `count` virtual machines, whose monitor yields the processor
    /// before and after. Returns the notes before and after each piece of work: between
    /// two of them it waits.
    pub(super) fn machines(&mut self, kernel: &Kernel, count: u64) -> Result<Vec<[usize; 2]>> {
        let ends = [Function::Yield, Function::Sleep, Function::SleepRange];
        let ends = ends.map(|function| kernel.at(function));
        let [monitor, ..] = ends;
        let mut pieces = Vec::new();
        for _ in 0..count {
            self.run_to(monitor)?;
            loop {
                let begin = self.stop()?;
                // It is there now, and would stay there.
                self.debugger.step()?;
                let registers = self.debugger.run_to_one_of(&ends)?;
                pieces.push([begin, self.stop()?]);
                if registers.program_counter()? == monitor {
                    self.debugger.step()?;
                    break;
                }
                self.run_to(registers.link()?)?;
            }
        }
        Ok(pieces)
    }

    pub(super) fn end(mut self) -> Result<Parts> {
        let log = self.running.end()?.log;
        let parts = Parts::new(self.stops, &log);
        let (marks, stops) = (parts.accesses.len(), parts.instructions.len());
        ensure!(marks == stops, "{marks} marks in the trace of {stops}");
        Ok(parts)
    }
}

/// What had happened before each note.
pub(super) struct Parts {
    instructions: Vec<u64>,
    accesses: Vec<u64>,
    printed: Vec<u64>,
}

impl Parts {
    fn new(instructions: Vec<u64>, log: &Log) -> Self {
        let mut parts = Self {
            instructions,
            accesses: Vec::new(),
            printed: Vec::new(),
        };
        let mut accesses = 0;
        for (number, line) in log.trace.iter().enumerate() {
            let is_mark = Access::parse(line)
                .as_ref()
                .and_then(measure::mark)
                .is_some();
            if is_mark {
                let printed = log.printed.partition_point(|before| *before <= number);
                parts.accesses.push(accesses);
                parts.printed.push(printed as u64);
            } else {
                accesses += 1;
            }
        }
        parts
    }

    pub(super) fn between(&self, first: usize, last: usize) -> Work {
        Work {
            instructions: self.instructions[last] - self.instructions[first],
            accesses: self.accesses[last] - self.accesses[first],
        }
    }

    /// A boot of Linux with its notes, and those around each creation of virtual
    /// functions.
    pub(super) fn of_linux(&self, [first, pci, init]: [usize; 3], vfs: Option<Counted>) -> Timed {
        Timed {
            firmware: None,
            pci: self.between(first, pci),
            init: self.between(pci, init),
            vfs,
            slow: None,
        }
    }

    /// The same by a firmware that began at `start`.
    pub(super) fn behind_firmware(
        &self,
        start: usize,
        linux: [usize; 3],
        vfs: Option<Counted>,
    ) -> Timed {
        let [first, ..] = linux;
        Timed {
            firmware: Some(Firmware {
                work: self.between(start, first),
                console_bytes: self.printed_before(first),
            }),
            ..self.of_linux(linux, vfs)
        }
    }

    /// What was done between each two of `notes`, for `count` of something; `None` if
    /// there are no notes.
    pub(super) fn counted(&self, count: u64, notes: &[[usize; 2]]) -> Option<Counted> {
        let work = notes.iter().map(|&[begin, end]| self.between(begin, end));
        let work = work.reduce(Work::and)?;
        Some(Counted { count, work })
    }

    fn printed_before(&self, note: usize) -> u64 {
        self.printed[note]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_divide_accesses_and_bytes_of_the_console() {
        let access = |rest: &str| {
            format!("memory_region_ops_read cpu 0 mr 0x1 {rest} name 'pcie-mmcfg-mmio'")
        };
        let read = access("addr 0x0 value 0x8 size 4");
        let mark = access("addr 0xffff001 value 0xff size 1");
        let log = Log {
            trace: vec![
                mark.clone(),
                read.clone(),
                read.clone(),
                mark.clone(),
                read,
                mark,
            ],
            printed: vec![1, 1, 2, 3, 5],
            ..Log::default()
        };
        let parts = Parts::new(vec![6, 100, 1000], &log);
        let work = |instructions, accesses| Work {
            instructions,
            accesses,
        };
        assert_eq!(parts.between(0, 1), work(94, 2));
        assert_eq!(parts.between(1, 2), work(900, 1));
        assert_eq!([0, 1, 2].map(|note| parts.printed_before(note)), [0, 4, 5]);
    }
}

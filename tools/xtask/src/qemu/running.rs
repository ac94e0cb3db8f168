//! A QEMU process: its console, its messages, its end.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use warmbus_boot::report::console::{Event, Outcome, Reader};
use warmbus_cli::trace;

use crate::process::{Guard, for_each_line, words};
use crate::qmp::Client;

/// How long a guest may print nothing before it counts as hung.
pub const SILENCE: Duration = Duration::from_mins(5);
/// Interval of the checks whether QEMU still runs.
const LOOK: Duration = Duration::from_millis(100);
/// How long the last lines of a guest that has powered off may take to be read,
/// unless it said that it was done.
const LAST_LINES: Duration = Duration::from_secs(1);
/// How long QEMU may take to end after the guest has printed its result.
const LAST_STEPS: Duration = Duration::from_secs(30);

/// What QEMU wrote to standard error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The lines of the trace for the ECAM window, unchanged.
    pub trace: Vec<String>,
    /// The lines of the console in the trace, without line ends, each with the
    /// number of accesses before it was complete. This order shows which
    /// program of the guest made which accesses.
    pub console: Vec<(usize, String)>,
    /// For each byte on the console the number of accesses before it.
    pub printed: Vec<usize>,
    /// All other messages of QEMU.
    pub messages: Vec<String>,
}

impl Log {
    fn read(from: impl std::io::Read) -> Self {
        let mut log = Self::default();
        let mut line_so_far = Vec::new();
        for_each_line(from, |line| {
            if trace::is_trace(&line) {
                if trace::Access::parse(&line).is_some() {
                    log.trace.push(line);
                } else if let Some(byte) = trace::console_byte(&line) {
                    log.printed.push(log.trace.len());
                    if byte == b'\n' {
                        let text = String::from_utf8_lossy(&line_so_far).into_owned();
                        log.console
                            .push((log.trace.len(), text.trim_end().to_owned()));
                        line_so_far.clear();
                    } else {
                        line_so_far.push(byte);
                    }
                }
            // The network cards of the topologies are there to be enumerated:
            // none of them has a network.
            } else if !line.ends_with("has no peer") {
                log.messages.push(line);
            }
        });
        log
    }

    /// The accesses to the ECAM window in their order.
    #[must_use]
    pub fn accesses(&self) -> Vec<trace::Access> {
        self.trace
            .iter()
            .filter_map(|line| trace::Access::parse(line))
            .collect()
    }

    /// The number of accesses before the guest had printed the first line that
    /// contains `words`.
    #[must_use]
    pub fn accesses_before(&self, words: &str) -> Option<usize> {
        let mut lines = self.console.iter();
        lines.find_map(|(count, line)| line.contains(words).then_some(*count))
    }

    /// Writes the trace of the ECAM window to `file`.
    pub fn save_trace(&self, file: &Path) -> Result<()> {
        let text: String = self.trace.iter().flat_map(|line| [line, "\n"]).collect();
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// What is left of a machine that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whether QEMU ended by itself with exit status 0.
    pub clean: bool,
    /// What QEMU wrote to standard error.
    pub log: Log,
}

/// A machine that was started. It ends with this value.
pub struct Running {
    child: Guard,
    console: Receiver<String>,
    reader: Reader,
    log: Option<JoinHandle<Log>>,
    qmp: Option<Client>,
    silence: Duration,
    /// Whether the guest has said that it is done.
    done: bool,
}

impl Running {
    /// Starts QEMU by `command`, which opens a QMP socket at `qmp` if one is
    /// named.
    pub(super) fn start(command: &mut Command, qmp: Option<&Path>) -> Result<Self> {
        let mut child = Guard(
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .with_context(|| format!("cannot start {}", words(command)))?,
        );
        let (sender, console) = channel();
        let out = child
            .0
            .stdout
            .take()
            .context("QEMU has no standard output")?;
        thread::spawn(move || for_each_line(out, |line| drop(sender.send(line))));
        let err = child
            .0
            .stderr
            .take()
            .context("QEMU has no standard error")?;
        let log = thread::spawn(move || Log::read(err));
        let qmp = qmp.map(Client::connect).transpose();
        let mut running = Running {
            child,
            console,
            reader: Reader::default(),
            log: Some(log),
            qmp: None,
            silence: SILENCE,
            done: false,
        };
        match qmp {
            Ok(qmp) => running.qmp = qmp,
            Err(error) => bail!(
                "{error:#}; messages of QEMU: {}",
                running.end()?.log.messages.join("; ")
            ),
        }
        Ok(running)
    }

    /// Sets how long the guest may print nothing, instead of [`SILENCE`].
    pub fn set_silence(&mut self, silence: Duration) {
        self.silence = silence;
    }

    /// The next event of the console: `None` once QEMU has ended, or the guest
    /// has powered off in a machine that stays. Fails if the guest prints nothing
    /// for [`SILENCE`] or the time that was set, or if a section is cut off.
    pub fn event(&mut self) -> Result<Option<Event>> {
        let silent = Instant::now();
        let mut off = false;
        loop {
            let wait = match off {
                false => LOOK,
                true if self.done => Duration::ZERO,
                true => LAST_LINES,
            };
            match self.console.recv_timeout(wait) {
                Ok(line) => {
                    let event = self.reader.push(&line)?;
                    self.done |= event == Event::Done;
                    return Ok(Some(event));
                }
                Err(RecvTimeoutError::Timeout) if !off => {
                    // Its last lines may not have been read yet, hence one more
                    // iteration.
                    off = self
                        .qmp
                        .as_mut()
                        .is_some_and(|qmp| qmp.is_off().unwrap_or(false));
                    if silent.elapsed() >= self.silence {
                        let seconds = self.silence.as_secs();
                        bail!("the guest printed nothing for {seconds} seconds");
                    }
                }
                Err(_) => {
                    self.reader.finish()?;
                    return Ok(None);
                }
            }
        }
    }

    /// Passes all events of the console to `each`, up to the result of the
    /// firmware, which is returned. Fails if the console ends without it.
    pub fn result(&mut self, mut each: impl FnMut(Event) -> Result<()>) -> Result<Outcome> {
        while let Some(event) = self.event()? {
            if let Event::Result(outcome) = &event {
                let outcome = outcome.clone();
                each(event)?;
                return Ok(outcome);
            }
            each(event)?;
        }
        let Ended { log, .. } = self.end()?;
        if log.messages.is_empty() {
            bail!("the firmware ended without a result");
        }
        bail!("QEMU ended: {}", log.messages.join("; "));
    }

    /// Types `text` on the guest's console.
    pub fn type_in(&mut self, text: &str) -> Result<()> {
        let keyboard = self
            .child
            .0
            .stdin
            .as_mut()
            .context("QEMU has no standard input")?;
        keyboard.write_all(text.as_bytes())?;
        Ok(keyboard.flush()?)
    }

    /// The QMP connection of a machine that was given one.
    pub fn qmp(&mut self) -> Result<&mut Client> {
        self.qmp.as_mut().context("this machine has no QMP socket")
    }

    /// Waits until the guest has powered off and QEMU has ended, and ends it
    /// if that takes too long. A machine with a QMP socket receives `quit`.
    pub fn end(&mut self) -> Result<Ended> {
        if let Some(qmp) = &mut self.qmp {
            // It may have ended already, for example with an error.
            let _ = qmp.quit();
        }
        let deadline = Instant::now() + LAST_STEPS;
        let status = loop {
            match self.child.0.try_wait()? {
                Some(status) => break Some(status),
                None if Instant::now() >= deadline => break None,
                None => thread::sleep(Duration::from_millis(10)),
            }
        };
        if status.is_none() {
            self.child.0.kill()?;
            self.child.0.wait()?;
        }
        let log = match self.log.take().map(JoinHandle::join) {
            Some(Ok(log)) => log,
            Some(Err(_)) => bail!("the reader of QEMU's messages failed"),
            None => Log::default(),
        };
        Ok(Ended {
            clean: status.is_some_and(|status| status.success()),
            log,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_qemu_are_kept_apart_from_its_trace() {
        let text = "qemu: warning: nic e1000.0 has no peer\nqemu: broken\n\
            memory_region_ops_write cpu 0 mr 0x1 addr 0x0 value 0x68 size 2 name 'pl011'\n\
            memory_region_ops_read cpu 0 mr 0x1 addr 0x0 value 0x8 size 2 name 'pcie-mmcfg-mmio'\n\
            memory_region_ops_write cpu 0 mr 0x1 addr 0x0 value 0x69 size 2 name 'pl011'\n\
            memory_region_ops_write cpu 0 mr 0x1 addr 0x0 value 0xa size 2 name 'pl011'\n\
            memory_region_ops_read cpu 0 mr 0x1 addr 0x0 value 0x8 size 2 name 'pl011'\n";
        let log = Log::read(text.as_bytes());
        assert_eq!(log.accesses_before("hi"), Some(1));
        assert_eq!(log.accesses_before("ho"), None);
        assert_eq!(log.messages, ["qemu: broken"]);
        assert_eq!(log.accesses().len(), 1);
        assert_eq!(log.printed, [0, 1, 1]);
    }

    #[test]
    fn a_line_of_the_console_is_put_where_it_ended() {
        let access = "memory_region_ops_read cpu 0 mr 0x1 addr 0x0 value 0x8 size 2 name 'pcie-mmcfg-mmio'\n";
        let print = |text: &str| -> String {
            let line = |byte| {
                format!(
                    "memory_region_ops_write cpu 0 mr 0x1 addr 0x9000000 value {byte:#x} size 1 name 'pl011'\n"
                )
            };
            text.bytes().map(line).collect()
        };
        let text = [&print("a\r"), access, &print("\nb"), access, &print("c\n")].concat();
        let log = Log::read(text.as_bytes());
        assert_eq!(log.console, [(1, "a".to_owned()), (2, "bc".to_owned())]);
    }
}

//! The boots that are measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use warmbus_boot::report::Report;
use warmbus_boot::report::console::{Event, Section};

use super::attribution::{CLEAR_SCREEN, accesses_of};
use super::contender::{Boot, Contender};
use crate::qemu::{Log, Machine, Payload, Running};
use crate::run::LINUX_BOOTARGS;
use crate::setup::{self, Purpose};
use crate::topology::Topology;
use crate::{build, linux};

/// How long a guest may print nothing: with thousands of functions QEMU takes
/// minutes to move their BARs.
const SILENCE: Duration = Duration::from_mins(15);
/// The number of console lines in the message of a failed boot.
const LAST_LINES: usize = 12;

/// The programs that are booted.
pub(super) struct Tools {
    firmware: PathBuf,
    u_boot: Option<PathBuf>,
    edk2: Option<PathBuf>,
    /// The kernel as it is.
    pub(super) stock: PathBuf,
    /// The kernel with our patches, where it is needed.
    consumer: Option<PathBuf>,
    initramfs: PathBuf,
    /// The initramfs with the kernel for kexec in it.
    chain: Option<PathBuf>,
    directory: TempDir,
}

/// The recording of a boot.
pub(super) struct Recording {
    /// QEMU's trace with the lines of the console.
    pub(super) log: Log,
    /// The report of the firmware, where it took part.
    pub(super) report: Option<Report>,
    /// The lines of the console outside of sections.
    pub(super) console: Vec<String>,
}

impl Tools {
    /// Builds what is missing; the kernel with our patches only where one of
    /// `boots` needs it.
    pub(super) fn ready(boots: &[Boot]) -> Result<Self> {
        let toolchain = setup::ensure(Purpose::Test)?;
        let firmware = build::firmware(&toolchain)?;
        let stock = linux::image(&linux::Options::default())?;
        let initramfs = linux::initramfs()?;
        let directory = tempfile::tempdir()?;
        let mut consumer = None;
        let mut chain = None;
        if boots
            .iter()
            .any(|boot| [Boot::Cold, Boot::Chain].contains(boot))
        {
            let image = linux::image(&linux::Options::consumer())?;
            let file = directory.path().join("initrd");
            fs::write(&file, linux::with_kernel(&initramfs, &image)?)?;
            (consumer, chain) = (Some(image), Some(file));
        }
        Ok(Self {
            firmware,
            u_boot: setup::u_boot(),
            edk2: setup::edk2(),
            stock,
            consumer,
            initramfs,
            chain,
            directory,
        })
    }

    /// The arguments of QEMU for the machine of every boot, without devices.
    #[must_use]
    pub(super) fn machine(&self) -> String {
        let command = Machine::kernel(&self.stock).command();
        let words: Vec<_> = command
            .get_args()
            .map(|word| word.to_string_lossy())
            .collect();
        let machine = words.iter().position(|word| word == "-M").unwrap_or(0);
        words[machine..]
            .iter()
            .take(8)
            .map(|word| &**word)
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Boots a machine with `topology`; a chain of kernels only with `kexec`.
    pub(super) fn boot(&self, boot: Boot, topology: &Topology, kexec: bool) -> Result<Recording> {
        let recording = match boot {
            Boot::UBoot => self.u_boot(topology),
            Boot::Edk2 => self.edk2(topology),
            Boot::Stock => Self::linux(self.linux_alone(&self.stock, "summary"), topology),
            Boot::Cold => Self::linux(self.linux_alone(self.consumer()?, "summary"), topology),
            Boot::Chain => self.chain(topology, kexec),
        };
        recording.with_context(|| format!("{} on {}", boot.title(), topology.name))
    }

    /// A machine in which Warmbus starts Linux with our patches, which does
    /// `steps`.
    pub(super) fn after_warmbus(&self, steps: &str) -> Result<Machine> {
        self.started_by_warmbus(&self.initramfs, steps)
    }

    fn started_by_warmbus(&self, initrd: &Path, steps: &str) -> Result<Machine> {
        let payload = Payload {
            kernel: self.consumer()?.into(),
            initrd: Some(initrd.into()),
            bootargs: bootargs(steps),
        };
        Ok(Machine::kernel(&self.firmware)
            .section(Section::Report)
            .payload(payload))
    }

    fn consumer(&self) -> Result<&Path> {
        self.consumer
            .as_deref()
            .context("the kernel with the cache was not built")
    }

    fn u_boot(&self, topology: &Topology) -> Result<Recording> {
        let bios = self
            .u_boot
            .as_ref()
            .context("U-Boot for QEMU is not installed")?;
        let mut running = started(Machine::bios(bios), topology)?;
        // The first key ends the countdown to automatic boot.
        running.type_in("\n\npoweroff\n")?;
        let mut recording = Recording::empty();
        recording.follow(&mut running, |_| false)?;
        recording.end(&mut running)
    }

    fn edk2(&self, topology: &Topology) -> Result<Recording> {
        let bios = self
            .edk2
            .as_ref()
            .context("EDK2 for QEMU is not installed")?;
        // It would wait for a network, then for a key: QEMU has to be ended.
        let machine = Machine::bios(bios).qmp(&self.directory.path().join("qmp"));
        let mut running = started(machine, topology)?;
        let mut recording = Recording::empty();
        let ends =
            |event: &Event| matches!(event, Event::Text(line) if line.contains(CLEAR_SCREEN));
        ensure!(
            recording.follow(&mut running, ends)?,
            "{}",
            recording.failure("its boot manager did not start")
        );
        recording.end(&mut running)
    }

    /// A machine that starts `kernel` itself, which does `steps`.
    pub(super) fn linux_alone(&self, kernel: &Path, steps: &str) -> Machine {
        Machine::kernel(kernel)
            .bootargs(&bootargs(steps))
            .arguments(
                ["-initrd".as_ref(), self.initramfs.as_os_str()].map(|word| word.to_string_lossy()),
            )
    }

    /// Boots `machine` to the end of its Linux.
    pub(super) fn linux(machine: Machine, topology: &Topology) -> Result<Recording> {
        let mut running = started(machine, topology)?;
        let mut recording = Recording::empty();
        let mut done = false;
        recording.follow(&mut running, |event| {
            done |= *event == Event::Done;
            false
        })?;
        ensure!(
            done,
            "{}",
            recording.failure("Linux did not run all of its steps")
        );
        recording.end(&mut running)
    }

    fn chain(&self, topology: &Topology, kexec: bool) -> Result<Recording> {
        let machine = match &self.chain {
            Some(initrd) if kexec => self.started_by_warmbus(initrd, "kexec,summary")?,
            _ => self.after_warmbus("summary")?,
        };
        let recording = Self::linux(machine, topology)?;
        let own = recording
            .report
            .as_ref()
            .context("the firmware printed no report")?;
        let own = own.accesses.reads + own.accesses.writes;
        let counted = accesses_of(
            Contender::Warmbus,
            &recording.log.console,
            recording.log.trace.len(),
        )?[1];
        ensure!(
            own == counted as u64,
            "the firmware counted {own} accesses, QEMU {counted}"
        );
        Ok(recording)
    }
}

fn bootargs(steps: &str) -> String {
    // Without `quiet`: the first line of a kernel shows where it begins.
    format!("{LINUX_BOOTARGS} pcsc=on retain_initrd warmbus.test={steps}")
}

fn started(machine: Machine, topology: &Topology) -> Result<Running> {
    let mut running = machine.topology(topology).trace_with_times().start()?;
    running.set_silence(SILENCE);
    Ok(running)
}

impl Recording {
    fn empty() -> Self {
        Self {
            log: Log::default(),
            report: None,
            console: Vec::new(),
        }
    }

    /// Follows the console until the guest is off, or until `ends` is true for an
    /// event. Returns whether it was.
    fn follow(
        &mut self,
        running: &mut Running,
        mut ends: impl FnMut(&Event) -> bool,
    ) -> Result<bool> {
        while let Some(event) = running.event()? {
            if ends(&event) {
                return Ok(true);
            }
            match event {
                Event::Text(line) | Event::Starting(line) => self.console.push(line),
                Event::Complete(Section::Report, text) => {
                    self.report =
                        Some(serde_json::from_str(&text).context("the report is no JSON")?);
                }
                Event::Result(outcome) => outcome.into_result()?,
                _ => {}
            }
        }
        Ok(false)
    }

    fn end(mut self, running: &mut Running) -> Result<Self> {
        self.log = running.end()?.log;
        if self.log.trace.is_empty() {
            bail!("QEMU traced no access: {}", self.log.messages.join("; "));
        }
        Ok(self)
    }

    /// `why` with the last lines of the console.
    fn failure(&self, why: &str) -> String {
        let last = self.console.len().saturating_sub(LAST_LINES);
        format!(
            "{why}; the last lines of the console:\n{}",
            self.console[last..].join("\n")
        )
    }
}

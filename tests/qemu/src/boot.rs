//! Booting the firmware and keeping what comes out.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;
use warmbus_boot::report::console::{Event, Outcome, Section};
use warmbus_cli::trace::Access;
use xtask::qemu::{Machine, Running};
use xtask::setup::{self, Purpose};
use xtask::topology::Topology;
use xtask::{build, test};

use crate::pci::Function;

/// How long a guest may take to power off once it has said how it ended, or,
/// where it has no console, to do all its work.
const POWER_OFF: Duration = Duration::from_mins(2);

/// How long the largest machine may be silent: QEMU takes minutes to make
/// thousands of virtual functions.
pub const LARGEST_MACHINE: Duration = Duration::from_mins(30);

/// Where the firmware image is when U-Boot starts.
pub const LOADED: u64 = 0x6000_0000;

/// The firmware image: the one that `cargo xtask test` built, or one that is
/// built now.
#[must_use]
pub fn image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        env::var_os(test::IMAGE).map_or_else(
            || {
                setup::ensure(Purpose::Test)
                    .and_then(|toolchain| build::firmware(&toolchain))
                    .expect("the firmware builds")
            },
            PathBuf::from,
        )
    })
}

/// The QEMU arguments of a topology of the board.
#[must_use]
pub fn topology(name: &str) -> Topology {
    Topology::load(name).expect("the board has this topology")
}

/// A place for the files of one test.
pub struct Lab {
    directory: TempDir,
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Lab {
    /// A new, empty place.
    #[must_use]
    pub fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a temporary directory can be made"),
        }
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The path of the file `name` here.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A machine with the firmware and a topology of the board.
    #[must_use]
    pub fn machine(&self, name: &str) -> Machine {
        Machine::kernel(image()).topology(&topology(name))
    }

    /// Boots `machine` with everything recorded, to the line that says how the
    /// firmware ended, and asks QEMU for its devices.
    pub fn boot(&self, machine: Machine) -> Result<Boot> {
        self.boot_without_dump(machine.section(Section::Lspci))
    }

    /// The same without the dump for `lspci`, which takes a minute where there are
    /// hundreds of functions: QEMU records each byte of the console.
    pub fn boot_without_dump(&self, machine: Machine) -> Result<Boot> {
        let mut running = self.start(machine.section(Section::Report))?;
        let mut boot = Boot::default();
        let outcome = running.result(|event| {
            boot.keep(event);
            Ok(())
        });
        boot.outcome = Some(outcome.with_context(|| boot.console.join("\n"))?);
        boot.finish(&mut running)
    }

    /// Boots `machine` with every instruction taking one nanosecond of its time,
    /// whatever the host is like, to the line that says how the firmware ended.
    pub fn boot_in_instructions(&self, machine: Machine) -> Result<Boot> {
        self.boot_in_instructions_with(machine, |_| Ok(()))
    }

    /// The same, and has `intervene` do something to the machine at its start,
    /// which may last as long as the machine runs.
    pub fn boot_in_instructions_with(
        &self,
        machine: Machine,
        intervene: impl FnOnce(&mut Running) -> Result<()>,
    ) -> Result<Boot> {
        let machine = machine.section(Section::Report).instruction_time(0);
        let mut running = machine.qmp(&self.file("qmp")).start()?;
        running.set_silence(LARGEST_MACHINE);
        intervene(&mut running)?;
        let mut boot = Boot::default();
        let outcome = running.result(|event| {
            boot.keep(event);
            Ok(())
        });
        boot.outcome = Some(outcome.with_context(|| boot.console.join("\n"))?);
        boot.log = running.end()?.log;
        Ok(boot)
    }

    /// Boots `machine` without waiting for what it says, until it has powered
    /// off.
    pub fn boot_to_power_off(&self, machine: Machine) -> Result<Boot> {
        let mut running = self.start(machine)?;
        Boot::default().finish(&mut running)
    }

    /// The same for a machine that may be unable to power off: sleeping without end
    /// is an end as well.
    pub fn boot_to_rest(&self, machine: Machine) -> Result<Boot> {
        let mut running = self.start(machine)?;
        running
            .qmp()?
            .wait_until(POWER_OFF, "off or asleep", |qmp| {
                Ok(qmp.is_off()? || qmp.sleeps()?)
            })?;
        let mut boot = Boot::default();
        boot.ask(&mut running)?;
        Ok(boot)
    }

    /// Starts U-Boot with a topology of the board and the firmware image at
    /// [`LOADED`], has it run `commands`, and waits until the machine has
    /// powered off.
    pub fn u_boot(&self, name: &str, commands: &str) -> Result<Boot> {
        let bios = setup::u_boot().context("U-Boot for QEMU is not installed")?;
        let machine = Machine::bios(&bios)
            .topology(&topology(name))
            .load(image(), LOADED);
        let mut running = self.start(machine)?;
        // The first key ends the countdown to automatic boot.
        running.type_in(&format!("\n\n{commands}\n"))?;
        Boot::default().finish(&mut running)
    }

    fn start(&self, machine: Machine) -> Result<Running> {
        machine.trace().qmp(&self.file("qmp")).start()
    }
}

/// All that is known about one boot.
#[derive(Debug, Default)]
pub struct Boot {
    /// How the firmware said it ended; `None` where nobody listened.
    pub outcome: Option<Outcome>,
    /// What it said on its console, sections aside.
    pub console: Vec<String>,
    /// The report, if one came.
    pub report: Option<String>,
    /// The dump for `lspci`, if one came.
    pub lspci: Option<String>,
    /// The sections of the test Linux that came.
    pub linux: BTreeMap<Section, String>,
    /// How the guest ended, in the word of QEMU; `None` where it sleeps.
    pub ended: Option<String>,
    /// QEMU's own list of devices.
    pub query_pci: Value,
    /// QEMU's own trace and its messages.
    pub log: xtask::qemu::Log,
}

impl Boot {
    fn finish(mut self, running: &mut Running) -> Result<Self> {
        running.qmp()?.wait_for_power_off(POWER_OFF)?;
        self.ask(running)?;
        Ok(self)
    }

    /// Asks QEMU for its devices, ends it, and keeps what there still is.
    fn ask(&mut self, running: &mut Running) -> Result<()> {
        self.query_pci = running.qmp()?.query_pci()?;
        self.ended = running.qmp()?.ended()?.map(str::to_owned);
        self.end(running)
    }

    /// Ends QEMU, and keeps what there still is.
    pub(crate) fn end(&mut self, running: &mut Running) -> Result<()> {
        self.log = running.end()?.log;
        while let Some(event) = running.event()? {
            self.keep(event);
        }
        Ok(())
    }

    pub(crate) fn keep(&mut self, event: Event) {
        match event {
            Event::Text(line) | Event::Starting(line) => self.console.push(line),
            Event::Complete(Section::Report, text) => self.report = Some(text),
            Event::Complete(Section::Lspci, text) => self.lspci = Some(text),
            Event::Complete(
                section @ (Section::LinuxPci | Section::Subtree | Section::LinuxLog),
                text,
            ) => drop(self.linux.insert(section, text)),
            Event::Result(outcome) => self.outcome = Some(outcome),
            Event::Hidden | Event::Waiting | Event::Done => {}
        }
    }

    /// The report as JSON.
    #[must_use]
    pub fn report(&self) -> Value {
        let text = self.report.as_deref().expect("a report came");
        serde_json::from_str(text).expect("the report is JSON")
    }

    /// A number of the report, by its path, for example
    /// `/accesses/reads`.
    #[must_use]
    pub fn number(&self, path: &str) -> u64 {
        let report = self.report();
        let number = report.pointer(path).and_then(Value::as_u64);
        number.unwrap_or_else(|| panic!("the report has a number {path}"))
    }

    /// The functions that QEMU lists.
    #[must_use]
    pub fn pci(&self) -> Vec<Function> {
        crate::pci::flatten(&self.query_pci)
    }

    /// Every access to configuration space, by QEMU's trace.
    #[must_use]
    pub fn accesses(&self) -> Vec<Access> {
        self.log.accesses()
    }

    /// The lines of the console, the sentence of a failed result at the end,
    /// that contain all of `words`, in any case.
    #[must_use]
    pub fn lines_with(&self, words: &[&str]) -> Vec<String> {
        let failure = match &self.outcome {
            Some(Outcome::Failed(why)) => Some(why.clone()),
            _ => None,
        };
        self.console
            .iter()
            .cloned()
            .chain(failure)
            .filter(|line| {
                let line = line.to_lowercase();
                words.iter().all(|word| line.contains(&word.to_lowercase()))
            })
            .collect()
    }
}

/// The names of the topologies of the board.
pub const TOPOLOGIES: [&str; 4] = ["small", "switch", "fan", "sriov"];

/// One boot of each topology, done when it is first asked for.
struct Once([OnceLock<Boot>; TOPOLOGIES.len()]);

impl Once {
    const fn new() -> Self {
        Self([const { OnceLock::new() }; TOPOLOGIES.len()])
    }

    fn get(&self, name: &str, boot: impl FnOnce(&Lab) -> Result<Boot>) -> &Boot {
        let index = TOPOLOGIES.iter().position(|known| *known == name);
        self.0[index.expect("the topology is one of the board")]
            .get_or_init(|| boot(&Lab::new()).expect("the machine boots"))
    }
}

/// The plain boot of a topology of the board, done once for all tests.
#[must_use]
pub fn booted(name: &str) -> &'static Boot {
    static BOOTS: Once = Once::new();
    BOOTS.get(name, |lab| lab.boot(lab.machine(name)))
}

/// A boot of U-Boot alone on a topology of the board, done once for all tests.
#[must_use]
pub fn u_boot_alone(name: &str) -> &'static Boot {
    static BOOTS: Once = Once::new();
    BOOTS.get(name, |lab| lab.u_boot(name, "poweroff"))
}

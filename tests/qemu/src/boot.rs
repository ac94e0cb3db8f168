//! Booting the firmware and keeping what comes out.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;
use xtask::console::{Event, Outcome, Section};
use xtask::qemu::Machine;
use xtask::setup::{self, Purpose};
use xtask::topology::Topology;
use xtask::trace::Access;
use xtask::{build, test};

use crate::pci::Function;

/// How long a guest may take to power off once it has said how it ended, or,
/// where it has no console, to do all its work.
const POWER_OFF: Duration = Duration::from_secs(120);

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
        let machine = machine.section(Section::Report).section(Section::Lspci);
        self.record(machine, true)
    }

    /// The same without a console to listen to: waits until the machine has
    /// powered off.
    pub fn boot_silently(&self, machine: Machine) -> Result<Boot> {
        self.record(machine, false)
    }

    fn record(&self, machine: Machine, listen: bool) -> Result<Boot> {
        let mut running = machine.trace().qmp(&self.file("qmp")).start()?;
        let mut boot = Boot::default();
        if listen {
            let outcome = running.result(|event| {
                boot.keep(event);
                Ok(())
            });
            boot.outcome = Some(outcome.with_context(|| boot.console.join("\n"))?);
        }
        running.qmp()?.wait_for_power_off(POWER_OFF)?;
        boot.query_pci = running.qmp()?.query_pci()?;
        boot.log = running.end()?.log;
        while let Some(event) = running.event()? {
            boot.keep(event);
        }
        Ok(boot)
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
    /// QEMU's own list of devices.
    pub query_pci: Value,
    /// QEMU's own trace and its messages.
    pub log: xtask::qemu::Log,
}

impl Boot {
    pub(crate) fn keep(&mut self, event: Event) {
        match event {
            Event::Text(line) | Event::Starting(line) => self.console.push(line),
            Event::Complete(Section::Report, text) => self.report = Some(text),
            Event::Complete(Section::Lspci, text) => self.lspci = Some(text),
            Event::Complete(
                section @ (Section::LinuxPci | Section::Subtree | Section::LinuxLog),
                text,
            ) => drop(self.linux.insert(section, text)),
            Event::Hidden | Event::Result(_) | Event::Waiting | Event::Done => {}
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

/// The plain boot of a topology of the board, done once for all tests.
#[must_use]
pub fn booted(name: &str) -> &'static Boot {
    static BOOTS: [OnceLock<Boot>; 4] = [const { OnceLock::new() }; 4];
    let index = TOPOLOGIES.iter().position(|known| *known == name);
    BOOTS[index.expect("the topology is one of the board")].get_or_init(|| {
        let lab = Lab::new();
        lab.boot(lab.machine(name)).expect("the machine boots")
    })
}

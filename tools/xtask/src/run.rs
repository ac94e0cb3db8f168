//! `cargo xtask run`: one boot of the firmware in QEMU.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::console::{Event, Outcome, Section};
use crate::qemu::Machine;
use crate::setup::{self, Purpose};
use crate::topology::{self, Topology};
use crate::{Refusal, build};

/// How to start and what to keep.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ./qemu-run.sh
  ./qemu-run.sh --topology list
  ./qemu-run.sh --topology fan --report fan.json --trace fan.trace
  ./qemu-run.sh --topology small --lspci dump.txt && lspci -F dump.txt -tv
  ./qemu-run.sh --el2 --smp 4 --memory 8G --self-check
  ./qemu-run.sh --topology small -- -device nvme,serial=x")]
pub struct Options {
    /// PCIe hierarchy: a name from boards/qemu-virt/topologies, a file of
    /// QEMU arguments, or `list` to list the names
    #[arg(long, value_name = "NAME|FILE", default_value = "switch")]
    pub topology: String,

    /// Stop after enumeration and report; there is no payload yet, so this is
    /// always so
    #[arg(long)]
    pub probe_only: bool,

    /// Keep the report as JSON, schema warmbus-report/1
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Keep a dump of configuration space that `lspci -F FILE` reads
    #[arg(long, value_name = "FILE")]
    pub lspci: Option<PathBuf>,

    /// Keep QEMU's own record of every access to configuration space
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,

    /// Processor model
    #[arg(long, value_name = "MODEL", default_value = "cortex-a72")]
    pub cpu: String,

    /// Size of memory in QEMU's words
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    pub memory: String,

    /// Number of processors
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub smp: u32,

    /// Start at EL2 instead of EL1
    #[arg(long)]
    pub el2: bool,

    /// Read every cached byte once more at the end and compare
    #[arg(long)]
    pub self_check: bool,

    /// What the firmware tells about: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", value_parser = ["off", "error", "warn", "info", "debug", "trace"])]
    pub log_level: Option<String>,

    /// Further words for the kernel command line, for example
    /// `warmbus.preserve`
    #[arg(long, value_name = "WORDS")]
    pub append: Vec<String>,

    /// Further arguments for QEMU, after `--`
    #[arg(last = true, value_name = "QEMU ARGUMENTS")]
    pub extra: Vec<String>,
}

/// Does as `options` say. Fails unless the firmware reports success.
pub fn run(options: &Options) -> Result<()> {
    if options.topology == "list" {
        for topology in topology::all()? {
            println!("{:8} {}", topology.name, topology.description);
        }
        return Ok(());
    }
    let topology = Topology::load(&options.topology)?;
    for file in [&options.report, &options.lspci, &options.trace]
        .into_iter()
        .flatten()
    {
        check_writable(file)?;
    }
    let toolchain = setup::ensure(Purpose::Run)?;
    let image = build::firmware(&toolchain)?;

    let mut running = options.machine(&image, &topology).start()?;
    eprintln!("QEMU with topology {}:", topology.name);
    let mut out = io::stdout();
    let outcome = running.result(|event| match event {
        Event::Text(line) => Ok(writeln!(out, "{line}")?),
        Event::Complete(section, text) => options.keep(section, &text),
        Event::Hidden | Event::Result(_) => Ok(()),
    })?;
    if outcome == Outcome::Ok {
        writeln!(out, "warmbus: result: ok")?;
    }
    let ended = running.end()?;
    for message in &ended.log.messages {
        eprintln!("{message}");
    }
    if let Some(file) = &options.trace {
        ended.log.save_trace(file)?;
        eprintln!(
            "wrote the trace of {} accesses to {}",
            ended.log.trace.len(),
            file.display()
        );
    }
    match outcome {
        Outcome::Failed(why) => bail!("the firmware failed: {why}"),
        Outcome::Ok if !ended.clean => bail!("QEMU did not end by itself after the firmware had"),
        Outcome::Ok => Ok(()),
    }
}

impl Options {
    fn machine(&self, image: &Path, topology: &Topology) -> Machine {
        let mut machine = Machine::kernel(image)
            .topology(topology)
            .cpu(&self.cpu)
            .memory(&self.memory)
            .smp(self.smp)
            .arguments(self.extra.iter().cloned());
        if self.el2 {
            machine = machine.el2();
        }
        if self.report.is_some() {
            machine = machine.section(Section::Report);
        }
        if self.lspci.is_some() {
            machine = machine.section(Section::Lspci);
        }
        if self.trace.is_some() {
            machine = machine.trace();
        }
        if self.self_check {
            machine = machine.bootargs("warmbus.verify");
        }
        if let Some(level) = &self.log_level {
            machine = machine.bootargs(&format!("warmbus.loglevel={level}"));
        }
        for words in &self.append {
            machine = machine.bootargs(words);
        }
        machine
    }

    /// Writes a section to its file and says so.
    fn keep(&self, section: Section, text: &str) -> Result<()> {
        let file = match section {
            Section::Report => &self.report,
            Section::Lspci => &self.lspci,
        };
        let Some(file) = file else {
            return Ok(());
        };
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        eprintln!("wrote the {} to {}", section.name(), file.display());
        Ok(())
    }
}

/// Refuses a file that cannot be written before anything is started.
fn check_writable(file: &Path) -> Result<()> {
    let opened = fs::OpenOptions::new().append(true).create(true).open(file);
    opened
        .map(drop)
        .map_err(|error| Refusal(format!("cannot write {}: {error}", file.display())).into())
}

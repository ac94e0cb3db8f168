//! `cargo xtask run`: one boot in QEMU, of the firmware and then of Linux.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use warmbus_boot::report::console::{Event, Outcome, Section};

use crate::image;
use crate::qemu::{Machine, Payload, Running, UefiLoader, UefiStart, roms};
use crate::setup::{self, Purpose};
use crate::topology::{self, Topology};
use crate::{UsageError, build, linux};

/// The parameters of every Linux: its console, Kexec HandOver, and a reset
/// instead of a hang after a panic.
pub const LINUX_BOOTARGS: &str = "console=ttyAMA0 earlycon kho=on panic=-1";
/// The default processor model.
const CPU: &str = "cortex-a72";
/// A model that supports pages of 16 KiB as well. It has a pointer
/// authentication of QEMU: to emulate that of Arm would dominate the boot time.
pub const CPU_WITH_ALL_PAGE_SIZES: &str = "max,pauth-impdef=on";

/// How to start, and which outputs to keep.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ./qemu-run.sh
  ./qemu-run.sh --shell
  ./qemu-run.sh --kernel Image.gz --initrd initrd.img --append 'root=/dev/vda ro'
  ./qemu-run.sh --probe-only
  ./qemu-run.sh --topology list
  ./qemu-run.sh --topology fan --report fan.json --trace fan.trace
  ./qemu-run.sh --topology small --lspci dump.txt && lspci -F dump.txt -tv
  ./qemu-run.sh --el2 --smp 4 --memory 8G --self-check
  ./qemu-run.sh --topology small -- -device nvme,serial=x")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one independent switch of the command line"
)]
pub struct Options {
    /// PCIe hierarchy: a name from boards/qemu-virt/topologies, a file of
    /// QEMU arguments, or `list` to list the names
    #[arg(long, value_name = "NAME|FILE", default_value = "switch")]
    pub topology: String,

    /// Stop after enumeration and report, without starting Linux
    #[arg(long, conflicts_with_all = ["kernel", "consumer", "initrd", "shell", "kho"])]
    pub probe_only: bool,

    /// Linux to start, an arm64 Image or Image.gz, instead of the one that
    /// `cargo xtask linux` builds
    #[arg(long, value_name = "IMAGE")]
    pub kernel: Option<PathBuf>,

    /// Start the Linux that reads the cache, with the patches of linux/patches
    #[arg(long, conflicts_with = "kernel")]
    pub consumer: bool,

    /// Initrd for it, instead of the one that prints what Linux received
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,

    /// More parameters for the kernel command line; the firmware reads those
    /// that start with `warmbus.`
    #[arg(long, value_name = "STRING", allow_hyphen_values = true)]
    pub append: Vec<String>,

    /// Attach the terminal to the guest and open a shell; Ctrl-A X ends it
    #[arg(long, conflicts_with_all = ["report", "lspci", "trace"])]
    pub shell: bool,

    /// Version of the handover to Linux, or none
    #[arg(long, value_name = "VERSION", value_parser = ["auto", "v1", "v3", "v4", "off"])]
    pub kho: Option<String>,

    /// Keep the report as JSON, schema warmbus-report/1
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Keep a dump of configuration space that `lspci -F FILE` reads
    #[arg(long, value_name = "FILE")]
    pub lspci: Option<PathBuf>,

    /// Keep QEMU's trace of every access to configuration space
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,

    /// Processor model; cortex-a72 unless the kernel needs another one
    #[arg(long, value_name = "MODEL")]
    pub cpu: Option<String>,

    /// Size of memory, in the syntax of QEMU
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    pub memory: String,

    /// Number of processors
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub smp: u32,

    /// Start at EL2 instead of EL1
    #[arg(long)]
    pub el2: bool,

    /// Virtual functions to capture: `off`, `found` (enabled already), `all`,
    /// or FUNCTION=N,... for some; with `,keep` they stay enabled
    #[arg(long, value_name = "WHICH")]
    pub vfs: Option<String>,

    /// Start from UEFI with ACPI, as servers do, instead of by the Linux boot
    /// protocol
    #[arg(long, conflicts_with = "probe_only")]
    pub uefi: bool,

    /// The boot loader of Debian that starts Linux, instead of UEFI itself
    #[arg(long, value_name = "LOADER", requires = "uefi")]
    pub uefi_loader: Option<UefiLoader>,

    /// Read every cached byte again at the end and compare
    #[arg(long)]
    pub self_check: bool,

    /// Log level of the firmware: off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", value_parser = ["off", "error", "warn", "info", "debug", "trace"])]
    pub log_level: Option<String>,

    /// Further arguments for QEMU, after `--`
    #[arg(last = true, value_name = "QEMU ARGUMENTS")]
    pub extra: Vec<String>,
}

/// Boots as `options` request. Fails unless the firmware reports success and
/// Linux, if it is started, powers off.
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
    for file in [&options.kernel, &options.initrd].into_iter().flatten() {
        check_readable(file)?;
    }
    let toolchain = setup::ensure(Purpose::Run)?;
    let firmware = build::firmware(&toolchain)?;
    let payload = if options.probe_only {
        None
    } else {
        Some(options.payload()?)
    };
    let directory = tempfile::tempdir()?;
    let machine = options.machine(&firmware, &topology, payload, directory.path())?;
    if !topology::names()?.contains(&options.topology) || !options.extra.is_empty() {
        roms::ensure(&machine)?;
    }
    eprintln!("QEMU with topology {}:", topology.name);
    if options.shell {
        return machine.interact();
    }

    let mut running = if options.probe_only {
        machine.start()?
    } else {
        machine.qmp(&directory.path().join("qmp")).start()?
    };
    let outcome = running.result(|event| options.show(event))?;
    if outcome == Outcome::Ok {
        println!("warmbus: result: ok");
    }
    let after = if options.probe_only {
        Ok(())
    } else {
        let is_test_linux = options.initrd.is_none();
        follow_linux(&mut running, is_test_linux, true, |event| {
            options.show(event)
        })
    };
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
    outcome.into_result()?;
    if !ended.clean {
        bail!("QEMU did not exit after the guest had ended");
    }
    after
}

impl Options {
    /// Shows one event of the console.
    fn show(&self, event: Event) -> Result<()> {
        match event {
            Event::Text(line) | Event::Starting(line) => Ok(writeln!(io::stdout(), "{line}")?),
            Event::Complete(section, text) => self.keep(section, &text),
            Event::Hidden | Event::Result(_) | Event::Waiting | Event::Done => Ok(()),
        }
    }

    /// The kernel that the firmware starts.
    fn payload(&self) -> Result<Payload> {
        let kernel = match &self.kernel {
            Some(kernel) => kernel.clone(),
            None if self.consumer => linux::image(&linux::Options::consumer())?,
            None => linux::image(&linux::Options::default())?,
        };
        let mut parameters = vec![LINUX_BOOTARGS];
        let initrd = match &self.initrd {
            Some(initrd) => initrd.clone(),
            None => {
                parameters.push("quiet");
                if self.shell {
                    parameters.push("warmbus.test=summary,shell");
                }
                linux::initramfs()?
            }
        };
        parameters.extend(self.append.iter().map(String::as_str));
        Ok(Payload {
            kernel,
            initrd: Some(initrd),
            bootargs: parameters.join(" "),
        })
    }

    /// The processor model of the options, or one that can run `payload`.
    fn cpu(&self, payload: Option<&Payload>) -> Result<String> {
        let cpu = match (&self.cpu, payload) {
            (Some(cpu), _) => cpu,
            (None, Some(payload)) if image::facts(&payload.kernel)?.needs_new_cpu() => {
                CPU_WITH_ALL_PAGE_SIZES
            }
            _ => CPU,
        };
        Ok(cpu.to_owned())
    }

    fn machine(
        &self,
        image: &Path,
        topology: &Topology,
        payload: Option<Payload>,
        directory: &Path,
    ) -> Result<Machine> {
        let start = if self.uefi {
            let machine = Machine::uefi(image, directory);
            match self.uefi_loader {
                Some(loader) => machine.uefi_start(UefiStart::Loader(loader)),
                None => machine,
            }
        } else {
            Machine::kernel(image)
        };
        let mut machine = start
            .topology(topology)
            .cpu(&self.cpu(payload.as_ref())?)
            .memory(&self.memory)
            .smp(self.smp)
            .bootargs("warmbus.show=tree,summary")
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
        if let Some(vfs) = &self.vfs {
            machine = machine.bootargs(&format!("warmbus.vfs={vfs}"));
        }
        if self.self_check {
            machine = machine.bootargs("warmbus.verify");
        }
        if let Some(level) = &self.log_level {
            machine = machine.bootargs(&format!("warmbus.loglevel={level}"));
        }
        if let Some(version) = &self.kho {
            machine = machine.bootargs(&format!("warmbus.kho={version}"));
        }
        match payload {
            None => {
                for parameters in &self.append {
                    machine = machine.bootargs(parameters);
                }
            }
            Some(payload) => {
                let parameters = self.append.iter();
                let parameters = parameters.flat_map(|some| some.split_whitespace());
                for parameter in parameters.filter(|one| is_for_firmware(one)) {
                    machine = machine.bootargs(parameter);
                }
                machine = machine.payload(payload);
            }
        }
        Ok(machine)
    }

    /// Writes a section to its file and prints the name of that file.
    fn keep(&self, section: Section, text: &str) -> Result<()> {
        let file = match section {
            Section::Report => &self.report,
            Section::Lspci => &self.lspci,
            Section::LinuxPci | Section::Subtree | Section::LinuxLog => &None,
        };
        let Some(file) = file else {
            return Ok(());
        };
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        eprintln!("wrote the {} to {}", section.name(), file.display());
        Ok(())
    }
}

/// Whether a parameter of a command line is for the firmware. The parameter
/// with the steps of the test Linux is not.
#[must_use]
pub fn is_for_firmware(parameter: &str) -> bool {
    parameter.starts_with("warmbus.") && !parameter.starts_with("warmbus.test=")
}

/// Passes the console output of Linux to `show` until the machine is off. Fails
/// unless Linux was started, ran all of its steps if it `is_test_linux`, and
/// powered off if the machine `can_power_off`.
pub(crate) fn follow_linux(
    running: &mut Running,
    is_test_linux: bool,
    can_power_off: bool,
    show: impl Fn(Event) -> Result<()>,
) -> Result<()> {
    let (mut started, mut done) = (false, false);
    while let Some(event) = running.event()? {
        match event {
            Event::Starting(_) => started = true,
            Event::Done => done = true,
            // No user is present who could type.
            Event::Waiting => running.type_in("\n")?,
            _ => {}
        }
        show(event)?;
        if done && !can_power_off {
            break;
        }
    }
    if !started {
        bail!("the firmware did not start Linux");
    }
    if is_test_linux && !done {
        bail!("Linux ended before it had printed what it received");
    }
    if can_power_off && !running.qmp()?.has_powered_off()? {
        bail!("Linux did not power off: it reset the machine");
    }
    Ok(())
}

/// Rejects a file that cannot be read, before anything is started.
pub(crate) fn check_readable(file: &Path) -> Result<()> {
    let opened = fs::File::open(file);
    opened
        .map(drop)
        .map_err(|error| UsageError(format!("cannot read {}: {error}", file.display())).into())
}

/// Rejects a file that cannot be written, before anything is started.
fn check_writable(file: &Path) -> Result<()> {
    let opened = fs::OpenOptions::new().append(true).create(true).open(file);
    opened
        .map(drop)
        .map_err(|error| UsageError(format!("cannot write {}: {error}", file.display())).into())
}

//! `warmbus`: see `warmbus --help`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use warmbus_cli::input::{Capture, Place};
use warmbus_cli::survey::progress::When;
use warmbus_cli::{Verdict, check_kernel, diff, inspect, lspci, replay, survey};
use warmbus_pci::Sbdf;

/// Surveys a machine, decodes, compares and replays captured PCI configuration
/// space, and checks kernels.
///
/// CAPTURE is one of: a report (`--report`), a dump as lspci -xxxx writes it
/// (`--lspci`), a log of the console with either of them, or memory with a
/// handover, raw or as an ELF core file.
#[derive(Parser)]
#[command(
    name = "warmbus",
    version,
    after_help = "\
Exit status: 0 no damage and no difference, 1 damage or differences, 2 usage
error or unreadable file.

Examples:
  warmbus survey
  warmbus check-kernel /boot/vmlinuz
  warmbus inspect report.json
  warmbus inspect memory.bin --base 0x7e000000 --function 01:00.0
  warmbus lspci console.log | lspci -F /dev/stdin -tv
  warmbus diff before.txt after.txt
  warmbus replay boot.trace --cache dump.txt"
)]
struct Command {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Show what Warmbus would save on this machine, which runs Linux
    #[command(after_help = "\
Reads only: what sysfs shows, and of configuration space the Vendor and Device
ID, the header and the capability lists. Functions that a read would wake are
not read. Without root, configuration space ends after the header.

Exit status: 0 Warmbus is worth a try, 1 it is not, 2 usage error or no PCI
devices.

Examples:
  warmbus survey
  sudo warmbus survey --json > survey.json
  warmbus survey --vfs 64")]
    Survey {
        /// Forecast the creation of so many VFs [default: all that are
        /// possible]
        #[arg(long, value_name = "N")]
        vfs: Option<u64>,
        /// Time so many reads of each function
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        samples: u32,
        /// The tree of sysfs
        #[arg(long, value_name = "DIR", default_value = "/sys")]
        sysfs: PathBuf,
        /// When a bar shows the progress
        #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
        progress: When,
        /// Write JSON, schema warmbus-survey/1
        #[arg(long)]
        json: bool,
    },
    /// Show what a kernel would be handed over, and why not
    #[command(after_help = "\
IMAGE is an Image, with gzip or zstd or neither, an EFI zboot file with one of
them, a unified kernel image, or vmlinux.

Exit status: 0 the cache is handed over, 1 nothing is handed over, or the
firmware does not unpack the file; 2 usage error, unreadable or damaged file, or
no arm64 kernel.

Examples:
  warmbus check-kernel /boot/vmlinuz-7.3.4
  warmbus check-kernel Image --from /boot/vmlinuz-7.1.13
  warmbus check-kernel linux.efi --acpi --json")]
    CheckKernel {
        /// The kernel
        image: PathBuf,
        /// The running kernel, from which kexec would start the other one
        #[arg(long, value_name = "IMAGE")]
        from: Option<PathBuf>,
        /// Take the exit status from a machine with ACPI, not a device tree
        #[arg(long)]
        acpi: bool,
        /// Write JSON, schema warmbus-check-kernel/1
        #[arg(long)]
        json: bool,
    },
    /// Show the tree, or one function with its registers
    #[command(after_help = "\
Examples:
  warmbus inspect report.json
  warmbus inspect dump.txt --function 0000:01:00.0
  warmbus inspect memory.bin --base 0x7e000000 --root 0x7e004000
  warmbus inspect memory.elf --json")]
    Inspect {
        /// The capture
        capture: PathBuf,
        #[command(flatten)]
        place: PlaceArgs,
        /// Show the registers of this function
        #[arg(long, value_name = "SBDF")]
        function: Option<Sbdf>,
        /// Write JSON, schema warmbus-inspect/1
        #[arg(long)]
        json: bool,
    },
    /// Write a dump that `lspci -F` reads
    #[command(after_help = "\
Examples:
  warmbus lspci memory.elf > dump.txt && lspci -F dump.txt -vv
  warmbus lspci console.log | lspci -F /dev/stdin -tv")]
    Lspci {
        /// The capture with the configuration spaces
        capture: PathBuf,
        #[command(flatten)]
        place: PlaceArgs,
        /// Write JSON, schema warmbus-lspci/1
        #[arg(long)]
        json: bool,
    },
    /// List what changed between two captures
    #[command(after_help = "\
Exit status: 0 equal, 1 different, 2 usage error or unreadable file.

Examples:
  warmbus diff cold.txt warm.txt
  warmbus diff memory.bin dump.txt --base 0x7e000000 --json")]
    Diff {
        /// The first capture
        a: PathBuf,
        /// The second capture
        b: PathBuf,
        #[command(flatten)]
        place: PlaceArgs,
        /// Write JSON, schema warmbus-diff/1
        #[arg(long)]
        json: bool,
    },
    /// Compute the hit rates of a recorded ECAM trace
    #[command(after_help = "\
The trace is what QEMU writes with the events memory_region_ops_read and
memory_region_ops_write, as ./qemu-run.sh --trace keeps it. It is replayed
twice: with a cold cache, and with one that is filled from the capture.

Examples:
  warmbus replay boot.trace --cache dump.txt
  warmbus replay boot.trace --cache memory.elf --top 40
  warmbus replay boot.trace --cache memory.bin --base 0x7e000000 --json")]
    Replay {
        /// The trace
        trace: PathBuf,
        /// The capture that the cache starts with
        #[arg(long, value_name = "CAPTURE")]
        cache: PathBuf,
        #[command(flatten)]
        place: PlaceArgs,
        /// PCI segment of the traced ECAM window, hexadecimal
        #[arg(long, value_name = "SEGMENT", value_parser = segment, default_value = "0")]
        segment: u16,
        /// Number of registers to list, by remaining reads
        #[arg(long, value_name = "N", default_value_t = 20)]
        top: usize,
        /// Write JSON, schema warmbus-replay/1; all registers are listed
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct PlaceArgs {
    /// Physical address of the first byte of a raw memory image [default:
    /// derived from the address of the index]
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    base: Option<u64>,
    /// Physical address of the `pcsc` tree or of the KHO root tree [default:
    /// searched for in every page]
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    root: Option<u64>,
}

impl From<PlaceArgs> for Place {
    fn from(args: PlaceArgs) -> Self {
        Self {
            base: args.base,
            root: args.root,
        }
    }
}

/// An address: hexadecimal after `0x`, else decimal.
fn address(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| format!("not an address: {error}"))
}

fn segment(text: &str) -> Result<u16, String> {
    u16::from_str_radix(text, 16).map_err(|error| format!("not a segment number: {error}"))
}

fn main() -> ExitCode {
    // Usage errors end with status 2 here.
    let command = Command::parse();
    match run(command.task) {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(task: Task) -> Result<Verdict> {
    let (text, verdict) = match task {
        Task::Survey {
            vfs,
            samples,
            sysfs,
            progress,
            json,
        } => survey::run(&survey::Options {
            sysfs: &sysfs,
            samples: samples as usize,
            vfs,
            progress,
            json,
        })?,
        Task::CheckKernel {
            image,
            from,
            acpi,
            json,
        } => check_kernel::run(&image, from.as_deref(), acpi, json)?,
        Task::Inspect {
            capture,
            place,
            function,
            json,
        } => {
            let capture = Capture::load(&capture, place.into())?;
            inspect::run(&capture, function, json)?
        }
        Task::Lspci {
            capture,
            place,
            json,
        } => lspci::run(&Capture::load(&capture, place.into())?, json)?,
        Task::Diff { a, b, place, json } => {
            let place = Place::from(place);
            diff::run(&Capture::load(&a, place)?, &Capture::load(&b, place)?, json)
        }
        Task::Replay {
            trace,
            cache,
            place,
            segment,
            top,
            json,
        } => {
            let accesses = replay::read_trace(&trace)?;
            let capture = Capture::load(&cache, place.into())?;
            replay::run(&accesses, &capture, segment, top, json)?
        }
    };
    match io::stdout().write_all(text.as_bytes()) {
        // The reader of the pipe has closed it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written.context("cannot write the result")?,
    }
    Ok(verdict)
}

//! The command line.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use warmbus_cli::input::Place;
use warmbus_cli::install;
use warmbus_cli::survey::progress::When;
use warmbus_pci::Sbdf;

use crate::generate::Generated;

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
pub(crate) struct Command {
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Subcommand)]
pub(crate) enum Task {
    /// Show what Warmbus would save on this machine, which runs Linux
    #[command(after_help = "\
Reads only: what sysfs shows, and of configuration space the Vendor and Device
ID, the header and the capability lists. Functions that a read would wake are
not read. Without root, configuration space ends after the header.

Exit status: 0 whatever the verdict is, 2 usage error or no PCI devices.

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
    /// Show what the running kernel does with what was handed over
    #[command(after_help = "\
The kernel shows its counters to root only. Without root, the functions and what
the boot tree says are shown, and what root would add.

With --boot, what `warmbus install` has put on the EFI system partition, or in the
folder that U-Boot reads, is compared with what is there.

Exit status: 0 the cache is used, or Warmbus is installed as it was; 1 it is not;
2 usage error.

Examples:
  sudo warmbus status
  sudo warmbus status --json
  sudo warmbus status --boot --esp /boot/efi")]
    Status {
        /// Show what is installed instead
        #[arg(long, conflicts_with_all = ["json", "log"])]
        boot: bool,
        #[command(flatten)]
        place: LoaderArgs,
        /// The tree of sysfs, with debugfs in kernel/debug
        #[arg(long, value_name = "DIR", default_value = "/sys")]
        sysfs: PathBuf,
        /// The tree of procfs
        #[arg(long, value_name = "DIR", default_value = "/proc")]
        proc: PathBuf,
        /// A log of the kernel [default: that of the running one]
        #[arg(long, value_name = "FILE")]
        log: Option<PathBuf>,
        /// Write JSON, schema warmbus-status/1
        #[arg(long)]
        json: bool,
    },
    /// Have Warmbus start at every boot
    #[command(after_help = "\
With `u-boot`, U-Boot runs a new boot.scr in its folder, which has Warmbus start the
kernel; without one of its files it goes on as before. The other ways are those of
UEFI.

A file EFI/warmbus/installed.json, or warmbus-installed.json in the folder of U-Boot,
lists what was made. What this command does not understand, or would have to replace,
it refuses.

Examples:
  sudo warmbus install systemd-boot --dry-run
  sudo warmbus install driver --files warmbus-0.2.0
  sudo warmbus install application --next '\\EFI\\debian\\shimaa64.efi'
  sudo warmbus install u-boot --kernel /boot/Image --initrd /boot/initrd.img")]
    Install {
        /// How Warmbus is started
        #[arg(value_enum)]
        way: install::Way,
        #[command(flatten)]
        place: LoaderArgs,
        #[command(flatten)]
        started: StartedArgs,
        /// The folder with the files of a release
        #[arg(long, value_name = "DIR", default_value = "/usr/lib/warmbus")]
        files: PathBuf,
        /// The program that Warmbus starts, with `application` [default: the one
        /// that was booted]
        #[arg(long, value_name = "PATH")]
        next: Option<String>,
        /// Show the steps, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove what `install` has made
    #[command(after_help = "\
What has changed since stays, with a line.

Examples:
  sudo warmbus uninstall --dry-run
  sudo warmbus uninstall --esp /boot/efi
  sudo warmbus uninstall --folder /boot")]
    Uninstall {
        #[command(flatten)]
        place: LoaderArgs,
        /// Show the steps, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Write man pages and completions for shells
    #[command(after_help = "\
Examples:
  warmbus generate man -o /usr/share/man/man1
  warmbus generate bash > /usr/share/bash-completion/completions/warmbus")]
    Generate {
        /// What to write
        #[arg(value_enum)]
        what: Generated,
        /// The folder for the man pages [default: standard output, with that
        /// of `warmbus` alone]
        #[arg(short, long, value_name = "DIR")]
        output: Option<PathBuf>,
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
    /// Write a page for a browser
    #[command(after_help = "\
FILE is a capture, or a survey in JSON. The page has everything in it and loads
nothing.

Examples:
  warmbus view report.json -o page.html
  warmbus view memory.bin --base 0x7e000000 > page.html")]
    View {
        /// The capture or survey
        file: PathBuf,
        #[command(flatten)]
        place: PlaceArgs,
        /// The page [default: standard output]
        #[arg(short, long, value_name = "PAGE")]
        output: Option<PathBuf>,
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
pub(crate) struct LoaderArgs {
    /// Where the EFI system partition is mounted
    #[arg(long, value_name = "DIR", default_value = "/boot/efi")]
    esp: PathBuf,
    /// Where the variables of UEFI are
    #[arg(long, value_name = "DIR", default_value = "/sys/firmware/efi/efivars")]
    efivars: PathBuf,
    /// The folder of a partition that U-Boot reads, instead of the two
    #[arg(long, value_name = "DIR", conflicts_with_all = ["esp", "efivars"])]
    folder: Option<PathBuf>,
}

impl LoaderArgs {
    /// The place of `way`, or where that is not said, of what was named.
    pub(crate) fn place(&self, way: Option<install::Way>, dry_run: bool) -> install::Place<'_> {
        let folder = match way {
            Some(install::Way::UBoot) => Some(self.folder.as_deref().unwrap_or(Path::new("/boot"))),
            Some(_) => None,
            None => self.folder.as_deref(),
        };
        let loader = match folder {
            Some(folder) => install::Loader::UBoot(folder),
            None => install::Loader::Uefi {
                esp: &self.esp,
                efivars: &self.efivars,
            },
        };
        install::Place { loader, dry_run }
    }
}

/// What Warmbus starts where U-Boot starts Warmbus.
#[derive(Args)]
pub(crate) struct StartedArgs {
    /// The kernel that Warmbus starts, with `u-boot`
    #[arg(long, value_name = "FILE", required_if_eq("way", "u-boot"))]
    kernel: Option<PathBuf>,
    /// Its initrd
    #[arg(long, value_name = "FILE", required_if_eq("way", "u-boot"))]
    initrd: Option<PathBuf>,
    /// The device tree [default: the one that U-Boot has]
    #[arg(long, value_name = "FILE")]
    tree: Option<PathBuf>,
    /// The command line of the kernel and of Warmbus [default: that of the running
    /// kernel, with kho=on]
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    parameters: Option<String>,
    /// From which address on memory is free [default: that of U-Boot for kernels]
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    load_address: Option<u64>,
}

impl StartedArgs {
    /// Installs a script of U-Boot that starts it.
    pub(crate) fn install(&self, place: &install::Place<'_>, files: &Path) -> Result<String> {
        let parameters = match &self.parameters {
            Some(parameters) => parameters.clone(),
            None => running_parameters()?,
        };
        install::install_boot_script(
            place,
            files,
            &install::Started {
                kernel: self.kernel.as_deref().context("no kernel is named")?,
                initrd: self.initrd.as_deref().context("no initrd is named")?,
                tree: self.tree.as_deref(),
                parameters: &parameters,
                load_address: self.load_address,
            },
        )
    }
}

/// The command line of the running kernel, with the word that has it take a
/// handover.
fn running_parameters() -> Result<String> {
    const FILE: &str = "/proc/cmdline";
    let line = fs::read_to_string(FILE).with_context(|| format!("cannot read {FILE}"))?;
    let line = line.trim();
    let has_it = line.split_whitespace().any(|word| word.starts_with("kho="));
    Ok(if has_it {
        line.to_owned()
    } else {
        format!("{line} kho=on")
    })
}

#[derive(Args)]
pub(crate) struct PlaceArgs {
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

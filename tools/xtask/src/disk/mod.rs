//! `cargo xtask image`: a disk or SD card from which the U-Boot of a board
//! starts Warmbus, and Warmbus Linux.

pub mod card;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use warmbus_board::Board;
use warmbus_boot::report::console::Event;
use warmbus_cli::u_boot;

use crate::progress::Progress;
use crate::qemu::Machine;
use crate::run::{self, check_readable};
use crate::setup::{self, Purpose};
use crate::topology::Topology;
use crate::{UsageError, build, linux, paths};

/// The board that QEMU emulates with a U-Boot.
const EMULATED: &str = "qemu-virt";
/// The device tree on the disk.
const TREE: &str = "board.dtb";

/// What to write to the disk.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask image --board qemu-virt --run
  cargo xtask image --board list
  cargo xtask image --board qemu-virt --kernel Image --initrd initrd.img --append 'root=/dev/vda2 ro'
  cargo xtask image --board qemu-virt --append warmbus.preserve --output card.img
  cargo xtask image --board qemu-virt --files /media/boot")]
pub struct Options {
    /// Board: a folder below boards, or `list` to list them
    #[arg(long, value_name = "NAME")]
    pub board: String,

    /// Path of the image [default: target/warmbus/NAME.img]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Write the files to this directory instead, for example the boot
    /// partition of a card that has a system already
    #[arg(long, value_name = "DIR", conflicts_with_all = ["output", "run"])]
    pub files: Option<PathBuf>,

    /// Linux to start, an arm64 Image or Image.gz, instead of the one that
    /// `cargo xtask linux` builds
    #[arg(long, value_name = "IMAGE")]
    pub kernel: Option<PathBuf>,

    /// Initrd for it, instead of the one that prints what Linux received
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,

    /// Device tree to use instead of the one that U-Boot has
    #[arg(long, value_name = "FILE")]
    pub tree: Option<PathBuf>,

    /// More parameters for the kernel command line; the firmware reads those
    /// that start with `warmbus.`
    #[arg(long, value_name = "STRING", allow_hyphen_values = true)]
    pub append: Vec<String>,

    /// Boot it in QEMU, with QEMU's U-Boot
    #[arg(long)]
    pub run: bool,
}

/// All boards with a description, by name.
pub fn boards() -> Result<std::collections::BTreeMap<String, Board>> {
    Ok(warmbus_board::all(&paths::root().join("boards"))?)
}

/// Makes the disk image that `options` describe.
pub fn run(options: &Options) -> Result<()> {
    if options.board == "list" {
        for (id, board) in boards()?.iter().filter(|(_, board)| board.image.is_some()) {
            println!("{id:24} {}", board.name);
        }
        return Ok(());
    }
    let board = board(&options.board)?;
    if options.run && options.board != EMULATED {
        return Err(UsageError(format!(
            "QEMU has no U-Boot for {}, only for {EMULATED}",
            options.board
        ))
        .into());
    }
    let toolchain = setup::ensure(Purpose::Image)?;
    let firmware = build::firmware(&toolchain)?;
    let files = options.contents(&board, &firmware)?;
    if let Some(directory) = &options.files {
        for file in &files {
            file.put(directory)?;
        }
        println!("{}", directory.display());
        return Ok(());
    }
    let output = options.output.clone();
    let output = output.unwrap_or_else(|| paths::images().join(format!("{}.img", options.board)));
    let step = Progress::begin("writing the image");
    let size = card::write(&output, &files)?;
    step.end(&format!(
        "{}: {} MiB, for the U-Boot of {}",
        output.display(),
        size >> 20,
        board.name
    ));
    println!("{}", output.display());
    if options.run {
        boot(&output, options.initrd.is_none())?;
    }
    Ok(())
}

/// The board `id`, if it has a U-Boot.
fn board(id: &str) -> Result<Board> {
    let mut boards = boards()?;
    boards.retain(|_, board| board.image.is_some());
    let names: Vec<_> = boards.keys().cloned().collect();
    boards.remove(id).ok_or_else(|| {
        UsageError(format!(
            "no image can be made for {id:?}, only for {}",
            names.join(", ")
        ))
        .into()
    })
}

/// One file of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name on the disk.
    pub name: &'static str,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl File {
    fn read(name: &'static str, file: &Path) -> Result<Self> {
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(Self { name, bytes })
    }

    fn put(&self, directory: &Path) -> Result<()> {
        let file = directory.join(self.name);
        fs::write(&file, &self.bytes).with_context(|| format!("cannot write {}", file.display()))
    }
}

impl Options {
    /// The files for `board`, with `firmware` as the first of them.
    pub fn contents(&self, board: &Board, firmware: &Path) -> Result<Vec<File>> {
        let given = [&self.kernel, &self.initrd, &self.tree];
        for file in given.into_iter().flatten() {
            check_readable(file)?;
        }
        let image = board.image.iter();
        let mut parameters: Vec<_> = image.map(|image| image.bootargs.as_str()).collect();
        let kernel = match &self.kernel {
            Some(kernel) => kernel.clone(),
            None => linux::image(&linux::Options::default())?,
        };
        crate::image::facts(&kernel)?;
        let initrd = match &self.initrd {
            Some(initrd) => initrd.clone(),
            None => {
                parameters.extend(["quiet", "panic=-1"]);
                linux::initramfs()?
            }
        };
        parameters.extend(self.append.iter().map(String::as_str));
        let line = parameters.join(" ");
        let (for_firmware, for_linux): (Vec<_>, Vec<_>) = line
            .split_whitespace()
            .partition(|parameter| run::is_for_firmware(parameter));

        let mut files = vec![
            File::read("warmbus.img", firmware)?,
            File::read("Image", &kernel)?,
            File::read("initrd", &initrd)?,
        ];
        if let Some(tree) = &self.tree {
            files.push(File::read(TREE, tree)?);
        }
        let script = u_boot::Script {
            load_address: board.image.as_ref().and_then(|image| image.load_address),
            firmware: &files[0].bytes,
            firmware_parameters: &for_firmware.join(" "),
            linux_parameters: &for_linux.join(" "),
            files: u_boot::Files {
                tree: self.tree.as_ref().map(|_| TREE),
                ..u_boot::Files::default()
            },
        };
        let text = script.text();
        let text = text.map_err(|error| UsageError(format!("{error:#}")))?;
        files.push(File {
            name: "boot.scr",
            bytes: u_boot::pack(&text),
        });
        files.push(File {
            name: "boot.cmd",
            bytes: text.into_bytes(),
        });
        Ok(files)
    }
}

/// A machine of QEMU with U-Boot in its flash and the disk `image`.
pub fn machine(image: &Path) -> Result<Machine> {
    let bios = setup::u_boot().context("U-Boot for QEMU is not installed")?;
    let file = image.to_string_lossy().replace(',', ",,");
    let drive = format!("if=none,id=card,format=raw,snapshot=on,file={file}");
    Ok(Machine::bios(&bios).arguments(["-drive", &drive, "-device", "virtio-blk-pci,drive=card"]))
}

/// Boots `image` in QEMU until the machine is off. With `is_test_linux`, Linux
/// has to run all of its steps.
fn boot(image: &Path, is_test_linux: bool) -> Result<()> {
    let sockets = tempfile::tempdir()?;
    let machine = machine(image)?.topology(&Topology::load("small")?);
    let mut running = machine.qmp(&sockets.path().join("qmp")).start()?;
    let show = |event: Event| {
        match event {
            Event::Text(line) | Event::Starting(line) => writeln!(io::stdout(), "{line}")?,
            _ => {}
        }
        Ok(())
    };
    running.result(show)?.into_result()?;
    run::follow_linux(&mut running, is_test_linux, true, show)?;
    running.end()?;
    Ok(())
}

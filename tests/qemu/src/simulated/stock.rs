//! Booting a Linux with and without the firmware on a machine whose configuration space
//! is a simulated fabric, with any number of host bridges.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use warmbus_boot::report::console::Section;
use warmbus_pci::{HostBridge, HostWindow, WindowKind};
use warmbus_pcie_sim::Fabric;
use xtask::process;
use xtask::qemu::{Machine, hypervisor};

use super::{Fifos, Server, assemble};
use crate::boot::{LOADED, Lab, image};
use crate::linux::{LinuxBoot, initramfs, payload};
use crate::tree::{HOST_BRIDGE, Tree};

/// Where a function is, whatever the bus numbers: the segment, then the device and
/// function number of each bridge above it, and its own.
pub type Place = (u16, Vec<u8>);

/// The resources of a function that have an address, by their index in sysfs: the
/// bytes of each.
pub type Sizes = BTreeMap<u8, u64>;

/// Who assigns resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Linux alone.
    Linux,
    /// The firmware, then Linux where the firmware asks it to.
    Firmware,
}

/// Boots `kernel` on `fabric` to its end, with `bootargs` added. Returns what is known
/// of the boot, and the resources of each function that Linux found.
pub fn placed(
    mut fabric: Fabric,
    lab: &Lab,
    start: Start,
    kernel: &Path,
    bootargs: &str,
) -> Result<(LinuxBoot, BTreeMap<Place, Sizes>)> {
    // The time that the guest takes is the only one.
    fabric.set_access_time(0);
    let hosts = fabric.host_bridges();
    let fifos = Fifos::new(lab)?;
    let mut definitions = Vec::from(fifos.definitions());
    let end = hosts.iter().map(|host| host.ecam_base.0 + host.ecam_size);
    let end = end.max().context("no host bridge")?;
    let gibs = (end - (0x40 << 32)).div_ceil(1 << 30);
    definitions.push(format!("-DWINDOW_GIBS={gibs}"));
    let hypervisor = assemble(lab, &definitions)?;

    let mut payload = payload(kernel, "places");
    payload.bootargs = format!("{} {bootargs}", payload.bootargs);
    let machine = Machine::kernel(&hypervisor)
        .el2()
        .arguments(["-semihosting-config", "enable=on,target=native"]);
    let machine = match start {
        Start::Linux => {
            let initrd = initramfs().to_string_lossy().into_owned();
            machine
                .bootargs(&payload.bootargs)
                .arguments(["-initrd".to_owned(), initrd])
                .load(&unpacked(kernel, lab)?, LOADED)
        }
        Start::Firmware => machine.payload(payload),
    };
    let tree = Tree::of(&machine, lab);
    describe(&tree, &hosts, lab)?;
    let server = Server {
        hosts,
        fabric,
        before: Box::new(|_| ()),
        serrors: Box::new(|_| None),
        flaws: Vec::new(),
        outside: Arc::default(),
    };
    let (linux, _) = fifos.serve(server, || match start {
        Start::Linux => lab.follow_alone(machine.device_tree(tree.file())),
        Start::Firmware => {
            lab.boot_linux(machine.own_device_tree(tree.file()).load(image(), LOADED))
        }
    })?;
    let placed = parse(&linux)?;
    Ok((linux, placed))
}

/// The `Image` in `kernel`, which may be an `Image.gz`.
fn unpacked(kernel: &Path, lab: &Lab) -> Result<PathBuf> {
    const GZIP: [u8; 2] = [0x1f, 0x8b];
    if !fs::read(kernel)?.starts_with(&GZIP) {
        return Ok(kernel.into());
    }
    let image = lab.file("Image");
    let file = File::create(&image)?;
    let status = Command::new("gzip")
        .arg("-dc")
        .arg(kernel)
        .stdout(file)
        .status()?;
    ensure!(status.success(), "gzip cannot unpack {}", kernel.display());
    Ok(image)
}

/// Puts `hosts` in the place of the host bridge of QEMU.
fn describe(tree: &Tree, hosts: &[HostBridge], lab: &Lab) -> Result<()> {
    let mut convert = Command::new("dtc");
    convert.args(["-q", "-I", "dtb", "-O", "dts"]);
    let mut text = process::output(convert.arg(tree.file()))?;
    let [start, size] = hypervisor::REGION;
    writeln!(
        text,
        "/ {{\n/delete-node/ {};\n\
         reserved-memory {{ #address-cells = <2>; #size-cells = <2>; ranges;\n\
         hypervisor@{start:x} {{ reg = <0 {start:#x} 0 {size:#x}>; no-map; }}; }};",
        &HOST_BRIDGE[1..]
    )?;
    for host in hosts {
        let cells = |value: u64| format!("{:#x} {:#x}", value >> 32, value as u32);
        let ranges: String = host.windows.iter().map(range).collect();
        writeln!(
            text,
            "{} {{ compatible = \"pci-host-ecam-generic\"; device_type = \"pci\";\n\
             #address-cells = <3>; #size-cells = <2>;\n\
             reg = <{} {}>; bus-range = <{} {}>; linux,pci-domain = <{}>;\n\
             ranges = <{ranges}>; }};",
            &host.name[1..],
            cells(host.ecam_base.0),
            cells(host.ecam_size),
            host.buses.first,
            host.buses.last,
            host.segment,
        )?;
    }
    text.push_str("};\n");
    let source = lab.file("machines.dts");
    fs::write(&source, text)?;
    let mut compile = Command::new("dtc");
    compile.args(["-q", "-I", "dts", "-O", "dtb", "-o"]);
    process::output(compile.arg(tree.file()).arg(source)).map(drop)
}

/// The entry of `ranges` for `window` (PCI Bus Binding to IEEE 1275, 2.2.1.1).
fn range(window: &HostWindow) -> String {
    let space = match window.kind {
        WindowKind::Io => 0x0100_0000_u32,
        WindowKind::Memory32 => 0x0200_0000,
        WindowKind::Memory64 => 0x0300_0000,
    };
    let prefetchable = u32::from(window.prefetchable) << 30;
    let mut cells = format!("{:#x}", space | prefetchable);
    for value in [window.pci_address, window.cpu_address.0, window.size] {
        let _ = write!(cells, " {:#x} {:#x}", value >> 32, value as u32);
    }
    cells.push(' ');
    cells
}

/// What the step `places` shows.
fn parse(linux: &LinuxBoot) -> Result<BTreeMap<Place, Sizes>> {
    /// A resource without an address.
    const UNSET: u64 = 0x2000_0000;

    let console = || linux.boot.console.join("\n");
    let text = linux.boot.linux.get(&Section::LinuxPci);
    let text = text.with_context(console)?;
    if !linux.ran_to_the_end() {
        bail!("Linux did not come to its end:\n{}", console());
    }
    let mut all = BTreeMap::new();
    let mut last: Option<&mut Sizes> = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["function", path] => last = Some(all.entry(place(path)?).or_default()),
            ["resource", index, start, end, flags] => {
                let number = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16);
                let (start, end, flags) = (number(start)?, number(end)?, number(flags)?);
                if start != 0 && start < end && flags & UNSET == 0 {
                    let sizes = last.as_mut().context("a resource of no function")?;
                    sizes.insert(index.parse()?, end - start + 1);
                }
            }
            _ => bail!("the line {line:?} of Linux cannot be read"),
        }
    }
    Ok(all)
}

/// The place of a function by its path in sysfs, which has the address of each bridge
/// above it.
fn place(path: &str) -> Result<Place> {
    let mut segment = None;
    let mut place = Vec::new();
    for name in path.split('/') {
        let fields: Vec<&str> = name.split([':', '.']).collect();
        if let [domain, _, device, function] = fields[..] {
            let number = |text: &str| u8::from_str_radix(text, 16);
            segment = Some(u16::from_str_radix(domain, 16)?);
            place.push(number(device)? << 3 | number(function)?);
        }
    }
    Ok((
        segment.with_context(|| format!("no function in {path}"))?,
        place,
    ))
}

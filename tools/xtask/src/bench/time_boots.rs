//! Boots that are stopped where a part of them ends: at the first instruction of
//! Linux, when PCI is set up, and when the first process starts.
//!
//! QEMU counts instructions exactly (`-icount`), and the debugger stops the guest
//! at an address without one more. Only what the guest itself computes is exact:
//! *when* a virtio or `NVMe` device answers depends on the host, so their drivers
//! are not started, and the initramfs is unpacked before anything else goes on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use object::{Object as _, ObjectSymbol as _};
use tempfile::TempDir;
use warmbus_boot::report::console::Event;
use warmbus_cli::trace::Access;

use super::measure;
use super::time::{Case, Firmware, Peer, Timed, Work};
use super::u_boot;
use crate::qemu::debugger::Debugger;
use crate::qemu::{INITRD_AT, KERNEL_AT, Log, Machine, Payload, Running};
use crate::run::LINUX_BOOTARGS;
use crate::topology::Topology;
use crate::{linux, setup};

/// Two nanoseconds an instruction.
const INSTRUCTION_TIME: u8 = 1;
/// The same random numbers in every run, and a clock that is that of the guest.
const EXACT: [&str; 4] = ["-seed", "1", "-rtc", "clock=vm"];
/// What keeps out of a boot what does not repeat, and has the functions of the
/// kernel where it was linked.
const QUIET: &str =
    "nokaslr quiet initcall_blacklist=nvme_init,virtio_pci_driver_init initramfs_async=0";
/// Where QEMU places what it starts by the Linux boot protocol.
const ENTRY: u64 = 0x4020_0000;
/// Where the ECAM window of the machine is.
const ECAM: u64 = 0x40_1000_0000;
/// The function of Linux that sets up all of PCI on this machine, that which
/// starts the first process, that which starts the next kernel, and that which creates
/// virtual functions.
const FUNCTIONS: [&str; 4] = [
    "gen_pci_driver_init",
    "run_init_process",
    "kernel_kexec",
    "sriov_numvfs_store",
];
/// Has a physical function that vfio-pci drives create virtual ones.
const HOST: &str = "vfio_pci.enable_sriov=1";
/// Virtual functions of each device of a host, all that it has.
const VFS: u32 = 127;
/// The function of Warmbus that enters Linux, whose address is its first argument.
const ENTER: &str = "enter_kernel";
/// How long a guest may print nothing.
const SILENCE: Duration = Duration::from_mins(15);

/// A kernel, and where its [`FUNCTIONS`] are.
struct Kernel {
    image: PathBuf,
    functions: [u64; 4],
}

/// The programs that are booted.
pub(super) struct Programs {
    firmware: PathBuf,
    enter: u64,
    stock: Kernel,
    consumer: Kernel,
    initramfs: PathBuf,
    directory: TempDir,
}

impl Programs {
    /// Builds what is missing, and boots each kernel once to ask it where its
    /// functions are.
    pub(super) fn ready(firmware: &Path, topology: &Topology) -> Result<Self> {
        let initramfs = linux::initramfs()?;
        let kernel = |options| {
            let image = linux::image(&options)?;
            let functions = functions(&image, &initramfs, topology)?;
            Ok::<_, anyhow::Error>(Kernel { image, functions })
        };
        Ok(Self {
            firmware: firmware.into(),
            enter: ENTRY + enter_offset(&firmware.with_extension("elf"))?,
            stock: kernel(linux::Options::default())?,
            consumer: kernel(linux::Options::consumer())?,
            initramfs,
            directory: tempfile::tempdir()?,
        })
    }

    /// Boots `peer` in `case`.
    pub(super) fn boot(&self, peer: Peer, case: Case<'_>) -> Result<Timed> {
        let timed = match peer {
            Peer::LinuxStock => self.alone(&self.stock, case),
            Peer::LinuxCold => self.alone(&self.consumer, case),
            Peer::UBootLinuxStock => self.after_u_boot(&self.stock, case),
            Peer::WarmbusLinuxStock => self.after_warmbus(&self.stock, case),
            Peer::WarmbusLinux => self.after_warmbus(&self.consumer, case),
            Peer::KexecLinuxStock => self.after_kexec(&self.stock, false, case),
            Peer::KexecLinux => self.after_kexec(&self.consumer, true, case),
        };
        timed.with_context(|| format!("{} on {}", peer.title(), case.name()))
    }

    /// `machine` with its own device tree, without padding.
    fn with_short_tree(&self, machine: Machine) -> Result<Machine> {
        let tree = self.directory.path().join("tree.dtb");
        machine.dump_device_tree(&tree)?;
        fs::write(&tree, without_padding(fs::read(&tree)?)?)?;
        Ok(machine.device_tree(&tree))
    }

    fn alone(&self, kernel: &Kernel, case: Case<'_>) -> Result<Timed> {
        let machine = alone(&kernel.image, &self.initramfs, &bootargs(case, ""));
        let mut guest = self.start(self.with_short_tree(of(machine, case))?)?;
        let linux = guest.linux(kernel, ENTRY)?;
        let vfs = guest.vfs(kernel, case)?;
        Ok(guest.end()?.of_linux(linux, &vfs))
    }

    /// U-Boot from power-on, which finds kernel and initrd in memory, as behind
    /// any medium whose time is not its own.
    fn after_u_boot(&self, kernel: &Kernel, case: Case<'_>) -> Result<Timed> {
        let bios = setup::u_boot().context("U-Boot for QEMU is not installed")?;
        let flash = self.directory.path().join("environment");
        let size = fs::metadata(&self.initramfs)?.len();
        let start = format!("booti {KERNEL_AT:x} {INITRD_AT:x}:{size:x} ${{fdtcontroladdr}}");
        u_boot::write_environment(
            &flash,
            &[("bootargs", &bootargs(case, "")), ("bootcmd", &start)],
        )?;
        let machine = self.with_short_tree(of(Machine::bios(&bios), case))?;
        let machine = machine
            .load(&kernel.image, KERNEL_AT)
            .load(&self.initramfs, INITRD_AT)
            .arguments(["-drive".into(), u_boot::flash_drive(&flash)]);
        let mut guest = self.start(machine)?;
        let start = guest.stop()?;
        let linux = guest.linux(kernel, KERNEL_AT)?;
        Ok(guest.end()?.behind_firmware(start, linux, &[]))
    }

    fn by_warmbus(&self, kernel: &Kernel, initrd: &Path, bootargs: String) -> Machine {
        Machine::kernel(&self.firmware).payload(Payload {
            kernel: kernel.image.clone(),
            initrd: Some(initrd.into()),
            bootargs,
        })
    }

    fn after_warmbus(&self, kernel: &Kernel, case: Case<'_>) -> Result<Timed> {
        let machine = self.by_warmbus(kernel, &self.initramfs, bootargs(case, ""));
        let mut guest = self.start(of(machine, case))?;
        guest.debugger.run_to(ENTRY)?;
        let start = guest.stop()?;
        let entry = guest.debugger.run_to(self.enter)?.get(0)?;
        let linux = guest.linux(kernel, entry)?;
        let vfs = guest.vfs(kernel, case)?;
        Ok(guest.end()?.behind_firmware(start, linux, &vfs))
    }

    /// The second of two boots of `kernel`, the first of which was started by
    /// Warmbus or by QEMU itself.
    fn after_kexec(&self, kernel: &Kernel, warmbus: bool, case: Case<'_>) -> Result<Timed> {
        let initrd = self.directory.path().join("initrd");
        fs::write(&initrd, linux::with_kernel(&self.initramfs, &kernel.image)?)?;
        let bootargs = bootargs(case, "kexec,");
        let machine = if warmbus {
            self.by_warmbus(kernel, &initrd, bootargs)
        } else {
            alone(&kernel.image, &initrd, &bootargs)
        };
        let mut guest = self.start(of(machine, case))?;
        let [_, _, kexec, _] = kernel.functions;
        let linux = guest.linux(kernel, kexec)?;
        let vfs = guest.vfs(kernel, case)?;
        Ok(guest.end()?.of_linux(linux, &vfs))
    }

    fn start(&self, machine: Machine) -> Result<Guest> {
        let file = |name| self.directory.path().join(name);
        let (qmp, socket) = (file("qmp"), file("gdb"));
        for file in [&qmp, &socket] {
            let _ = fs::remove_file(file);
        }
        let mut running = machine
            .trace()
            .qmp(&qmp)
            .instruction_time(INSTRUCTION_TIME)
            .arguments(EXACT)
            .arguments(["-S"])
            .arguments(Debugger::arguments(&socket))
            .start()?;
        running.set_silence(SILENCE);
        let debugger = Debugger::stop(&socket)?;
        Ok(Guest {
            running,
            debugger,
            stops: Vec::new(),
        })
    }
}

/// A machine that stands still until it is run to an address.
struct Guest {
    running: Running,
    debugger: Debugger,
    /// The instructions before each mark.
    stops: Vec<u64>,
}

impl Guest {
    /// Notes where the guest is now. Returns the number of the note.
    fn stop(&mut self) -> Result<usize> {
        let number = self.stops.len();
        self.stops.push(self.running.qmp()?.instructions()?);
        self.debugger.mark(ECAM, number as u16)?;
        Ok(number)
    }

    /// Runs `kernel`, whose boot begins at `entry`, to its first process. Returns the
    /// notes: its beginning, PCI set up, the first process.
    fn linux(&mut self, kernel: &Kernel, entry: u64) -> Result<[usize; 3]> {
        self.debugger.run_to(entry)?;
        let first = self.stop()?;
        let [pci, init, ..] = kernel.functions;
        let caller = self.debugger.run_to(pci)?.link()?;
        self.debugger.run_to(caller)?;
        let pci = self.stop()?;
        self.debugger.run_to(init)?;
        Ok([first, pci, self.stop()?])
    }

    /// Lets Linux create the virtual functions of each device. Returns the notes
    /// before and after each time.
    fn vfs(&mut self, kernel: &Kernel, case: Case<'_>) -> Result<Vec<[usize; 2]>> {
        let [.., create] = kernel.functions;
        let arguments = case.topology.arguments.iter();
        let all = format!("sriov_max_vfs={VFS}");
        let devices = arguments.filter(|word| case.is_host && word.contains(&all));
        let times = devices.map(|_| {
            let caller = self.debugger.run_to(create)?.link()?;
            let before = self.stop()?;
            self.debugger.run_to(caller)?;
            Ok([before, self.stop()?])
        });
        times.collect()
    }

    fn end(mut self) -> Result<Parts> {
        let log = self.running.end()?.log;
        let parts = Parts::new(self.stops, &log);
        let (marks, stops) = (parts.accesses.len(), parts.instructions.len());
        ensure!(marks == stops, "{marks} marks in the trace of {stops}");
        Ok(parts)
    }
}

/// What had happened before each note.
struct Parts {
    instructions: Vec<u64>,
    accesses: Vec<u64>,
    printed: Vec<u64>,
}

impl Parts {
    fn new(instructions: Vec<u64>, log: &Log) -> Self {
        let mut parts = Self {
            instructions,
            accesses: Vec::new(),
            printed: Vec::new(),
        };
        let mut accesses = 0;
        for (number, line) in log.trace.iter().enumerate() {
            let is_mark = Access::parse(line)
                .as_ref()
                .and_then(measure::mark)
                .is_some();
            if is_mark {
                let printed = log.printed.partition_point(|before| *before <= number);
                parts.accesses.push(accesses);
                parts.printed.push(printed as u64);
            } else {
                accesses += 1;
            }
        }
        parts
    }

    fn between(&self, first: usize, last: usize) -> Work {
        Work {
            instructions: self.instructions[last] - self.instructions[first],
            accesses: self.accesses[last] - self.accesses[first],
        }
    }

    /// A boot of Linux with its notes, and those around each creation of virtual
    /// functions.
    fn of_linux(&self, [first, pci, init]: [usize; 3], vfs: &[[usize; 2]]) -> Timed {
        let vfs = vfs
            .iter()
            .map(|&[before, after]| self.between(before, after));
        Timed {
            firmware: None,
            pci: self.between(first, pci),
            init: self.between(pci, init),
            vfs: vfs.reduce(Work::and),
        }
    }

    /// The same by a firmware that began at `start`.
    fn behind_firmware(&self, start: usize, linux: [usize; 3], vfs: &[[usize; 2]]) -> Timed {
        let [first, ..] = linux;
        Timed {
            firmware: Some(Firmware {
                work: self.between(start, first),
                console_bytes: self.printed_before(first),
            }),
            ..self.of_linux(linux, vfs)
        }
    }

    fn printed_before(&self, note: usize) -> u64 {
        self.printed[note]
    }
}

/// The command line of Linux, which begins with the steps `first`.
fn bootargs(case: Case<'_>, first: &str) -> String {
    let line = format!("{LINUX_BOOTARGS} pcsc=on retain_initrd {QUIET}");
    let (words, steps) = if case.is_host {
        (HOST, format!("vfio_vfs:{VFS},"))
    } else {
        ("", String::new())
    };
    format!("{line} {words} warmbus.test={first}{steps}summary")
}

/// `machine` with the devices of `case`.
fn of(machine: Machine, case: Case<'_>) -> Machine {
    let machine = machine.topology(case.topology);
    if case.is_host {
        machine.machine_option("iommu=smmuv3")
    } else {
        machine
    }
}

/// A machine that starts `kernel` itself.
fn alone(kernel: &Path, initrd: &Path, bootargs: &str) -> Machine {
    Machine::kernel(kernel)
        .bootargs(bootargs)
        .arguments(["-initrd".into(), initrd.display().to_string()])
}

/// Where the [`FUNCTIONS`] of the kernel `image` are, by what it says itself.
fn functions(image: &Path, initramfs: &Path, topology: &Topology) -> Result<[u64; 4]> {
    let steps = FUNCTIONS.map(|name| format!("symbol:{name},")).concat();
    let case = Case::boot(topology);
    let machine = of(alone(image, initramfs, &bootargs(case, &steps)), case);
    let mut running = machine.start()?;
    let mut found = BTreeMap::new();
    while let Some(event) = running.event()? {
        let Event::Text(text) = &event else {
            continue;
        };
        let words: Vec<_> = text.split_whitespace().collect();
        if let [.., "symbol", address, name] = words[..] {
            found.insert(name.to_owned(), u64::from_str_radix(address, 16)?);
        }
    }
    running.end()?;
    let mut functions = [0; 4];
    for (name, address) in FUNCTIONS.iter().zip(&mut functions) {
        let place = found.get(*name).copied();
        *address = place.with_context(|| format!("the kernel has no function {name}"))?;
    }
    Ok(functions)
}

/// The device tree `tree` without what follows its last block. QEMU pads its tree
/// to 1 MiB, of which Linux calculates a checksum: 12 million instructions that no
/// other loader costs it, nor Warmbus, whose tree ends with its last block.
fn without_padding(mut tree: Vec<u8>) -> Result<Vec<u8>> {
    let field = |index: usize| {
        let bytes = tree.get(4 * index..4 * index + 4);
        let bytes = bytes.context("the device tree has no header")?;
        Ok::<_, anyhow::Error>(u32::from_be_bytes(bytes.try_into()?))
    };
    // Offset and size of the structure block, then of the strings (DT 5.2).
    let structure = field(2)?.checked_add(field(9)?);
    let strings = field(3)?.checked_add(field(8)?);
    let end = structure
        .max(strings)
        .context("a block of the tree wraps")?;
    ensure!(tree.len() >= end as usize, "the device tree is cut off");
    tree.truncate(end as usize);
    tree[4..8].copy_from_slice(&end.to_be_bytes());
    Ok(tree)
}

/// The offset in the image of the function that enters Linux, by the symbols of
/// `elf`, which is linked at 0.
fn enter_offset(elf: &Path) -> Result<u64> {
    let bytes = fs::read(elf).with_context(|| format!("cannot read {}", elf.display()))?;
    let elf = object::File::parse(&*bytes)?;
    let symbol = elf
        .symbols()
        .find(|symbol| symbol.name().is_ok_and(|name| name.contains(ENTER)));
    let symbol = symbol.with_context(|| format!("the firmware has no function {ENTER}"))?;
    Ok(symbol.address())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_without_padding_is_the_same_tree() {
        // Header, 16 bytes of structure, 8 bytes of strings.
        let header = [0xd00d_feed, 64, 40, 56, 40, 17, 16, 0, 8, 16_u32];
        let header = header.iter().flat_map(|field| field.to_be_bytes());
        let tree: Vec<u8> = header.chain(1..=24).collect();
        let mut padded = tree.clone();
        padded.resize(1 << 20, 0);
        padded[4..8].copy_from_slice(&(1_u32 << 20).to_be_bytes());
        assert_eq!(without_padding(padded).unwrap(), tree);
        assert!(without_padding(tree[..20].to_vec()).is_err());
        assert!(without_padding(tree[..tree.len() - 1].to_vec()).is_err());
    }

    #[test]
    fn marks_divide_accesses_and_bytes_of_the_console() {
        let access = |rest: &str| {
            format!("memory_region_ops_read cpu 0 mr 0x1 {rest} name 'pcie-mmcfg-mmio'")
        };
        let read = access("addr 0x0 value 0x8 size 4");
        let mark = access("addr 0xffff001 value 0xff size 1");
        let log = Log {
            trace: vec![
                mark.clone(),
                read.clone(),
                read.clone(),
                mark.clone(),
                read,
                mark,
            ],
            printed: vec![1, 1, 2, 3, 5],
            ..Log::default()
        };
        let parts = Parts::new(vec![6, 100, 1000], &log);
        let work = |instructions, accesses| Work {
            instructions,
            accesses,
        };
        assert_eq!(parts.between(0, 1), work(94, 2));
        assert_eq!(parts.between(1, 2), work(900, 1));
        assert_eq!([0, 1, 2].map(|note| parts.printed_before(note)), [0, 4, 5]);
    }
}

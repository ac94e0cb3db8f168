//! Boots that are stopped where a part of them ends: at the first instruction of
//! Linux, when PCI is set up, and when the first process starts.
//!
//! QEMU counts instructions exactly (`-icount`), and the debugger stops the guest
//! at an address without one more. Only what the guest itself computes is exact:
//! *when* a virtio or `NVMe` device answers depends on the host, so their drivers
//! are not started, and the initramfs is unpacked before anything else goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use object::{Object as _, ObjectSymbol as _};
use tempfile::TempDir;

use super::time::{Case, Counted, Goal, Peer, SLOW_ACCESS, SLOW_INSTRUCTION, Timed};
use super::time_guest::Guest;
use super::time_kernel::{Function, Kernel};
use super::u_boot;
use crate::qemu::debugger::Debugger;
use crate::qemu::{INITRD_AT, KERNEL_AT, Machine, Payload, hypervisor, strict_nx_flash};
use crate::run::LINUX_BOOTARGS;
use crate::topology::Topology;
use crate::{build, linux, setup};

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
/// Where the guest of the hypervisor is.
const GUEST: u64 = 0x6000_0000;
/// The processor of a boot whose accesses take time: a tick of its counter is a
/// nanosecond.
const FINE_COUNTER: &str = "cortex-a72,cntfrq=1000000000";
/// Has a physical function that vfio-pci drives create virtual ones.
const HOST: &str = "vfio_pci.enable_sriov=1";
/// Virtual functions of each device of a host, all that it has.
const VFS: u64 = 127;
/// The function of Warmbus that enters Linux, whose address is its first argument.
const ENTER: &str = "enter_kernel";
/// How long a guest may print nothing.
const SILENCE: Duration = Duration::from_mins(15);

/// The programs that are booted.
pub(super) struct Programs {
    firmware: PathBuf,
    /// The offset in the firmware of its function that enters Linux.
    enter: u64,
    stock: Kernel,
    consumer: Kernel,
    initramfs: PathBuf,
    directory: TempDir,
}

impl Programs {
    /// Builds what is missing, and boots each kernel once.
    pub(super) fn ready(firmware: &Path, topology: &Topology) -> Result<Self> {
        let initramfs = linux::initramfs()?;
        let case = Case::boot(topology);
        let kernel = |options| {
            Kernel::ask(linux::image(&options)?, |image, steps| {
                of(alone(image, &initramfs, &bootargs(case, steps)), case)
            })
        };
        Ok(Self {
            firmware: firmware.into(),
            enter: enter_offset(&firmware.with_extension("elf"))?,
            stock: kernel(linux::Options::default())?,
            consumer: kernel(linux::Options::consumer())?,
            initramfs,
            directory: tempfile::tempdir()?,
        })
    }

    /// Boots `peer` in `case`.
    pub(super) fn boot(&self, peer: Peer, case: Case<'_>) -> Result<Timed> {
        let kernel = self.kernel(peer);
        let timed = match peer {
            Peer::LinuxStock | Peer::LinuxCold => self.alone(kernel, case),
            Peer::UBootLinuxStock => self.after_u_boot(kernel, case),
            Peer::WarmbusLinuxStock | Peer::WarmbusLinux => self.after_warmbus(kernel, case),
            Peer::Edk2LinuxStock | Peer::Edk2LinuxCold => self.after_edk2(kernel, false, case),
            Peer::Edk2WarmbusLinux => self.after_edk2(kernel, true, case),
            Peer::KexecLinuxStock => self.after_kexec(kernel, false, case),
            Peer::KexecLinux => self.after_kexec(kernel, true, case),
        };
        let timed = timed.and_then(|timed| {
            let slow = match (case.goal, peer) {
                (Goal::Timed, Peer::LinuxStock | Peer::LinuxCold | Peer::WarmbusLinux) => {
                    Some(self.slow(peer, case)?)
                }
                _ => None,
            };
            Ok(Timed { slow, ..timed })
        });
        timed.with_context(|| format!("{} on {}", peer.title(), case.name()))
    }

    /// The Linux that `peer` is or starts.
    fn kernel(&self, peer: Peer) -> &Kernel {
        match peer {
            Peer::LinuxStock
            | Peer::UBootLinuxStock
            | Peer::WarmbusLinuxStock
            | Peer::Edk2LinuxStock
            | Peer::KexecLinuxStock => &self.stock,
            Peer::LinuxCold
            | Peer::WarmbusLinux
            | Peer::Edk2LinuxCold
            | Peer::Edk2WarmbusLinux
            | Peer::KexecLinux => &self.consumer,
        }
    }

    /// Has `peer` start virtual machines in `case`.
    pub(super) fn machines(&self, peer: Peer, case: Case<'_>) -> Result<Counted> {
        let kernel = self.kernel(peer);
        let bootargs = bootargs(case, "");
        let machine = if peer == Peer::WarmbusLinux {
            by_warmbus(&self.firmware, kernel, &self.initramfs, bootargs)
        } else {
            alone(kernel.image(), &self.initramfs, &bootargs)
        };
        let mut guest = self.start(of(machine, case))?;
        let count = case.virtual_machines();
        let notes = guest.machines(kernel, count);
        let notes = notes.with_context(|| format!("{} on {}", peer.title(), case.name()))?;
        let counted = guest.end()?.counted(count, &notes);
        counted.with_context(|| format!("{} has no virtual machines", case.name()))
    }

    /// `machine` with its own device tree, without padding.
    fn with_short_tree(&self, machine: Machine) -> Result<Machine> {
        let tree = self.directory.path().join("tree.dtb");
        machine.dump_device_tree(&tree)?;
        fs::write(&tree, without_padding(fs::read(&tree)?)?)?;
        Ok(machine.device_tree(&tree))
    }

    fn alone(&self, kernel: &Kernel, case: Case<'_>) -> Result<Timed> {
        let machine = alone(kernel.image(), &self.initramfs, &bootargs(case, ""));
        let mut guest = self.start(self.with_short_tree(of(machine, case))?)?;
        let linux = guest.linux(kernel, ENTRY, Function::GenericPci)?;
        let vfs = guest.vfs(kernel, case.physical_functions())?;
        let parts = guest.end()?;
        Ok(parts.of_linux(linux, parts.counted(case.vfs(), &vfs)))
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
            .load(kernel.image(), KERNEL_AT)
            .load(&self.initramfs, INITRD_AT)
            .arguments(["-drive".into(), u_boot::flash_drive(&flash)]);
        let mut guest = self.start(machine)?;
        let start = guest.stop()?;
        let linux = guest.linux(kernel, KERNEL_AT, Function::GenericPci)?;
        Ok(guest.end()?.behind_firmware(start, linux, None))
    }

    /// EDK2 from power-on, which gets its files by `fw_cfg`: a disk answers in the time
    /// of the host. Warmbus comes in the place of shim.
    fn after_edk2(&self, kernel: &Kernel, resident: bool, case: Case<'_>) -> Result<Timed> {
        let flash = strict_nx_flash()?;
        let flash = format!(
            "if=pflash,unit=0,format=raw,readonly=on,file={}",
            flash.display()
        );
        let bootargs = bootargs(case, "");
        let bootargs = if resident {
            format!("next=\\kernel -- {bootargs}")
        } else {
            bootargs
        };
        let mut machine =
            alone(kernel.image(), &self.initramfs, &bootargs).arguments(["-drive", &flash]);
        if resident {
            let image = self.firmware.with_file_name(build::UEFI_APPLICATION);
            let file = format!("name=etc/boot/shim,file={}", image.display());
            machine = machine.arguments(["-fw_cfg", &file]);
        }
        let topology = Topology {
            arguments: exact(&case.topology.arguments),
            ..case.topology.clone()
        };
        let topology = &topology;
        let mut guest = self.start(of(machine, Case { topology, ..case }))?;
        let start = guest.stop()?;
        let entry = kernel.at(Function::StartKernel);
        let linux = guest.linux(kernel, entry, Function::Acpi)?;
        Ok(guest.end()?.behind_firmware(start, linux, None))
    }

    fn after_warmbus(&self, kernel: &Kernel, case: Case<'_>) -> Result<Timed> {
        let bootargs = bootargs(case, "");
        let machine = by_warmbus(&self.firmware, kernel, &self.initramfs, bootargs);
        let mut guest = self.start(of(machine, case))?;
        let (start, linux) = self.warmbus(&mut guest, ENTRY, kernel)?;
        let vfs = guest.vfs(kernel, case.physical_functions())?;
        let parts = guest.end()?;
        Ok(parts.behind_firmware(start, linux, parts.counted(case.vfs(), &vfs)))
    }

    /// Runs Warmbus at `address`, and then `kernel`. Returns the notes: its beginning, and
    /// those of Linux.
    fn warmbus(
        &self,
        guest: &mut Guest,
        address: u64,
        kernel: &Kernel,
    ) -> Result<(usize, [usize; 3])> {
        guest.run_to(address)?;
        let start = guest.stop()?;
        let entry = guest.run_to(address + self.enter)?.get(0)?;
        Ok((start, guest.linux(kernel, entry, Function::GenericPci)?))
    }

    /// The second of two boots of `kernel`, the first of which was started by
    /// Warmbus or by QEMU itself.
    fn after_kexec(&self, kernel: &Kernel, warmbus: bool, case: Case<'_>) -> Result<Timed> {
        let initrd = self.directory.path().join("initrd");
        fs::write(
            &initrd,
            linux::with_kernel(&self.initramfs, kernel.image())?,
        )?;
        let bootargs = bootargs(case, "kexec,");
        let machine = if warmbus {
            by_warmbus(&self.firmware, kernel, &initrd, bootargs)
        } else {
            alone(kernel.image(), &initrd, &bootargs)
        };
        let mut guest = self.start(of(machine, case))?;
        let linux = guest.linux(kernel, kernel.at(Function::Kexec), Function::GenericPci)?;
        let vfs = guest.vfs(kernel, case.physical_functions())?;
        let parts = guest.end()?;
        Ok(parts.of_linux(linux, parts.counted(case.vfs(), &vfs)))
    }

    /// Nanoseconds of the same boot above a hypervisor that has each access take
    /// [`SLOW_ACCESS`] longer, by the clock of the guest.
    fn slow(&self, peer: Peer, case: Case<'_>) -> Result<u64> {
        let definitions = [
            format!("-DLATENCY={}", SLOW_ACCESS * 1000),
            format!("-DINSTRUCTION={}", SLOW_INSTRUCTION / 1000),
        ];
        let hypervisor = hypervisor::assemble(self.directory.path(), GUEST, &definitions)?;
        let bootargs = bootargs(case, "");
        let kernel = self.kernel(peer);
        let is_warmbus = peer == Peer::WarmbusLinux;
        let (image, machine) = if is_warmbus {
            let machine = by_warmbus(&hypervisor, kernel, &self.initramfs, bootargs);
            (&*self.firmware, machine)
        } else {
            let machine = alone(&hypervisor, &self.initramfs, &bootargs);
            (kernel.image(), machine)
        };
        let machine = of(machine, case)
            .el2()
            .cpu(FINE_COUNTER)
            .arguments(["-semihosting-config", "enable=on,target=native"]);
        let tree = self.directory.path().join("tree.dtb");
        machine.dump_device_tree(&tree)?;
        hypervisor::reserve(&tree)?;
        if !is_warmbus {
            fs::write(&tree, without_padding(fs::read(&tree)?)?)?;
        }
        let machine = machine.own_device_tree(&tree).load(image, GUEST);
        let mut guest = self.start(machine)?;
        let (start, end) = if is_warmbus {
            let (start, [_, _, end]) = self.warmbus(&mut guest, GUEST, kernel)?;
            (start, end)
        } else {
            let [start, _, end] = guest.linux(kernel, GUEST, Function::GenericPci)?;
            (start, end)
        };
        let all = guest.end()?.between(start, end).instructions;
        Ok(all * SLOW_INSTRUCTION / 1000)
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
        Guest::new(running, &socket)
    }
}

impl Case<'_> {
    /// Devices of a host that create virtual functions.
    fn physical_functions(self) -> usize {
        let all = format!("sriov_max_vfs={VFS}");
        let arguments = self.topology.arguments.iter();
        let devices = arguments.filter(|word| word.contains(&all)).count();
        if self.is_host() { devices } else { 0 }
    }

    /// All virtual functions that they create.
    fn vfs(self) -> u64 {
        self.physical_functions() as u64 * VFS
    }

    /// Virtual machines that start on it: one for each `NVMe` controller.
    fn virtual_machines(self) -> u64 {
        let arguments = self.topology.arguments.iter();
        let devices = arguments.filter(|word| word.starts_with("nvme,"));
        devices.count() as u64
    }
}

/// The command line of Linux, which begins with the steps `first`.
fn bootargs(case: Case<'_>, first: &str) -> String {
    let line = format!("{LINUX_BOOTARGS} pcsc=on retain_initrd {QUIET}");
    let words = if case.is_host() { HOST } else { "" };
    let steps = match case.goal {
        Goal::FirstProcess | Goal::Timed => String::new(),
        Goal::VirtualFunctions => format!("vfio_vfs:{VFS},"),
        Goal::VirtualMachines => "vms:needed,".to_owned(),
    };
    format!("{line} {words} warmbus.test={first}{steps}summary")
}

/// `arguments` with another device of the same size in the place of a random number
/// generator, for which firmware waits.
fn exact(arguments: &[String]) -> Vec<String> {
    let exact = |word: &String| word.replace("virtio-rng-pci", "virtio-balloon-pci");
    arguments.iter().map(exact).collect()
}

/// `machine` with the devices of `case`.
fn of(machine: Machine, case: Case<'_>) -> Machine {
    let machine = machine.topology(case.topology);
    if case.is_host() {
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

/// A machine that starts `image`, which starts `kernel`.
fn by_warmbus(image: &Path, kernel: &Kernel, initrd: &Path, bootargs: String) -> Machine {
    Machine::kernel(image).payload(Payload {
        kernel: kernel.image().into(),
        initrd: Some(initrd.into()),
        bootargs,
    })
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
}

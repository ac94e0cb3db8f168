//! Every machine that QEMU emulates here, as a value.

mod command;
mod payload;

use std::path::{Path, PathBuf};

use anyhow::Result;
use warmbus_boot::report::console::Section;

use super::secure_boot::Signed;
use super::uefi::UefiStart;
use crate::setup;
use crate::topology::Topology;
pub use payload::{INITRD_AT, KERNEL_AT, Payload};

/// How the guest is loaded and started.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Start {
    /// QEMU loads the image by the Linux boot protocol.
    Kernel(PathBuf),
    /// A boot loader is in flash.
    Bios(PathBuf),
    /// UEFI is in flash, and starts `image` from a volume that is made in
    /// `directory`.
    Uefi {
        image: PathBuf,
        how: UefiStart,
        signed: Option<Signed>,
        /// The flash with the code of UEFI, where it is not the usual one.
        code: Option<PathBuf>,
        directory: PathBuf,
        /// The directory is made, and is to be used as it is.
        is_made: bool,
    },
    /// What the loader devices placed in memory; the first processor starts
    /// there.
    Loaders,
}

/// A `virt` machine that is not started yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one independent property of the machine or of what is kept"
)]
pub struct Machine {
    start: Start,
    options: Vec<String>,
    /// Whether it is `sbsa-ref` instead of `virt`.
    sbsa: bool,
    cpu: String,
    memory: String,
    smp: u32,
    bootargs: Vec<String>,
    device_tree: Option<PathBuf>,
    devices: Vec<String>,
    loaders: Vec<String>,
    payload: Option<Payload>,
    trace: bool,
    time_stamps: bool,
    qmp: Option<PathBuf>,
    interactive: bool,
    /// Binary logarithm of the nanoseconds that an instruction takes.
    instruction_time: Option<u8>,
    extra: Vec<String>,
}

/// The addresses of kernel and initrd on `sbsa-ref`, whose memory starts at 1 TiB.
const SBSA_AT: [u64; 2] = [0x100_1000_0000, 0x100_1400_0000];

impl Machine {
    /// A machine that starts `image` by the Linux boot protocol, as a loader
    /// of arm64 kernels does.
    #[must_use]
    pub fn kernel(image: &Path) -> Self {
        Self::new(Start::Kernel(image.into()))
    }

    /// A machine that starts the boot loader `bios` from its flash.
    #[must_use]
    pub fn bios(bios: &Path) -> Self {
        Self::new(Start::Bios(bios.into()))
    }

    /// The machine `sbsa-ref` without the firmware that it is made for: it
    /// starts `image` by the Linux boot protocol, at EL2.
    #[must_use]
    pub fn sbsa_ref(image: &Path) -> Self {
        let mut machine = Self::new(Start::Kernel(image.into()));
        machine.sbsa = true;
        machine.options = vec!["sbsa-ref".into()];
        // The ROM of its display is only in a package for x86.
        machine.devices = ["-global", "VGA.romfile="].map(String::from).into();
        machine
    }

    /// Whether the guest can power it off: `sbsa-ref` leaves that to a part of
    /// its firmware.
    #[must_use]
    pub fn can_power_off(&self) -> bool {
        !self.sbsa
    }

    /// A machine with UEFI and ACPI that starts `image` from a volume. What is
    /// on the volume, and what UEFI remembers, is made in `directory`, which
    /// has to be empty, when the machine is started.
    #[must_use]
    pub fn uefi(image: &Path, directory: &Path) -> Self {
        let start = Start::Uefi {
            image: image.into(),
            how: UefiStart::Application,
            signed: None,
            code: None,
            directory: directory.into(),
            is_made: false,
        };
        // UEFI waits for seconds, often by counting: half of its boot otherwise.
        Self::new(start).instruction_time(5)
    }

    /// Has UEFI start Warmbus in another way.
    #[must_use]
    pub fn uefi_start(mut self, start: UefiStart) -> Self {
        if let Start::Uefi { how, .. } = &mut self.start {
            *how = start;
        }
        self
    }

    /// Has UEFI be the one in `code`, an image of its flash.
    #[must_use]
    pub fn uefi_code(mut self, file: &Path) -> Self {
        if let Start::Uefi { code, .. } = &mut self.start {
            *code = Some(file.into());
        }
        self
    }

    /// Makes the directory of a machine with UEFI now, and not when it is started:
    /// what is on the volume can be changed until then.
    pub fn make_volume(mut self) -> Result<Self> {
        self.prepare()?;
        if let Start::Uefi { is_made, .. } = &mut self.start {
            *is_made = true;
        }
        Ok(self)
    }

    /// Has UEFI verify what it starts, of which so much is `signed`.
    #[must_use]
    pub fn secure_boot(mut self, what: Signed) -> Self {
        if let Start::Uefi { signed, code, .. } = &mut self.start {
            *signed = Some(what);
            *code = code.take().or_else(setup::edk2_secure_code);
        }
        self
    }

    /// A machine without a boot loader: the first processor starts at
    /// `entry`, in what [`load`](Self::load) placed there.
    #[must_use]
    pub fn bare(entry: u64) -> Self {
        let mut machine = Self::new(Start::Loaders);
        machine.loaders.push(format!("addr={entry:#x},cpu-num=0"));
        machine
    }

    fn new(start: Start) -> Self {
        Self {
            start,
            options: vec!["virt".into(), "gic-version=3".into()],
            sbsa: false,
            cpu: "cortex-a72".into(),
            memory: "1G".into(),
            smp: 1,
            bootargs: Vec::new(),
            device_tree: None,
            devices: Vec::new(),
            loaders: Vec::new(),
            payload: None,
            trace: false,
            time_stamps: false,
            qmp: None,
            interactive: false,
            instruction_time: None,
            extra: Vec::new(),
        }
    }

    /// Adds the devices of `topology`.
    #[must_use]
    pub fn topology(mut self, topology: &Topology) -> Self {
        self.devices.extend(topology.arguments.iter().cloned());
        self
    }

    /// Sets the processor model, by default `cortex-a72`.
    #[must_use]
    pub fn cpu(mut self, model: &str) -> Self {
        model.clone_into(&mut self.cpu);
        self
    }

    /// Sets the size of memory in the syntax of QEMU, by default `1G`.
    #[must_use]
    pub fn memory(mut self, size: &str) -> Self {
        size.clone_into(&mut self.memory);
        self
    }

    /// Sets the number of processors, by default 1.
    #[must_use]
    pub fn smp(mut self, processors: u32) -> Self {
        self.smp = processors;
        self
    }

    /// Starts at EL2 instead of EL1.
    #[must_use]
    pub fn el2(self) -> Self {
        self.machine_option("virtualization=on")
    }

    /// Adds an option of the machine type, for example `highmem=off`.
    #[must_use]
    pub fn machine_option(mut self, option: &str) -> Self {
        self.options.push(option.into());
        self
    }

    /// Adds parameters to `/chosen/bootargs`.
    #[must_use]
    pub fn bootargs(mut self, parameters: &str) -> Self {
        self.bootargs.push(parameters.into());
        self
    }

    /// Makes the firmware print `section` on its console.
    #[must_use]
    pub fn section(self, section: Section) -> Self {
        match section.bootarg() {
            Some(parameter) => self.bootargs(parameter),
            None => self,
        }
    }

    /// Places a kernel for the firmware to start.
    ///
    /// # Panics
    ///
    /// If the size of a file for `sbsa-ref` cannot be read. It is a parameter of
    /// the firmware there, as QEMU adds no nodes to that device tree.
    #[must_use]
    pub fn payload(mut self, payload: Payload) -> Self {
        if !self.sbsa {
            self.payload = Some(payload);
            return self;
        }
        let files = [Some(&payload.kernel), payload.initrd.as_ref()];
        for ((file, what), at) in files.into_iter().zip(["kernel", "initrd"]).zip(SBSA_AT) {
            let Some(file) = file else { continue };
            let size = file.metadata().expect("the payload can be read").len();
            let parameter = format!("warmbus.{what}={at:#x},{size}");
            self = self.load(file, at).bootargs(&parameter);
        }
        self.bootargs(&payload.bootargs)
    }

    /// Attaches the console and QEMU's monitor to the terminal, for
    /// [`interact`](Self::interact).
    #[must_use]
    fn interactive(mut self) -> Self {
        self.interactive = true;
        self.instruction_time = None;
        self
    }

    /// Starts with the device tree in `file` instead of the one that QEMU
    /// makes.
    #[must_use]
    pub fn device_tree(mut self, file: &Path) -> Self {
        self.device_tree = Some(file.into());
        self
    }

    /// Starts with the device tree that QEMU makes for this machine, changed or
    /// not. It has the nodes of the payload already, which QEMU must not add again.
    #[must_use]
    pub fn own_device_tree(mut self, file: &Path) -> Self {
        if let Some(payload) = self.payload.take() {
            self = self.load(&payload.kernel, KERNEL_AT);
            if let Some(initrd) = &payload.initrd {
                self = self.load(initrd, INITRD_AT);
            }
        }
        self.device_tree(file)
    }

    /// Places the bytes of `file` in memory at `address`.
    #[must_use]
    pub fn load(mut self, file: &Path, address: u64) -> Self {
        let file = file.display();
        self.loaders
            .push(format!("file={file},addr={address:#x},force-raw=on"));
        self
    }

    /// Traces every access to configuration space.
    #[must_use]
    pub fn trace(mut self) -> Self {
        self.trace = true;
        self
    }

    /// Traces every access with its time.
    #[must_use]
    pub fn trace_with_times(mut self) -> Self {
        self.time_stamps = true;
        self.trace()
    }

    /// Opens a QMP socket at `path`, and lets QEMU stay when the guest powers
    /// off, for queries.
    #[must_use]
    pub fn qmp(mut self, path: &Path) -> Self {
        self.qmp = Some(path.into());
        self
    }

    /// Has each instruction take two to the power of `shift` nanoseconds of the
    /// time of the guest, which does not pass otherwise: where the guest waits for
    /// nothing but time, it goes on at once. What happens is the same on a busy
    /// host.
    #[must_use]
    pub fn instruction_time(mut self, shift: u8) -> Self {
        self.instruction_time = Some(shift);
        self
    }

    /// Adds arguments for QEMU as they are.
    #[must_use]
    pub fn arguments<T: Into<String>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.extra.extend(arguments.into_iter().map(Into::into));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::words;

    fn line(machine: &Machine) -> String {
        // Ahead of that is where this machine has QEMU and its files.
        let line = words(&machine.command());
        line[line.find("-M ").unwrap()..].to_owned()
    }

    #[test]
    fn the_default_machine_is_the_one_of_the_benchmark() {
        assert_eq!(
            line(&Machine::kernel(Path::new("k"))),
            "-M virt,gic-version=3 -cpu cortex-a72 -m 1G -smp 1 -nic none \
             -display none -monitor none -serial stdio -no-reboot -kernel k"
        );
    }

    #[test]
    fn bootargs_are_one_argument_and_extra_arguments_come_last() {
        let machine = Machine::kernel(Path::new("k"))
            .section(Section::Report)
            .bootargs("warmbus.verify x=1")
            .topology(&Topology::parse("t", "-device nvme"))
            .arguments(["-d", "int"])
            .el2();
        let command = machine.command();
        let arguments: Vec<_> = command.get_args().collect();
        let at = arguments
            .iter()
            .position(|word| *word == "-append")
            .unwrap();
        assert_eq!(arguments[at + 1], "warmbus.report warmbus.verify x=1");
        assert!(line(&machine).ends_with("-device nvme -d int"));
        assert!(line(&machine).contains("-M virt,gic-version=3,virtualization=on "));
    }

    #[test]
    fn a_payload_is_placed_by_the_guest_loader_with_its_commas_intact() {
        let machine = Machine::kernel(Path::new("k")).payload(Payload {
            kernel: "a,b/Image".into(),
            initrd: Some("i".into()),
            bootargs: "console=ttyAMA0,115200 quiet".into(),
        });
        let command = machine.command();
        let arguments: Vec<_> = command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        assert_eq!(
            arguments[arguments.len() - 4..],
            [
                "-device",
                "guest-loader,addr=0x50000000,kernel=a,,b/Image,bootargs=console=ttyAMA0,,115200 quiet",
                "-device",
                "guest-loader,addr=0x54000000,initrd=i",
            ]
        );
    }

    #[test]
    fn a_terminal_takes_the_console_and_the_monitor() {
        let line = line(&Machine::kernel(Path::new("k")).interactive());
        assert!(
            line.contains("-serial mon:stdio") && !line.contains("-monitor"),
            "{line}"
        );
    }

    #[test]
    fn a_machine_with_qmp_stays_when_the_guest_powers_off() {
        let machine = Machine::bare(0x4020_0000)
            .load(Path::new("i"), 0x4020_0000)
            .qmp(Path::new("/s"));
        let line = line(&machine);
        assert!(
            line.contains("-no-shutdown -qmp unix:/s,server=on,wait=off"),
            "{line}"
        );
        assert!(
            line.contains("-device loader,addr=0x40200000,cpu-num=0"),
            "{line}"
        );
        assert!(
            line.contains("-device loader,file=i,addr=0x40200000,force-raw=on"),
            "{line}"
        );
    }
}

//! Booting a machine whose configuration space is a simulated fabric, which can
//! do what no device of QEMU does: hardware that breaks the rules, with the real
//! firmware and a real Linux above it.
//!
//! A small [`hypervisor`] is started by QEMU in place of the
//! firmware. It starts the firmware at EL1 and reports every access to the ECAM
//! window to a thread of the test, which carries it out on the fabric.

pub mod hostile;
pub mod stock;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, ensure};
use warmbus_pci::{ConfigAccess, ConfigOffset, HostBridge, Sbdf, Width};
use warmbus_pcie_sim::{Fabric, HostId};
use xtask::process;
use xtask::qemu::{Machine, Payload, Running, hypervisor};

use crate::boot::{Boot, LOADED, Lab, image};
use crate::linux::{LinuxBoot, Moment};
use crate::tree::Tree;

/// Nanoseconds of one tick of the counter.
const TICK: u64 = 16;

/// A fabric with one host bridge, as the device tree of QEMU describes it.
#[must_use]
pub fn fabric() -> (Fabric, HostId) {
    let (mut fabric, host) = Fabric::with_buses(0, 255);
    // The time that the guest takes is the only one.
    fabric.set_access_time(0);
    (fabric, host)
}

/// What is done to the fabric before each access.
pub type Before = Box<dyn FnMut(&mut Fabric) + Send>;

/// Says for each access whether it ends in an `SError`, and with which syndrome.
/// The access is carried out all the same, but a read returns all ones.
pub type SErrors = Box<dyn FnMut(&Access) -> Option<u32> + Send>;

/// One access to configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The function.
    pub function: Sbdf,
    /// The register.
    pub offset: ConfigOffset,
    /// Whether it is a write.
    pub is_write: bool,
}

/// What is wrong with the machine around the fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// An `SError` is pending when the firmware is entered.
    SErrorAtEntry,
    /// The counter of the processor has no frequency.
    NoFrequency,
    /// That counter goes back again and again while the firmware runs.
    CounterGoesBack,
    /// PSCI refuses `SYSTEM_OFF`.
    RefusesOff,
    /// Accesses beside the ECAM window of the fabric, in the same gibibyte, end in an
    /// `SError` and not in an abort.
    SErrorOutside,
    /// Writes there end in an abort, and reads are all ones.
    WriteAbortOutside,
}

impl Flaw {
    /// The definition that gives it to the hypervisor; `None` where the test has it.
    const fn definition(self) -> Option<&'static str> {
        match self {
            Self::SErrorAtEntry => Some("-DSERROR_AT_ENTRY"),
            Self::NoFrequency => Some("-DNO_FREQUENCY"),
            Self::CounterGoesBack => Some("-DCOUNTER_GOES_BACK"),
            Self::RefusesOff => Some("-DREFUSES_OFF"),
            Self::SErrorOutside | Self::WriteAbortOutside => None,
        }
    }
}

/// A machine with a simulated fabric.
pub struct Simulated {
    /// What is on it.
    pub fabric: Fabric,
    /// What happens to it.
    pub before: Before,
    /// Which accesses end in an `SError`.
    pub serrors: SErrors,
    /// What is wrong with it.
    pub flaws: Vec<Flaw>,
    /// How many accesses came beside the ECAM window so far.
    pub outside: Arc<AtomicUsize>,
    /// What is changed in the device tree of QEMU.
    pub change_tree: fn(&Tree),
}

impl Simulated {
    /// A machine with `fabric`, to which nothing happens from outside.
    #[must_use]
    pub fn new(fabric: Fabric) -> Self {
        Self {
            fabric,
            before: Box::new(|_| ()),
            serrors: Box::new(|_| None),
            flaws: Vec::new(),
            outside: Arc::default(),
            change_tree: |_| (),
        }
    }

    /// Boots it with `payload`, without waiting for what the firmware says, until Linux
    /// has ended.
    pub fn boot_silent(self, lab: &Lab, payload: Payload) -> Result<LinuxBoot> {
        let (fifos, server, machine) = self.prepare(lab, |one| one.payload(payload))?;
        Ok(fifos.serve(server, || lab.follow_alone(machine))?.0)
    }

    /// Boots it without a payload, until it has powered off.
    pub fn boot_to_power_off(self, lab: &Lab) -> Result<Boot> {
        let (fifos, server, machine) = self.prepare(lab, |one| one)?;
        let boot = || {
            let boot = lab.boot_to_power_off(machine)?;
            Ok(LinuxBoot {
                boot,
                ..LinuxBoot::default()
            })
        };
        Ok(fifos.serve(server, boot)?.0.boot)
    }

    /// Boots it with `payload` to its end, with `change` made to the machine
    /// around it. Returns what there is to know, and the fabric as it is in the
    /// end.
    pub fn boot(
        self,
        lab: &Lab,
        payload: Payload,
        change: impl FnOnce(Machine) -> Machine,
        intervene: impl FnMut(Moment, &mut Running, &LinuxBoot) -> Result<()>,
    ) -> Result<(LinuxBoot, Fabric)> {
        let change = |machine: Machine| change(machine.payload(payload));
        let (fifos, server, machine) = self.prepare(lab, change)?;
        fifos.serve(server, || lab.boot_linux_with(machine, intervene))
    }

    /// The machine that `change` has changed, and what serves it.
    fn prepare(
        self,
        lab: &Lab,
        change: impl FnOnce(Machine) -> Machine,
    ) -> Result<(Fifos, Server, Machine)> {
        let definitions = self.flaws.iter().filter_map(|flaw| flaw.definition());
        let mut definitions: Vec<_> = definitions.map(str::to_owned).collect();
        let fifos = Fifos::new(lab)?;
        definitions.extend(fifos.definitions());
        let hypervisor = assemble(lab, &definitions)?;
        let machine = Machine::kernel(&hypervisor)
            .el2()
            .arguments(["-semihosting-config", "enable=on,target=native"]);
        let machine = change(machine);
        let tree = Tree::of(&machine, lab);
        hypervisor::reserve(tree.file())?;
        (self.change_tree)(&tree);
        let machine = machine.own_device_tree(tree.file()).load(image(), LOADED);

        let server = Server {
            hosts: self.fabric.host_bridges(),
            fabric: self.fabric,
            before: self.before,
            serrors: self.serrors,
            flaws: self.flaws,
            outside: self.outside,
        };
        Ok((fifos, server, machine))
    }
}

/// The FIFOs between the hypervisor and the thread that serves it.
struct Fifos {
    requests: PathBuf,
    answers: PathBuf,
}

impl Fifos {
    fn new(lab: &Lab) -> Result<Self> {
        let [requests, answers] = ["requests", "answers"].map(|name| lab.file(name));
        for fifo in [&requests, &answers] {
            process::output(Command::new("mkfifo").arg(fifo))?;
        }
        Ok(Self { requests, answers })
    }

    /// What the hypervisor is assembled with.
    fn definitions(&self) -> [String; 2] {
        [
            format!("-DREQUESTS=\"{}\"", self.requests.display()),
            format!("-DANSWERS=\"{}\"", self.answers.display()),
        ]
    }

    /// Has `server` serve the machine that `boot` boots.
    fn serve(
        &self,
        server: Server,
        boot: impl FnOnce() -> Result<LinuxBoot>,
    ) -> Result<(LinuxBoot, Fabric)> {
        // To open it for both keeps either side from waiting for the other.
        let open = |path| OpenOptions::new().read(true).write(true).open(path);
        let mut last = open(&self.requests)?;
        let (requests, answers) = (open(&self.requests)?, open(&self.answers)?);
        let server: JoinHandle<Result<Fabric>> = thread::spawn(|| server.run(requests, answers));
        let linux = boot();
        last.write_all(&[0; Request::SIZE])?;
        let fabric = server
            .join()
            .map_err(|_| anyhow!("the fabric panicked"))??;
        Ok((linux?, fabric))
    }
}

/// Makes the hypervisor with `definitions`.
fn assemble(lab: &Lab, definitions: &[String]) -> Result<PathBuf> {
    hypervisor::assemble(lab.directory(), LOADED, definitions)
}

/// What the hypervisor reports of one access.
struct Request {
    address: u64,
    value: u64,
    ticks: u64,
    log2_size: u8,
    is_write: bool,
}

impl Request {
    const SIZE: usize = 32;

    fn read(from: &mut File) -> Result<Option<Self>> {
        let mut bytes = [0; Self::SIZE];
        from.read_exact(&mut bytes)?;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let request = Self {
            address: word(0),
            value: word(8),
            ticks: word(16),
            log2_size: bytes[24],
            is_write: bytes[25] != 0,
        };
        // The test itself ends it.
        if bytes == [0; Self::SIZE] {
            return Ok(None);
        }
        ensure!(
            request.log2_size < 4,
            "the hypervisor met ESR_EL2 {:#x}, FAR_EL2 {:#x} at {:#x}",
            request.address,
            request.value,
            request.ticks
        );
        Ok(Some(request))
    }

    /// The function, register and width that are asked for; `None` outside of
    /// the windows of `hosts`, and for 8 bytes at once.
    fn target(&self, hosts: &[HostBridge]) -> Option<(Sbdf, ConfigOffset, Width)> {
        let width = match self.log2_size {
            0 => Width::Byte,
            1 => Width::Word,
            2 => Width::Dword,
            _ => return None,
        };
        let (host, offset) = hosts.iter().find_map(|host| {
            let offset = self.address.checked_sub(host.ecam_base.0)?;
            (offset < host.ecam_size).then_some((host, offset))
        })?;
        let offset = offset + (u64::from(host.buses.first) << 20);
        let routing_id = u16::try_from(offset >> 12).ok()?;
        let register = ConfigOffset::wrapping((offset & 0xfff) as u16);
        Some((
            Sbdf::from_routing_id(host.segment, routing_id),
            register,
            width,
        ))
    }
}

struct Server {
    hosts: Vec<HostBridge>,
    fabric: Fabric,
    before: Before,
    serrors: SErrors,
    flaws: Vec<Flaw>,
    outside: Arc<AtomicUsize>,
}

impl Server {
    /// Serves the hypervisor until the end is reported.
    fn run(mut self, mut requests: File, mut answers: File) -> Result<Fabric> {
        while let Some(request) = Request::read(&mut requests)? {
            let clock = self.fabric.clock();
            clock.advance((request.ticks * TICK).saturating_sub(clock.time()));
            (self.before)(&mut self.fabric);
            let answer = self
                .answer(&request)
                .unwrap_or_else(|| self.outside(&request));
            let bytes: Vec<u8> = answer.into_iter().flat_map(u64::to_le_bytes).collect();
            answers.write_all(&bytes).context("no answer")?;
        }
        Ok(self.fabric)
    }

    /// The value and the outcome where nothing is.
    fn outside(&self, request: &Request) -> [u64; 2] {
        self.outside.fetch_add(1, Ordering::Relaxed);
        let ones = u64::MAX >> (64 - (8 << request.log2_size));
        if self.flaws.contains(&Flaw::SErrorOutside) {
            [ones, 2]
        } else if self.flaws.contains(&Flaw::WriteAbortOutside) && !request.is_write {
            [ones, 0]
        } else {
            [0, 1]
        }
    }

    /// The value and the outcome, as `hypervisor.S` has it; `None` where nothing
    /// is.
    fn answer(&mut self, request: &Request) -> Option<[u64; 2]> {
        let (function, offset, width) = request.target(&self.hosts)?;
        let mut value = if request.is_write {
            let value = request.value as u32;
            self.fabric.write(function, offset, width, value);
            0
        } else {
            self.fabric.read(function, offset, width)
        };
        let mut outcome = u64::from(self.fabric.take_fault().is_some());
        let access = Access {
            function,
            offset,
            is_write: request.is_write,
        };
        if let Some(syndrome) = (self.serrors)(&access) {
            value = width.ones();
            outcome = 2 | u64::from(syndrome) << 32;
        }
        Some([value.into(), outcome])
    }
}

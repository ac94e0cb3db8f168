//! Configuration space through the host bridges of a machine.
//!
//! Host bridges differ in how the registers of a function are addressed. That
//! is decided here, over [`Registers`], so that it can be tested against a
//! model of a controller; the firmware only loads and stores.

mod brcmstb;
mod designware;
mod window;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use thiserror::Error;

use super::{
    AccessFault, AccessWidths, BusRange, ConfigAccess, ConfigOffset, HostBridge, Mechanism,
    PhysAddr, Sbdf, Width,
};
use brcmstb::BrcmStb;
pub(super) use brcmstb::SIZE as BRCM_STB_SIZE;
use designware::DesignWare;
pub(super) use designware::FUNCTION_SIZE;
use window::Window;

/// Faults that are kept for [`ConfigAccess::take_fault`], since the first ones
/// show the cause. Beyond them the first one of each function is kept.
const MAX_FAULTS: usize = 64;

/// Memory-mapped registers, by physical address.
pub trait Registers {
    /// Reads `width` bytes at `address`, which is aligned; `None` where the
    /// machine refused the access.
    fn read(&mut self, address: PhysAddr, width: Width) -> Option<u32>;

    /// Writes the low `width` bytes of `value` at `address`, which is aligned;
    /// `None` where the machine refused the access.
    fn write(&mut self, address: PhysAddr, width: Width, value: u32) -> Option<()>;
}

impl<R: Registers + ?Sized> Registers for &mut R {
    fn read(&mut self, address: PhysAddr, width: Width) -> Option<u32> {
        (**self).read(address, width)
    }

    fn write(&mut self, address: PhysAddr, width: Width, value: u32) -> Option<()> {
        (**self).write(address, width, value)
    }
}

/// The access mechanism of one host bridge.
#[derive(Debug)]
enum Backend {
    Window(Window),
    DesignWare(DesignWare),
    BrcmStb(BrcmStb),
}

#[derive(Debug)]
struct Host {
    segment: u16,
    buses: BusRange,
    widths: AccessWidths,
    backend: Backend,
}

impl Host {
    fn covers_bus(&self, function: Sbdf) -> bool {
        self.segment == function.segment()
            && (self.buses.first..=self.buses.last).contains(&function.bus())
    }
}

/// The configuration space of all host bridges that were added.
///
/// When it is dropped, every register of a controller that was written to
/// reach a function holds again what it held before.
#[derive(Debug)]
pub struct HostBridgeAccess<R: Registers> {
    registers: R,
    hosts: Vec<Host>,
    faults: VecDeque<AccessFault>,
}

impl<R: Registers> HostBridgeAccess<R> {
    /// No host bridge yet.
    pub const fn new(registers: R) -> Self {
        Self {
            registers,
            hosts: Vec::new(),
            faults: VecDeque::new(),
        }
    }

    /// Adds `host`, whose [`HostBridge::regions`] must be accessible.
    ///
    /// Where the previous boot stage has numbered the buses of a controller,
    /// which need not be as the machine description has them, the buses of
    /// `host` become those that are in use.
    ///
    /// # Errors
    ///
    /// Returns why the controller cannot be used, or which other host bridge
    /// has the same buses.
    pub fn add(&mut self, host: &mut HostBridge) -> Result<(), HostBridgeError> {
        let registers = &mut self.registers;
        let backend = match host.mechanism {
            Mechanism::Window(shape) => Backend::Window(Window::new(host, shape)),
            Mechanism::DesignWare { dbi, atu } => {
                let (port, buses) = DesignWare::open(registers, host.ecam_base, dbi, atu)?;
                host.buses = buses;
                Backend::DesignWare(port)
            }
            Mechanism::BrcmStb => {
                let (port, buses) = BrcmStb::open(registers, host.ecam_base)?;
                host.buses = buses;
                Backend::BrcmStb(port)
            }
        };
        let (segment, buses) = (host.segment, host.buses);
        let has_same_buses = |other: &&Host| {
            other.segment == segment
                && other.buses.first <= buses.last
                && buses.first <= other.buses.last
        };
        if let Some(other) = self.hosts.iter().find(has_same_buses) {
            return Err(HostBridgeError::SameBuses {
                segment,
                buses,
                other: other.buses,
            });
        }
        self.hosts.push(Host {
            segment,
            buses,
            widths: host.widths,
            backend,
        });
        Ok(())
    }

    fn covering(&self, function: Sbdf) -> Option<&Host> {
        self.hosts.iter().find(|host| host.covers_bus(function))
    }

    fn host(&mut self, function: Sbdf) -> Option<(&mut R, AccessWidths, &mut Backend)> {
        let host = self
            .hosts
            .iter_mut()
            .find(|host| host.covers_bus(function))?;
        Some((&mut self.registers, host.widths, &mut host.backend))
    }

    fn record_fault(&mut self, function: Sbdf, offset: ConfigOffset) {
        let is_known = || self.faults.iter().any(|fault| fault.function == function);
        if self.faults.len() < MAX_FAULTS || !is_known() {
            self.faults.push_back(AccessFault { function, offset });
        }
    }
}

impl<R: Registers> ConfigAccess for HostBridgeAccess<R> {
    fn read(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
        let Some((registers, widths, backend)) = self.host(function) else {
            return width.ones();
        };
        let wanted = offset.get() & !(width.bytes() - 1);
        let made = width.max(widths.narrowest_read());
        let aligned = wanted & !(made.bytes() - 1);
        let outcome = match backend {
            Backend::Window(window) => window.read(registers, function, aligned, made),
            Backend::DesignWare(port) => port.read(registers, function, aligned, made),
            Backend::BrcmStb(port) => port.read(registers, function, aligned, made),
        };
        match outcome {
            ReadOutcome::Value(value) => value >> (8 * (wanted - aligned)) & width.ones(),
            ReadOutcome::Unclaimed => width.ones(),
            ReadOutcome::Fault => {
                self.record_fault(function, offset);
                width.ones()
            }
        }
    }

    fn write(&mut self, function: Sbdf, offset: ConfigOffset, width: Width, value: u32) {
        let Some((registers, widths, backend)) = self.host(function) else {
            return;
        };
        if width < widths.narrowest_write() {
            self.record_fault(function, offset);
            return;
        }
        let aligned = offset.get() & !(width.bytes() - 1);
        let location = match backend {
            Backend::Window(window) => window.address(function, aligned),
            Backend::DesignWare(port) => port.address(registers, function, aligned),
            Backend::BrcmStb(port) => port.address(registers, function, aligned),
        };
        let done = match location {
            RegisterLocation::At(address) => registers.write(address, width, value).is_some(),
            RegisterLocation::Nowhere => true,
            RegisterLocation::Fault => false,
        };
        if !done {
            self.record_fault(function, offset);
        }
    }

    fn narrowest_read(&self, function: Sbdf) -> Width {
        let host = self.covering(function);
        host.map_or(Width::Byte, |host| host.widths.narrowest_read())
    }

    fn take_fault(&mut self) -> Option<AccessFault> {
        self.faults.pop_front()
    }
}

impl<R: Registers> Drop for HostBridgeAccess<R> {
    fn drop(&mut self) {
        for host in &mut self.hosts {
            match &mut host.backend {
                Backend::Window(_) => {}
                Backend::DesignWare(port) => port.restore(&mut self.registers),
                Backend::BrcmStb(port) => port.restore(&mut self.registers),
            }
        }
    }
}

/// Where a register of a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RegisterLocation {
    At(PhysAddr),
    /// Nothing can be there.
    Nowhere,
    /// The controller refused an access.
    Fault,
}

impl RegisterLocation {
    fn read(self, registers: &mut impl Registers, width: Width) -> ReadOutcome {
        match self {
            Self::At(address) => registers
                .read(address, width)
                .map_or(ReadOutcome::Fault, ReadOutcome::Value),
            Self::Nowhere => ReadOutcome::Unclaimed,
            Self::Fault => ReadOutcome::Fault,
        }
    }
}

/// What came of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadOutcome {
    Value(u32),
    Unclaimed,
    Fault,
}

/// The buses that the root port at `port` forwards: its primary bus up to its
/// subordinate one, or its own bus alone where these are not valid; and the bus
/// directly below. `None` where its registers do not answer.
fn buses_of_port(registers: &mut impl Registers, port: PhysAddr) -> Option<(BusRange, u8)> {
    // Primary, secondary and subordinate bus number (PCIe 7.5.1.3.4).
    let numbers = registers.read(PhysAddr(port.0 + 0x18), Width::Dword)?;
    let [first, secondary, last, _] = numbers.to_le_bytes();
    let is_valid = first < secondary && secondary <= last;
    let last = if is_valid { last } else { first };
    let secondary = if is_valid { secondary } else { first };
    Some((BusRange { first, last }, secondary))
}

/// Why the functions below a host bridge cannot be accessed. Its `Display` is a
/// sentence about the host bridge.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HostBridgeError {
    /// A register does not answer.
    #[error("its register at {address} does not answer")]
    NoResponse {
        /// Which one.
        address: PhysAddr,
    },
    /// The controller is held in reset.
    #[error("its controller is in reset: the register at {address} is {value:#010x}")]
    InReset {
        /// The register that shows it.
        address: PhysAddr,
        /// Its value.
        value: u32,
    },
    /// The controller was not set up as a root port.
    #[error(
        "its controller was not set up as a root port: the register at {address} is {value:#010x}"
    )]
    NotRootPort {
        /// The register that shows it.
        address: PhysAddr,
        /// Its value.
        value: u32,
    },
    /// Two host bridges have the same buses.
    #[error(
        "its buses are {buses}, and buses {other} of segment {segment:04x} belong to another host bridge"
    )]
    SameBuses {
        /// Their segment.
        segment: u16,
        /// The buses of this one.
        buses: BusRange,
        /// The buses of the one before.
        other: BusRange,
    },
    /// The registers could not be mapped.
    #[error("{0}")]
    Unmapped(String),
}

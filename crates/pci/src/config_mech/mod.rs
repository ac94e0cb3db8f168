//! Configuration space through the host bridges of a machine.
//!
//! What differs from bridge to bridge is how a function's registers get an
//! address. It is decided here, over [`Registers`], so that it can be tried
//! against a model of a controller; who owns the processor only loads and
//! stores.

mod brcmstb;
mod designware;
mod window;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::{
    AccessFault, BusRange, ConfigAccess, ConfigOffset, ConfigRead, HostBridge, Mechanism, PhysAddr,
    Sbdf, Width,
};
use brcmstb::BrcmStb;
pub(super) use brcmstb::SIZE as BRCM_STB_SIZE;
use designware::DesignWare;
pub(super) use designware::FUNCTION_SIZE;
use window::Window;

/// Faults that are kept for [`ConfigAccess::take_fault`]; more are dropped,
/// since the first ones tell the story.
const KEPT_FAULTS: usize = 64;

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

/// A way to reach the functions below one host bridge.
#[derive(Debug)]
enum Route {
    Window(Window),
    DesignWare(DesignWare),
    BrcmStb(BrcmStb),
}

#[derive(Debug)]
struct Host {
    segment: u16,
    buses: BusRange,
    way: Route,
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
    /// Where a loader has numbered the buses of a controller, which need not
    /// be as the tree has them, `host` gets the numbers that are in use.
    pub fn add(&mut self, host: &mut HostBridge) -> Result<(), HostBridgeError> {
        let registers = &mut self.registers;
        let way = match host.mechanism {
            Mechanism::Window(shape) => Route::Window(Window::new(host, shape)),
            Mechanism::DesignWare { dbi, atu } => {
                let (way, buses) = DesignWare::open(registers, host.ecam_base, dbi, atu)?;
                host.buses = buses;
                Route::DesignWare(way)
            }
            Mechanism::BrcmStb => {
                let (way, buses) = BrcmStb::open(registers, host.ecam_base)?;
                host.buses = buses;
                Route::BrcmStb(way)
            }
        };
        let (segment, buses) = (host.segment, host.buses);
        let taken = |other: &&Host| {
            other.segment == segment
                && other.buses.first <= buses.last
                && buses.first <= other.buses.last
        };
        if let Some(other) = self.hosts.iter().find(taken) {
            return Err(HostBridgeError::SameBuses {
                segment,
                buses,
                other: other.buses,
            });
        }
        self.hosts.push(Host {
            segment,
            buses,
            way,
        });
        Ok(())
    }

    /// The address of a register that one plain load reads, whoever else reads
    /// meanwhile; `None` where the bridge has no window onto its functions, or
    /// nothing can be there.
    pub fn direct_address(&self, read: ConfigRead) -> Option<PhysAddr> {
        let function = read.function;
        let host = self.hosts.iter().find(|host| host.covers_bus(function))?;
        let aligned = read.offset.get() & !(read.width.bytes() - 1);
        match &host.way {
            Route::Window(window) => match window.address(function, aligned) {
                RegisterLocation::At(address) => Some(address),
                RegisterLocation::Nowhere | RegisterLocation::Fault => None,
            },
            Route::DesignWare(_) | Route::BrcmStb(_) => None,
        }
    }

    fn host(&mut self, function: Sbdf) -> Option<(&mut R, &mut Route)> {
        let host = self
            .hosts
            .iter_mut()
            .find(|host| host.covers_bus(function))?;
        Some((&mut self.registers, &mut host.way))
    }

    fn note(&mut self, function: Sbdf, offset: ConfigOffset) {
        if self.faults.len() < KEPT_FAULTS {
            self.faults.push_back(AccessFault { function, offset });
        }
    }
}

impl<R: Registers> ConfigAccess for HostBridgeAccess<R> {
    fn read(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
        let Some((registers, way)) = self.host(function) else {
            return width.ones();
        };
        let aligned = offset.get() & !(width.bytes() - 1);
        let answer = match way {
            Route::Window(window) => window.read(registers, function, aligned, width),
            Route::DesignWare(port) => port.read(registers, function, aligned, width),
            Route::BrcmStb(port) => port.read(registers, function, aligned, width),
        };
        match answer {
            ReadResult::Value(value) => value & width.ones(),
            ReadResult::Unclaimed => width.ones(),
            ReadResult::Fault => {
                self.note(function, offset);
                width.ones()
            }
        }
    }

    fn write(&mut self, function: Sbdf, offset: ConfigOffset, width: Width, value: u32) {
        let Some((registers, way)) = self.host(function) else {
            return;
        };
        let aligned = offset.get() & !(width.bytes() - 1);
        let place = match way {
            Route::Window(window) => window.address(function, aligned),
            Route::DesignWare(port) => port.address(registers, function, aligned),
            Route::BrcmStb(port) => port.address(registers, function, aligned),
        };
        let done = match place {
            RegisterLocation::At(address) => registers.write(address, width, value).is_some(),
            RegisterLocation::Nowhere => true,
            RegisterLocation::Fault => false,
        };
        if !done {
            self.note(function, offset);
        }
    }

    fn take_fault(&mut self) -> Option<AccessFault> {
        self.faults.pop_front()
    }
}

impl<R: Registers> Drop for HostBridgeAccess<R> {
    fn drop(&mut self) {
        for host in &mut self.hosts {
            match &mut host.way {
                Route::Window(_) => {}
                Route::DesignWare(port) => port.restore(&mut self.registers),
                Route::BrcmStb(port) => port.restore(&mut self.registers),
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
    fn read(self, registers: &mut impl Registers, width: Width) -> ReadResult {
        match self {
            Self::At(address) => registers
                .read(address, width)
                .map_or(ReadResult::Fault, ReadResult::Value),
            Self::Nowhere => ReadResult::Unclaimed,
            Self::Fault => ReadResult::Fault,
        }
    }
}

/// What came of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadResult {
    Value(u32),
    Unclaimed,
    Fault,
}

/// The buses that the root port at `registers` says it leads to: its primary
/// bus up to its subordinate one, or its own bus alone where they make no
/// sense. `None` where its registers do not answer.
fn buses_of_port(registers: &mut impl Registers, port: PhysAddr) -> Option<(BusRange, u8)> {
    // Primary, secondary and subordinate bus number (PCIe 7.5.1.3.4).
    let numbers = registers.read(PhysAddr(port.0 + 0x18), Width::Dword)?;
    let [first, secondary, last, _] = numbers.to_le_bytes();
    let sound = first < secondary && secondary <= last;
    let last = if sound { last } else { first };
    let secondary = if sound { secondary } else { first };
    Some((BusRange { first, last }, secondary))
}

/// Why the functions below a host bridge cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostBridgeError {
    /// A register does not answer.
    NoResponse {
        /// Which one.
        address: PhysAddr,
    },
    /// The controller is held in reset.
    InReset {
        /// The register that says so.
        address: PhysAddr,
        /// Its value.
        value: u32,
    },
    /// The controller is no root port: nobody has set it up as one.
    NotRootPort {
        /// The register that says so.
        address: PhysAddr,
        /// Its value.
        value: u32,
    },
    /// Two bridges lead to the same buses.
    SameBuses {
        /// Their segment.
        segment: u16,
        /// The buses of this one.
        buses: BusRange,
        /// The buses of the one before.
        other: BusRange,
    },
    /// The registers could not be mapped.
    Unmapped(String),
}

impl fmt::Display for HostBridgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoResponse { address } => write!(f, "its register at {address} does not answer"),
            Self::InReset { address, value } => write!(
                f,
                "its controller is in reset, as the register at {address} says with {value:#010x}"
            ),
            Self::NotRootPort { address, value } => write!(
                f,
                "its controller was not set up as a root port: the register at {address} is {value:#010x}"
            ),
            Self::SameBuses {
                segment,
                buses,
                other,
            } => write!(
                f,
                "its loader numbered its buses {buses}, and buses {other} of segment {segment:04x} belong to another host bridge"
            ),
            Self::Unmapped(why) => f.write_str(why),
        }
    }
}

impl core::error::Error for HostBridgeError {}

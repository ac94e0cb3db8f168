//! The fabric against expectations worked out by hand from the PCI Express
//! Base Specification.

mod allocation;
mod decode;
mod faults;
mod live;
mod registers;
mod resets;
mod routing;
mod series;
mod structures;
mod virtual_functions;

use warmbus_pci::{ConfigAccess, ConfigOffset, PortType, Sbdf, Width};
use warmbus_pcie_sim::{BridgeWindows, ExpressModel, Fabric, FunctionModel, HostId};

/// A fabric that is talked to in bus, device and function numbers.
struct Bench {
    fabric: Fabric,
    host: HostId,
}

impl Bench {
    fn new() -> Self {
        Self::with_buses(0, 255)
    }

    fn with_buses(first: u8, last: u8) -> Self {
        let (mut fabric, host) = Fabric::with_buses(first, last);
        fabric.log_mut().record();
        Self { fabric, host }
    }

    /// A fabric with this single function, at 00:01.0.
    fn with_function(model: FunctionModel) -> Self {
        let mut bench = Self::new();
        bench.fabric.add_root(bench.host, 1, 0, model);
        bench
    }

    fn read(&mut self, at: (u8, u8, u8), offset: u16, width: Width) -> u32 {
        let function = Sbdf::new(0, at.0, at.1, at.2);
        self.fabric
            .read(function, ConfigOffset::wrapping(offset), width)
    }

    fn r8(&mut self, at: (u8, u8, u8), offset: u16) -> u32 {
        self.read(at, offset, Width::Byte)
    }

    fn r16(&mut self, at: (u8, u8, u8), offset: u16) -> u32 {
        self.read(at, offset, Width::Word)
    }

    fn r32(&mut self, at: (u8, u8, u8), offset: u16) -> u32 {
        self.read(at, offset, Width::Dword)
    }

    fn write(&mut self, at: (u8, u8, u8), offset: u16, width: Width, value: u32) {
        let function = Sbdf::new(0, at.0, at.1, at.2);
        self.fabric
            .write(function, ConfigOffset::wrapping(offset), width, value);
    }

    fn w8(&mut self, at: (u8, u8, u8), offset: u16, value: u32) {
        self.write(at, offset, Width::Byte, value);
    }

    fn w16(&mut self, at: (u8, u8, u8), offset: u16, value: u32) {
        self.write(at, offset, Width::Word, value);
    }

    fn w32(&mut self, at: (u8, u8, u8), offset: u16, value: u32) {
        self.write(at, offset, Width::Dword, value);
    }

    /// Writes all ones and returns what stuck.
    fn size(&mut self, at: (u8, u8, u8), offset: u16) -> u32 {
        self.w32(at, offset, 0xffff_ffff);
        self.r32(at, offset)
    }

    /// Gives the bridge at `at` its bus numbers.
    fn number(&mut self, at: (u8, u8, u8), primary: u8, secondary: u8, subordinate: u8) {
        let numbers = u32::from_le_bytes([primary, secondary, subordinate, 0]);
        self.w32(at, 0x18, numbers);
    }
}

/// A root port whose PCI Express capability is at 0x40, with a link that is up.
fn root_port() -> FunctionModel {
    port(ExpressModel::new(PortType::RootPort).ari_forwarding()).link_up()
}

fn port(express: ExpressModel) -> FunctionModel {
    FunctionModel::bridge(0x1234, 0x0004, BridgeWindows::default()).express(express)
}

/// An endpoint whose PCI Express capability is at 0x40.
fn endpoint(device: u16) -> FunctionModel {
    FunctionModel::endpoint(0x1234, device, 0x01_0802)
        .express(ExpressModel::new(PortType::Endpoint).flr())
}

/// What a Vendor and Device ID dword of `endpoint(device)` reads.
const fn ids(device: u16) -> u32 {
    (device as u32) << 16 | 0x1234
}

/// All ones.
const ABSENT: u32 = 0xffff_ffff;

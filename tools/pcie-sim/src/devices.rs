//! Functions as they are found in machines, complete with capabilities.

use warmbus_pci::PortType;

use crate::bar::BarModel;
use crate::capability::MsiModel;
use crate::express::{ExpressModel, SlotModel};
use crate::model::{BridgeWindows, FunctionModel};

const MSI64: MsiModel = MsiModel {
    vectors_log2: 0,
    address64: true,
    masking: true,
    extended_data: false,
};

/// The host bridge that shows itself as a function: conventional, and without
/// a single capability.
pub fn host_bridge() -> FunctionModel {
    FunctionModel::endpoint(0x1b36, 0x0008, 0x06_0000)
        .named("host bridge")
        .subsystem(0x1af4, 0x1100)
}

/// A root port with a hot-plug capable slot of this number, nothing plugged in.
pub fn root_port(slot: u16) -> FunctionModel {
    port(PortType::RootPort, 0x000c, slot, 64).interrupt_messages(0, 1)
}

/// A switch downstream port with a hot-plug capable slot, nothing plugged in.
pub fn downstream_port(slot: u16) -> FunctionModel {
    port(PortType::DownstreamPort, 0x8233, slot, 64)
}

fn port(kind: PortType, device: u16, slot: u16, prefetchable_bits: u8) -> FunctionModel {
    let windows = BridgeWindows {
        io_bits: 16,
        prefetchable_bits,
    };
    let express = ExpressModel::new(kind)
        .slot(SlotModel {
            number: slot,
            hot_plug: true,
            power_controller: true,
        })
        .ari_forwarding()
        .active_reporting();
    FunctionModel::bridge(0x1b36, device, windows)
        .named("port")
        .bar(0, BarModel::memory32(0x1000))
        .interrupt_pin(1)
        .power_management(true, 0)
        .express(express)
        .msix(2, 0, 0x800)
        .bridge_subsystem(0x1b36, device)
        .advanced_errors()
        .access_control(0x5d)
        .containment()
}

/// The upstream port of a switch.
pub fn upstream_port() -> FunctionModel {
    FunctionModel::bridge(0x104c, 0x8232, BridgeWindows::default())
        .named("upstream port")
        .power_management(true, 0)
        .msi(MSI64)
        .bridge_subsystem(0x104c, 0x8232)
        .express(ExpressModel::new(PortType::UpstreamPort))
        .advanced_errors()
        .latency_tolerance()
}

/// A PCI Express to PCI bridge.
pub fn pcie_to_pci_bridge() -> FunctionModel {
    FunctionModel::bridge(0x1b36, 0x000e, BridgeWindows::default())
        .named("PCIe to PCI bridge")
        .bar(0, BarModel::memory64(0x100))
        .power_management(true, 0)
        .msi(MSI64)
        .express(ExpressModel::new(PortType::PcieToPciBridge))
        .advanced_errors()
}

/// A conventional PCI bridge.
pub fn pci_bridge() -> FunctionModel {
    let windows = BridgeWindows {
        io_bits: 32,
        prefetchable_bits: 64,
    };
    FunctionModel::bridge(0x1b36, 0x0001, windows)
        .named("PCI bridge")
        .bar(0, BarModel::memory64(0x100))
        .capability(4, &[0, 7])
        .bridge_subsystem(0x1b36, 0x0001)
}

/// A conventional network card: I/O, memory and ROM BAR, power management.
pub fn conventional_network() -> FunctionModel {
    FunctionModel::endpoint(0x8086, 0x100e, 0x02_0000)
        .named("e1000")
        .subsystem(0x1af4, 0x1100)
        .bar(0, BarModel::memory32(0x2_0000))
        .bar(1, BarModel::io(0x40))
        .rom(0x4_0000)
        .interrupt_pin(1)
        .power_management(false, 10_000_000)
}

/// An `NVMe` controller with one 64-bit BAR and FLR.
pub fn nvme() -> FunctionModel {
    FunctionModel::endpoint(0x1b36, 0x0010, 0x01_0802)
        .named("nvme")
        .subsystem(0x1af4, 0x1100)
        .bar(0, BarModel::memory64(0x4000))
        .interrupt_pin(1)
        .msix(65, 0x2000, 0x3000)
        .express(ExpressModel::new(PortType::Endpoint).flr())
        .power_management(false, 0)
        .advanced_errors()
}

/// A network controller with 32-bit BARs, a ROM and a version 1 capability
/// that ends where another function would go on, as the Intel 82574 has it.
pub fn old_network() -> FunctionModel {
    FunctionModel::endpoint(0x8086, 0x10d3, 0x02_0000)
        .named("e1000e")
        .subsystem(0x8086, 0)
        .bar(0, BarModel::memory32(0x2_0000))
        .bar(1, BarModel::memory32(0x2_0000))
        .bar(2, BarModel::io(0x20))
        .bar(3, BarModel::memory32(0x4000))
        .rom(0x4_0000)
        .interrupt_pin(1)
        .place_at(0xc8)
        .power_management(false, 0)
        .msi(MSI64)
        .place_at(0xa0)
        .msix(5, 3, 0x2003)
        .place_at(0xe0)
        .express(ExpressModel::new(PortType::Endpoint).version(1))
        .advanced_errors()
        .serial_number(0x5254_00ff_ff12_3456)
}

/// A virtio network device, with the capability that reads through to BARs.
pub fn virtio_network() -> FunctionModel {
    virtio(0x1041, 0x02_0000)
        .named("virtio-net")
        .rom(0x4_0000)
        .express(ExpressModel::new(PortType::Endpoint).flr())
}

/// A virtio device in the root complex.
pub fn integrated_virtio() -> FunctionModel {
    virtio(0x1044, 0x00_ff00)
        .named("virtio-rng")
        .express(ExpressModel::new(PortType::RootComplexIntegratedEndpoint).flr())
}

fn virtio(device: u16, class_code: u32) -> FunctionModel {
    FunctionModel::endpoint(0x1af4, device, class_code)
        .revision(1)
        .subsystem(0x1af4, 0x1100)
        .bar(1, BarModel::memory32(0x1000))
        .bar(4, BarModel::memory64(0x4000).prefetchable())
        .interrupt_pin(1)
        .msix(4, 1, 0x801)
        .virtio_access()
        .power_management(true, 0)
}

/// A USB controller in the root complex.
pub fn integrated_usb() -> FunctionModel {
    FunctionModel::endpoint(0x1b36, 0x000d, 0x0c_0330)
        .named("xhci")
        .revision(1)
        .subsystem(0x1af4, 0x1100)
        .bar(0, BarModel::memory64(0x4000))
        .interrupt_pin(1)
        .msix(16, 0x3000, 0x3800)
        .express(ExpressModel::new(PortType::RootComplexIntegratedEndpoint))
}

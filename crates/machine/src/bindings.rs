//! Host bridges that are supported, by the names of their device tree
//! bindings.

use alloc::vec::Vec;

use super::cells::{self, AddressError};
use warmbus_fdt::FdtNode;
use warmbus_memory::MemoryRange;
use warmbus_pci::{CamLayout, Mechanism, PhysAddr};

/// How the registers of a host bridge are described.
#[derive(Clone, Copy, Debug)]
enum Registers {
    /// One window with everything.
    Window(CamLayout),
    /// A `DesignWare` port: its registers under one of these names, a window
    /// called `config`, and perhaps its translation unit, `atu`.
    DesignWare { dbi: &'static str },
    /// A Broadcom STB port.
    BrcmStb,
}

/// One binding.
#[derive(Debug)]
pub(super) struct Binding {
    compatible: &'static str,
    registers: Registers,
    /// BARs are where they are and must not be written.
    pub(super) fixed: bool,
    /// See [`HostBridge::survives_linux_driver`](warmbus_pci::HostBridge::survives_linux_driver).
    pub(super) kept: bool,
}

/// ECAM that a controller imitates.
const ONE_DEVICE: CamLayout = CamLayout {
    single_device_on_root_bus: true,
    ..CamLayout::ECAM
};

/// The configuration access mechanism of conventional PCI, in memory.
const CAM: CamLayout = CamLayout {
    bus_shift: 16,
    single_device_on_root_bus: false,
};

const fn window(compatible: &'static str, shape: CamLayout) -> Binding {
    Binding {
        compatible,
        registers: Registers::Window(shape),
        fixed: false,
        kept: true,
    }
}

/// A controller that its loader has initialised and that the driver of Linux
/// initialises again, with a reset of everything behind it.
const fn controller(compatible: &'static str, registers: Registers) -> Binding {
    Binding {
        compatible,
        registers,
        fixed: true,
        kept: false,
    }
}

const DBI: Registers = Registers::DesignWare { dbi: "dbi" };

static BINDINGS: [Binding; 15] = [
    window("pci-host-ecam-generic", CamLayout::ECAM),
    window("pci-host-cam-generic", CAM),
    window("arm,juno-r1-pcie", CamLayout::ECAM),
    window("marvell,armada8k-pcie-ecam", ONE_DEVICE),
    window("socionext,synquacer-pcie-ecam", ONE_DEVICE),
    window("snps,dw-pcie-ecam", ONE_DEVICE),
    // The devices are on the chip and their BARs cannot be moved. On the first
    // chips, the driver of Linux changes the values that reads return, so that
    // BARs look fixed.
    Binding {
        compatible: "cavium,pci-host-thunder-ecam",
        registers: Registers::Window(CamLayout::ECAM),
        fixed: true,
        kept: false,
    },
    controller("snps,dw-pcie", DBI),
    controller("rockchip,rk3568-pcie", DBI),
    controller("rockchip,rk3588-pcie", DBI),
    controller("fsl,imx8mq-pcie", DBI),
    controller("fsl,imx8mm-pcie", DBI),
    controller("fsl,imx8mp-pcie", DBI),
    controller(
        "marvell,armada8k-pcie",
        Registers::DesignWare { dbi: "ctrl" },
    ),
    controller("brcm,bcm2711-pcie", Registers::BrcmStb),
];

/// The binding of a node: the first of its names that is supported, as they go
/// from the most to the least specific (DT 2.3.1).
pub(super) fn binding(compatible: &[u8]) -> Option<&'static Binding> {
    compatible.split(|&byte| byte == 0).find_map(|name| {
        BINDINGS
            .iter()
            .find(|binding| binding.compatible.as_bytes() == name)
    })
}

/// Offset of the unrolled regions of a `DesignWare` translation unit from its
/// other registers, where the tree does not name them.
const UNROLLED_OFFSET: u64 = 0x30_0000;
const PAGE_SIZE: u64 = 4096;
const PORT_OR_WINDOW: &str = "port or no window in its reg-names";

impl Binding {
    /// The mechanism of the host bridge at `place`, and its window.
    pub(super) fn mechanism(
        &self,
        node: &FdtNode<'_, '_>,
    ) -> Result<(Mechanism, MemoryRange), AddressError> {
        let first = || cells::region(node, "reg", 0);
        Ok(match self.registers {
            Registers::Window(shape) => (Mechanism::Window(shape), first()?),
            Registers::BrcmStb => (Mechanism::BrcmStb, first()?),
            Registers::DesignWare { dbi } => {
                let names = node.property("reg-names")?.unwrap_or_default();
                let names: Vec<&[u8]> = names.split(|&byte| byte == 0).collect();
                // A region of no bytes has a name like all others. What nothing
                // needs may be where the processor cannot reach it.
                let region_of = |name: &str| {
                    let at = names.iter().position(|other| *other == name.as_bytes())?;
                    let region = cells::region(node, "reg", at);
                    region.ok().filter(|region| !region.is_empty())
                };
                let missing = || AddressError::Missing(PORT_OR_WINDOW);
                let registers = region_of(dbi).ok_or_else(missing)?;
                let window = region_of("config").ok_or_else(missing)?;
                let unrolled = registers.start.0.checked_add(UNROLLED_OFFSET);
                let unrolled = unrolled
                    .filter(|_| registers.size >= UNROLLED_OFFSET + PAGE_SIZE)
                    .map(PhysAddr);
                let mechanism = Mechanism::DesignWare {
                    dbi: registers.start,
                    atu: region_of("atu").map(|region| region.start).or(unrolled),
                };
                (mechanism, window)
            }
        })
    }
}

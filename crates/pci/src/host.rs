//! Host bridges: where a hierarchy starts and what it may use.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::{AccessWidths, PciRange, PhysAddr, Sbdf, config_mech};
use warmbus_memory::MemoryRange;

/// An inclusive range of bus numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusRange {
    /// Lowest bus number.
    pub first: u8,
    /// Highest bus number, not below `first`.
    pub last: u8,
}

impl BusRange {
    /// All buses of a segment.
    pub const ALL: Self = Self {
        first: 0,
        last: 0xff,
    };
}

impl fmt::Display for BusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}-{:02x}", self.first, self.last)
    }
}

/// The address space that a window of a host bridge forwards to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WindowKind {
    /// I/O space.
    Io,
    /// Memory space below 4 GiB on the PCI side.
    Memory32,
    /// Memory space that may lie above 4 GiB on the PCI side.
    Memory64,
}

/// One window of a host bridge, from an entry of its `ranges` property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostWindow {
    /// The space that the window forwards to.
    pub kind: WindowKind,
    /// Whether the tree marks the window as prefetchable.
    pub prefetchable: bool,
    /// First address on the PCI side.
    pub pci_address: u64,
    /// First address on the CPU side.
    pub cpu_address: PhysAddr,
    /// Bytes, not 0.
    pub size: u64,
}

impl HostWindow {
    /// A window that is not prefetchable.
    #[must_use]
    pub const fn new(kind: WindowKind, pci_address: u64, cpu_address: PhysAddr, size: u64) -> Self {
        Self {
            kind,
            prefetchable: false,
            pci_address,
            cpu_address,
            size,
        }
    }

    /// The addresses on the PCI side, up to the last one of 64 bits; `None`
    /// where the window has no bytes.
    #[must_use]
    pub const fn pci_range(&self) -> Option<PciRange> {
        match self.size.checked_sub(1) {
            Some(distance) => {
                PciRange::new(self.pci_address, self.pci_address.saturating_add(distance))
            }
            None => None,
        }
    }
}

/// How one window shows the configuration space of all buses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CamLayout {
    /// Binary logarithm of the bytes of a bus, 16 or 20. A function has the
    /// 256th part of them: all 4 KiB of its configuration space, or only the
    /// first 256 bytes.
    pub bus_shift: u32,
    /// Only device 0 is on the first bus. A controller that is made to look
    /// like ECAM sends its own requests there whatever device they are for, so
    /// that one device would answer for 32.
    pub single_device_on_root_bus: bool,
}

impl CamLayout {
    /// ECAM (PCIe 7.2.2).
    pub const ECAM: Self = Self {
        bus_shift: 20,
        single_device_on_root_bus: false,
    };

    /// Where in the window the configuration space of `function` starts, which
    /// is on a bus from `first_bus` on; `None` where the window does not show
    /// it.
    pub(crate) const fn offset_of(self, function: Sbdf, first_bus: u8) -> Option<u64> {
        let bus = function.bus() - first_bus;
        if bus == 0 && self.single_device_on_root_bus && function.device() != 0 {
            return None;
        }
        // 256 functions share the space of a bus.
        let of_function = (function.devfn() as u64) << (self.bus_shift - 8);
        Some((bus as u64) << self.bus_shift | of_function)
    }
}

/// How configuration space is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// One window with all of it.
    Window(CamLayout),
    /// A Synopsys `DesignWare` root port, whose window shows one function at a
    /// time.
    DesignWare {
        /// Physical address of its registers (DBI).
        dbi: PhysAddr,
        /// Physical address of the registers of its translation unit, if they
        /// are not among the first 4 KiB of the others, as in old cores.
        atu: Option<PhysAddr>,
    },
    /// A Broadcom STB root port: index and data registers, with the window in
    /// the middle of them.
    BrcmStb,
}

impl Mechanism {
    /// Whether registers of a controller are accessed, which only answer while
    /// its clocks run.
    #[must_use]
    pub const fn is_controller(self) -> bool {
        !matches!(self, Self::Window(_))
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Window(shape) if shape.bus_shift == CamLayout::ECAM.bus_shift => "ECAM",
            Self::Window(_) => "CAM",
            Self::DesignWare { .. } => "DesignWare port, window",
            Self::BrcmStb => "Broadcom STB port",
        })
    }
}

/// One host bridge.
///
/// ```
/// use warmbus_pci::{BusRange, HostBridge, HostWindow, PhysAddr, WindowKind};
///
/// // What QEMU's `virt` machine has.
/// let memory = HostWindow::new(
///     WindowKind::Memory32,
///     0x1000_0000,
///     PhysAddr(0x1000_0000),
///     0x2eff_0000,
/// );
/// let host =
///     HostBridge::ecam(0, PhysAddr(0x40_1000_0000), BusRange::ALL).with_window(memory);
/// assert_eq!(host.ecam_size, 256 << 20);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostBridge {
    /// What the machine description calls it, for example `/pcie@10000000`.
    pub name: String,
    /// Segment group number (`linux,pci-domain`).
    pub segment: u16,
    /// How configuration space is accessed.
    pub mechanism: Mechanism,
    /// Which accesses of it have an effect as they are made.
    pub widths: AccessWidths,
    /// Physical address of the ECAM window, where the configuration space of
    /// the first bus of `buses` starts; or of the window or the registers that
    /// `mechanism` has instead.
    pub ecam_base: PhysAddr,
    /// Bytes of that window; with ECAM at least 1 MiB a bus.
    pub ecam_size: u64,
    /// The buses that the window covers.
    pub buses: BusRange,
    /// What the bridge forwards, in the order of the tree.
    pub windows: Vec<HostWindow>,
    /// Bus numbers and BARs stay as they are found, and nothing is written
    /// (`linux,pci-probe-only`).
    pub preserve_config: bool,
    /// What has to run before an access completes and is only started for sure
    /// by Linux: a power domain, or the device on whose bus the bridge is.
    /// Nothing in this crate depends on it.
    pub depends_on: Option<String>,
    /// The driver that Linux has for this host bridge neither resets what is
    /// below it nor changes what reads return, so that captured configuration
    /// space stays valid. Nothing in this crate depends on it.
    pub survives_linux_driver: bool,
}

impl HostBridge {
    /// A host bridge whose `buses` are accessed by `mechanism` through
    /// `window`. It forwards nothing yet.
    #[must_use]
    pub fn new(segment: u16, mechanism: Mechanism, window: MemoryRange, buses: BusRange) -> Self {
        Self {
            name: format!("host bridge at {}", window.start),
            segment,
            mechanism,
            widths: AccessWidths::All,
            ecam_base: window.start,
            ecam_size: window.size,
            buses,
            windows: Vec::new(),
            preserve_config: false,
            depends_on: None,
            survives_linux_driver: false,
        }
    }

    /// A host bridge with ECAM (PCIe 7.2.2); `base` is the address of its first
    /// bus. Linux has one driver for all of them, which keeps what it finds.
    #[must_use]
    pub fn ecam(segment: u16, base: PhysAddr, buses: BusRange) -> Self {
        let size = (u64::from(buses.last.saturating_sub(buses.first)) + 1) << 20;
        let window = MemoryRange::new(base, size);
        let mechanism = Mechanism::Window(CamLayout::ECAM);
        Self {
            survives_linux_driver: true,
            ..Self::new(segment, mechanism, window, buses)
        }
    }

    /// The host bridge with a name, as in the machine description.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The host bridge with `widths` instead of all of them.
    #[must_use]
    pub const fn with_widths(mut self, widths: AccessWidths) -> Self {
        self.widths = widths;
        self
    }

    /// The host bridge with one more window.
    #[must_use]
    pub fn with_window(mut self, window: HostWindow) -> Self {
        self.windows.push(window);
        self
    }

    /// The host bridge with bus numbers and BARs kept as they are found.
    #[must_use]
    pub const fn preserved(mut self) -> Self {
        self.preserve_config = true;
        self
    }

    /// Physical address of the configuration space of `function`, as the
    /// processor accesses it; `None` where no window shows it, or where it is
    /// below another host bridge.
    ///
    /// ```
    /// use warmbus_pci::{BusRange, HostBridge, PhysAddr, Sbdf};
    ///
    /// let buses = BusRange { first: 0x80, last: 0xff };
    /// let host = HostBridge::ecam(1, PhysAddr(0x40_1800_0000), buses);
    /// let function = Sbdf::new(1, 0x81, 2, 3);
    /// assert_eq!(host.config_address(function), Some(PhysAddr(0x40_1811_3000)));
    /// assert_eq!(host.config_address(Sbdf::new(0, 0x81, 2, 3)), None);
    /// ```
    #[must_use]
    pub fn config_address(&self, function: Sbdf) -> Option<PhysAddr> {
        let is_below = self.segment == function.segment()
            && (self.buses.first..=self.buses.last).contains(&function.bus());
        match self.mechanism {
            Mechanism::Window(layout) if is_below => layout
                .offset_of(function, self.buses.first)
                .and_then(|offset| self.ecam_base.0.checked_add(offset))
                .map(PhysAddr),
            _ => None,
        }
    }

    /// The physical addresses that are accessed for configuration space.
    #[must_use]
    pub fn regions(&self) -> Vec<MemoryRange> {
        match self.mechanism {
            Mechanism::Window(shape) => {
                let buses = u64::from(self.buses.last - self.buses.first) + 1;
                let size = buses << shape.bus_shift;
                alloc::vec![MemoryRange::new(self.ecam_base, size)]
            }
            Mechanism::DesignWare { dbi, atu } => {
                let pages = [Some(self.ecam_base), Some(dbi), atu];
                pages
                    .into_iter()
                    .flatten()
                    .map(|page| MemoryRange::new(page, config_mech::FUNCTION_SIZE))
                    .collect()
            }
            Mechanism::BrcmStb => {
                let size = config_mech::BRCM_STB_SIZE;
                alloc::vec![MemoryRange::new(self.ecam_base, size)]
            }
        }
    }
}

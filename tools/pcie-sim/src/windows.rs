//! Host bridges with other windows than the usual ones.
//!
//! A `ranges` property describes I/O, 32-bit and 64-bit memory windows, each
//! memory window prefetchable or not, at any PCI address (PCI Bus Binding to
//! IEEE 1275, 2.2.1.1).

use warmbus_pci::{BusRange, HostWindow, PhysAddr, WindowKind};

use crate::fabric::{Fabric, HostId};

/// The CPU address of PCI address 0 of all these windows: none is mapped
/// one to one, so that the two sides cannot be confused unnoticed.
const CPU_OFFSET: u64 = 0x100_0000_0000;

const fn window(kind: WindowKind, pci_address: u64, size: u64) -> HostWindow {
    HostWindow {
        kind,
        prefetchable: false,
        pci_address,
        cpu_address: PhysAddr(CPU_OFFSET + pci_address),
        size,
    }
}

/// An I/O window of `size` bytes from `pci_address` on.
#[must_use]
pub const fn io_window(pci_address: u64, size: u64) -> HostWindow {
    window(WindowKind::Io, pci_address, size)
}

/// A memory window that the tree describes with 32-bit addresses.
#[must_use]
pub const fn memory32_window(pci_address: u64, size: u64) -> HostWindow {
    window(WindowKind::Memory32, pci_address, size)
}

/// A memory window that the tree describes with 64-bit addresses.
#[must_use]
pub const fn memory64_window(pci_address: u64, size: u64) -> HostWindow {
    window(WindowKind::Memory64, pci_address, size)
}

/// The same window, marked as prefetchable.
#[must_use]
pub const fn prefetchable_window(mut window: HostWindow) -> HostWindow {
    window.prefetchable = true;
    window
}

impl Fabric {
    /// A fabric with one host bridge, of segment 0 with all buses and these
    /// windows.
    pub fn with_windows(windows: &[HostWindow]) -> (Self, HostId) {
        let mut bridge = Self::host_bridge(
            0,
            BusRange {
                first: 0,
                last: 255,
            },
        );
        bridge.windows = windows.to_vec();
        let mut fabric = Self::new();
        let host = fabric.add_host(bridge);
        (fabric, host)
    }
}

//! Host bridges: where a hierarchy starts and what it may use.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::PhysAddr;

/// An inclusive range of bus numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusRange {
    /// Lowest bus number.
    pub first: u8,
    /// Highest bus number, not below `first`.
    pub last: u8,
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

/// One ECAM host bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostBridge {
    /// What the machine description calls it, for example `/pcie@10000000`.
    pub name: String,
    /// Segment group number (`linux,pci-domain`).
    pub segment: u16,
    /// Physical address of the ECAM window: the configuration space of the
    /// first bus of `buses` starts here.
    pub ecam_base: PhysAddr,
    /// Bytes of the ECAM window; at least 1 MiB a bus.
    pub ecam_size: u64,
    /// The buses that the window reaches.
    pub buses: BusRange,
    /// What the bridge forwards, in the order of the tree.
    pub windows: Vec<HostWindow>,
    /// Bus numbers and BARs are to be left as they are found
    /// (`linux,pci-probe-only`).
    pub preserve: bool,
}

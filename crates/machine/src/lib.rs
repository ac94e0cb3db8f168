//! The machine, as its device tree, or ACPI and UEFI, describe it: memory,
//! host bridges, console, processors. Board additions are in
//! [`board_overlay`].
//!
//! A tree that cannot be read at all is a [`MachineError`]. A smaller fault
//! only costs the thing it describes, and becomes a warning.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod acpi;
mod after_uefi;
mod basics;
mod bindings;
pub mod board_overlay;
mod bridges;
mod cells;
mod early_devices;
mod error;
mod host_nodes;
mod memory;
#[cfg(test)]
mod tests;
mod uart;
mod uefi;
mod windows;

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::ControlFlow;

pub use acpi::mcfg_quirks::{McfgId, McfgQuirk};
pub use acpi::{AcpiError, UefiRootBridge};
pub use after_uefi::{UefiError, UefiInChosen, UefiTables};
pub use early_devices::{Console, ConsoleKind, EarlyDevices, Psci, PsciConduit};
pub use error::MachineError;
pub use host_nodes::HostNode;
pub use memory::{MachineMemory, Reservation, ReservationKind};
pub use uart::{UartLayout, UartRegisters};
pub use uefi::MemoryMap;

use basics::Basics;
use warmbus_fdt::{DeviceTree, text};
use warmbus_memory::{MemoryRange, RamRegion, RangeSet};
use warmbus_pci::HostBridge;

/// What describes a machine, to Warmbus and then to Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A device tree.
    DeviceTree,
    /// A device tree, with the memory map of UEFI.
    DeviceTreeAndUefi,
    /// ACPI tables, with the memory map of UEFI.
    Acpi,
}

impl Source {
    /// Whether Linux learns from UEFI which memory there is.
    #[must_use]
    pub const fn has_uefi(self) -> bool {
        matches!(self, Self::DeviceTreeAndUefi | Self::Acpi)
    }
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// What describes it.
    pub source: Source,
    /// Model name, if the tree has one.
    pub model: Option<String>,
    /// Memory; not empty.
    pub memory: RangeSet,
    /// The same memory, each range with the number of its NUMA node; 0 where
    /// the machine description names none.
    pub memory_nodes: Vec<RamRegion>,
    /// Reserved memory, in no order; ranges may overlap and may lie outside of
    /// [`Machine::memory`].
    pub reservations: Vec<Reservation>,
    /// The host bridges that can be used, in the order of the tree. No two
    /// share configuration space, buses or windows.
    pub hosts: Vec<HostBridge>,
    /// How many more host bridges the machine description has, which cannot be
    /// used; there is a warning with the reason for each one.
    pub unusable_host_bridges: usize,
    /// All host bridges of the device tree that Linux may use, supported or
    /// not, in the order of the tree. Empty with ACPI.
    pub host_nodes: Vec<HostNode>,
    /// `/chosen` says that Linux has to keep what it finds below all host
    /// bridges (`linux,pci-probe-only`).
    pub chosen_probe_only: bool,
    /// Console and power.
    pub early_devices: EarlyDevices,
    /// Processors that are there to be used.
    pub cpus: usize,
    /// Ticks a second of the system counter, where the tree has the number;
    /// trees have it only where `CNTFRQ_EL0` is wrong.
    pub timer_frequency: Option<u32>,
    /// The kernel command line in `/chosen`.
    pub bootargs: String,
    /// What is wrong with the tree, as sentences.
    pub warnings: Vec<String>,
}

impl Machine {
    /// Reads the device tree that starts with `bytes`.
    pub fn from_device_tree(bytes: &[u8]) -> Result<Self, MachineError> {
        let tree = DeviceTree::new(bytes)?;
        Self::of(&tree, MachineMemory::of(&tree)?, EarlyDevices::of(&tree))
    }

    /// The same where `memory` and `early_devices` of this tree are known.
    pub fn with_early_devices(
        bytes: &[u8],
        memory: MachineMemory,
        early_devices: EarlyDevices,
    ) -> Result<Self, MachineError> {
        Self::of(&DeviceTree::new(bytes)?, memory, early_devices)
    }

    fn of(
        tree: &DeviceTree<'_>,
        memory: MachineMemory,
        early_devices: EarlyDevices,
    ) -> Result<Self, MachineError> {
        let MachineMemory {
            ranges: memory,
            nodes: memory_nodes,
            reservations,
            mut warnings,
        } = memory;
        let mut bridges = bridges::Reader::new(&memory);
        let mut basics = Basics::default();
        tree.walk(&mut |node| {
            basics.visit(node)?;
            if basics::is_root_child(node, "chosen")? {
                bridges.chosen(node)?;
            }
            bridges.visit(node)?;
            Ok(ControlFlow::Continue(()))
        })?;
        let bridges = bridges.finish(&mut warnings)?;
        Ok(Self {
            source: Source::DeviceTree,
            model: basics.model.map(String::from),
            memory_nodes,
            reservations,
            hosts: bridges.hosts,
            unusable_host_bridges: bridges.unusable,
            host_nodes: bridges.nodes,
            chosen_probe_only: bridges.chosen_probe_only,
            early_devices,
            cpus: basics.cpus,
            timer_frequency: basics.timer_frequency,
            bootargs: basics.bootargs.and_then(text).unwrap_or_default().into(),
            warnings,
            memory,
        })
    }

    /// The host bridges, where there is at least one.
    pub fn host_bridges(&self) -> Result<&[HostBridge], MachineError> {
        if self.hosts.is_empty() {
            return Err(MachineError::NoHostBridge {
                unusable: self.unusable_host_bridges,
            });
        }
        Ok(&self.hosts)
    }

    /// The memory that may be mapped: all but what is reserved as `no-map`.
    #[must_use]
    pub fn mappable_memory(&self) -> RangeSet {
        memory::mappable(&self.memory, &self.reservations)
    }

    /// The memory that is neither reserved nor in `taken`.
    #[must_use]
    pub fn free_memory(&self, taken: &[MemoryRange]) -> RangeSet {
        memory::free(&self.memory, &self.reservations, taken)
    }

    /// The memory on its own.
    #[must_use]
    pub fn memory(&self) -> MachineMemory {
        MachineMemory {
            ranges: self.memory.clone(),
            nodes: self.memory_nodes.clone(),
            reservations: self.reservations.clone(),
            warnings: Vec::new(),
        }
    }
}

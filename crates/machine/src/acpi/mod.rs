//! The machine, as ACPI describes it (ACPI 6.5).
//!
//! The tables that are read: MCFG (host bridges), SPCR (console), FADT (how
//! PSCI is called), MADT (processors) and SRAT (NUMA nodes). Which host bridges
//! there are and which buses they have UEFI says while boot services run; later
//! it is in the AML tables, as far as it is constant there. The windows of host
//! bridges are computed by AML code and stay unknown; nothing is assigned on such
//! a machine.

mod aml;
mod console;
mod mcfg;
pub(super) mod mcfg_quirks;
mod roots;
mod structures;
mod tables;
mod uefi_roots;

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

pub use tables::AcpiError;
pub use uefi_roots::UefiRootBridge;

use super::early_devices::{EarlyDevices, Psci, PsciConduit};
use super::memory::{MachineMemory, Reservation, ReservationKind};
use super::uefi::MemoryMap;
use super::{Machine, Source};
use roots::{Excluded, RootBridge};
use structures::structures;
use tables::{HEADER_SIZE, Tables};
use warmbus_memory::bytes::{le_u16, le_u32, le_u64};
use warmbus_memory::{MemoryRange, PhysAddr, PhysMemory, RamRegion, RangeSet};

impl Machine {
    /// Reads the tables that the RSDP at `rsdp` names, and the memory from
    /// `map`.
    ///
    /// A damaged table costs what it describes, and becomes a warning.
    pub fn from_acpi(
        memory: &dyn PhysMemory,
        rsdp: PhysAddr,
        map: &MemoryMap<'_>,
    ) -> Result<Self, AcpiError> {
        Self::from_tables(memory, rsdp, map, roots::root_bridges)
    }

    /// The same while boot services run: the host bridges are those that UEFI
    /// has a protocol for, `roots`, and no AML is read. All memory that is
    /// allocated counts as reserved.
    pub fn from_uefi(
        memory: &dyn PhysMemory,
        rsdp: PhysAddr,
        map: &MemoryMap<'_>,
        roots: &[UefiRootBridge],
    ) -> Result<Self, AcpiError> {
        let mut machine =
            Self::from_tables(memory, rsdp, map, |_| uefi_roots::root_bridges(roots))?;
        let reserved = map.allocated().map(|range| Reservation {
            range,
            kind: ReservationKind::Firmware,
        });
        machine.reservations = reserved.collect();
        Ok(machine)
    }

    /// A machine that a running Linux started this program on, by `kexec`. What there is
    /// besides its `memory`, which Linux goes on with, the tables of ACPI say; where they
    /// cannot be read, a warning has the reason, and the machine has no host bridge.
    #[must_use]
    pub fn after_uefi(
        contents: &dyn PhysMemory,
        rsdp: Option<PhysAddr>,
        map: &MemoryMap<'_>,
        memory: MachineMemory,
    ) -> Self {
        let tables = rsdp.ok_or(AcpiError::NoRsdp);
        let tables = tables.and_then(|rsdp| Self::from_acpi(contents, rsdp, map));
        let mut machine = tables.unwrap_or_else(|error| Self {
            memory: memory.ranges,
            memory_nodes: memory.nodes,
            ..Self::unknown(vec![format!("the machine is not known: {error}")])
        });
        machine.reservations = memory.reservations;
        machine.warnings.extend(memory.warnings);
        machine
    }

    /// One of which nothing is known but `warnings`, with UEFI.
    fn unknown(warnings: Vec<String>) -> Self {
        Self {
            source: Source::Acpi,
            model: None,
            memory: RangeSet::new(),
            memory_nodes: Vec::new(),
            reservations: Vec::new(),
            hosts: Vec::new(),
            unusable_host_bridges: 0,
            host_nodes: Vec::new(),
            chosen_probe_only: false,
            early_devices: EarlyDevices {
                console: None,
                psci: Psci::NotKnown,
            },
            cpus: 0,
            timer_frequency: None,
            bootargs: String::new(),
            warnings,
        }
    }

    fn from_tables(
        memory: &dyn PhysMemory,
        rsdp: PhysAddr,
        map: &MemoryMap<'_>,
        roots: impl FnOnce(&Tables<'_>) -> (Vec<RootBridge>, Vec<Excluded>),
    ) -> Result<Self, AcpiError> {
        let mut warnings = Vec::new();
        let tables = Tables::find(memory, rsdp, &mut warnings)?;
        let bridges = mcfg::bridges(&tables, roots(&tables), &map.ram(), &mut warnings);
        let mut machine = Self {
            model: Some(tables.oem.clone()).filter(|name| !name.is_empty()),
            hosts: bridges.hosts,
            unusable_host_bridges: bridges.unusable,
            early_devices: EarlyDevices {
                console: tables.get(*b"SPCR").and_then(console::console),
                psci: tables.get(*b"FACP").map_or(Psci::NotKnown, psci),
            },
            cpus: tables.get(*b"APIC").map_or(0, processors),
            ..Self::unknown(warnings)
        };
        machine.memory_nodes = tables.get(*b"SRAT").map_or_else(Vec::new, affinities);
        machine.set_memory(map);
        Ok(machine)
    }
}

/// How PSCI is called (ACPI 5.2.9.4, ARM Architecture Boot Flags).
fn psci(fadt: &[u8]) -> Psci {
    const BOOT_FLAGS: usize = 129;
    const COMPLIANT: u16 = 1;
    const USE_HVC: u16 = 1 << 1;

    match le_u16(fadt, BOOT_FLAGS) {
        None => Psci::NotKnown,
        Some(flags) if flags & COMPLIANT == 0 => Psci::None,
        Some(flags) if flags & USE_HVC != 0 => Psci::By(PsciConduit::Hvc),
        Some(_) => Psci::By(PsciConduit::Smc),
    }
}

/// Processors that can be used: GICC structures that are enabled or can be
/// brought online (ACPI 5.2.12.14).
fn processors(madt: &[u8]) -> usize {
    const GICC: u8 = 0xb;
    const FLAGS: usize = 12;
    const USABLE: u32 = 1 | 1 << 3;

    let is_usable =
        |structure: &[u8]| le_u32(structure, FLAGS).is_some_and(|flags| flags & USABLE != 0);
    structures(madt, HEADER_SIZE + 8)
        .filter(|&(kind, structure)| kind == GICC && is_usable(structure))
        .count()
}

/// The nodes of memory (ACPI 5.2.16.2, Memory Affinity Structure).
fn affinities(srat: &[u8]) -> Vec<RamRegion> {
    const MEMORY: u8 = 1;
    const ENABLED: u32 = 1;
    /// More ranges than any machine has.
    const MAX: usize = 1024;

    let affinity = |structure: &[u8]| {
        let node = le_u32(structure, 2)?;
        let (base, size) = (le_u64(structure, 8)?, le_u64(structure, 16)?);
        let enabled = le_u32(structure, 28)? & ENABLED != 0;
        let range = MemoryRange::new(PhysAddr(base), size);
        let is_used = enabled && !range.is_empty() && range.fits();
        is_used.then_some(RamRegion { range, node })
    };
    structures(srat, HEADER_SIZE + 12)
        .filter(|&(kind, _)| kind == MEMORY)
        .filter_map(|(_, structure)| affinity(structure))
        .take(MAX)
        .collect()
}

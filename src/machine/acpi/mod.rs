//! The machine, as ACPI describes it (ACPI 6.5).
//!
//! Read are the MCFG (host bridges), the SPCR (console), the FADT (how PSCI is
//! called), the MADT (processors), the SRAT (nodes of memory) and, for root
//! buses that the MCFG does not tell apart, the names `_BBN` and `_SEG` in the
//! AML tables. The windows of host bridges are computed by AML code and stay
//! unknown; nothing is assigned on such a machine.

mod bytes;
mod console;
mod mcfg;
mod scopes;
mod tables;

use alloc::string::String;
use alloc::vec::Vec;

pub use tables::{AcpiError, Memory};

use super::lifeline::{Conduit, Lifeline};
use super::memory::Region;
use super::uefi::MemoryMap;
use super::{Machine, Source};
use crate::pci::PhysAddr;
use bytes::{u16_at, u32_at, u64_at};
use tables::{HEADER_SIZE, Tables};

impl Machine {
    /// Reads the tables that the RSDP at `rsdp` leads to. Memory is what `map`
    /// says.
    ///
    /// A damaged table costs what it describes, and becomes a warning.
    pub fn from_acpi<M: Memory>(
        memory: &M,
        rsdp: PhysAddr,
        map: &MemoryMap<'_>,
    ) -> Result<Self, AcpiError> {
        let mut warnings = Vec::new();
        let tables = Tables::find(memory, rsdp, &mut warnings)?;
        let roots = scopes::root_buses(&tables);
        let bridges = mcfg::bridges(&tables, &roots, &map.ram(), &mut warnings);
        let psci = tables.get(*b"FACP").and_then(conduit);
        let madt = tables.get(*b"APIC");
        let (cpus, mut psci_cpus) = madt.map(processors).unwrap_or_default();
        if psci.is_none() {
            // They are started by the parking protocol, if at all.
            psci_cpus.clear();
        }
        let mut machine = Self {
            source: Source::Acpi,
            model: Some(tables.oem.clone()).filter(|name| !name.is_empty()),
            memory: Vec::new(),
            memory_nodes: Vec::new(),
            reservations: Vec::new(),
            hosts: bridges.hosts,
            refused_hosts: bridges.refused,
            lifeline: Lifeline {
                console: tables.get(*b"SPCR").and_then(console::console),
                psci,
            },
            cpus,
            psci_cpus,
            timer_frequency: None,
            bootargs: String::new(),
            warnings,
        };
        machine.memory_nodes = tables.get(*b"SRAT").map_or_else(Vec::new, affinities);
        machine.set_memory(map);
        Ok(machine)
    }
}

/// How PSCI is called (ACPI 5.2.9.4, ARM Architecture Boot Flags).
fn conduit(fadt: &[u8]) -> Option<Conduit> {
    const BOOT_FLAGS: usize = 129;
    const COMPLIANT: u16 = 1;
    const USE_HVC: u16 = 1 << 1;

    let flags = u16_at(fadt, BOOT_FLAGS)?;
    (flags & COMPLIANT != 0).then_some(if flags & USE_HVC != 0 {
        Conduit::Hvc
    } else {
        Conduit::Smc
    })
}

/// How many processors can be used, and `MPIDR_EL1` of those that are enabled
/// (ACPI 5.2.12.14, GICC structures).
fn processors(madt: &[u8]) -> (usize, Vec<u64>) {
    const GICC: u8 = 0xb;
    const FLAGS: usize = 12;
    const MPIDR: usize = 68;
    const ENABLED: u32 = 1;
    const ONLINE_CAPABLE: u32 = 1 << 3;

    let (mut count, mut enabled) = (0, Vec::new());
    for (kind, structure) in bytes::structures(madt, HEADER_SIZE + 8) {
        let flags = u32_at(structure, FLAGS).filter(|_| kind == GICC);
        let flags = flags.unwrap_or(0);
        if flags & (ENABLED | ONLINE_CAPABLE) != 0 {
            count += 1;
        }
        if flags & ENABLED != 0 {
            enabled.extend(u64_at(structure, MPIDR));
        }
    }
    (count, enabled)
}

/// The nodes of memory (ACPI 5.2.16.2, Memory Affinity Structure).
fn affinities(srat: &[u8]) -> Vec<(Region, u32)> {
    const MEMORY: u8 = 1;
    const ENABLED: u32 = 1;
    /// More ranges than any machine has.
    const MOST: usize = 1024;

    let affinity = |structure: &[u8]| {
        let node = u32_at(structure, 2)?;
        let (base, size) = (u64_at(structure, 8)?, u64_at(structure, 16)?);
        let enabled = u32_at(structure, 28)? & ENABLED != 0;
        let is_range = size != 0 && base.checked_add(size).is_some();
        (enabled && is_range).then_some((
            Region {
                base: PhysAddr(base),
                size,
            },
            node,
        ))
    };
    bytes::structures(srat, HEADER_SIZE + 12)
        .filter(|&(kind, _)| kind == MEMORY)
        .filter_map(|(_, structure)| affinity(structure))
        .take(MOST)
        .collect()
}

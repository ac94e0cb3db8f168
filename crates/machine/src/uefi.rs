//! Memory from the memory map of UEFI (UEFI 2.10, 7.2.3).

use alloc::vec::Vec;

use super::Machine;
use super::memory::{Reservation, ReservationKind};
use warmbus_memory::bytes::{le_u32, le_u64};
use warmbus_memory::{MemoryRange, PhysAddr, RamRegion, RangeSet};

const PAGE_SIZE: u64 = 4096;
/// Bytes of a descriptor that are read; there may be more.
const DESCRIPTOR_SIZE: usize = 40;

const LOADER_CODE: u32 = 1;
const LOADER_DATA: u32 = 2;
const BOOT_SERVICES_CODE: u32 = 3;
const BOOT_SERVICES_DATA: u32 = 4;
const CONVENTIONAL: u32 = 7;
const RUNTIME_SERVICES_DATA: u32 = 6;
const ACPI_RECLAIM: u32 = 9;
const ACPI_NVS: u32 = 10;
/// Types that must not be read: memory with errors, device registers, and memory
/// that was not accepted yet.
const UNUSABLE: u32 = 8;
const MAPPED_IO: u32 = 11;
const MAPPED_IO_PORTS: u32 = 12;
const UNACCEPTED: u32 = 15;

/// Attributes: can be cached with write-back, is meant for a special purpose, stays in
/// use by UEFI.
const WRITE_BACK: u64 = 1 << 3;
const SPECIFIC_PURPOSE: u64 = 1 << 18;
const RUNTIME: u64 = 1 << 63;

/// A memory map in memory, as `GetMemoryMap` wrote it.
#[derive(Clone, Copy, Debug)]
pub struct MemoryMap<'a> {
    bytes: &'a [u8],
    descriptor_size: usize,
}

struct Descriptor {
    kind: u32,
    range: MemoryRange,
    /// Where UEFI sees it after `SetVirtualAddressMap`; 0 before.
    virtual_start: u64,
    attributes: u64,
}

impl<'a> MemoryMap<'a> {
    /// The map in `bytes`, with descriptors of `descriptor_size` bytes. With
    /// fewer bytes than the specification has, there is nothing in it.
    #[must_use]
    pub const fn new(bytes: &'a [u8], descriptor_size: usize) -> Self {
        Self {
            bytes,
            descriptor_size,
        }
    }

    fn descriptors(&self) -> impl Iterator<Item = Descriptor> + '_ {
        let usable = self.descriptor_size >= DESCRIPTOR_SIZE;
        let bytes = if usable { self.bytes } else { &[] };
        let size = self.descriptor_size.max(DESCRIPTOR_SIZE);
        bytes.chunks_exact(size).filter_map(|raw| {
            let size = le_u64(raw, 24)?.checked_mul(PAGE_SIZE)?;
            let base = le_u64(raw, 8)?;
            base.checked_add(size)?;
            (size != 0).then_some(Descriptor {
                kind: le_u32(raw, 0)?,
                range: MemoryRange::new(PhysAddr(base), size),
                virtual_start: le_u64(raw, 16)?,
                attributes: le_u64(raw, 32)?,
            })
        })
    }

    /// All memory that an operating system may use, with the tables of ACPI.
    #[must_use]
    pub fn ram(&self) -> RangeSet {
        let usable = |descriptor: &Descriptor| {
            matches!(
                descriptor.kind,
                LOADER_CODE
                    | LOADER_DATA
                    | BOOT_SERVICES_CODE
                    | BOOT_SERVICES_DATA
                    | CONVENTIONAL
                    | ACPI_RECLAIM
            ) && descriptor.attributes & WRITE_BACK != 0
                && descriptor.attributes & SPECIFIC_PURPOSE == 0
        };
        let usable = self.descriptors().filter(usable);
        usable.map(|descriptor| descriptor.range).collect()
    }

    /// All memory that may be read after boot services: [`Self::ram`], and what UEFI
    /// keeps its tables in.
    #[must_use]
    pub fn readable(&self) -> RangeSet {
        let mut all = self.ram();
        let tables = self.descriptors().filter(|descriptor| {
            matches!(descriptor.kind, RUNTIME_SERVICES_DATA | ACPI_NVS)
                && descriptor.attributes & WRITE_BACK != 0
        });
        for descriptor in tables {
            all.insert(descriptor.range);
        }
        all
    }

    /// The physical address of what UEFI sees at `address`, after
    /// `SetVirtualAddressMap` or without one.
    #[must_use]
    pub fn physical(&self, address: u64) -> PhysAddr {
        let mut at_runtime = self
            .descriptors()
            .filter(|descriptor| descriptor.attributes & RUNTIME != 0);
        let place = at_runtime.find_map(|descriptor| {
            let offset = address.checked_sub(descriptor.virtual_start)?;
            let is_inside = descriptor.virtual_start != 0 && offset < descriptor.range.size;
            is_inside.then(|| PhysAddr(descriptor.range.start.0 + offset))
        });
        place.unwrap_or(PhysAddr(address))
    }

    /// The memory that is to be preserved.
    fn preserved(&self) -> impl Iterator<Item = MemoryRange> + '_ {
        self.descriptors()
            .filter(|descriptor| descriptor.kind == ACPI_RECLAIM)
            .map(|descriptor| descriptor.range)
    }

    /// The memory that is allocated now: UEFI gives none of it to anybody else
    /// until boot services end.
    pub fn allocated(&self) -> impl Iterator<Item = MemoryRange> + '_ {
        self.descriptors()
            .filter(|descriptor| descriptor.kind != CONVENTIONAL)
            .map(|descriptor| descriptor.range)
    }

    /// The memory for code of loaders and of what they load.
    pub fn loader_code(&self) -> impl Iterator<Item = MemoryRange> + '_ {
        self.descriptors()
            .filter(|descriptor| descriptor.kind == LOADER_CODE)
            .map(|descriptor| descriptor.range)
    }

    /// Whether all of `range` is memory of some kind, which boot services have
    /// mapped.
    #[must_use]
    pub fn is_memory(&self, range: MemoryRange) -> bool {
        let is_memory = |kind| !matches!(kind, UNUSABLE | MAPPED_IO | MAPPED_IO_PORTS | UNACCEPTED);
        let memory = self
            .descriptors()
            .filter(|descriptor| is_memory(descriptor.kind))
            .map(|descriptor| descriptor.range);
        memory.collect::<RangeSet>().contains_range(range)
    }
}

impl Machine {
    /// Replaces the memory by that of `map`. NUMA nodes that are known stay
    /// known.
    pub fn set_memory(&mut self, map: &MemoryMap<'_>) {
        let ram = map.ram();
        let mut nodes = Vec::new();
        let mut rest = ram.clone();
        for affinity in &self.memory_nodes {
            let node = affinity.node;
            let inside = rest.within(affinity.range).into_iter();
            nodes.extend(inside.map(|range| RamRegion { range, node }));
            rest.remove(affinity.range);
        }
        nodes.extend(rest.into_iter().map(|range| RamRegion { range, node: 0 }));
        nodes.sort_by_key(|region| region.range);
        self.memory = ram;
        self.memory_nodes = nodes;
        self.reservations = map
            .preserved()
            .map(|range| Reservation {
                range,
                kind: ReservationKind::Firmware,
            })
            .collect();
    }
}

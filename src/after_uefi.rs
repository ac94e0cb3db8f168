//! A start by `kexec` on a machine with UEFI: memory is what its memory map says, and
//! where the device tree describes nothing else, the machine is what ACPI says.

use alloc::vec::Vec;
use core::cell::RefCell;
use core::ptr;

use log::warn;
use warmbus_boot::after_uefi::{LeftByLinux, memory};
use warmbus_boot::memory::UsableMemory;
use warmbus_linux::payload::Payload;
use warmbus_machine::{Machine, MachineMemory, MemoryMap, Psci, UefiInChosen};
use warmbus_memory::{MemoryRange, NotMemory, PhysAddr, PhysMemory, RangeSet};

use crate::arch::mmu::Mmu;
use crate::arch::psci;
use crate::boot::BootError;
use crate::boot_fdt::BootTree;
use crate::image::Image;

/// What UEFI has left.
pub(crate) struct AfterUefi {
    map: MemoryMap<'static>,
    rsdp: Option<PhysAddr>,
    /// Linux learns the machine from ACPI.
    is_stub: bool,
}

impl AfterUefi {
    /// Reads what `tree` names; `None` where it names no UEFI. The second value is the
    /// memory of the machine.
    pub(crate) fn read(
        tree: &BootTree,
        raw: &[u8],
        payload: Option<&Payload<'_>>,
        image: &Image,
        mmu: &mut Mmu,
    ) -> Result<Option<(Self, MachineMemory)>, BootError> {
        // Another walk costs each boot a hundredth of its instructions.
        if payload.is_some_and(|payload| !payload.has_uefi) {
            return Ok(None);
        }
        let Some(uefi) = UefiInChosen::find(raw)? else {
            return Ok(None);
        };
        psci::reset_at_the_end();
        if uefi.is_stub {
            // Until ACPI has said how it is called.
            psci::set_conduit(Psci::NotKnown);
        }
        // Which memory there is the map itself says.
        let map = RangeSet::from_iter([uefi.map]);
        // SAFETY: Linux has reserved the map, and nothing here writes to it.
        let map = unsafe { OnDemand::new(mmu, map).static_bytes(uefi.map) }?;
        let map = MemoryMap::new(map, uefi.descriptor_size);
        let mut loaded = alloc::vec![image.region(), tree.region()];
        let found = payload.and_then(|payload| Some(payload.ramdisk?.range));
        loaded.extend(found);
        let handover = payload.and_then(|payload| payload.handover);
        let left = LeftByLinux {
            loaded: &loaded,
            scratch: handover.map(|(_, scratch)| scratch),
        };
        // SAFETY: only what was read is kept, and nothing was written to memory yet.
        let contents = unsafe { OnDemand::new(mmu, map.readable()) };
        let (memory, rsdp) = memory(raw, &uefi, &map, &contents, left)?;
        let is_stub = uefi.is_stub;
        Ok(Some((Self { map, rsdp, is_stub }, memory)))
    }

    /// The machine, with `memory`, where not the device tree describes it.
    pub(crate) fn machine(
        &self,
        memory: &MachineMemory,
        payload: Option<&Payload<'_>>,
        mmu: &mut Mmu,
    ) -> Option<Machine> {
        if !self.is_stub {
            return None;
        }
        // SAFETY: it ends here, and nothing is written meanwhile.
        let contents = unsafe { OnDemand::new(mmu, self.map.readable()) };
        let mut machine = Machine::after_uefi(&contents, self.rsdp, &self.map, memory.clone());
        let line = payload.and_then(|payload| payload.command_line(None));
        machine.bootargs = line.unwrap_or_default().into();
        Some(machine)
    }
}

/// Memory that is mapped for reading when it is read first: before all memory is mapped,
/// and what of UEFI never is.
struct OnDemand<'a> {
    mmu: RefCell<&'a mut Mmu>,
    memory: UsableMemory,
}

impl<'a> OnDemand<'a> {
    /// # Safety
    ///
    /// All of `memory` that is read must be memory, and nothing may write to it while the
    /// value is used.
    const unsafe fn new(mmu: &'a mut Mmu, memory: RangeSet) -> Self {
        Self {
            mmu: RefCell::new(mmu),
            memory: UsableMemory::new(memory, Vec::new()),
        }
    }

    /// # Safety
    ///
    /// Nothing may ever write to `range`.
    unsafe fn static_bytes(&self, range: MemoryRange) -> Result<&'static [u8], NotMemory> {
        let bytes = ptr::from_ref(self.bytes(range)?);
        // SAFETY: it stays mapped, and does not change by the contract.
        Ok(unsafe { &*bytes })
    }
}

impl PhysMemory for OnDemand<'_> {
    fn bytes(&self, range: MemoryRange) -> Result<&[u8], NotMemory> {
        self.memory.check(range)?;
        let mapped = self.mmu.borrow_mut().map_memory(range);
        mapped.map_err(|error| {
            warn!("{range} cannot be read: {error}");
            NotMemory { range }
        })?;
        let start = ptr::with_exposed_provenance(range.start.0 as usize);
        // SAFETY: it was just mapped; that nothing writes to it is the contract of `new`.
        Ok(unsafe { core::slice::from_raw_parts(start, range.size as usize) })
    }
}

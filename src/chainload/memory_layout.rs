//! A place for everything.

use alloc::vec::Vec;

use warmbus_boot::options::KhoChoice;
use warmbus_kho::KhoAbi;
use warmbus_linux::devicetree::{Chosen, ChosenHandover, edit};
use warmbus_linux::image::ImageHeader;
use warmbus_linux::memory::{
    HandoverNeeds, InitrdNeeds, KernelNeeds, MemoryPlan, PlanRequest, ReservedRegion, ScratchNeeds,
};
use warmbus_machine::ReservationKind;
use warmbus_memory::MemoryRange;
use warmbus_memory::PageSize;
use warmbus_memory::PhysAddr;
use warmbus_pcsc_format::{Layout, LayoutError};

use super::handover::Wanted;
use super::{Loader, Why};

impl Loader<'_> {
    /// Finds a place for everything, with the handover if there is one for
    /// it, and without it otherwise.
    pub(super) fn plan<'o>(
        &self,
        header: &ImageHeader,
        wanted: Result<Wanted<'o>, Why>,
    ) -> Result<(MemoryPlan, Result<Wanted<'o>, Why>), Why> {
        let planned = wanted.and_then(|wanted| {
            let functions = wanted.outcome.config.blocks().count();
            let needs = self.handover_needs(functions, wanted.page_size)?;
            Ok((self.plan_with(header, Some(needs))?, wanted))
        });
        match planned {
            Ok((plan, wanted)) => Ok((plan, Ok(wanted))),
            Err(why) => Ok((self.plan_with(header, None)?, Err(why))),
        }
    }

    fn plan_with(
        &self,
        header: &ImageHeader,
        handover: Option<HandoverNeeds>,
    ) -> Result<MemoryPlan, Why> {
        let mut reserved = Vec::new();
        let mut occupied = alloc::vec![self.kernel.range];
        occupied.extend_from_slice(self.memory.taken());
        let ramdisk = self.payload.ramdisk.map(|module| module.range);
        for reservation in &self.machine.reservations {
            let range = reservation.range;
            match reservation.kind {
                // The plan knows that the ramdisk may stay where it is.
                ReservationKind::Initrd | ReservationKind::Module if Some(range) == ramdisk => {}
                ReservationKind::Initrd | ReservationKind::Module => occupied.push(range),
                // Linux reserves what it was told to load; that goes with it.
                ReservationKind::MemReserve if Some(range) == self.payload.bundle => {
                    occupied.push(range);
                }
                ReservationKind::MemReserve
                | ReservationKind::ReservedMemory
                | ReservationKind::Firmware
                | ReservationKind::NoMap => reserved.push(ReservedRegion {
                    range,
                    no_map: reservation.kind == ReservationKind::NoMap,
                }),
            }
        }
        reserved.extend(self.earlier.held.iter().map(|held| ReservedRegion {
            range: *held,
            no_map: false,
        }));
        let earlier = self.earlier.followed().filter(|_| handover.is_some());
        if let Some(ramdisk) = ramdisk {
            self.memory.bytes(ramdisk)?;
        }
        let request = PlanRequest {
            ram: &self.machine.memory_nodes,
            reserved: &reserved,
            occupied: &occupied,
            kernel: KernelNeeds {
                text_offset: header.text_offset,
                image_size: header.image_size,
            },
            initrd: ramdisk.map(|loaded| InitrdNeeds { loaded }),
            tree_size: self.tree_size(ramdisk, handover.is_some())?,
            handover,
            scratch: earlier.map_or(&[], |earlier| &earlier.scratch),
        };
        let plan = MemoryPlan::new(&request)?;
        plan.check(&request)?;
        Ok(plan)
    }

    /// Bytes of the tree for Linux, which do not depend on where things are.
    fn tree_size(&self, initrd: Option<MemoryRange>, handover: bool) -> Result<u64, Why> {
        let nowhere = MemoryRange::new(PhysAddr(0), 0);
        let chosen = Chosen {
            bootargs: self.kernel.bootargs,
            initrd,
            handover: handover.then_some(ChosenHandover {
                root: nowhere,
                scratch: nowhere,
            }),
            probe_only: handover,
            released: self.payload.bundle,
        };
        Ok(edit(self.tree, &chosen)?.len() as u64)
    }

    /// What a handover needs. Which version it is shows only when the kernel
    /// is unpacked, so there is room for the largest.
    fn handover_needs(
        &self,
        functions: usize,
        page_size: PageSize,
    ) -> Result<HandoverNeeds, LayoutError> {
        let possible: &[KhoAbi] = match &self.options.kho {
            KhoChoice::Abi(abi) => core::slice::from_ref(abi),
            KhoChoice::Auto | KhoChoice::Off => &KhoAbi::ALL,
        };
        let mut needs = HandoverNeeds {
            abi: possible[0],
            page_size,
            arena_size: 0,
            arena_align: 1,
            scratch: self.scratch_needs(),
        };
        for &abi in possible {
            let layout = Layout::new(functions, abi, page_size)?;
            let layout = layout.with_inherited(self.earlier.inherited())?;
            needs.arena_size = needs.arena_size.max(layout.size());
            needs.arena_align = needs.arena_align.max(layout.align());
        }
        Ok(needs)
    }

    fn scratch_needs(&self) -> ScratchNeeds {
        let line = self.kernel.bootargs.or(self.payload.bootargs);
        ScratchNeeds::from_command_line(self.machine.cpus as u32, line.unwrap_or_default())
    }
}

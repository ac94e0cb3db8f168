//! Where in memory everything goes that Linux is started with.

use alloc::vec::Vec;

use warmbus_kho::{InheritedState, KhoAbi};
use warmbus_linux::chosen::{Chosen, ChosenError, ChosenHandover, edit};
use warmbus_linux::image::ImageHeader;
use warmbus_linux::memory_plan::{
    HandoverNeeds, InitrdNeeds, KernelNeeds, MemoryPlan, PlanError, PlanRequest, PlanViolation,
    ReservedRegion, ScratchNeeds,
};
use warmbus_linux::payload::{Module, Payload};
use warmbus_machine::{Machine, Reservation, ReservationKind};
use warmbus_memory::{MemoryRange, PageSize, PhysAddr};
use warmbus_pcsc_format::{Layout, LayoutError};

use crate::host_policy::largest_edits;
use crate::options::KhoChoice;
use crate::previous_boot::PreviousBoot;

/// What is to be placed, and where it is now.
#[derive(Clone, Copy, Debug)]
pub struct LayoutRequest<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// The boot tree.
    pub tree: &'a [u8],
    /// What is started.
    pub payload: &'a Payload<'a>,
    /// The kernel of the payload.
    pub kernel: Module<'a>,
    /// Its file is not packed, so that it may stay where it was loaded.
    pub may_stay: bool,
    /// The header of the kernel.
    pub header: &'a ImageHeader,
    /// Memory in use by the firmware.
    pub in_use: &'a [MemoryRange],
    /// What a previous kernel hands over.
    pub previous: &'a PreviousBoot,
}

/// Why there is no place for everything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutRequestError {
    /// The boot tree cannot be edited.
    #[error(transparent)]
    Tree(#[from] ChosenError),
    /// A handover of so many functions cannot be laid out.
    #[error(transparent)]
    Handover(#[from] LayoutError),
    /// Something does not fit into memory.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The independent check of the plan found a fault in it.
    #[error(transparent)]
    Violation(#[from] PlanViolation),
}

impl LayoutRequest<'_> {
    /// Finds a place for everything, with `handover` if there is one.
    pub fn plan(&self, handover: Option<HandoverNeeds>) -> Result<MemoryPlan, LayoutRequestError> {
        let ramdisk = self.payload.ramdisk.map(|module| module.range);
        let Reservations {
            reserved,
            mut occupied,
        } = Reservations::new(self.machine, self.payload, self.kernel, self.previous);
        let loaded = self.may_stay.then_some(self.kernel.range);
        if loaded.is_none() {
            occupied.push(self.kernel.range);
        }
        occupied.extend_from_slice(self.in_use);
        let scratch = match (self.previous.parsed(), &handover) {
            (Some(previous), Some(_)) => &previous.scratch[..],
            _ => &[],
        };
        let request = PlanRequest {
            ram: &self.machine.memory_nodes,
            reserved: &reserved,
            occupied: &occupied,
            kernel: KernelNeeds {
                text_offset: self.header.text_offset,
                image_size: self.header.image_size,
                loaded,
            },
            initrd: ramdisk.map(|loaded| InitrdNeeds { loaded }),
            tree_size: self.tree_size(handover.is_some())?,
            handover,
            scratch,
        };
        let plan = MemoryPlan::new(&request)?;
        plan.check(&request)?;
        Ok(plan)
    }

    /// What a handover of `functions` functions needs. Only the unpacked
    /// kernel says which version it reads, so there is space for any that
    /// `choice` allows.
    pub fn handover_needs(
        &self,
        choice: KhoChoice,
        functions: usize,
        page_size: PageSize,
    ) -> Result<HandoverNeeds, LayoutError> {
        let line = self.kernel.bootargs.or(self.payload.bootargs);
        let cpus = self.machine.cpus as u32;
        let scratch = ScratchNeeds::from_command_line(cpus, page_size, line.unwrap_or_default());
        let inherited = self.previous.inherited();
        handover_needs(choice, functions, page_size, inherited, scratch)
    }

    /// Bytes of the tree for Linux at most: they do not depend on where things
    /// are, but on what is handed over.
    fn tree_size(&self, has_handover: bool) -> Result<u64, ChosenError> {
        let anywhere = MemoryRange::new(PhysAddr(0), 0);
        let nodes = if has_handover {
            largest_edits(&self.machine.host_nodes)
        } else {
            Vec::new()
        };
        let chosen = Chosen {
            bootargs: self.kernel.bootargs,
            initrd: self.payload.ramdisk.map(|module| module.range),
            handover: has_handover.then_some(ChosenHandover {
                root: anywhere,
                scratch: anywhere,
            }),
            probe_only: has_handover,
            nodes: &nodes,
            released: self.payload.combined_initrd,
        };
        Ok(edit(self.tree, &chosen)?.len() as u64)
    }
}

fn handover_needs(
    choice: KhoChoice,
    functions: usize,
    page_size: PageSize,
    inherited: InheritedState<'_>,
    scratch: ScratchNeeds,
) -> Result<HandoverNeeds, LayoutError> {
    let possible: &[KhoAbi] = match &choice {
        KhoChoice::Abi(abi) => core::slice::from_ref(abi),
        KhoChoice::Auto | KhoChoice::LikeV4 | KhoChoice::Off | KhoChoice::UnusedByLinux => {
            &KhoAbi::ALL
        }
    };
    let mut needs = HandoverNeeds {
        abi: possible[0],
        page_size,
        arena_size: 0,
        arena_align: 1,
        scratch,
    };
    for &abi in possible {
        let layout = Layout::new(functions, abi, page_size)?.with_inherited(inherited)?;
        needs.arena_size = needs.arena_size.max(layout.size());
        needs.arena_align = needs.arena_align.max(layout.align());
    }
    Ok(needs)
}

/// Memory that nothing is placed in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Reservations {
    /// What Linux must not use either.
    reserved: Vec<ReservedRegion>,
    /// What is only in use until the jump.
    occupied: Vec<MemoryRange>,
}

impl Reservations {
    fn new(
        machine: &Machine,
        payload: &Payload<'_>,
        kernel: Module<'_>,
        previous: &PreviousBoot,
    ) -> Self {
        let mut all = Self::default();
        let ramdisk = payload.ramdisk.map(|module| module.range);
        for &Reservation { range, kind } in &machine.reservations {
            let no_map = kind == ReservationKind::NoMap;
            match kind {
                // The plan knows that the two may stay where they are.
                ReservationKind::Initrd | ReservationKind::Module if Some(range) == ramdisk => {}
                ReservationKind::Module if range == kernel.range => {}
                ReservationKind::Initrd | ReservationKind::Module => all.occupied.push(range),
                // The loader reserves the file that kernel and initrd came in,
                // and the tree for Linux no longer has that entry.
                ReservationKind::MemReserve if Some(range) == payload.combined_initrd => {
                    all.occupied.push(range);
                }
                ReservationKind::MemReserve
                | ReservationKind::ReservedMemory
                | ReservationKind::Firmware
                | ReservationKind::NoMap => all.reserved.push(ReservedRegion { range, no_map }),
            }
        }
        let of_previous = previous.reserved.iter();
        all.reserved
            .extend(of_previous.map(|&range| ReservedRegion {
                range,
                no_map: false,
            }));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn range(start: u64) -> MemoryRange {
        MemoryRange::new(PhysAddr(start), 0x1000)
    }

    /// A tree with 1 GiB of memory.
    fn tree() -> Vec<u8> {
        let mut tree = warmbus_fdt::FdtWriter::new();
        tree.begin_node("");
        tree.property_u32("#address-cells", 2);
        tree.property_u32("#size-cells", 2);
        tree.begin_node("memory@40000000");
        tree.property_string("device_type", "memory");
        let reg = [0x4000_0000_u64, 1 << 30].map(u64::to_be_bytes);
        tree.property("reg", reg.as_flattened());
        tree.end_node();
        tree.end_node();
        tree.finish().expect("it is small")
    }

    fn machine(reservations: &[(ReservationKind, MemoryRange)]) -> Machine {
        let mut machine = Machine::from_device_tree(&tree()).expect("it is a tree");
        let one = |&(kind, range)| Reservation { range, kind };
        machine.reservations = reservations.iter().map(one).collect();
        machine
    }

    #[test]
    fn what_is_reserved_and_what_is_only_in_use_depends_on_who_needs_it() {
        use ReservationKind::{Firmware, Initrd, MemReserve, NoMap, ReservedMemory};
        let ramdisk = Module {
            range: range(0x1000),
            bootargs: None,
        };
        let kernel = Module {
            range: range(0x4000),
            bootargs: None,
        };
        let payload = Payload {
            kernel: Some(kernel),
            ramdisk: Some(ramdisk),
            combined_initrd: Some(range(0x2000)),
            ..Payload::default()
        };
        let mut previous = PreviousBoot::default();
        previous.reserved.insert(range(0x9000));
        let (free, occupied, reserved, no_map) = (
            Reservations::default(),
            |start| Reservations {
                occupied: alloc::vec![range(start)],
                ..Reservations::default()
            },
            |start| Reservations {
                reserved: alloc::vec![ReservedRegion {
                    range: range(start),
                    no_map: false,
                }],
                ..Reservations::default()
            },
            |start| Reservations {
                reserved: alloc::vec![ReservedRegion {
                    range: range(start),
                    no_map: true,
                }],
                ..Reservations::default()
            },
        );
        for (kind, start, expected) in [
            // They are part of the request in another place.
            (Initrd, 0x1000, free.clone()),
            (ReservationKind::Module, 0x1000, free.clone()),
            (ReservationKind::Module, 0x4000, free),
            (Initrd, 0x4000, occupied(0x4000)),
            (Initrd, 0x3000, occupied(0x3000)),
            (ReservationKind::Module, 0x3000, occupied(0x3000)),
            // The file that both came in; without that it is Linux's, too.
            (MemReserve, 0x2000, occupied(0x2000)),
            (MemReserve, 0x1000, reserved(0x1000)),
            (MemReserve, 0x3000, reserved(0x3000)),
            (ReservedMemory, 0x2000, reserved(0x2000)),
            (Firmware, 0x3000, reserved(0x3000)),
            (NoMap, 0x3000, no_map(0x3000)),
        ] {
            let machine = machine(&[(kind, range(start))]);
            let found = Reservations::new(&machine, &payload, kernel, &PreviousBoot::default());
            assert_eq!(found, expected, "{kind:?} at {start:#x}");
        }
        let found = Reservations::new(&machine(&[]), &payload, kernel, &previous);
        assert_eq!(found, reserved(0x9000));
    }

    #[test]
    fn there_is_space_for_every_version_that_the_kernel_may_read() {
        let inherited = InheritedState::default();
        let scratch = ScratchNeeds::from_command_line(1, PageSize::K4, b"");
        let needs = |choice| {
            let needs = handover_needs(choice, 64, PageSize::K4, inherited, scratch);
            needs.expect("so few fit")
        };
        let layout = |abi| Layout::new(64, abi, PageSize::K4).expect("so few fit");
        for abi in KhoAbi::ALL {
            let (needs, layout) = (needs(KhoChoice::Abi(abi)), layout(abi));
            assert_eq!(needs.abi, abi);
            assert_eq!(needs.arena_size, layout.size());
            assert_eq!(needs.arena_align, layout.align());
        }
        let sizes = KhoAbi::ALL.map(|abi| layout(abi).size());
        let aligns = KhoAbi::ALL.map(|abi| layout(abi).align());
        assert!(sizes.iter().any(|size| *size != sizes[0]), "{sizes:?}");
        let all = needs(KhoChoice::Auto);
        assert_eq!(Some(all.arena_size), sizes.into_iter().max());
        assert_eq!(Some(all.arena_align), aligns.into_iter().max());
    }
}

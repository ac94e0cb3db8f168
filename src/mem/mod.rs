//! The memory of the machine: mapped, and a part of it taken as heap.

pub(crate) mod heap;
pub(crate) mod physical;
mod small_objects;

use alloc::vec::Vec;

use log::{debug, warn};
use warmbus_boot::heap_region;
use warmbus_boot::memory::{BootMemory, mapped_pages};
use warmbus_boot::previous_boot::PreviousBoot;
use warmbus_machine::{MachineMemory, ReservationKind};
use warmbus_memory::MemoryRange;
use warmbus_paging::{PAGE_SIZE, Unmapped};

use crate::arch::mmu::Mmu;
use crate::image::Image;
use physical::PhysicalMemory;

/// What memory holds that a loader has put there.
#[derive(Clone, Copy)]
pub(crate) struct Loaded<'a> {
    /// The description of the machine.
    pub(crate) description: Option<MemoryRange>,
    /// The files that the command line names and the description does not
    /// reserve.
    pub(crate) modules: &'a [MemoryRange],
    /// What a previous kernel hands over: its root tree and its array of
    /// scratch areas.
    pub(crate) handover: Option<(MemoryRange, MemoryRange)>,
}

impl Loaded<'_> {
    /// What has to be mapped for Linux to be started: all of this and what the
    /// `machine` reserves for boot modules.
    fn needed(&self, machine: &MachineMemory) -> Vec<MemoryRange> {
        let modules = machine.reservations.iter().filter(|reservation| {
            let kind = reservation.kind;
            matches!(kind, ReservationKind::Initrd | ReservationKind::Module)
        });
        let modules = modules.map(|reservation| reservation.range);
        let handover = self
            .handover
            .into_iter()
            .flat_map(|(root, scratch)| [root, scratch]);
        modules
            .chain(self.description)
            .chain(self.modules.iter().copied())
            .chain(handover)
            .collect()
    }
}

/// Warns of memory that is not used, the first ranges each with a line of its own.
fn warn_of_unmapped(unmapped: &[Unmapped]) {
    const MAX_LINES: usize = 4;
    for Unmapped { range, error } in unmapped.iter().take(MAX_LINES) {
        warn!("the memory {range} is not used: {error}");
    }
    if let Some(rest) = unmapped.get(MAX_LINES..).filter(|rest| !rest.is_empty()) {
        let bytes: u64 = rest.iter().map(|one| one.range.size).sum();
        let count = rest.len();
        warn!("{count} more ranges of memory, {bytes:#x} bytes in all, are not used");
    }
}

/// Maps all of `machine` that may be mapped and moves the heap there.
///
/// This comes before everything that takes memory in proportion to the
/// description of the machine: until then there is only the small heap inside
/// the image.
///
/// On exit everything but the image, what was `loaded` and what the machine
/// reserves is writable memory, of which what is not in use is returned.
pub(crate) fn map_all(
    machine: &MachineMemory,
    image: &Image,
    loaded: Loaded<'_>,
    mmu: &mut Mmu,
    is_second_start: bool,
) -> (PhysicalMemory, PreviousBoot) {
    let mappable = mapped_pages(&machine.mappable(), PAGE_SIZE);
    let unmapped = mmu.map_all_memory(&mappable, &loaded.needed(machine));
    warn_of_unmapped(&unmapped);
    let mapped = mappable.without(unmapped.iter().map(|one| one.range));
    let mut in_use = alloc::vec![image.region()];
    in_use.extend(loaded.description);
    // Nothing is put where this program cannot write, though Linux may use it.
    in_use.extend(
        machine
            .ranges
            .clone()
            .without(mapped.iter().copied())
            .iter(),
    );
    // SAFETY: all of it was mapped as memory just now, and what of it is used
    // otherwise is named; the heap is reserved below.
    let mut memory = unsafe { PhysicalMemory::new(mapped, in_use) };
    let previous = PreviousBoot::reserve_all_but_scratch(loaded.handover, &machine.ranges, &memory);
    let mut taken = memory.map().in_use().to_vec();
    taken.extend_from_slice(&previous.reserved);
    taken.extend_from_slice(loaded.modules);
    let free = machine.free(&taken);
    let heap = if is_second_start {
        heap_region::choose_behind(image.region(), &free)
    } else {
        heap_region::choose(&free)
    };
    match heap {
        Some(range) => {
            // SAFETY: just mapped; not part of the image, the description or
            // any reservation; called once in a boot.
            unsafe { heap::grow(range) };
            memory.reserve(range);
        }
        None => warn!("there is too little free memory for a heap of its own"),
    }
    (memory, previous)
}

/// Logs what is mapped and what of it the firmware uses.
pub(crate) fn log(memory: &PhysicalMemory) {
    for range in memory.map().mapped() {
        debug!("memory {range}");
    }
    for range in memory.map().in_use() {
        debug!("in use {range}");
    }
}

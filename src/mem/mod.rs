//! The memory of the machine: mapped, and a part of it taken as heap.

pub(crate) mod heap;
pub(crate) mod physical;
mod small_objects;

use log::{debug, warn};
use warmbus_boot::heap_region;
use warmbus_boot::memory::{BootMemory, mapped_pages};
use warmbus_boot::previous_boot::PreviousBoot;
use warmbus_machine::Machine;
use warmbus_memory::MemoryRange;
use warmbus_paging::{PAGE_SIZE, PagingError};

use crate::arch::mmu::Mmu;
use crate::image::Image;
use physical::PhysicalMemory;

/// Maps all memory of `machine` that may be mapped and moves the heap there.
/// `description` is the memory of the machine description, and `handover` that
/// of what a previous kernel hands over: its root tree and its array of scratch
/// areas.
///
/// On exit everything but the image, the description and what the machine
/// reserves is writable memory, of which what is not in use is returned.
pub(crate) fn map_all(
    machine: &Machine,
    image: &Image,
    description: Option<MemoryRange>,
    handover: Option<(MemoryRange, MemoryRange)>,
    mmu: &mut Mmu,
    is_second_start: bool,
) -> Result<(PhysicalMemory, PreviousBoot), PagingError> {
    let mapped = mapped_pages(machine, PAGE_SIZE);
    for range in &mapped {
        mmu.map_memory(range.start.0, range.size)?;
        debug!("memory {range}");
    }
    let mut in_use = alloc::vec![image.region()];
    in_use.extend(description);
    // SAFETY: all of it was mapped as memory just now, and what of it is used
    // otherwise is named; the heap is reserved below.
    let mut memory = unsafe { PhysicalMemory::new(mapped, in_use) };
    let mut previous = PreviousBoot::reserve_all_but_scratch(handover, &machine.memory, &memory);
    let mut taken = memory.map().in_use().to_vec();
    taken.extend_from_slice(&previous.reserved);
    let free = machine.free_memory(&taken);
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
            debug!("heap {range}");
            memory.reserve(range);
        }
        None => warn!("there is too little free memory for a heap of its own"),
    }
    previous.parse(&memory, heap::usage().size);
    Ok((memory, previous))
}

//! The memory of the machine: mapped, and a part of it taken as heap.

pub(crate) mod heap;
pub(crate) mod physical;
mod small_objects;

use log::{debug, warn};
use warmbus_machine::Machine;
use warmbus_memory::{MemoryRange, RangeSet};
use warmbus_paging::{PAGE_SIZE, PagingError};

use crate::arch::mmu::Mmu;
use crate::image::Image;
use crate::mem::physical::PhysicalMemory;
use crate::previous_handover::PreviousBoot;

/// Maps all memory of `machine` that may be mapped and moves the heap there.
/// On exit everything but the image, the tree and what the machine reserves
/// is writable memory; what nobody has taken is returned, with what an earlier
/// kernel hands over, which is at `handover`.
pub(crate) fn take(
    machine: &Machine,
    image: &Image,
    tree: Option<MemoryRange>,
    handover: Option<(MemoryRange, MemoryRange)>,
    mmu: &mut Mmu,
    is_second_start: bool,
) -> Result<(PhysicalMemory, PreviousBoot), PagingError> {
    let mapped = pages(machine);
    for region in &mapped {
        mmu.map_memory(region.start.0, region.size)?;
        debug!("memory {region}");
    }
    let mut taken = alloc::vec![image.region()];
    taken.extend(tree);
    // SAFETY: all of it was mapped as memory just now, and what of it is used
    // otherwise is named; what the heap takes is taken away below.
    let mut memory = unsafe { PhysicalMemory::new(mapped, taken) };
    let mut earlier = PreviousBoot::close(handover, machine, &memory);
    let mut taken = memory.taken().to_vec();
    taken.extend_from_slice(&earlier.held);
    let heap = if is_second_start {
        heap::choose_near(machine, image.region(), &taken)
    } else {
        heap::choose(machine, &taken)
    };
    match heap {
        Some(region) => {
            // SAFETY: just mapped; not part of the image, the tree or any
            // reservation; called once in a boot.
            unsafe { heap::grow(region) };
            debug!("heap {region}");
            memory.take(region);
        }
        None => warn!("there is too little free memory for a heap of its own"),
    }
    earlier.follow(&memory);
    Ok((memory, earlier))
}

/// The memory of `machine` that is mapped.
pub(crate) fn pages(machine: &Machine) -> RangeSet {
    // A page that is only partly memory may hold something that must not be
    // mapped.
    let memory = machine.mappable_memory();
    let pages = |region: MemoryRange| region.whole_pages(PAGE_SIZE);
    memory.into_iter().filter_map(pages).collect()
}

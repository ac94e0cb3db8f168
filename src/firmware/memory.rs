//! The memory of the machine: mapped, and a part of it taken as heap.

use alloc::vec::Vec;

use log::{debug, warn};
use warmbus::machine::{Machine, Region};
use warmbus::paging::{PAGE_SIZE, PagingError};

use crate::earlier::Earlier;
use crate::heap;
use crate::image::Image;
use crate::mmu::Mmu;
use crate::physical::Physical;
use crate::tree::BootTree;

/// Maps all memory of `machine` that may be mapped and moves the heap there.
/// On exit everything but the image, the tree and what the machine reserves
/// is writable memory; what nobody has taken is returned, with what an earlier
/// kernel hands over, which is reserved from then on.
pub(crate) fn take(
    machine: &mut Machine,
    image: &Image,
    tree: &BootTree,
    mmu: &mut Mmu,
) -> Result<(Physical, Earlier), PagingError> {
    // A page that is only partly memory may hold something that must not be
    // mapped.
    let memory = machine.mappable_memory();
    let pages = |region: Region| region.whole_pages(PAGE_SIZE);
    let mapped: Vec<Region> = memory.into_iter().filter_map(pages).collect();
    for region in &mapped {
        mmu.map_memory(region.base.0, region.size)?;
        debug!("memory {region}");
    }
    let taken = alloc::vec![image.region(), tree.region()];
    // SAFETY: all of it was mapped as memory just now, and what of it is used
    // otherwise is named; what the heap takes is taken away below.
    let mut memory = unsafe { Physical::new(mapped, taken) };
    let earlier = Earlier::protect(machine, &memory);
    match heap::choose(machine, memory.taken()) {
        Some(region) => {
            // SAFETY: just mapped; not part of the image, the tree or any
            // reservation; called once in a boot.
            unsafe { heap::grow(region) };
            debug!("heap {region}");
            memory.take(region);
        }
        None => warn!("there is too little free memory for a heap of its own"),
    }
    Ok((memory, earlier))
}

//! An independent check of a plan, which shares nothing with the search.

use alloc::vec::Vec;

use super::{
    INITRD_WINDOW, INITRD_WINDOW_ALIGN, KERNEL_ALIGN, LOW_MEMORY_END, MAX_TREE_SIZE, MemoryPlan,
    MemoryRange, PlanRequest,
};
use warmbus_memory::PageSize;
use warmbus_memory::PhysAddr;

/// What is wrong with a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanViolation {
    /// A piece is not all in RAM.
    #[error("the {0} at {1} is not all in RAM")]
    NotInRam(&'static str, MemoryRange),
    /// A piece overlaps something.
    #[error("the {0} at {1} overlaps {2}")]
    Overlap(&'static str, MemoryRange, MemoryRange),
    /// A piece has the wrong size.
    #[error("the {0} at {1} has the wrong size")]
    Size(&'static str, MemoryRange),
    /// A piece is not aligned.
    #[error("the {0} at {1} is not aligned")]
    Alignment(&'static str, MemoryRange),
    /// Kernel and initrd are too far apart.
    #[error("the kernel at {0} and the initrd at {1} are too far apart")]
    Window(MemoryRange, MemoryRange),
    /// The arena crosses a boundary of 1 GiB or of a node.
    #[error("the handover at {0} crosses a boundary of 1 GiB or of a node")]
    Split(MemoryRange),
    /// No scratch area is below 4 GiB although there is RAM.
    #[error("no scratch memory is below 4 GiB")]
    NoLowScratch,
    /// More than half of the RAM is scratch.
    #[error("more than half of the RAM is scratch memory")]
    TooMuchScratch,
    /// Scratch memory has no place for all gigantic pages.
    #[error("scratch memory has no place for {} MiB of gigantic pages", .0 >> 20)]
    NoGiganticPages(u64),
    /// A piece is missing or there that should not be.
    #[error("the {0} is missing or not requested")]
    Presence(&'static str),
}

impl MemoryPlan {
    /// Checks that every piece of `request` has a range that Linux accepts, and
    /// that no two pieces overlap.
    pub fn check(&self, request: &PlanRequest<'_>) -> Result<(), PlanViolation> {
        let mut pieces: Vec<(&'static str, MemoryRange)> =
            alloc::vec![("kernel", self.kernel), ("device tree", self.tree)];
        pieces.extend(self.initrd.map(|range| ("initrd", range)));
        pieces.extend(self.arena.map(|range| ("handover", range)));
        let scratch = self.scratch.iter().map(|area| ("scratch area", *area));
        let writes = pieces.len();
        pieces.extend(scratch);

        for (number, &(what, range)) in pieces.iter().enumerate() {
            if range.start.0.checked_add(range.size).is_none() {
                return Err(PlanViolation::Size(what, range));
            }
            in_ram(what, range, request)?;
            // The previous kernel may have reservations in its scratch areas.
            let is_previous = number >= writes && !request.scratch.is_empty();
            for reserved in request.reserved.iter().filter(|_| !is_previous) {
                apart(what, range, reserved.range)?;
            }
            for &(_, other) in &pieces[number + 1..] {
                apart(what, range, other)?;
            }
            if number < writes {
                for occupied in request.occupied {
                    apart(what, range, *occupied)?;
                }
            }
        }
        self.check_boot(request)?;
        self.check_handover(request)
    }

    fn check_boot(&self, request: &PlanRequest<'_>) -> Result<(), PlanViolation> {
        let kernel = self.kernel;
        if kernel.size != request.kernel.image_size {
            return Err(PlanViolation::Size("kernel", kernel));
        }
        let base = kernel.start.0.checked_sub(request.kernel.text_offset);
        if !base.is_some_and(|base| base.is_multiple_of(KERNEL_ALIGN)) {
            return Err(PlanViolation::Alignment("kernel", kernel));
        }
        if let Some(file) = request.kernel.loaded {
            let others = [self.tree].into_iter().chain(self.arena).chain(self.initrd);
            let moved = (kernel.start != file.start).then_some(kernel);
            for other in others.chain(moved) {
                apart("file of the kernel", file, other)?;
            }
            if file.size > kernel.size && moved.is_none() {
                return Err(PlanViolation::Size("file of the kernel", file));
            }
        }
        if self.tree.size != request.tree_size || self.tree.size > MAX_TREE_SIZE {
            return Err(PlanViolation::Size("device tree", self.tree));
        }
        if !self.tree.start.0.is_multiple_of(8) {
            return Err(PlanViolation::Alignment("device tree", self.tree));
        }
        // Linux maps the 2 MiB around the tree.
        let block = self.tree.start.0 / MAX_TREE_SIZE * MAX_TREE_SIZE;
        let around = MemoryRange::new(PhysAddr(block), MAX_TREE_SIZE);
        if !around.contains(self.tree) {
            return Err(PlanViolation::Alignment("device tree", self.tree));
        }
        in_ram("device tree", around, request)?;
        for reserved in request.reserved {
            if reserved.no_map {
                apart("device tree", around, reserved.range)?;
            }
        }
        match (self.initrd, request.initrd) {
            (None, None) => {}
            (Some(initrd), Some(needs)) => {
                if initrd.size != needs.loaded.size {
                    return Err(PlanViolation::Size("initrd", initrd));
                }
                let first = kernel.start.0.min(initrd.start.0);
                let last = kernel.end().max(initrd.end());
                let window = first - first % INITRD_WINDOW_ALIGN;
                if last - window > INITRD_WINDOW {
                    return Err(PlanViolation::Window(kernel, initrd));
                }
                for other in [kernel, self.tree].into_iter().chain(self.arena) {
                    apart("packed initrd", needs.loaded, other)?;
                }
                if initrd != needs.loaded {
                    apart("initrd", initrd, needs.loaded)?;
                }
            }
            _ => return Err(PlanViolation::Presence("initrd")),
        }
        Ok(())
    }

    fn check_handover(&self, request: &PlanRequest<'_>) -> Result<(), PlanViolation> {
        let (arena, needs) = match (self.arena, &request.handover) {
            (None, None) if self.scratch.is_empty() => return Ok(()),
            (Some(arena), Some(needs)) if !self.scratch.is_empty() => (arena, needs),
            _ => return Err(PlanViolation::Presence("handover")),
        };
        if arena.size != needs.arena_size {
            return Err(PlanViolation::Size("handover", arena));
        }
        if !arena.start.0.is_multiple_of(needs.arena_align)
            || !arena.start.0.is_multiple_of(needs.page_size.bytes())
        {
            return Err(PlanViolation::Alignment("handover", arena));
        }
        let in_one_node = request
            .ram
            .iter()
            .any(|region| region.range.contains(arena));
        let gib = 1 << 30;
        if !in_one_node || arena.start.0 / gib != (arena.end() - 1) / gib {
            return Err(PlanViolation::Split(arena));
        }
        if !request.scratch.is_empty() {
            let same = self.scratch == request.scratch;
            return same.then_some(()).ok_or(PlanViolation::Presence("scratch"));
        }
        // What Linux rounds its scratch to: 4, 32 or 512 MiB.
        let align: u64 = match needs.page_size {
            PageSize::K4 => 4 << 20,
            PageSize::K16 => 32 << 20,
            PageSize::K64 => 512 << 20,
        };
        for area in &self.scratch {
            if area.size == 0 || !area.size.is_multiple_of(align) {
                return Err(PlanViolation::Size("scratch area", *area));
            }
            if !area.start.0.is_multiple_of(align) {
                return Err(PlanViolation::Alignment("scratch area", *area));
            }
        }
        let low = MemoryRange::new(PhysAddr(0), LOW_MEMORY_END);
        if request.ram.iter().any(|region| region.range.overlaps(low))
            && !self.scratch.iter().any(|area| low.contains(*area))
        {
            return Err(PlanViolation::NoLowScratch);
        }
        // Gigantic pages are the user's own memory.
        let mut gigantic = 0;
        for pages in needs
            .scratch
            .gigantic
            .iter()
            .filter(|pages| pages.bytes != 0)
        {
            let places = self.scratch.iter().map(|area| {
                let start = area.start.0.next_multiple_of(pages.page);
                area.end().saturating_sub(start) / pages.page * pages.page
            });
            if places.sum::<u64>() < pages.bytes {
                return Err(PlanViolation::NoGiganticPages(pages.bytes));
            }
            gigantic += pages.bytes;
        }
        let ram: u64 = request.ram.iter().map(|region| region.range.size).sum();
        let scratch: u64 = self.scratch.iter().map(|area| area.size).sum();
        let is_enough = ram >= gigantic && scratch >= gigantic;
        if !is_enough || scratch - gigantic > (ram - gigantic) / 2 {
            return Err(PlanViolation::TooMuchScratch);
        }
        Ok(())
    }
}

/// Checks that every byte of `range` is in some region of RAM.
fn in_ram(
    what: &'static str,
    range: MemoryRange,
    request: &PlanRequest<'_>,
) -> Result<(), PlanViolation> {
    let mut reached = range.start.0;
    while reached < range.end() {
        let region = request
            .ram
            .iter()
            .find(|region| region.range.start.0 <= reached && reached < region.range.end())
            .ok_or(PlanViolation::NotInRam(what, range))?;
        reached = region.range.end();
    }
    Ok(())
}

fn apart(what: &'static str, range: MemoryRange, other: MemoryRange) -> Result<(), PlanViolation> {
    if range.overlaps(other) {
        return Err(PlanViolation::Overlap(what, range, other));
    }
    Ok(())
}

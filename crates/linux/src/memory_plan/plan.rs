//! Finding a place for everything.

use alloc::vec::Vec;

use super::error::PlanError;
use super::{
    HandoverNeeds, INITRD_WINDOW, INITRD_WINDOW_ALIGN, KERNEL_ALIGN, LOW_MEMORY_END, MAX_TREE_SIZE,
    MemoryRange, PlanRequest, scratch,
};
use warmbus_kho::ARENA_BLOCK;
use warmbus_memory::{ADDRESS_END, PageSize, PhysAddr, RangeSet};

/// Pieces that share no page, whatever the page size, are this far apart.
const PAGE: u64 = PageSize::K64.bytes();

const LOW: MemoryRange = MemoryRange::from_bounds(0, LOW_MEMORY_END);
const ALL: MemoryRange = MemoryRange::from_bounds(0, ADDRESS_END);

/// Where everything goes. No two pieces overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The kernel, BSS included. Its first byte is its entry.
    pub kernel: MemoryRange,
    /// The initrd; where it was loaded if it can stay there.
    pub initrd: Option<MemoryRange>,
    /// The device tree, alone in its 2 MiB.
    pub tree: MemoryRange,
    /// The arena of the handover.
    pub arena: Option<MemoryRange>,
    /// The scratch areas of the handover.
    pub scratch: Vec<MemoryRange>,
}

impl MemoryPlan {
    /// Finds a place for everything that `request` asks for.
    pub fn new(request: &PlanRequest<'_>) -> Result<Self, PlanError> {
        let search = Search::new(request)?;
        let Some(handover) = &request.handover else {
            return search.place(None, &[]);
        };
        let mut failure = None;
        if !request.scratch.is_empty() {
            let in_place = search.initrd_in_place().map(Some);
            for kept in in_place.into_iter().chain([None]) {
                match search.place(kept, request.scratch) {
                    Ok(plan) => return Ok(plan),
                    Err(error) => failure = Some(error),
                }
            }
            return Err(failure.unwrap_or(PlanError::NoRam));
        }
        for areas in search.scratch_shapes(handover)? {
            let in_place = search.initrd_in_place().map(Some);
            for kept in in_place.into_iter().chain([None]) {
                match search.with_scratch(handover, &areas, kept) {
                    Ok(plan) => return Ok(plan),
                    Err(error) if failure.as_ref().is_some_and(|worst| *worst >= error) => {}
                    Err(error) => failure = Some(error),
                }
            }
        }
        Err(failure.unwrap_or(PlanError::NoRam))
    }
}

/// A scratch area that is wanted.
struct Area {
    size: u64,
    /// Where it may be: any of these.
    windows: Vec<MemoryRange>,
}

struct Search<'a> {
    request: &'a PlanRequest<'a>,
    /// RAM that is not reserved.
    usable: RangeSet,
    /// What of it can be written before the jump.
    writable: RangeSet,
    ram_bytes: u64,
}

impl<'a> Search<'a> {
    fn new(request: &'a PlanRequest<'a>) -> Result<Self, PlanError> {
        if request.tree_size > MAX_TREE_SIZE {
            return Err(PlanError::TreeTooLarge {
                size: request.tree_size,
            });
        }
        let ram = request.ram.iter().map(|region| addressable(region.range));
        let mut usable = RangeSet::from_iter(ram);
        let ram_bytes = usable.total();
        for reserved in request.reserved {
            usable.remove(pages(reserved.range));
        }
        let mut writable = usable.clone();
        let initrd = request.initrd.map(|initrd| initrd.loaded);
        for occupied in request.occupied.iter().copied().chain(initrd) {
            writable.remove(pages(occupied));
        }
        if ram_bytes == 0 {
            return Err(PlanError::NoRam);
        }
        Ok(Self {
            request,
            usable,
            writable,
            ram_bytes,
        })
    }

    /// Which scratch areas to try, the best first.
    fn scratch_shapes(&self, handover: &HandoverNeeds) -> Result<Vec<Vec<Area>>, PlanError> {
        let page_size = handover.page_size;
        let align = scratch::alignment(page_size);
        let round = |bytes: u64| bytes.clamp(1, ADDRESS_END).next_multiple_of(align);
        let ram = self.request.ram;
        let high = ram
            .iter()
            .any(|region| addressable(region.range).end() > LOW_MEMORY_END);
        let has_low = ram
            .iter()
            .any(|region| region.range.start.0 < LOW_MEMORY_END);
        let low = if has_low { LOW } else { ALL };
        let fixed = scratch::fixed(&handover.scratch, page_size, high);

        let mut nodes: Vec<(u32, u64, Vec<MemoryRange>)> = Vec::new();
        for region in ram {
            let window = addressable(region.range);
            let need = scratch::proportional(sections(window, page_size), page_size);
            match nodes.iter_mut().find(|node| node.0 == region.node) {
                Some((_, total, windows)) => {
                    *total += need;
                    windows.push(window);
                }
                None => nodes.push((region.node, need, alloc::vec![window])),
            }
        }
        let proportional: u64 = nodes.iter().map(|node| node.1).sum();
        let total = round(fixed.saturating_add(proportional));
        if total > self.ram_bytes / 2 {
            return Err(PlanError::ScratchTooLarge {
                size: total,
                align,
                ram: self.ram_bytes,
            });
        }

        let anywhere = |bytes: u64, window: MemoryRange| Area {
            size: round(bytes),
            windows: alloc::vec![window],
        };
        let one = alloc::vec![anywhere(total, low)];
        let two = alloc::vec![anywhere(fixed, low), anywhere(proportional, ALL)];
        let several = nodes.len() > 1;
        let per_node = core::iter::once(anywhere(fixed, low))
            .chain(nodes.into_iter().map(|(_, need, windows)| Area {
                size: round(need),
                windows,
            }))
            .collect::<Vec<_>>();
        let low_ram: u64 = ram
            .iter()
            .map(|region| addressable(region.range).intersection(low).size)
            .sum();
        // Scratch is no memory for the kernel's own use: leave it some of the
        // low memory, of which there may be little.
        let mut shapes = Vec::new();
        if several {
            shapes.push(per_node);
        }
        if total <= low_ram / 2 {
            shapes.push(one);
            shapes.push(two);
        } else {
            shapes.push(two);
            shapes.push(one);
        }
        // Rounding each area up may have made them too many.
        shapes
            .retain(|areas| areas.iter().map(|area| area.size).sum::<u64>() <= self.ram_bytes / 2);
        Ok(shapes)
    }

    /// Places the scratch areas, then the rest. The first area, the one in low
    /// memory, is tried at each end of each free region: with coarse
    /// alignments there may be one place only that leaves room for the rest.
    fn with_scratch(
        &self,
        handover: &HandoverNeeds,
        areas: &[Area],
        kept: Option<MemoryRange>,
    ) -> Result<MemoryPlan, PlanError> {
        let align = scratch::alignment(handover.page_size);
        let mut free = self.usable.clone();
        if let Some(initrd) = kept {
            free.remove(pages(initrd));
        }
        let Some((first, others)) = areas.split_first() else {
            return Err(PlanError::NoRam);
        };
        let window = first.windows[0];
        let mut failure = PlanError::Scratch {
            size: first.size,
            align,
            largest: free.largest_fit(align, window),
            low: window == LOW,
        };
        'places: for place in free.candidates(first.size, align, window) {
            let mut free = free.clone();
            let area = MemoryRange::new(place, first.size);
            let mut placed = alloc::vec![area];
            free.remove(area);
            for area in others {
                let found = area
                    .windows
                    .iter()
                    .rev()
                    .find_map(|window| free.highest_fit(area.size, align, *window));
                let Some(start) = found else {
                    failure = failure.max(PlanError::Scratch {
                        size: area.size,
                        align,
                        largest: free.largest_fit(align, ALL),
                        low: false,
                    });
                    continue 'places;
                };
                let area = MemoryRange::new(start, area.size);
                free.remove(area);
                placed.push(area);
            }
            match self.place(kept, &placed) {
                Ok(plan) => return Ok(plan),
                Err(error) => failure = failure.max(error),
            }
        }
        Err(failure)
    }

    /// The initrd, if it can stay where it was loaded.
    fn initrd_in_place(&self) -> Option<MemoryRange> {
        let loaded = self.request.initrd?.loaded;
        let mut here = self.usable.clone();
        for occupied in self.request.occupied {
            here.remove(*occupied);
        }
        here.lowest_fit(loaded.size, 1, addressable(loaded))?;
        Some(loaded)
    }

    /// Places everything but scratch. With `kept` the initrd stays there.
    fn place(
        &self,
        kept: Option<MemoryRange>,
        areas: &[MemoryRange],
    ) -> Result<MemoryPlan, PlanError> {
        let request = self.request;
        let mut free = self.writable.clone();
        for area in areas {
            free.remove(*area);
        }
        let kept = match request.handover {
            None => self.initrd_in_place(),
            Some(_) => kept,
        };
        if let Some(initrd) = kept {
            let window = window_around(initrd);
            if let Some(start) = self.kernel_places(&free, window).next() {
                return self.finish(free, start, Some(initrd), areas);
            }
            if request.handover.is_some() {
                return Err(self.no_kernel());
            }
        }
        let mut failure = self.no_kernel();
        for start in self.kernel_places(&free, ALL) {
            let mut free = free.clone();
            let kernel = MemoryRange::new(start, self.kernel_size());
            free.remove(kernel);
            let initrd = match request.initrd {
                None => None,
                Some(needs) => {
                    let size = needs.loaded.size;
                    let room = size.saturating_add(PAGE - 1) / PAGE * PAGE;
                    let window = window_around(kernel);
                    let Some(place) = free.lowest_fit(room.max(PAGE), PAGE, window) else {
                        failure = failure.max(PlanError::Initrd { size });
                        continue;
                    };
                    Some(MemoryRange::new(place, size))
                }
            };
            match self.finish(free, start, initrd, areas) {
                Ok(plan) => return Ok(plan),
                Err(error) => failure = failure.max(error),
            }
        }
        Err(failure)
    }

    /// Bytes from the aligned base of the kernel to its end.
    fn kernel_size(&self) -> u64 {
        let kernel = self.request.kernel;
        kernel
            .text_offset
            .saturating_add(kernel.image_size)
            .checked_next_multiple_of(PAGE)
            .unwrap_or(u64::MAX)
    }

    fn kernel_places(
        &self,
        free: &RangeSet,
        window: MemoryRange,
    ) -> impl Iterator<Item = PhysAddr> + use<> {
        free.candidates(self.kernel_size(), KERNEL_ALIGN, window)
            .into_iter()
            .rev()
    }

    const fn no_kernel(&self) -> PlanError {
        PlanError::Kernel {
            size: self.request.kernel.image_size,
        }
    }

    /// Places what is left: the tree and the arena.
    fn finish(
        &self,
        mut free: RangeSet,
        kernel_base: PhysAddr,
        initrd: Option<MemoryRange>,
        areas: &[MemoryRange],
    ) -> Result<MemoryPlan, PlanError> {
        let request = self.request;
        free.remove(MemoryRange::new(kernel_base, self.kernel_size()));
        if let Some(initrd) = initrd {
            free.remove(pages(initrd));
        }
        let tree = free
            .lowest_fit(MAX_TREE_SIZE, MAX_TREE_SIZE, ALL)
            .ok_or(PlanError::Tree {
                size: request.tree_size,
            })?;
        free.remove(MemoryRange::new(tree, MAX_TREE_SIZE));
        let arena = match &request.handover {
            None => None,
            Some(handover) => Some(self.arena(&free, handover)?),
        };
        let kernel = request.kernel;
        Ok(MemoryPlan {
            kernel: MemoryRange::new(
                PhysAddr(kernel_base.0 + kernel.text_offset),
                kernel.image_size,
            ),
            initrd,
            tree: MemoryRange::new(tree, request.tree_size),
            arena,
            scratch: areas.to_vec(),
        })
    }

    /// A place for the arena: in one block of 1 GiB and one region of RAM,
    /// which is in one node; in low memory if possible.
    fn arena(&self, free: &RangeSet, handover: &HandoverNeeds) -> Result<MemoryRange, PlanError> {
        let (size, align) = (handover.arena_size, handover.arena_align);
        for zone in [LOW, ALL] {
            for region in self.request.ram.iter().rev() {
                let region = region.range.intersection(zone);
                let (start, mut top) = (region.start.0, region.end());
                while top > start {
                    let block = (top - 1) / ARENA_BLOCK * ARENA_BLOCK;
                    let window = MemoryRange::from_bounds(block.max(start), top);
                    if let Some(place) = free.highest_fit(size, align.max(PAGE), window) {
                        return Ok(MemoryRange::new(place, size));
                    }
                    top = block;
                }
            }
        }
        Err(PlanError::Arena { size })
    }
}

/// The window that both a kernel and its initrd fit in, if one of them is at
/// `piece`.
fn window_around(piece: MemoryRange) -> MemoryRange {
    let first = piece.start.0 / INITRD_WINDOW_ALIGN * INITRD_WINDOW_ALIGN;
    let end = piece.end().div_ceil(INITRD_WINDOW_ALIGN) * INITRD_WINDOW_ALIGN;
    MemoryRange::from_bounds(end.saturating_sub(INITRD_WINDOW), first + INITRD_WINDOW)
}

/// Bytes of the memory sections that `window` touches: Linux makes page
/// structures for whole sections.
fn sections(window: MemoryRange, page_size: PageSize) -> u64 {
    let section: u64 = match page_size {
        PageSize::K4 | PageSize::K16 => 128 << 20,
        PageSize::K64 => 512 << 20,
    };
    window.touched_pages(section).size
}

/// `range` as far as there are addresses.
fn addressable(range: MemoryRange) -> MemoryRange {
    range.intersection(ALL)
}

/// All pages that `range` touches, as far as there are addresses.
fn pages(range: MemoryRange) -> MemoryRange {
    addressable(range).touched_pages(PAGE)
}

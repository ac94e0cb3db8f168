//! Placing the pieces that Linux is started with.

use alloc::vec::Vec;

use super::error::PlanError;
use super::scratch_area::{self, ScratchArea};
use super::windows::{ALL, LOW, PAGE, addressable, pages, window_around};
use super::{HandoverNeeds, KERNEL_ALIGN, MAX_TREE_SIZE, MemoryRange, PlanRequest};
use warmbus_kho::ARENA_BLOCK;
use warmbus_memory::{PhysAddr, RangeSet};

/// The address of every piece. No two pieces overlap.
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
    /// How many of them, the last ones, are for gigantic pages.
    pub gigantic_areas: usize,
}

impl MemoryPlan {
    /// Excludes the scratch areas for gigantic pages, for a kernel that
    /// allocates those elsewhere.
    pub fn exclude_gigantic(&mut self) {
        self.scratch.truncate(self.kernel_areas());
        self.gigantic_areas = 0;
    }

    /// Bytes of scratch memory, those for gigantic pages not counted.
    #[must_use]
    pub fn kernel_scratch_bytes(&self) -> u64 {
        let areas = self.scratch.iter().take(self.kernel_areas());
        areas.map(|area| area.size).sum()
    }

    const fn kernel_areas(&self) -> usize {
        self.scratch.len().saturating_sub(self.gigantic_areas)
    }

    /// Places every piece of `request`.
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
        let pages = scratch_area::gigantic_areas(&handover.scratch);
        for mut areas in scratch_area::choices(request.ram, search.ram_bytes, handover)? {
            areas.extend_from_slice(&pages);
            let in_place = search.initrd_in_place().map(Some);
            for kept in in_place.into_iter().chain([None]) {
                match search.with_scratch(&areas, kept) {
                    Ok(mut plan) => {
                        plan.gigantic_areas = pages.len();
                        return Ok(plan);
                    }
                    Err(error) if failure.as_ref().is_some_and(|worst| *worst >= error) => {}
                    Err(error) => failure = Some(error),
                }
            }
        }
        Err(failure.unwrap_or(PlanError::NoRam))
    }
}

struct Search<'a> {
    request: &'a PlanRequest<'a>,
    /// RAM that is not reserved.
    usable: RangeSet,
    /// What of it can be written before Linux is entered.
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
        let mut usable: RangeSet = ram.collect();
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

    /// Places the scratch areas, then the rest. The first area, the one in low
    /// memory, is tried at each end of each free range: with coarse alignments
    /// only one of them may leave enough memory for the rest.
    fn with_scratch(
        &self,
        areas: &[ScratchArea],
        kept: Option<MemoryRange>,
    ) -> Result<MemoryPlan, PlanError> {
        let mut free = self.usable.clone();
        if let Some(initrd) = kept {
            free.remove(pages(initrd));
        }
        let Some((first, others)) = areas.split_first() else {
            return Err(PlanError::NoRam);
        };
        let (window, align) = (first.windows[0], first.align);
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
                    .find_map(|window| free.highest_fit(area.size, area.align, *window));
                let Some(start) = found else {
                    failure = failure.max(PlanError::Scratch {
                        size: area.size,
                        align: area.align,
                        largest: free.largest_fit(area.align, ALL),
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
                    let capacity = size.saturating_add(PAGE - 1) / PAGE * PAGE;
                    let window = window_around(kernel);
                    let Some(place) = free.lowest_fit(capacity.max(PAGE), PAGE, window) else {
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
            gigantic_areas: 0,
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

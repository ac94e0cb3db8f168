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
    /// The kernel, BSS included. Its first byte is its entry. It is where its
    /// file was loaded if it can stay there.
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
            return search.first(|kept| search.place(kept, &[]));
        };
        if !request.scratch.is_empty() {
            return search.first(|kept| search.place(kept, request.scratch));
        }
        let pages = scratch_area::gigantic_areas(&handover.scratch);
        let mut failure = None;
        for mut areas in scratch_area::choices(request.ram, search.ram_bytes, handover)? {
            areas.extend_from_slice(&pages);
            match search.first(|kept| search.with_scratch(&areas, kept)) {
                Ok(mut plan) => {
                    plan.gigantic_areas = pages.len();
                    return Ok(plan);
                }
                Err(error) => failure = failure.max(Some(error)),
            }
        }
        Err(failure.unwrap_or(PlanError::NoRam))
    }
}

/// What stays where it was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kept {
    /// The kernel, from its aligned base to its end.
    kernel: Option<MemoryRange>,
    initrd: Option<MemoryRange>,
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
        let loaded = request.kernel.loaded.into_iter().chain(initrd);
        for occupied in request.occupied.iter().copied().chain(loaded) {
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

    /// The first plan that `plan` makes. What was loaded stays there if that is
    /// possible, the initrd rather than the kernel.
    fn first(
        &self,
        plan: impl Fn(Kept) -> Result<MemoryPlan, PlanError>,
    ) -> Result<MemoryPlan, PlanError> {
        let all = Kept {
            kernel: self.kernel_in_place(),
            initrd: self.initrd_in_place(),
        };
        let initrd = Kept {
            kernel: None,
            ..all
        };
        let mut choices = alloc::vec![all, initrd, Kept::default()];
        choices.dedup();
        let mut failure = None;
        for kept in choices {
            match plan(kept) {
                Ok(plan) => return Ok(plan),
                Err(error) => failure = failure.max(Some(error)),
            }
        }
        Err(failure.unwrap_or(PlanError::NoRam))
    }

    /// Places the scratch areas, then the rest. The first area, the one in low
    /// memory, is tried at each end of each free range: with coarse alignments
    /// only one of them may leave enough memory for the rest.
    fn with_scratch(&self, areas: &[ScratchArea], kept: Kept) -> Result<MemoryPlan, PlanError> {
        let mut free = self.usable.clone();
        for loaded in kept.kernel.into_iter().chain(kept.initrd) {
            free.remove(pages(loaded));
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
        for occupied in self
            .request
            .occupied
            .iter()
            .chain(&self.request.kernel.loaded)
        {
            here.remove(*occupied);
        }
        here.lowest_fit(loaded.size, 1, addressable(loaded))?;
        Some(loaded)
    }

    /// The kernel, from its aligned base to its end, if it can stay where its
    /// file was loaded: nothing else uses that memory, and what follows the file,
    /// which Linux clears, is free.
    fn kernel_in_place(&self) -> Option<MemoryRange> {
        let kernel = self.request.kernel;
        let file = kernel.loaded?;
        let base = file.start.0.checked_sub(kernel.text_offset)?;
        let place = MemoryRange::new(PhysAddr(base), self.kernel_size());
        let initrd = self.request.initrd.map(|initrd| initrd.loaded);
        let others = self.request.occupied.iter().copied().chain(initrd);
        let here = self.usable.within(place).without(others.map(pages));
        let is_place = base.is_multiple_of(KERNEL_ALIGN) && file.size <= kernel.image_size;
        (is_place && here.contains_range(place)).then_some(place)
    }

    /// Places everything but scratch, which is in `areas`.
    fn place(&self, kept: Kept, areas: &[MemoryRange]) -> Result<MemoryPlan, PlanError> {
        let request = self.request;
        let free = self.writable.clone().without(areas.iter().copied());
        let window = kept.initrd.map_or(ALL, window_around);
        let is_free = |kernel: &MemoryRange| !areas.iter().any(|area| area.overlaps(*kernel));
        let places: Vec<PhysAddr> = match kept.kernel {
            Some(kernel) if window.contains(kernel) && is_free(&kernel) => {
                alloc::vec![kernel.start]
            }
            Some(_) => Vec::new(),
            None => self.kernel_places(&free, window).collect(),
        };
        let mut failure = self.no_kernel();
        for start in places {
            let mut free = free.clone();
            let kernel = MemoryRange::new(start, self.kernel_size());
            free.remove(kernel);
            let initrd = match (kept.initrd, request.initrd) {
                (Some(initrd), _) => Some(initrd),
                (None, None) => None,
                (None, Some(needs)) => {
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

    /// Places what is left: the tree and the arena. `free` is without the kernel.
    fn finish(
        &self,
        mut free: RangeSet,
        kernel_base: PhysAddr,
        initrd: Option<MemoryRange>,
        areas: &[MemoryRange],
    ) -> Result<MemoryPlan, PlanError> {
        let request = self.request;
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

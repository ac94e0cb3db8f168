//! The heap: a small one inside the image from the first moment, and a large
//! one in the memory of the machine once that is known. Small pieces of both
//! are in a [`SmallObjectPool`].

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use linked_list_allocator::Heap;
use spin::Mutex;
use warmbus_memory::MemoryRange;
use warmbus_memory::PhysAddr;
use warmbus_paging::size_class::SizeClass;

use crate::mem::small_objects::SmallObjectPool;

/// Bytes of the heap inside the image: enough to read a device tree.
const EARLY_SIZE: usize = 256 << 10;
/// More than the heap writes into the free memory behind an allocation.
const HOLE: usize = 64;

#[repr(align(16))]
struct Early(UnsafeCell<[MaybeUninit<u8>; EARLY_SIZE]>);

// SAFETY: only `start` looks inside, which runs once on one CPU.
unsafe impl Sync for Early {}

static EARLY: Early = Early(UnsafeCell::new([MaybeUninit::uninit(); EARLY_SIZE]));

/// Bytes of heap.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    /// In use now.
    pub(crate) used: usize,
    /// The most that was in use.
    pub(crate) peak: usize,
    /// All of it.
    pub(crate) size: usize,
}

struct Heaps {
    large: Heap,
    early: Heap,
    peak: usize,
    /// Bytes of the large heap, from its start, that may have been written.
    touched: usize,
}

impl Heaps {
    /// Allocates from the large heap, or from the early one where that is
    /// not there yet or full.
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        let memory = self
            .large
            .allocate_first_fit(layout)
            .or_else(|()| self.early.allocate_first_fit(layout))
            .ok()?;
        self.peak = self.peak.max(self.used());
        if let Some(offset) = memory.addr().get().checked_sub(self.large.bottom().addr())
            && offset < self.large.size()
        {
            let end = offset + layout.size() + HOLE;
            self.touched = self.touched.max(end.min(self.large.size()));
        }
        Some(memory)
    }

    /// Bytes of both heaps in use, free small pieces among them.
    fn used(&self) -> usize {
        self.large.used() + self.early.used()
    }

    fn touched_range(&self) -> MemoryRange {
        let bottom = PhysAddr(self.large.bottom().addr() as u64);
        MemoryRange::new(bottom, self.touched as u64)
    }
}

/// The heaps, and the small pieces in front of them.
struct Memory {
    small: SmallObjectPool,
    heaps: Heaps,
}

/// All memory of this program that is allocated.
pub(crate) struct Allocator(Mutex<Memory>);

// The tests on a host have an allocator of that host beside it.
#[cfg_attr(target_os = "none", global_allocator)]
pub(crate) static MEMORY: Allocator = Allocator::new();

impl Allocator {
    /// Without memory.
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Memory {
            small: SmallObjectPool::new(),
            heaps: Heaps {
                large: Heap::empty(),
                early: Heap::empty(),
                peak: 0,
                touched: 0,
            },
        }))
    }

    /// Gives it `memory` as its early heap, once.
    pub(crate) fn start(&self, memory: &'static mut [MaybeUninit<u8>]) {
        self.0.lock().heaps.early.init_from_slice(memory);
    }

    /// Gives it `region` as its large heap.
    ///
    /// # Safety
    ///
    /// As of [`grow`].
    pub(crate) unsafe fn grow(&self, region: MemoryRange) {
        let bottom = ptr::with_exposed_provenance_mut(region.start.0 as usize);
        let large = &mut self.0.lock().heaps.large;
        // SAFETY: by the contract of this function.
        unsafe { large.init(bottom, region.size as usize) };
    }

    /// The part of the large heap that may have been written to.
    pub(crate) fn touched(&self) -> MemoryRange {
        self.0.lock().heaps.touched_range()
    }

    /// What is in use.
    pub(crate) fn usage(&self) -> Usage {
        let heaps = &self.0.lock().heaps;
        Usage {
            used: heaps.used(),
            peak: heaps.peak,
            size: heaps.large.size() + heaps.early.size(),
        }
    }
}

// SAFETY: memory comes from `Heap`, which gives out each byte once and keeps to
// the layout, and so does `SmallObjectPool` with what it took from there. The layout
// says which of them it was, and the address which heap.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Memory { small, heaps } = &mut *self.0.lock();
        let memory = match SizeClass::of(layout) {
            Some(class) => small.alloc(class, |layout| heaps.alloc(layout)),
            None => heaps.alloc(layout),
        };
        memory.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let Memory { small, heaps } = &mut *self.0.lock();
        let Some(memory) = NonNull::new(pointer) else {
            return;
        };
        if let Some(class) = SizeClass::of(layout) {
            // SAFETY: the caller gives back what `alloc` gave with this layout.
            return unsafe { small.free(memory, class) };
        }
        let early = heaps.early.bottom()..heaps.early.top();
        let heap = if early.contains(&pointer) {
            &mut heaps.early
        } else {
            &mut heaps.large
        };
        // SAFETY: as above, and the address says from which heap it was.
        unsafe { heap.deallocate(memory, layout) };
    }
}

/// Starts the small heap. Nothing may be allocated before.
///
/// # Safety
///
/// To be called once.
pub(crate) unsafe fn start() {
    // SAFETY: by the contract of this function this is the only reference.
    let memory: &'static mut [MaybeUninit<u8>] = unsafe { &mut *EARLY.0.get() };
    MEMORY.start(memory);
}

/// Adds the large heap.
///
/// # Safety
///
/// To be called once; `region` must be mapped as writable memory, free, and
/// not used for anything else from now on.
pub(crate) unsafe fn grow(region: MemoryRange) {
    // SAFETY: by the contract of this function.
    unsafe { MEMORY.grow(region) };
}

/// The part of the large heap that may have been written to.
pub(crate) fn touched() -> MemoryRange {
    MEMORY.touched()
}

/// The same, where an allocation may have been interrupted.
///
/// # Safety
///
/// The code that was allocating must never be resumed.
pub(crate) unsafe fn force_touched() -> MemoryRange {
    // SAFETY: by the contract of this function.
    unsafe { MEMORY.0.force_unlock() };
    touched()
}

/// What is in use.
pub(crate) fn usage() -> Usage {
    MEMORY.usage()
}

//! The allocator on a host, where Miri checks each access that it makes
//! (`cargo xtask test --long miri`). Without Miri the tests see what overlaps, what is
//! lost, and what is written where nothing was given out.

// As in the binary, so that both are the same source.
#[path = "."]
mod mem {
    pub(crate) mod heap;
    mod small_objects;
}

use std::alloc::{GlobalAlloc, Layout};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::AtomicPtr;
use std::{ptr, slice};

use mem::heap::{self, Allocator};
use warmbus_memory::{MemoryRange, PhysAddr};

/// Random steps of a test: Miri takes a thousand times as long for each.
const STEPS: usize = if cfg!(miri) { 300 } else { 50_000 };
/// Bytes of the large heap.
const LARGE: usize = 192 << 10;
/// What the large heap holds before it is one.
const UNTOUCHED: u8 = 0xa5;

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ bits >> 31) % limit as u64) as usize
    }

    /// A layout as the firmware asks for: mostly small, and some of pages.
    fn layout(&mut self) -> Layout {
        let size = match self.below(8) {
            0 => 1 + self.below(20_000),
            1 => 1 << self.below(13),
            _ => 1 + self.below(600),
        };
        let align = match self.below(16) {
            0 => 1 << self.below(13),
            _ => 1 << self.below(5),
        };
        Layout::from_size_align(size, align).expect("a layout")
    }
}

/// Memory that was given out, with the byte that it is filled with.
struct Piece {
    memory: *mut u8,
    layout: Layout,
    fill: u8,
}

impl Piece {
    fn range(&self) -> Range<usize> {
        let start = self.memory.addr();
        start..start + self.layout.size()
    }

    /// The first `size` bytes hold what was written.
    #[track_caller]
    fn holds(&self, size: usize) {
        // SAFETY: the memory was given out with at least that size and was filled.
        let bytes = unsafe { slice::from_raw_parts(self.memory, size) };
        assert_eq!(bytes, vec![self.fill; size], "{:?}", self.layout);
    }

    fn refill(&mut self, fill: u8) {
        self.fill = fill;
        // SAFETY: the memory was given out with this size.
        unsafe { self.memory.write_bytes(fill, self.layout.size()) };
    }
}

/// What was given out and not given back.
struct Pieces<'a> {
    allocator: &'a Allocator,
    /// The memory that the allocator has.
    regions: [Range<usize>; 2],
    live: Vec<Piece>,
}

impl Pieces<'_> {
    /// Allocates and fills one, unless there is no memory for it.
    fn alloc(&mut self, layout: Layout, fill: u8) -> bool {
        // SAFETY: the layout is not empty.
        let memory = unsafe { self.allocator.alloc(layout) };
        !memory.is_null() && {
            self.add(memory, layout, fill);
            true
        }
    }

    #[track_caller]
    fn add(&mut self, memory: *mut u8, layout: Layout, fill: u8) {
        let mut piece = Piece {
            memory,
            layout,
            fill,
        };
        let range = piece.range();
        assert_eq!(range.start % layout.align(), 0, "{layout:?}");
        let is_inside = |region: &Range<usize>| {
            region.contains(&range.start) && region.contains(&(range.end - 1))
        };
        assert!(self.regions.iter().any(is_inside), "{layout:?}");
        for other in &self.live {
            let other = other.range();
            assert!(range.end <= other.start || other.end <= range.start);
        }
        piece.refill(fill);
        self.live.push(piece);
    }

    fn free(&mut self, number: usize) {
        let piece = self.live.swap_remove(number);
        piece.holds(piece.layout.size());
        // SAFETY: it was given out with this layout.
        unsafe { self.allocator.dealloc(piece.memory, piece.layout) };
    }

    fn resize(&mut self, number: usize, size: usize) {
        let piece = self.live.swap_remove(number);
        piece.holds(piece.layout.size());
        // SAFETY: it was given out with this layout, and the size is not 0.
        let memory = unsafe { self.allocator.realloc(piece.memory, piece.layout, size) };
        if memory.is_null() {
            self.live.push(piece);
            return;
        }
        let layout = Layout::from_size_align(size, piece.layout.align()).expect("a layout");
        let moved = Piece {
            memory,
            layout,
            fill: piece.fill,
        };
        moved.holds(size.min(piece.layout.size()));
        self.add(memory, layout, piece.fill.wrapping_add(1));
    }

    /// Random steps, and the end of all that is left.
    fn run(&mut self, random: &mut Random) {
        for step in 0..STEPS {
            let count = self.live.len();
            let number = random.below(count.max(1));
            match random.below(8) {
                _ if count == 0 => drop(self.alloc(random.layout(), step as u8)),
                0..4 if count < 200 => drop(self.alloc(random.layout(), step as u8)),
                4 => self.resize(number, random.layout().size()),
                _ => self.free(number),
            }
        }
        while !self.live.is_empty() {
            self.free(0);
        }
    }
}

/// Memory that tests never free, so that Miri does not see it as lost.
static KEPT: Mutex<Vec<AtomicPtr<u8>>> = Mutex::new(Vec::new());

/// `size` bytes that are never freed, aligned to pages, all of them `fill`.
fn kept(size: usize, fill: u8) -> *mut u8 {
    let layout = Layout::from_size_align(size, 4096).expect("a layout");
    // SAFETY: the layout is not empty.
    let memory = unsafe { std::alloc::alloc(layout) };
    assert!(!memory.is_null());
    // SAFETY: it was allocated with that size.
    unsafe { memory.write_bytes(fill, size) };
    KEPT.lock()
        .expect("no test fails in it")
        .push(AtomicPtr::new(memory));
    memory
}

/// Memory for an early heap, which is never freed.
fn early(size: usize) -> &'static mut [MaybeUninit<u8>] {
    // SAFETY: it has that size, is never freed, and nothing else has a reference.
    unsafe { slice::from_raw_parts_mut(kept(size, 0).cast(), size) }
}

/// Memory for a large heap, which is never freed.
fn large() -> MemoryRange {
    let start = PhysAddr(kept(LARGE, UNTOUCHED).expose_provenance() as u64);
    MemoryRange::new(start, LARGE as u64)
}

fn addresses(range: MemoryRange) -> Range<usize> {
    let start = range.start.0 as usize;
    start..start + range.size as usize
}

/// Nothing is written behind what the heap says that it has touched.
#[track_caller]
fn is_untouched_behind(touched: MemoryRange, region: MemoryRange) {
    let (touched, region) = (addresses(touched), addresses(region));
    assert_eq!(touched.start, region.start);
    let rest = ptr::with_exposed_provenance::<u8>(touched.end);
    // SAFETY: the region is never freed, and nothing has a reference to it.
    let rest = unsafe { slice::from_raw_parts(rest, region.end - touched.end) };
    // One comparison, which Miri makes at the speed of the host.
    assert!(rest == vec![UNTOUCHED; rest.len()]);
}

#[test]
fn random_requests_get_memory_of_their_own_from_both_heaps() {
    let mut random = Random(1);
    let allocator = Allocator::new();
    let small = early(64 << 10);
    let addresses_of_early = small.as_ptr_range();
    let addresses_of_early = addresses_of_early.start.addr()..addresses_of_early.end.addr();
    allocator.start(small);
    let mut pieces = Pieces {
        allocator: &allocator,
        regions: [addresses_of_early.clone(), 0..0],
        live: Vec::new(),
    };
    // What there is from before is freed to the heap that it is from.
    let before = Layout::from_size_align(5000, 64).expect("a layout");
    assert!(pieces.alloc(before, 7));
    let kept = pieces.live.pop();
    pieces.run(&mut random);
    pieces.live.extend(kept);
    let region = large();
    // SAFETY: nothing else uses the region.
    unsafe { allocator.grow(region) };
    pieces.regions[1] = addresses(region);
    pieces.run(&mut random);
    let usage = allocator.usage();
    assert!(usage.used < usage.peak && usage.peak <= usage.size);
}

/// Allocates and fills until there is no memory left, or there is enough for Miri.
fn exhaust(allocator: &Allocator, layout: Layout) -> Vec<*mut u8> {
    let most = if cfg!(miri) { 100 } else { usize::MAX };
    let pieces = (0..most).map_while(|_| {
        // SAFETY: the layout is not empty.
        let memory = unsafe { allocator.alloc(layout) };
        if memory.is_null() {
            return None;
        }
        // SAFETY: the memory was given out with this size.
        unsafe { memory.write_bytes(1, layout.size()) };
        Some(memory)
    });
    pieces.collect()
}

#[test]
fn memory_that_is_used_up_is_refused_and_all_of_it_comes_back() {
    for size in [16, 100, 1000, 5000] {
        // What small objects had once stays with their size.
        let allocator = Allocator::new();
        allocator.start(early(64 << 10));
        let region = large();
        // SAFETY: nothing else uses the region.
        unsafe { allocator.grow(region) };
        let layout = Layout::from_size_align(size, 8).expect("a layout");
        let counts = [(); 2].map(|()| {
            let pieces = exhaust(&allocator, layout);
            for memory in &pieces {
                // SAFETY: it was given out with this layout.
                unsafe { allocator.dealloc(*memory, layout) };
            }
            pieces.len()
        });
        let bytes = LARGE + (64 << 10);
        assert!(counts[0] * size <= bytes, "{counts:?} of {size}");
        assert!(
            cfg!(miri) || counts[0] * size > bytes / 4 * 3,
            "{counts:?} of {size}"
        );
        assert_eq!(counts[0], counts[1], "of {size}");
    }
}

#[test]
fn what_the_heap_has_not_touched_is_as_it_was() {
    let mut random = Random(2);
    for _ in 0..if cfg!(miri) { 1 } else { 200 } {
        let allocator = Allocator::new();
        allocator.start(early(32 << 10));
        let region = large();
        // SAFETY: nothing else uses the region.
        unsafe { allocator.grow(region) };
        let mut pieces = Pieces {
            allocator: &allocator,
            regions: [0..0, addresses(region)],
            live: Vec::new(),
        };
        for step in 0..20 {
            let mut layout = random.layout();
            while layout.size() > 4000 {
                layout = random.layout();
            }
            assert!(pieces.alloc(layout, step));
            if step % 3 == 0 {
                pieces.free(random.below(pieces.live.len()));
            }
            is_untouched_behind(allocator.touched(), region);
        }
        let touched = addresses(allocator.touched());
        for piece in &pieces.live {
            assert!(piece.range().end <= touched.end);
        }
        assert!(touched.end < addresses(region).end);
    }
}

#[test]
fn the_allocator_of_the_binary_starts_grows_and_is_taken_over() {
    let layout = Layout::from_size_align(40_000, 8).expect("a layout");
    // SAFETY: the only call.
    unsafe { heap::start() };
    let early = heap::usage().size;
    // SAFETY: the layout is not empty.
    let first = unsafe { heap::MEMORY.alloc(layout) };
    let region = large();
    // SAFETY: the only call, and nothing else uses the region.
    unsafe { heap::grow(region) };
    assert_eq!(heap::usage().size, early + LARGE);
    // SAFETY: the layout is not empty.
    let second = unsafe { heap::MEMORY.alloc(layout) };
    assert!(!addresses(region).contains(&first.addr()));
    assert!(addresses(region).contains(&second.addr()));
    for memory in [first, second] {
        // SAFETY: it was given out with this layout.
        unsafe { heap::MEMORY.dealloc(memory, layout) };
    }
    assert_eq!((heap::usage().used, heap::usage().peak), (0, 80_000));
    is_untouched_behind(heap::touched(), region);
    // SAFETY: nothing is being allocated.
    let again = unsafe { heap::force_touched() };
    assert_eq!(again, heap::touched());
}

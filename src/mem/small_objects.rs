//! Small pieces of memory, in front of the heap: allocating and freeing one
//! costs the same however many there are.
//!
//! The heap behind keeps free memory as one list, which it walks for each
//! request; what is kept of thousands of functions makes that list long. What
//! came here once stays here.

use core::alloc::Layout;
use core::ptr::NonNull;

use warmbus_paging::size_class::{ALIGNMENT, COUNT, SizeClass};

/// What is taken from the heap at a time: a tenth of the heap that is there
/// first.
const CHUNK: Layout = match Layout::from_size_align(24 << 10, ALIGNMENT) {
    Ok(layout) => layout,
    Err(_) => panic!("an alignment is a power of two"),
};

/// A free piece: where the next one of its class is.
struct Free {
    next: Option<NonNull<Free>>,
}

/// The free pieces of each class, and a chunk that more are cut from.
pub(crate) struct SmallObjectPool {
    lists: [Option<NonNull<Free>>; COUNT],
    /// Start of what is left of the chunk.
    chunk: NonNull<u8>,
    /// Bytes that are left of it, a multiple of [`ALIGNMENT`].
    left: usize,
}

// SAFETY: what the pointers lead to is reached through them only.
unsafe impl Send for SmallObjectPool {}

impl SmallObjectPool {
    /// No pieces yet.
    pub(crate) const fn new() -> Self {
        Self {
            lists: [None; COUNT],
            chunk: NonNull::dangling(),
            left: 0,
        }
    }

    /// Allocates a piece of `class`, aligned to [`ALIGNMENT`]. Where there is none,
    /// memory comes from `heap`, which never gets it back.
    pub(crate) fn alloc(
        &mut self,
        class: SizeClass,
        mut heap: impl FnMut(Layout) -> Option<NonNull<u8>>,
    ) -> Option<NonNull<u8>> {
        if let Some(piece) = self.lists[class.number()] {
            // SAFETY: `free` has written it, and it was not in use since.
            self.lists[class.number()] = unsafe { piece.read() }.next;
            return Some(piece.cast());
        }
        if self.left < class.bytes() {
            let Some(chunk) = heap(CHUNK) else {
                // A little of it may be left.
                return heap(Layout::from_size_align(class.bytes(), ALIGNMENT).ok()?);
            };
            while let Some(rest) = SizeClass::largest_fitting(self.left) {
                let piece = self.split(rest);
                // SAFETY: it was cut from the chunk just now.
                unsafe { self.free(piece, rest) };
            }
            (self.chunk, self.left) = (chunk, CHUNK.size());
        }
        Some(self.split(class))
    }

    /// Cuts a piece of `class` from the chunk, of which that much is left.
    fn split(&mut self, class: SizeClass) -> NonNull<u8> {
        let piece = self.chunk;
        // SAFETY: so much is left of the memory that the heap gave.
        self.chunk = unsafe { piece.add(class.bytes()) };
        self.left -= class.bytes();
        piece
    }

    /// Frees a piece.
    ///
    /// # Safety
    ///
    /// It must be one of `class` from [`Self::alloc`] that is not used any more.
    pub(crate) unsafe fn free(&mut self, piece: NonNull<u8>, class: SizeClass) {
        let piece = piece.cast::<Free>();
        let next = self.lists[class.number()];
        // SAFETY: by the contract of this function the memory is ours, and the
        // smallest piece is larger and more aligned than what is written.
        unsafe { piece.write(Free { next }) };
        self.lists[class.number()] = Some(piece);
    }
}

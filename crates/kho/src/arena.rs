//! The memory that a handover is in.

use warmbus_memory::{MemoryRange, NotMemory, PhysAddr, PhysMemory, slice_at};

/// The memory that a handover is in, as bytes.
#[derive(Clone, Copy, Debug)]
pub struct Arena<'a> {
    base: PhysAddr,
    bytes: &'a [u8],
}

impl<'a> Arena<'a> {
    /// The memory from the physical address `base` on, which holds `bytes`.
    #[must_use]
    pub const fn new(base: PhysAddr, bytes: &'a [u8]) -> Self {
        Self { base, bytes }
    }

    /// The physical address of the first byte.
    #[must_use]
    pub const fn base(&self) -> PhysAddr {
        self.base
    }

    /// The bytes of `range`, if all of it is here.
    #[must_use]
    pub fn get(&self, range: MemoryRange) -> Option<&'a [u8]> {
        slice_at(self.base, self.bytes, range).ok()
    }
}

impl PhysMemory for Arena<'_> {
    fn bytes(&self, range: MemoryRange) -> Result<&[u8], NotMemory> {
        slice_at(self.base, self.bytes, range)
    }
}

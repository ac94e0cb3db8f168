//! Memory for tests.

use alloc::vec;
use alloc::vec::Vec;

use crate::phys_memory::slice_at;
use crate::{MappedRange, MemoryRange, NotMemory, PhysAddr, PhysMemory, PhysMemoryWrite};

/// A piece of memory that stands for the physical range from `base` on.
///
/// It starts filled with `0xa5`, so that a byte that was never written shows.
#[derive(Clone, Debug)]
pub struct TestMemory {
    base: PhysAddr,
    bytes: Vec<u8>,
}

impl TestMemory {
    /// The `size` bytes from `base` on.
    #[must_use]
    pub fn new(base: PhysAddr, size: usize) -> Self {
        Self {
            base,
            bytes: vec![0xa5; size],
        }
    }

    /// The physical address of the first byte.
    #[must_use]
    pub const fn base(&self) -> PhysAddr {
        self.base
    }

    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The `length` bytes at `address`, if all of them are in the buffer.
    #[must_use]
    pub fn get(&self, address: PhysAddr, length: usize) -> Option<&[u8]> {
        let start = usize::try_from(address.0.checked_sub(self.base.0)?).ok()?;
        self.bytes.get(start..start.checked_add(length)?)
    }

    fn window(&mut self) -> MappedRange<'_> {
        MappedRange::new(self.base, &mut self.bytes)
    }
}

impl PhysMemory for TestMemory {
    fn bytes(&self, range: MemoryRange) -> Result<&[u8], NotMemory> {
        slice_at(self.base, &self.bytes, range)
    }
}

impl PhysMemoryWrite for TestMemory {
    /// # Panics
    ///
    /// If the bytes are not all inside the buffer.
    fn write(&mut self, address: PhysAddr, bytes: &[u8]) {
        self.window().write(address, bytes);
    }

    /// # Panics
    ///
    /// If the bytes are not all inside the buffer.
    fn zero(&mut self, address: PhysAddr, length: u64) {
        self.window().zero(address, length);
    }
}

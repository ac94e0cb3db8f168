//! Where the bytes of a handover go, and where they are read from.

use alloc::vec;
use alloc::vec::Vec;

use crate::PhysAddr;

/// Memory that a handover is written to.
///
/// All calls stay inside the arena of the [`Placement`](super::Placement).
/// Within one handover, a later write replaces an earlier one.
pub trait PhysMemWrite {
    /// Writes `bytes` at `address`.
    fn write(&mut self, address: PhysAddr, bytes: &[u8]);

    /// Writes `length` bytes of zero at `address`.
    fn zero(&mut self, address: PhysAddr, length: u64);
}

/// Memory that a handover is read from.
pub trait PhysMemRead {
    /// The `length` bytes at `address`; `None` where they are not all memory.
    fn get(&self, address: PhysAddr, length: u64) -> Option<&[u8]>;
}

impl<S: PhysMemWrite + ?Sized> PhysMemWrite for &mut S {
    fn write(&mut self, address: PhysAddr, bytes: &[u8]) {
        (**self).write(address, bytes);
    }

    fn zero(&mut self, address: PhysAddr, length: u64) {
        (**self).zero(address, length);
    }
}

/// Memory that is at the physical addresses from a base on.
#[derive(Debug)]
pub struct MappedRange<'a> {
    base: PhysAddr,
    bytes: &'a mut [u8],
}

impl<'a> MappedRange<'a> {
    /// The memory at `base`, whose bytes are `bytes`.
    pub const fn new(base: PhysAddr, bytes: &'a mut [u8]) -> Self {
        Self { base, bytes }
    }

    fn slot(&mut self, address: PhysAddr, length: usize) -> &mut [u8] {
        let start = (address.0 - self.base.0) as usize;
        &mut self.bytes[start..start + length]
    }
}

impl PhysMemWrite for MappedRange<'_> {
    /// # Panics
    ///
    /// If the bytes are not all inside the window.
    fn write(&mut self, address: PhysAddr, bytes: &[u8]) {
        self.slot(address, bytes.len()).copy_from_slice(bytes);
    }

    /// # Panics
    ///
    /// If the bytes are not all inside the window.
    fn zero(&mut self, address: PhysAddr, length: u64) {
        self.slot(address, length as usize).fill(0);
    }
}

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

impl PhysMemRead for TestMemory {
    fn get(&self, address: PhysAddr, length: u64) -> Option<&[u8]> {
        self.get(address, usize::try_from(length).ok()?)
    }
}

impl PhysMemWrite for TestMemory {
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

//! Reading and writing physical memory.

use crate::{MemoryRange, PhysAddr};

/// Physical memory that can be read.
///
/// ```
/// use warmbus_memory::{MappedRange, MemoryRange, PhysAddr, PhysMemory};
///
/// let mut bytes = [1, 2, 3, 4];
/// let memory = MappedRange::new(PhysAddr(0x4000_0000), &mut bytes);
/// let range = |start, size| MemoryRange::new(PhysAddr(start), size);
/// assert_eq!(memory.bytes(range(0x4000_0001, 2))?, [2, 3]);
/// let error = memory.bytes(range(0x4000_0001, 4)).unwrap_err();
/// assert_eq!(error.to_string(), "0x40000001-0x40000004 is not all memory, or is in use");
/// # Ok::<(), warmbus_memory::NotMemory>(())
/// ```
pub trait PhysMemory {
    /// The bytes of `range`.
    ///
    /// # Errors
    ///
    /// If they are not all memory that may be read.
    fn bytes(&self, range: MemoryRange) -> Result<&[u8], NotMemory>;
}

/// Physical memory that can be written.
///
/// The caller has made sure that all of it is memory: a write outside of it is
/// a mistake of the caller, and panics.
pub trait PhysMemoryWrite {
    /// Writes `bytes` at `address`.
    fn write(&mut self, address: PhysAddr, bytes: &[u8]);

    /// Writes `size` bytes of zero at `address`.
    fn zero(&mut self, address: PhysAddr, size: u64);
}

impl<M: PhysMemoryWrite + ?Sized> PhysMemoryWrite for &mut M {
    fn write(&mut self, address: PhysAddr, bytes: &[u8]) {
        (**self).write(address, bytes);
    }

    fn zero(&mut self, address: PhysAddr, size: u64) {
        (**self).zero(address, size);
    }
}

/// A range is not all memory that may be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{range} is not all memory, or is in use")]
pub struct NotMemory {
    /// The range.
    pub range: MemoryRange,
}

/// A slice that is the memory from a physical address on.
#[derive(Debug)]
pub struct MappedRange<'a> {
    base: PhysAddr,
    bytes: &'a mut [u8],
}

impl<'a> MappedRange<'a> {
    /// The memory at `base`, whose bytes are `bytes`.
    #[must_use]
    pub const fn new(base: PhysAddr, bytes: &'a mut [u8]) -> Self {
        Self { base, bytes }
    }

    fn slot(&mut self, address: PhysAddr, size: usize) -> &mut [u8] {
        let start = (address.0 - self.base.0) as usize;
        &mut self.bytes[start..start + size]
    }
}

impl PhysMemory for MappedRange<'_> {
    fn bytes(&self, range: MemoryRange) -> Result<&[u8], NotMemory> {
        slice_at(self.base, self.bytes, range)
    }
}

impl PhysMemoryWrite for MappedRange<'_> {
    /// # Panics
    ///
    /// If the bytes are not all in the range.
    fn write(&mut self, address: PhysAddr, bytes: &[u8]) {
        self.slot(address, bytes.len()).copy_from_slice(bytes);
    }

    /// # Panics
    ///
    /// If the bytes are not all in the range.
    fn zero(&mut self, address: PhysAddr, size: u64) {
        self.slot(address, size as usize).fill(0);
    }
}

/// The part of `bytes`, which are the memory from `base` on, that `range` is.
///
/// # Errors
///
/// If `range` is not all in `bytes`.
pub fn slice_at(base: PhysAddr, bytes: &[u8], range: MemoryRange) -> Result<&[u8], NotMemory> {
    let slice = || {
        let start = usize::try_from(range.start.0.checked_sub(base.0)?).ok()?;
        let end = start.checked_add(usize::try_from(range.size).ok()?)?;
        bytes.get(start..end)
    };
    slice().ok_or(NotMemory { range })
}

//! Physical memory: addresses, ranges, page sizes, and access to it.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod address;
pub mod bytes;
pub mod crc32;
mod page_size;
mod phys_memory;
mod range;
mod range_set;
pub mod search;
#[cfg(feature = "test-memory")]
mod test_memory;

pub use address::PhysAddr;
pub use page_size::PageSize;
pub use phys_memory::{MappedRange, NotMemory, PhysMemory, PhysMemoryWrite, slice_at};
pub use range::{MemoryRange, RamRegion};
pub use range_set::RangeSet;
#[cfg(feature = "test-memory")]
pub use test_memory::TestMemory;

/// Physical addresses end here: 52 bits, the most that arm64 has.
pub const ADDRESS_END: u64 = 1 << 52;

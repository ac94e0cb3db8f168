//! Physical memory: addresses, ranges, page sizes, and access to it.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod access;
mod address;
pub mod bytes;
pub mod crc32;
mod page_size;
mod range;
mod range_set;
pub mod search;

pub use access::{MappedRange, PhysMemRead, PhysMemWrite, TestMemory};
pub use address::PhysAddr;
pub use page_size::PageSize;
pub use range::{MemoryRange, RamRegion};
pub use range_set::RangeSet;

/// Physical addresses end here: 52 bits, the most that arm64 has.
pub const ADDRESS_END: u64 = 1 << 52;

//! Physical memory: addresses, ranges and sets of them, page sizes, and access
//! by physical address.
//!
//! The lowest layer of Warmbus: what every other crate needs and none of them
//! owns.
//!
//! ```
//! use warmbus_memory::{MemoryRange, PhysAddr, RangeSet};
//!
//! let ram = MemoryRange::new(PhysAddr(0x4000_0000), 0x4000_0000);
//! let kernel = MemoryRange::new(PhysAddr(0x4020_0000), 0x90_0000);
//! let free = RangeSet::from_iter([ram]).without([kernel]);
//! assert_eq!(free.highest_fit(0x1000, 0x1000, ram), Some(PhysAddr(0x7fff_f000)));
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::missing_errors_doc)]

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

/// One more than the highest physical address that arm64 has: 52 bits.
pub const ADDRESS_END: u64 = 1 << 52;

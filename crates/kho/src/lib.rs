//! Kexec HandOver (KHO) of Linux for firmware: lays out, writes and verifies
//! what Linux accepts from "the kernel before it", and reads what a kernel has
//! left, in `no_std` without `unsafe`.
//!
//! A handover is a small device tree (the *root tree*), a *preserved-memory
//! map* of the pages that must survive, some *scratch* memory that Linux may
//! use until it has read the map, and the data itself: *subtrees*, each found
//! by its name, and memory that they point to.
//!
//! | version | Linux | preserved-memory map | data of a subtree |
//! | --- | --- | --- | --- |
//! | [`kho-v1`](KhoAbi::V1) | 6.16 to 7.0 | list of bitmaps | a flattened device tree |
//! | [`kho-v3`](KhoAbi::V3) | 7.1 | radix tree | any bytes |
//! | [`kho-v4`](KhoAbi::V4) | 7.2, 7.3 | the same radix tree | any bytes |
//!
//! The subtree `example` with a buffer that it points to, for Linux 7.2 with
//! pages of 4 KiB:
//!
//! ```
//! use warmbus_kho::{
//!     Arena, InheritedState, KhoAbi, Layout, MappedRange, MemoryRange, PageSize, PhysAddr, verify,
//! };
//!
//! // What is handed over; sizes in bytes.
//! let layout = Layout::builder(KhoAbi::V4, PageSize::K4)
//!     .subtree("example", 16)
//!     .preserve("buffer", 1, 0x3000)
//!     .metadata("my-firmware-1.0")
//!     .build()?;
//!
//! // The firmware finds `layout.size()` free bytes, aligned to
//! // `layout.align()`, and scratch memory for Linux. A `Vec` stands for it.
//! let mut bytes = vec![0; layout.size() as usize];
//! let arena = PhysAddr(0x4800_0000);
//! let scratch = [MemoryRange::new(PhysAddr(0x8000_0000), 64 << 20)];
//! let memory = MappedRange::new(arena, &mut bytes);
//! let mut writer = layout.writer(arena, &scratch, InheritedState::default(), memory)?;
//! let buffer = writer.write("buffer", 0, b"what the buffer holds")?;
//! let mut data = buffer.start.0.to_le_bytes().to_vec();
//! data.extend_from_slice(&buffer.size.to_le_bytes());
//! writer.write_subtree("example", &data)?;
//! let handover = writer.finish()?;
//!
//! // Before the jump: is all of it in memory as a kernel expects it?
//! let in_use = [("scratch memory", scratch[0])];
//! verify(&layout, &handover, &[], Arena::new(arena, &bytes), &in_use)?;
//!
//! // What `/chosen` of the boot tree says, address and size each.
//! let chosen = [
//!     (warmbus_kho::FDT_PROPERTY, handover.root),
//!     (warmbus_kho::SCRATCH_PROPERTY, handover.scratch),
//! ];
//! assert_eq!(chosen[0].0, "linux,kho-fdt");
//! assert_eq!(chosen[0].1.size, 0x1000);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`PreviousHandover`] reads a handover as the next kernel would, and has the
//! [`InheritedState`] that another one passes on.
//!
//! # Numbers
//!
//! All sizes are in bytes and all addresses are physical. Numbers in a handover
//! are little endian, the byte order of the CPU, also those in the properties
//! of its trees: see [`native`]. Only the boot tree has big-endian cells.
#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::missing_errors_doc)]

extern crate alloc;

mod abi;
mod arena;
mod layout;
mod metadata;
pub mod native;
pub mod preserved_map;
mod previous_handover;
mod verify;
mod writer;

pub use abi::KhoAbi;
pub use arena::Arena;
pub use layout::{ARENA_BLOCK, Layout, LayoutBuilder, LayoutError};
pub use metadata::METADATA;
pub use preserved_map::Preserved;
pub use previous_handover::{
    InheritedState, PreviousHandover, PreviousHandoverError, Subtree, scratch_areas,
};
pub use verify::{Verified, VerifyError, verify};
pub use warmbus_memory::{
    MappedRange, MemoryRange, PageSize, PhysAddr, PhysMemory, PhysMemoryWrite, RangeSet,
};
pub use writer::{BuildError, Handover, HandoverWriter, WrittenSubtree};

/// Scratch areas that the array has space for.
pub const MAX_SCRATCH_AREAS: usize = 256;

/// The property of `/chosen` in the boot tree that has address and size of the
/// root tree, in the cells of the root node.
pub const FDT_PROPERTY: &str = "linux,kho-fdt";

/// The property of `/chosen` in the boot tree that has address and size of the
/// array of scratch areas, in the cells of the root node.
pub const SCRATCH_PROPERTY: &str = "linux,kho-scratch";

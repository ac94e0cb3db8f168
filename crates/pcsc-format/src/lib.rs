//! The handover format of the PCI configuration space cache.
//!
//! `docs/pcsc-format.md` describes every byte. [`build()`] writes the handover
//! of a cache, [`verify()`] checks it before the jump, and [`Subtree`],
//! [`Index`] and [`Block`] read what another program has written.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod block;
mod block_error;
mod build;
mod decode;
mod decode_error;
mod export;
mod index;
mod layout;
mod previous;
mod subtree;
mod verify;
mod wire;

pub use block::{
    CapabilityRecord, FunctionRecord, MAX_CAPABILITIES, MAX_MASKS, MAX_RANGES, MAX_ROUTINGS,
    MaskRecord, RoutingRecord, VirtualRecord,
};
pub use block_error::BlockError;
pub use build::{BuildError, Handover, Placement, build, build_inheriting};
pub use decode::{Block, BlockBase, BlockVf};
pub use decode_error::{DecodeError, DecodeProblem};
pub use export::HandoverRecords;
pub use index::{Index, IndexRecord};
pub use layout::{Layout, LayoutError};
pub use previous::discard_cache;
pub use subtree::{Subtree, SubtreeError, SubtreeExtension};
pub use verify::verify;
pub use warmbus_kho::VerifyError;
pub use wire::BLOCK_SIZE;

/// The four bytes that an index begins with.
pub const INDEX_MAGIC: [u8; 4] = wire::INDEX_MAGIC;

//! The handover format of the PCI configuration space cache.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod block;
mod block_error;
mod build;
mod export;
mod index;
mod layout;
mod verify;

pub use block::{
    CapabilityRecord, FunctionRecord, MAX_ROUTINGS, MaskRecord, RoutingRecord, VirtualRecord,
};
pub use block_error::BlockError;
pub use build::{BuildError, Handover, Placement, build, build_inheriting};
pub use export::HandoverRecords;
pub use layout::{Layout, LayoutError};
pub use verify::verify;
pub use warmbus_kho::VerifyError;

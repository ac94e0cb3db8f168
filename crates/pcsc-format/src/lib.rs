//! The handover format of the PCI configuration space cache.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod absent;
pub mod block;
pub mod build;
pub mod gather;
mod index;
pub mod layout;
pub mod verify;

pub use block::{
    BlockInput, CapabilityRecord, MOST_ROUTINGS, MaskRecord, RoutingRecord, VirtualRecord,
};
pub use build::{BuildError, Handover, Placement, build, build_upon};
pub use gather::Gathered;
pub use layout::{Layout, LayoutError};
pub use verify::{VerifyError, verify};

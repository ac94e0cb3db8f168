//! What the end-to-end tests share: booting a machine and keeping all that it,
//! and QEMU about it, has to say.
#![expect(
    clippy::missing_panics_doc,
    reason = "a panic is how these report to a test that it failed"
)]

pub mod boot;
pub mod consumer;
pub mod handover;
pub mod linux;
pub mod pci;
pub mod prove;
pub mod simulated;
pub mod tree;

pub use boot::{Boot, Lab, booted};
pub use xtask::qemu::debugger;

//! Starting QEMU and listening to it.

mod machine;
pub mod roms;
mod running;
mod uefi;

pub use machine::{INITRD_AT, KERNEL_AT, Machine, Payload};
pub use running::{Ended, Log, Running, SILENCE};
pub use uefi::{LOAD_DRIVER, UefiStart};

//! Starting QEMU and listening to it.

pub mod debugger;
mod machine;
pub mod roms;
mod running;
mod uefi;
mod uefi_loaders;

pub use machine::{INITRD_AT, KERNEL_AT, Machine, Payload};
pub use running::{Ended, Log, Running, SILENCE};
pub use uefi::{LOAD_DRIVER, UefiStart};
pub use uefi_loaders::UefiLoader;

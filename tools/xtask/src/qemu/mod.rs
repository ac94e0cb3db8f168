//! Starting QEMU and listening to it.

pub mod debugger;
pub mod hypervisor;
mod machine;
pub mod roms;
mod running;
mod secure_boot;
mod uefi;
mod uefi_loaders;
mod uki;
mod variables;

pub use machine::{INITRD_AT, KERNEL_AT, Machine, Payload};
pub use running::{Ended, Log, Running, SILENCE};
pub use secure_boot::{Signed, ensure_secure_boot};
pub use uefi::{LOAD_DRIVER, PROGRAM, SCRIPT, UefiStart, volume};
pub use uefi_loaders::{UefiLoader, strict_nx_flash};

//! Starting an arm64 Linux: kernel images, the payload of a boot tree, the
//! memory plan and the device tree that Linux is started with.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod chosen;
pub mod combined_initrd;
pub mod command_line;
pub mod constants;
pub mod decompress;
pub mod detect;
pub mod image;
pub mod memory_plan;
pub mod payload;
pub mod pci_parameters;

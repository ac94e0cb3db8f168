//! What it takes to start an arm64 Linux: its image, its memory, its tree.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod bundle;
pub mod command_line;
pub mod detect;
pub mod devicetree;
pub mod image;
pub mod load_options;
pub mod memory;
pub mod payload;
pub mod uefi;
pub mod unpack;

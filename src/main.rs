//! Warmbus, the bare-metal binary: what touches hardware. What it decides is
//! in the crates below `crates/`. [`start`] is where Rust begins, and [`boot`]
//! the story of one boot.
#![no_std]
#![no_main]

extern crate alloc;

mod after_uefi;
mod arch;
mod boot;
mod boot_fdt;
mod console;
mod image;
mod kernel_entry;
mod logger;
mod mem;
mod mmio;
mod recovery;
mod report_output;
mod start;
mod uefi;

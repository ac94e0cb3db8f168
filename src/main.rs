//! Warmbus, the bare-metal binary: what touches hardware. What it decides is
//! in the crates below `crates/`; [`boot`] is the story of one boot.
#![no_std]
#![no_main]

extern crate alloc;

mod arch;
mod boot;
mod boot_fdt;
mod chainload;
mod console;
mod image;
mod kernel_entry;
mod logger;
mod mem;
mod mmio;
mod parallel_capture;
mod phase_times;
mod pipeline;
mod previous_handover;
mod recovery;
mod report_output;
mod timed_access;
mod uefi;

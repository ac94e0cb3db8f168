//! The pipeline of a boot.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod after_uefi;
pub mod attempts;
pub mod capture;
pub mod decide;
pub mod fdt_additions;
pub mod handover;
pub mod heap_region;
pub mod host_policy;
pub mod hosts;
pub mod load_options;
pub mod loader;
pub mod measured_access;
pub mod memory;
pub mod memory_layout;
pub mod monotonic;
pub mod options;
pub mod pci_words;
pub mod phase;
pub mod pipeline;
pub mod previous_boot;
pub mod recorder;
pub mod report;
pub mod reserve;
pub mod resident;
pub mod start_policy;
pub mod started_kernel;
pub mod unassigned;
mod unplaceable;

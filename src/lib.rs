//! Warmbus, the thinking half.
//!
//! Everything that decides something lives here: walking PCI Express,
//! assigning buses and BARs, deciding which configuration bytes may be cached,
//! and laying out what is handed to Linux. It has no `unsafe`, no global state
//! and no knowledge of the machine it runs on, so all of it runs and is tested
//! on the host. The doing half, `src/firmware`, supplies the hardware.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod board;
pub mod kho;
pub mod linux;
pub mod machine;
mod order;
pub mod paging;
pub mod pci;
pub mod pcsc;
pub mod report;
mod search;
pub mod size_class;
pub mod time;

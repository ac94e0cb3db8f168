//! The PCI configuration space cache (PCSC).
//!
//! [`ConfigCache`] stands in front of a [`ConfigAccess`] and keeps, for each
//! function, the bytes that may be kept. Which ones may is decided by one table
//! of rows a structure, against which both capability lists are walked.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod bitmap;
mod byte_class;
mod capabilities;
mod capture;
mod config_cache;
mod constant_bits;
mod function_cache;
mod infer;
mod invalidate;
mod masks;
pub mod names;
mod statistics;
mod vf;
mod virtual_function;

pub use byte_class::{ByteClass, InvalidatedBy, WriteEffect};
pub use capture::{Difference, SelfCheck};
pub use config_cache::ConfigCache;
pub use constant_bits::ConstantBits;
pub use function_cache::FunctionCache;
pub use masks::WriteMask;
pub use statistics::Statistics;

use warmbus_pci::{ConfigAccess, ConfigOffset, Probe, Sbdf, Width, registers};

/// Reads Vendor and Device ID from the hardware.
fn read_ids<A: ConfigAccess>(access: &mut A, function: Sbdf) -> u32 {
    access.read(
        function,
        ConfigOffset::wrapping(registers::VENDOR_ID),
        Width::Dword,
    )
}

/// Whether `function` answers now: tells a register full of ones from a read
/// that nobody completed. A virtual function has no IDs, but the class code of
/// its physical function (PCIe 9.3.4.1), which is never all ones.
fn answers<A: ConfigAccess>(access: &mut A, function: Sbdf, is_virtual: bool) -> bool {
    if is_virtual {
        read_class(access, function) != u32::MAX
    } else {
        is_valid_id(read_ids(access, function))
    }
}

/// Reads Revision ID and Class Code from the hardware.
fn read_class<A: ConfigAccess>(access: &mut A, function: Sbdf) -> u32 {
    access.read(
        function,
        ConfigOffset::wrapping(registers::REVISION),
        Width::Dword,
    )
}

/// Whether `ids` is what a function that is there and ready returns.
fn is_valid_id(ids: u32) -> bool {
    matches!(Probe::from_ids(ids), Probe::Present { .. })
}

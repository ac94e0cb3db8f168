//! The PCI configuration space cache (PCSC) for firmware, in `no_std` without
//! `unsafe`.
//!
//! [`ConfigCache`] stands in front of a [`ConfigAccess`] and caches, for each
//! function, the bytes that the hardware does not change by itself. One table
//! of rows for each capability structure decides which those are. The cache is
//! transparent: a read returns what the hardware would return, and a write
//! reaches the hardware and invalidates what it may change.
//!
//! ```
//! use warmbus_pci::{
//!     ConfigAccess, ConfigOffset, ConfigSpace, CountingAccess, DumpedConfigSpace, Probe, Sbdf, Width,
//! };
//! use warmbus_pcsc::ConfigCache;
//!
//! // Recorded with `lspci -x`; in firmware, `HostBridgeAccess` reads the hardware.
//! let hardware = DumpedConfigSpace::parse(
//!     "00:02.0 Display controller: Device 1234:1111 (rev 02)\n\
//!      00: 34 12 11 11 07 00 00 00 02 00 80 03 00 00 00 00\n\
//!      10: 08 00 00 10 00 00 00 00 00 00 00 11 00 00 00 00\n\
//!      20: 00 00 00 00 00 00 00 00 00 00 00 00 f4 1a 00 11\n\
//!      30: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00\n",
//! )?;
//! let mut config = ConfigCache::new(CountingAccess::new(hardware));
//! let display = Sbdf::new(0, 0, 2, 0);
//!
//! // The first read of the Vendor ID adds the function to the cache, and
//! // `walk` reads its capability lists. It has none.
//! let ids = Probe::Present { vendor_id: 0x1234, device_id: 0x1111 };
//! assert_eq!(config.probe(display), ids);
//! assert_eq!(config.walk(display), Some(vec![]));
//!
//! // One read of each dword that has a cacheable byte.
//! config.capture(display);
//! let reads = config.access().counts().reads;
//!
//! // From now on such reads do not reach the hardware.
//! let class = ConfigOffset::wrapping(0x08);
//! assert_eq!(config.read(display, class, Width::Dword), 0x0380_0002);
//! assert_eq!(config.access().counts().reads, reads);
//! assert_eq!(config.statistics().hits, 1);
//!
//! // The Status register changes by itself: it is always read from the hardware.
//! let status = ConfigOffset::wrapping(0x06);
//! assert_eq!(config.read(display, status, Width::Word), 0);
//! assert_eq!(config.access().counts().reads, reads + 1);
//!
//! // Every cached byte is what the hardware returns.
//! let check = config.self_check();
//! assert!(check.bytes > 40 && check.differences.is_empty());
//! # Ok::<(), warmbus_pci::DumpError>(())
//! ```
//!
//! # What can be relied on
//!
//! - A byte is served only where the specification lets nothing but a write of
//!   configuration space change it, and where that write is known to this crate.
//! - A function that stops responding is evicted, with everything below it.
//! - Nothing that a device returns makes a function of this crate panic or run
//!   without end.
//! - `warmbus_pci::enumerate`, `assign` and `enable_vfs` run on the cache as
//!   on any other [`ConfigSpace`](warmbus_pci::ConfigSpace).
//!
//! [`ByteClass`] has the classes of bytes, [`InvalidatedBy`] and
//! [`WriteEffect`] what invalidates them. [`FunctionCache`] has the bytes of one
//! function, which another program may export.
#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::missing_errors_doc)]

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

/// Whether `function` answers now: distinguishes a register full of ones from
/// a read that nobody completed. A virtual function has no IDs, but the class code of
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

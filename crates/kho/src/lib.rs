//! Kexec HandOver: what Linux accepts from "the kernel before it".
//!
//! A handover is a small device tree (the *root tree*), a *preserved-memory
//! map* that tells which pages must survive, some *scratch* memory that Linux
//! may use until it has read the map, and the data itself.
//!
//! Numbers in all of this are little endian, the byte order of the CPU, never
//! the big-endian cells of an ordinary device tree. See [`native`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod native;
pub mod preserved_map;
mod previous_handover;

use core::fmt;

pub use previous_handover::{
    InheritedState, PreviousHandover, PreviousHandoverError, Subtree, scratch_areas,
};

/// An arena lies within one block of this many bytes: Linux 7.3 makes scratch
/// of every other one.
pub const ARENA_BLOCK: u64 = 1 << 30;

/// Scratch areas that the array has room for.
pub const MAX_SCRATCH_AREAS: usize = 256;

/// The subtree that says which kernel was before.
pub const METADATA: &str = "kexec-metadata";

/// A released version of the handover ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KhoAbi {
    /// `kho-v1`: Linux 6.16 to 7.0, a list of bitmaps.
    V1,
    /// `kho-v3`: Linux 7.1, a radix tree.
    V3,
    /// `kho-v4`: Linux 7.2 and 7.3, the same radix tree.
    V4,
}

impl KhoAbi {
    /// The released versions, ascending.
    pub const ALL: [Self; 3] = [Self::V1, Self::V3, Self::V4];

    /// The strings that the root tree claims compatibility with. Linux looks
    /// for its own anywhere in the list.
    #[must_use]
    pub const fn compatible(self) -> &'static [&'static str] {
        match self {
            Self::V1 => &["kho-v1"],
            Self::V3 => &["kho-v3", "kho-v4"],
            Self::V4 => &["kho-v4", "kho-v3"],
        }
    }

    /// Whether the preserved-memory map is a radix tree; if not, it is a list
    /// of bitmaps.
    #[must_use]
    pub const fn has_radix_tree(self) -> bool {
        !matches!(self, Self::V1)
    }
}

impl fmt::Display for KhoAbi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.compatible()[0])
    }
}

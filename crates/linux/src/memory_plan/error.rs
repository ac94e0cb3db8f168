//! Why a plan cannot be made.

use super::MAX_TREE_SIZE;

/// Why a piece cannot be placed. Ordered by how far the search came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum PlanError {
    /// There is no RAM at all.
    #[error("there is no RAM to place the kernel in")]
    NoRam,
    /// The device tree is larger than Linux accepts.
    #[error(
        "the device tree has {size:#x} bytes, more than the {MAX_TREE_SIZE:#x} that Linux accepts"
    )]
    TreeTooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// More than half of the RAM would be scratch.
    #[error("a handover takes {} MiB of scratch memory (in steps of {} MiB), more than half of the {} MiB of RAM",
                size >> 20,
                align >> 20,
                ram >> 20)]
    ScratchTooLarge {
        /// Bytes of scratch, rounded up.
        size: u64,
        /// The alignment that it is rounded to.
        align: u64,
        /// Bytes of RAM.
        ram: u64,
    },
    /// There is no place for a scratch area.
    #[error("there is no place for {} MiB of scratch memory aligned to {} MiB{}; the largest has {} MiB",
                size >> 20,
                align >> 20,
                if *low { " below 4 GiB" } else { "" },
                largest >> 20)]
    Scratch {
        /// Bytes of the area.
        size: u64,
        /// Its alignment.
        align: u64,
        /// Bytes of the largest area that can be placed.
        largest: u64,
        /// It has to be below 4 GiB.
        low: bool,
    },
    /// There is no place for the kernel.
    #[error("there is no place for the {size:#x} bytes of the kernel")]
    Kernel {
        /// Bytes in memory.
        size: u64,
    },
    /// There is no place for the initrd near the kernel.
    #[error("there is no place for the {size:#x} bytes of the initrd near the kernel")]
    Initrd {
        /// Bytes.
        size: u64,
    },
    /// There is no place for the device tree.
    #[error("there is no place for the {size:#x} bytes of the device tree")]
    Tree {
        /// Bytes.
        size: u64,
    },
    /// There is no place for the handover.
    #[error("there is no place for the {size:#x} bytes of the handover in one block of 1 GiB")]
    Arena {
        /// Bytes.
        size: u64,
    },
}

//! Why something could not be mapped.

use crate::Memory;

/// Why something could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PagingError {
    /// The range ends above the addresses of the processor.
    #[error(
        "{size:#x} bytes at {first:#x} are beyond the {address_bits} address bits of this processor"
    )]
    OutOfReach {
        /// First address of the range.
        first: u64,
        /// Bytes of the range.
        size: u64,
        /// Physical address bits of the processor.
        address_bits: u8,
    },
    /// A page of the range is already mapped as something else.
    #[error(
        "{size:#x} bytes at {address:#x} cannot be mapped as {wanted:?}: they are mapped as something else"
    )]
    Conflict {
        /// First address of the page or block that is already mapped.
        address: u64,
        /// Bytes of that page or block.
        size: u64,
        /// What the range was to be mapped as.
        wanted: Memory,
    },
    /// No table is left.
    #[error("all {tables} translation tables are used up at {address:#x}")]
    OutOfTables {
        /// The address that could not be mapped.
        address: u64,
        /// Tables in the pool.
        tables: usize,
    },
}

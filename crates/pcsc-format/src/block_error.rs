//! What is wrong with a record that no data block can be written from.

use thiserror::Error;
use warmbus_pci::{ConfigOffset, Sbdf};

use crate::block::MAX_RANGES;

/// Why a function cannot be handed over. Each of these is a mistake in what
/// filled in the [`FunctionRecord`](crate::FunctionRecord).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BlockError {
    /// The configuration space has another size than 256 or 4096 bytes, or
    /// what is given of it is more, or no multiple of 8.
    #[error(
        "{function}: the cache holds {given} bytes of a configuration space of {size}, which has to be 256 or 4096"
    )]
    DataSize {
        /// The function.
        function: Sbdf,
        /// Bytes of the space.
        size: u16,
        /// Bytes given.
        given: usize,
    },
    /// A bitmap does not have one bit for each byte.
    #[error("{function}: a bitmap of the cache has {size} bytes instead of {expected}")]
    BitmapSize {
        /// The function.
        function: Sbdf,
        /// Bytes given.
        size: usize,
        /// Bytes expected.
        expected: usize,
    },
    /// There are more ranges of synthesised bytes than a block has space for.
    #[error("{function}: {ranges} ranges of bytes that were not read are more than {MAX_RANGES}")]
    Ranges {
        /// The function.
        function: Sbdf,
        /// Ranges given.
        ranges: usize,
    },
    /// A byte is marked as cached but not as cacheable.
    #[error("{function}: the byte at {offset} is cached although it may not be")]
    NotCacheable {
        /// The function.
        function: Sbdf,
        /// The first such byte.
        offset: ConfigOffset,
    },
}

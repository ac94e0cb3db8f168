//! What is wrong with an index or a data block that was read.

use thiserror::Error;
use warmbus_memory::crc32;
use warmbus_pci::{ConfigOffset, Sbdf};

use crate::wire::{CRC_OFFSET, VERSION};

/// Why an index or a data block cannot be used, and which byte of it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{problem} (at offset {offset:#x})")]
pub struct DecodeError {
    offset: usize,
    problem: DecodeProblem,
}

impl DecodeError {
    pub(crate) const fn new(offset: usize, problem: DecodeProblem) -> Self {
        Self { offset, problem }
    }

    pub(crate) const fn check_generation(
        offset: usize,
        found: u64,
        expected: u64,
    ) -> Result<(), Self> {
        if found == expected {
            return Ok(());
        }
        let problem = DecodeProblem::Generation { found, expected };
        Err(Self::new(offset, problem))
    }

    /// Where in the index or the block the first byte is that is wrong.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// What is wrong there.
    #[must_use]
    pub const fn problem(&self) -> DecodeProblem {
        self.problem
    }
}

/// What is wrong with an index or a data block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeProblem {
    /// It has not all bytes that it must have.
    #[error("it is cut off after {size} bytes")]
    TooShort {
        /// Bytes that there are.
        size: usize,
    },
    /// It does not begin with its magic.
    #[error("its magic is missing")]
    Magic,
    /// Its version is not known.
    #[error("it has version {version} instead of {VERSION}")]
    Version {
        /// The version.
        version: u16,
    },
    /// The sizes in the header of the index do not match its size.
    #[error(
        "{count} records of {record} bytes behind {header} do not make the {size} bytes of the index"
    )]
    IndexSize {
        /// Records.
        count: u32,
        /// Bytes of a record.
        record: u32,
        /// Bytes of the header.
        header: u16,
        /// Bytes of the index.
        size: u64,
    },
    /// The header of the extension, or all of it, cannot have this size.
    #[error("the extension cannot have {used} bytes with a header of {header}")]
    ExtensionSize {
        /// Bytes of the header.
        header: u16,
        /// Bytes used, header included.
        used: u32,
    },
    /// The checksum does not match.
    #[error("it has the CRC-32 {computed:#010x}, its header {stored:#010x}")]
    Crc {
        /// The CRC-32 in the header.
        stored: u32,
        /// The CRC-32 of the bytes.
        computed: u32,
    },
    /// A record of the index does not follow the one before it.
    #[error("record {number} of the index is not in order")]
    Order {
        /// Its number, from 0.
        number: usize,
    },
    /// It belongs to another handover.
    #[error("it is of generation {found:#x}, the tree of {expected:#x}")]
    Generation {
        /// Its stamp.
        found: u64,
        /// The stamp of the tree.
        expected: u64,
    },
    /// It is the block of another function.
    #[error("it is the block of {found}")]
    Function {
        /// The function whose block it is.
        found: Sbdf,
    },
    /// A configuration space has another size.
    #[error("a configuration space has 256 or 4096 bytes, not {size}")]
    SpaceSize {
        /// Bytes of the space.
        size: u16,
    },
    /// A byte is marked as cached but not as cacheable.
    #[error("the byte at {offset} is cached, but may not be")]
    NotCacheable {
        /// The byte of configuration space.
        offset: ConfigOffset,
    },
    /// Records are not all in the extension.
    #[error("{count} records of {record} bytes at {start:#x} do not fit")]
    Records {
        /// How many there are.
        count: u16,
        /// Bytes of each.
        record: u16,
        /// Where they start in the block.
        start: u32,
    },
    /// A virtual function has not exactly one routing record.
    #[error("a virtual function has {count} routing records instead of 1")]
    Routing {
        /// How many there are.
        count: u16,
    },
}

/// Checks the CRC-32 of `bytes`, whose header is at `header`, against `stored`.
pub(crate) fn checked_crc(bytes: &[u8], header: usize, stored: u32) -> Result<(), DecodeError> {
    let offset = header + CRC_OFFSET;
    let computed = crc32::checksum_around(bytes, offset).unwrap_or(!stored);
    if computed == stored {
        return Ok(());
    }
    let problem = DecodeProblem::Crc { stored, computed };
    Err(DecodeError::new(offset, problem))
}

//! The sorted index of a handover: function to data block by binary search.
//!
//! `docs/pcsc-format.md` is the description of the format.

use alloc::vec::Vec;

use warmbus_memory::crc32;
use warmbus_pci::{PhysAddr, Sbdf};
use zerocopy::{FromBytes, IntoBytes};

use crate::FunctionRecord;
use crate::decode_error::{DecodeError, DecodeProblem, checked_crc};
use crate::wire::{INDEX_MAGIC, IndexEntry, IndexHeader, VERSION};

/// Bytes of the header of the index.
const HEADER: usize = size_of::<IndexHeader>();
/// Bytes of a record of the index.
const RECORD: usize = size_of::<IndexEntry>();

/// Bytes of the index of `functions` functions.
pub(super) const fn size(functions: usize) -> u64 {
    HEADER as u64 + functions as u64 * RECORD as u64
}

/// The index of `blocks`, which ascend by function. Their data blocks are at
/// `addresses`, `stride` bytes apart.
pub(super) fn encode(
    blocks: &[FunctionRecord<'_>],
    addresses: &[PhysAddr],
    stride: u64,
    generation: u64,
) -> Vec<u8> {
    let size = size(blocks.len());
    let mut header = IndexHeader {
        magic: INDEX_MAGIC,
        version: VERSION.into(),
        header_size: (HEADER as u16).into(),
        count: (blocks.len() as u32).into(),
        size: size.into(),
        generation: generation.into(),
        record_size: (RECORD as u32).into(),
        stride: stride.into(),
        ..IndexHeader::default()
    };
    let mut bytes = Vec::with_capacity(size as usize);
    bytes.extend_from_slice(header.as_bytes());
    for (block, address) in blocks.iter().zip(addresses) {
        let entry = IndexEntry {
            routing_id: block.sbdf.routing_id().into(),
            segment: block.sbdf.segment().into(),
            space_size: block.size.into(),
            reserved: 0.into(),
            block: address.0.into(),
        };
        bytes.extend_from_slice(entry.as_bytes());
    }
    header.crc = crc32::checksum(&bytes).into();
    bytes[..HEADER].copy_from_slice(header.as_bytes());
    bytes
}

/// A record of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexRecord {
    /// The function.
    pub sbdf: Sbdf,
    /// Bytes of its configuration space, 256 or 4096.
    pub space_size: u16,
    /// Where its data block is.
    pub block: PhysAddr,
}

/// The sorted index as it was read from memory, checked.
#[derive(Clone, Copy, Debug)]
pub struct Index<'a> {
    header: &'a IndexHeader,
    records: &'a [u8],
    record_size: usize,
}

impl<'a> Index<'a> {
    /// Checks the index that `bytes` are all of: its sizes, its CRC-32, and
    /// that its records ascend.
    ///
    /// # Errors
    ///
    /// The first [`DecodeError`], with the offset in the index.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let short = DecodeError::new(0, DecodeProblem::TooShort { size: bytes.len() });
        let (header, _) = IndexHeader::ref_from_prefix(bytes).map_err(|_| short)?;
        if header.magic != INDEX_MAGIC {
            return Err(DecodeError::new(0, DecodeProblem::Magic));
        }
        let version = header.version.get();
        if version != VERSION {
            return Err(DecodeError::new(4, DecodeProblem::Version { version }));
        }
        let (start, count) = (header.header_size.get(), header.count.get());
        let record = header.record_size.get();
        let whole = u64::from(count)
            .checked_mul(record.into())
            .and_then(|records| records.checked_add(start.into()));
        let size = bytes.len() as u64;
        let records = bytes.get(usize::from(start)..).unwrap_or_default();
        if usize::from(start) < HEADER
            || (record as usize) < RECORD
            || whole != Some(size)
            || header.size.get() != size
        {
            let problem = DecodeProblem::IndexSize {
                count,
                record,
                header: start,
                size,
            };
            return Err(DecodeError::new(8, problem));
        }
        checked_crc(bytes, 0, header.crc.get())?;
        let index = Self {
            header,
            records,
            record_size: record as usize,
        };
        let mut last = None;
        for (number, found) in index.records().enumerate() {
            if last.is_some_and(|last| last >= found.sbdf) {
                let offset = usize::from(start) + number * index.record_size;
                return Err(DecodeError::new(offset, DecodeProblem::Order { number }));
            }
            last = Some(found.sbdf);
        }
        Ok(index)
    }

    /// Checks that the index belongs to the handover with this stamp, which the
    /// subtree has.
    ///
    /// # Errors
    ///
    /// [`DecodeProblem::Generation`] if it does not.
    pub fn check_generation(&self, expected: u64) -> Result<(), DecodeError> {
        DecodeError::check_generation(24, self.generation(), expected)
    }

    /// The generation stamp.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.header.generation.get()
    }

    /// Bytes from one data block to the next.
    #[must_use]
    pub const fn stride(&self) -> u64 {
        self.header.stride.get()
    }

    /// Number of records.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.records.len() / self.record_size
    }

    /// Whether there is no record.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The record with this number, from 0.
    #[must_use]
    pub fn get(&self, number: usize) -> Option<IndexRecord> {
        let start = number.checked_mul(self.record_size)?;
        let entry = IndexEntry::read_from_prefix(self.records.get(start..)?);
        entry.ok().map(|(entry, _)| entry.into())
    }

    /// All records, ascending by function.
    pub fn records(&self) -> impl Iterator<Item = IndexRecord> + '_ {
        (0..self.len()).filter_map(|number| self.get(number))
    }

    /// The record of `function`, by binary search.
    #[must_use]
    pub fn find(&self, function: Sbdf) -> Option<IndexRecord> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let found = self.get(middle)?;
            match found.sbdf.cmp(&function) {
                core::cmp::Ordering::Equal => return Some(found),
                core::cmp::Ordering::Less => low = middle + 1,
                core::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

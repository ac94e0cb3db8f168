//! The index and the data blocks as they are in memory: all numbers are little
//! endian, and nothing is aligned.
//!
//! `docs/pcsc-format.md` is the description of the format.

use warmbus_kho::PhysAddr;
use warmbus_pci::Sbdf;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{CapabilityRecord, IndexRecord, MaskRecord, RoutingRecord};

/// Bytes of a data block, extension included, whatever the page size.
pub const BLOCK_SIZE: u64 = 8192;

/// Bytes of the space, and bits of its bitmaps.
pub(crate) const SPACE: usize = 4096;
/// Offset of the extension in a block.
pub(crate) const EXTENSION: usize = SPACE + 2 * BITMAP;
/// Bytes of a bitmap, one bit for each byte of the space.
pub(crate) const BITMAP: usize = SPACE / 8;
/// Bytes of the extension.
pub(crate) const EXTENSION_SIZE: usize = BLOCK_SIZE as usize - EXTENSION;

/// What every structure begins with.
pub(crate) const VERSION: u16 = 1;
pub(crate) const BLOCK_MAGIC: [u8; 4] = *b"WBBX";
pub(crate) const INDEX_MAGIC: [u8; 4] = *b"WBIX";

/// Where the CRC-32 is, in the header of a block and in that of the index.
pub(crate) const CRC_OFFSET: usize = 12;

/// Defines structures that are read from bytes and written to them.
macro_rules! wire {
    ($($(#[$doc:meta])* struct $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
            #[repr(C)]
            pub(crate) struct $name {
                $($(#[$field_doc])* pub(crate) $field: $type,)*
            }
        )*
    };
}

wire! {
    /// The header of the extension of a block.
    struct BlockHeader {
        magic: [u8; 4],
        version: U16,
        header_size: U16,
        /// Bytes from here to the end of the last record.
        used: U32,
        crc: U32,
        segment: U16,
        routing_id: U16,
        space_size: U16,
        flags: U16,
        generation: U64,
        masks: Table,
        capabilities: Table,
        cacheable_bytes: U16,
        cached_bytes: U16,
        routing_count: U16,
        synthesised_count: U16,
        /// Offsets in the block; 0 if there is none.
        routing_offset: U16,
        synthesised_offset: U16,
        /// Routing ID of the physical function, and the number of the VF.
        physical: U16,
        vf_number: U16,
        /// Physical address of the configuration space of the function, 0 if it is
        /// not known.
        config_address: U64,
    }

    /// Where the records of a kind are, for a reader that does not know all
    /// their fields.
    struct Table {
        /// Offset of the first record in the block.
        offset: U32,
        count: U16,
        record_size: U16,
    }

    /// A [`MaskRecord`].
    struct MaskEntry {
        offset: U16,
        flags: U16,
        writable: U32,
        fixed: U32,
        value: U32,
    }

    /// A [`CapabilityRecord`].
    struct CapabilityEntry {
        id: U16,
        offset: U16,
        version: u8,
        reserved: [u8; 3],
    }

    /// A [`RoutingRecord`].
    struct RoutingEntry {
        first: U16,
        last: U16,
        offset: U16,
        stride: U16,
        flags: U16,
        reserved: [u8; 6],
    }

    /// A range of synthesised bytes.
    struct RangeEntry {
        start: U16,
        length: U16,
    }

    /// The header of the index.
    struct IndexHeader {
        magic: [u8; 4],
        version: U16,
        header_size: U16,
        count: U32,
        crc: U32,
        /// Bytes of the whole index.
        size: U64,
        generation: U64,
        record_size: U32,
        reserved: U32,
        stride: U64,
        reserved_too: [u8; 16],
    }

    /// An [`IndexRecord`].
    struct IndexEntry {
        /// The function number, in two halves.
        routing_id: U16,
        segment: U16,
        space_size: U16,
        reserved: U16,
        block: U64,
    }
}

impl BlockHeader {
    /// Flag: not all masks fit.
    pub(crate) const MASKS_TRUNCATED: u16 = 1;
    /// Flag: the capabilities are not complete.
    pub(crate) const CAPABILITIES_TRUNCATED: u16 = 2;
    /// Flag: a virtual function.
    pub(crate) const VIRTUAL: u16 = 4;
    /// Flag: a virtual function whose VF Enable is clear.
    pub(crate) const DISABLED: u16 = 8;
    /// Flag: some bytes follow from the specification and were not read.
    pub(crate) const SYNTHESISED: u16 = 16;

    pub(crate) const fn sbdf(&self) -> Sbdf {
        Sbdf::from_routing_id(self.segment.get(), self.routing_id.get())
    }
}

impl MaskEntry {
    /// Flag: the fixed bits have the value that it gives.
    const VALUE_GIVEN: u16 = 1;
}

impl From<&MaskRecord> for MaskEntry {
    fn from(mask: &MaskRecord) -> Self {
        let value = mask.value.map(|value| value & mask.fixed);
        let flags = value.map_or(0, |_| Self::VALUE_GIVEN);
        Self {
            offset: mask.offset.into(),
            flags: flags.into(),
            writable: mask.writable.into(),
            fixed: mask.fixed.into(),
            value: value.unwrap_or(0).into(),
        }
    }
}

impl From<MaskEntry> for MaskRecord {
    fn from(entry: MaskEntry) -> Self {
        let has_value = entry.flags.get() & MaskEntry::VALUE_GIVEN != 0;
        Self {
            offset: entry.offset.get(),
            writable: entry.writable.get(),
            fixed: entry.fixed.get(),
            value: has_value.then(|| entry.value.get()),
        }
    }
}

impl From<&CapabilityRecord> for CapabilityEntry {
    fn from(capability: &CapabilityRecord) -> Self {
        Self {
            id: capability.id.into(),
            offset: capability.offset.into(),
            version: capability.version,
            reserved: [0; 3],
        }
    }
}

impl From<CapabilityEntry> for CapabilityRecord {
    fn from(entry: CapabilityEntry) -> Self {
        Self {
            id: entry.id.get(),
            offset: entry.offset.get(),
            version: entry.version,
        }
    }
}

impl RoutingEntry {
    /// Flag: ARI Capable Hierarchy was set.
    const ARI: u16 = 1;
    /// Flag: VFs were captured with this NumVFs.
    const CAPTURED: u16 = 2;
}

impl From<&RoutingRecord> for RoutingEntry {
    fn from(record: &RoutingRecord) -> Self {
        let ari = if record.ari { Self::ARI } else { 0 };
        let captured = if record.captured { Self::CAPTURED } else { 0 };
        Self {
            first: record.first.into(),
            last: record.last.into(),
            offset: record.offset.into(),
            stride: record.stride.into(),
            flags: (ari | captured).into(),
            reserved: [0; 6],
        }
    }
}

impl From<RoutingEntry> for RoutingRecord {
    fn from(entry: RoutingEntry) -> Self {
        let flags = entry.flags.get();
        Self {
            first: entry.first.get(),
            last: entry.last.get(),
            offset: entry.offset.get(),
            stride: entry.stride.get(),
            ari: flags & RoutingEntry::ARI != 0,
            captured: flags & RoutingEntry::CAPTURED != 0,
        }
    }
}

impl From<RangeEntry> for (u16, u16) {
    fn from(entry: RangeEntry) -> Self {
        (entry.start.get(), entry.length.get())
    }
}

impl From<IndexEntry> for IndexRecord {
    fn from(entry: IndexEntry) -> Self {
        Self {
            sbdf: Sbdf::from_routing_id(entry.segment.get(), entry.routing_id.get()),
            space_size: entry.space_size.get(),
            block: PhysAddr(entry.block.get()),
        }
    }
}

//! The data block of one function: what the `pcsc-v1` consumer reads, and
//! behind it an extension that it does not look at.
//!
//! `docs/pcsc-format.md` is the description of the format.

use alloc::vec::Vec;

use warmbus_memory::PhysMemoryWrite;
use warmbus_memory::crc32::Crc32;
use warmbus_pci::{ConfigOffset, PhysAddr, Sbdf};
use zerocopy::{Immutable, IntoBytes};

use crate::block_error::BlockError;
use crate::wire::{
    BITMAP, BLOCK_MAGIC, BlockHeader, CapabilityEntry, EXTENSION, EXTENSION_SIZE, MaskEntry,
    RangeEntry, RoutingEntry, SPACE, Table, VERSION,
};

/// Bytes of the header of the extension.
const HEADER: usize = size_of::<BlockHeader>();

/// Masks that a block has space for. A function with a type 0 header and SR-IOV
/// has 13.
pub const MAX_MASKS: usize = 32;
/// Capabilities that a block has space for.
pub const MAX_CAPABILITIES: usize = (EXTENSION_SIZE
    - HEADER
    - MAX_MASKS * size_of::<MaskEntry>()
    - MAX_ROUTINGS * size_of::<RoutingEntry>()
    - MAX_RANGES * size_of::<RangeEntry>())
    / size_of::<CapabilityEntry>();
/// Routing records that a block has space for; more are excluded.
pub const MAX_ROUTINGS: usize = 16;
/// Ranges of synthesised bytes that a block has space for; a function with more
/// cannot be handed over.
pub const MAX_RANGES: usize = 16;

/// What is known about writes to a dword of configuration space: a BAR, an
/// expansion ROM BAR or a window register of a bridge. A bit in neither mask is
/// not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaskRecord {
    /// Offset of the dword, a multiple of 4.
    pub offset: u16,
    /// Bits that keep what is written to them.
    pub writable: u32,
    /// Bits that ignore what is written and keep the value they have.
    pub fixed: u32,
    /// The value of the `fixed` bits, where they are known to be constant
    /// although the dword as a whole is not cached.
    pub value: Option<u32>,
}

/// A capability of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapabilityRecord {
    /// Capability ID; 8 bits, or 16 for an extended capability.
    pub id: u16,
    /// Where it starts; from 0x100 on it is an extended capability.
    pub offset: u16,
    /// Version of an extended capability; 0 for others.
    pub version: u8,
}

/// Where the VFs of a physical function are for some values of NumVFs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutingRecord {
    /// First NumVFs that it holds for.
    pub first: u16,
    /// Last NumVFs that it holds for.
    pub last: u16,
    /// First VF Offset.
    pub offset: u16,
    /// VF Stride.
    pub stride: u16,
    /// ARI Capable Hierarchy of the device.
    pub ari: bool,
    /// Whether VFs were captured with this NumVFs, which is the only one then.
    pub captured: bool,
}

/// What a virtual function has more than others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtualRecord<'a> {
    /// Routing ID of its physical function.
    pub physical: u16,
    /// Its number, from 1.
    pub number: u16,
    /// Whether VF Enable is clear, so that the block has the registers as
    /// they are right after it is set.
    pub disabled: bool,
    /// Ranges of bytes that were not read: first offset and length. At most
    /// [`MAX_RANGES`].
    pub synthesised: &'a [(u16, u16)],
}

/// One function as it goes into a handover.
#[derive(Clone, Copy, Debug)]
pub struct FunctionRecord<'a> {
    /// Its address.
    pub sbdf: Sbdf,
    /// Physical address of its configuration space, as the processor accesses
    /// it; `None` where it has none, or where that is not known. Only with it
    /// can a kernel be sure that it means the same function: it may number
    /// segments in another way.
    pub config_address: Option<PhysAddr>,
    /// Bytes of its configuration space, 256 or 4096.
    pub size: u16,
    /// The first bytes of it, a multiple of 8; those that follow are 0 and may
    /// not be cached.
    pub data: &'a [u8],
    /// Bitmap of the bytes that may be cached, one bit a byte of `data`: bit
    /// `n % 8` of byte `n / 8`.
    pub cacheable: &'a [u8],
    /// Bitmap of the bytes that are valid, a subset of `cacheable`.
    pub cached: &'a [u8],
    /// Size masks, if they are known. More than [`MAX_MASKS`] are excluded,
    /// which a flag of the block says.
    pub masks: &'a [MaskRecord],
    /// Capabilities in list order, conventional before extended. More than
    /// [`MAX_CAPABILITIES`] are excluded, which a flag of the block says.
    pub capabilities: &'a [CapabilityRecord],
    /// Whether `capabilities` are all that the function has. They are not if
    /// one of its lists could not be followed to the end.
    pub capabilities_complete: bool,
    /// Of a physical function what is known of the places of its VFs, ascending
    /// by NumVFs, of a virtual one the record under which it was captured. Of
    /// more than [`MAX_ROUTINGS`] those that were not used are omitted first.
    pub routing: &'a [RoutingRecord],
    /// What makes it a virtual function, if it is one.
    pub virtual_function: Option<VirtualRecord<'a>>,
}

impl<'a> FunctionRecord<'a> {
    /// The function at `sbdf` with `size` bytes of configuration space, of
    /// which nothing else is known but `data` and its bitmaps.
    #[must_use]
    pub const fn new(
        sbdf: Sbdf,
        size: u16,
        data: &'a [u8],
        cacheable: &'a [u8],
        cached: &'a [u8],
    ) -> Self {
        Self {
            sbdf,
            config_address: None,
            size,
            data,
            cacheable,
            cached,
            masks: &[],
            capabilities: &[],
            capabilities_complete: false,
            routing: &[],
            virtual_function: None,
        }
    }

    pub(super) fn check(&self) -> Result<(), BlockError> {
        let function = self.sbdf;
        let (size, given) = (self.size, self.data.len());
        if size != ConfigOffset::CONVENTIONAL_END && size != ConfigOffset::END
            || given > usize::from(size)
            || !given.is_multiple_of(8)
        {
            return Err(BlockError::DataSize {
                function,
                size,
                given,
            });
        }
        let ranges = self.virtual_function.map_or(0, |vf| vf.synthesised.len());
        if ranges > MAX_RANGES {
            return Err(BlockError::Ranges { function, ranges });
        }
        for bitmap in [self.cacheable, self.cached] {
            if bitmap.len() != given / 8 {
                return Err(BlockError::BitmapSize {
                    function,
                    size: bitmap.len(),
                    expected: given / 8,
                });
            }
        }
        match first_not_cacheable(self.cached, self.cacheable) {
            Some(offset) => Err(BlockError::NotCacheable { function, offset }),
            None => Ok(()),
        }
    }

    /// Writes the [`BLOCK_SIZE`](crate::BLOCK_SIZE) bytes of the block
    /// to `address`. What follows in larger pages is not touched. The input has
    /// been checked.
    pub(super) fn write(
        &self,
        address: PhysAddr,
        generation: u64,
        sink: &mut impl PhysMemoryWrite,
    ) {
        let mut crc = Crc32::new();
        let mut at = address;
        for (bytes, size) in [
            (self.data, SPACE),
            (self.cacheable, BITMAP),
            (self.cached, BITMAP),
        ] {
            write_padded(sink, &mut crc, at, bytes, size);
            at.0 += size as u64;
        }
        let (mut header, records) = self.extension(generation);
        crc.update(header.as_bytes());
        crc.update(records.used());
        header.crc = crc.finalize().into();
        sink.write(at, header.as_bytes());
        at.0 += HEADER as u64;
        sink.write(at, records.used());
        let rest = EXTENSION_SIZE - HEADER - records.bytes.len();
        sink.zero(PhysAddr(at.0 + records.bytes.len() as u64), rest as u64);
    }

    /// The header of the extension, without its CRC, and the records behind it.
    fn extension(&self, generation: u64) -> (BlockHeader, Records) {
        let masks = &self.masks[..self.masks.len().min(MAX_MASKS)];
        let capabilities = &self.capabilities[..self.capabilities.len().min(MAX_CAPABILITIES)];
        let routings = self.routings();
        let vf = self.virtual_function;
        let ranges = vf.map_or(&[][..], |vf| vf.synthesised);

        let mut records = Records::new(masks.len(), capabilities.len());
        let masks_at = records.add(masks.iter().map(MaskEntry::from));
        let capabilities_at = records.add(capabilities.iter().map(CapabilityEntry::from));
        let routings_at = records.add(routings.iter().map(RoutingEntry::from));
        let ranges_at = records.add(ranges.iter().map(|&(start, length)| RangeEntry {
            start: start.into(),
            length: length.into(),
        }));
        let table = |offset: usize, count: usize, record_size: usize| Table {
            offset: (offset as u32).into(),
            count: (count as u16).into(),
            record_size: (record_size as u16).into(),
        };
        // These have no size of a record, and no offset where there is none.
        let offset = |offset: usize, count: usize| if count == 0 { 0 } else { offset as u16 };
        let all_capabilities =
            capabilities.len() == self.capabilities.len() && self.capabilities_complete;
        let flags = [
            (masks.len() < self.masks.len(), BlockHeader::MASKS_TRUNCATED),
            (!all_capabilities, BlockHeader::CAPABILITIES_TRUNCATED),
            (vf.is_some(), BlockHeader::VIRTUAL),
            (vf.is_some_and(|vf| vf.disabled), BlockHeader::DISABLED),
            (!ranges.is_empty(), BlockHeader::SYNTHESISED),
        ];
        let flags = flags.iter().filter(|(set, _)| *set);
        let header = BlockHeader {
            magic: BLOCK_MAGIC,
            version: VERSION.into(),
            header_size: (HEADER as u16).into(),
            used: ((HEADER + records.bytes.len()) as u32).into(),
            crc: 0.into(),
            segment: self.sbdf.segment().into(),
            routing_id: self.sbdf.routing_id().into(),
            space_size: self.size.into(),
            flags: flags.fold(0, |flags, (_, flag)| flags | flag).into(),
            generation: generation.into(),
            masks: table(masks_at, masks.len(), size_of::<MaskEntry>()),
            capabilities: table(
                capabilities_at,
                capabilities.len(),
                size_of::<CapabilityEntry>(),
            ),
            cacheable_bytes: count_ones(self.cacheable).into(),
            cached_bytes: count_ones(self.cached).into(),
            routing_count: (routings.len() as u16).into(),
            synthesised_count: (ranges.len() as u16).into(),
            routing_offset: offset(routings_at, routings.len()).into(),
            synthesised_offset: offset(ranges_at, ranges.len()).into(),
            physical: vf.map_or(0, |vf| vf.physical).into(),
            vf_number: vf.map_or(0, |vf| vf.number).into(),
            config_address: self.config_address.map_or(0, |address| address.0).into(),
        };
        (header, records)
    }

    /// The routing records that there is space for, ascending by NumVFs.
    fn routings(&self) -> Vec<RoutingRecord> {
        let mut excluded = self.routing.len().saturating_sub(MAX_ROUTINGS);
        let mut kept = self.routing.to_vec();
        kept.retain(|record| {
            let is_excluded = excluded > 0 && !record.captured;
            excluded -= usize::from(is_excluded);
            !is_excluded
        });
        kept.truncate(MAX_ROUTINGS);
        kept
    }
}

/// The records behind the header of the extension.
struct Records {
    bytes: Vec<u8>,
}

impl Records {
    /// None yet, with space for so many masks and capabilities: most blocks have no
    /// other records.
    fn new(masks: usize, capabilities: usize) -> Self {
        let size = masks * size_of::<MaskEntry>() + capabilities * size_of::<CapabilityEntry>();
        Self {
            bytes: Vec::with_capacity(size),
        }
    }

    /// Adds records, for which there is space, and returns the offset of the
    /// first in the block.
    fn add<T: IntoBytes + Immutable>(&mut self, records: impl Iterator<Item = T>) -> usize {
        let start = EXTENSION + HEADER + self.bytes.len();
        for record in records {
            self.bytes.extend_from_slice(record.as_bytes());
        }
        start
    }

    fn used(&self) -> &[u8] {
        &self.bytes
    }
}

/// Writes `bytes` and zeros up to `size` at `address`, and adds all of it to
/// the CRC.
fn write_padded(
    sink: &mut impl PhysMemoryWrite,
    crc: &mut Crc32,
    address: PhysAddr,
    bytes: &[u8],
    size: usize,
) {
    let rest = size - bytes.len();
    sink.write(address, bytes);
    sink.zero(PhysAddr(address.0 + bytes.len() as u64), rest as u64);
    crc.update(bytes);
    crc.update_zeros(rest);
}

fn count_ones(bitmap: &[u8]) -> u16 {
    bitmap.iter().map(|byte| byte.count_ones() as u16).sum()
}

/// The first byte that is cached although it may not be, by the two bitmaps.
pub(crate) fn first_not_cacheable(cached: &[u8], cacheable: &[u8]) -> Option<ConfigOffset> {
    let mut pairs = cached.iter().zip(cacheable).enumerate();
    pairs.find_map(|(at, (cached, cacheable))| {
        let wrong = cached & !cacheable;
        let offset = at as u16 * 8 + wrong.trailing_zeros() as u16;
        (wrong != 0).then_some(ConfigOffset::wrapping(offset))
    })
}

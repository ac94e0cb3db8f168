//! The data block of one function: what the `pcsc-v1` consumer reads, and
//! behind it an extension that it does not look at.
//!
//! `docs/pcsc-format.md` is the description of the format.

use alloc::vec::Vec;

use crate::block_error::BlockError;
use warmbus_memory::PhysMemoryWrite;
use warmbus_memory::crc32::Crc32;
use warmbus_pci::{ConfigOffset, PhysAddr, Sbdf};

/// Bytes of a data block, extension included, whatever the page size.
pub const BLOCK_SIZE: u64 = 8192;

/// Offset of the bitmap of bytes that may be cached.
const CACHEABLE: u64 = 4096;
/// Offset of the bitmap of bytes that are valid.
const CACHED: u64 = 4608;
/// Offset of the extension.
const EXTENSION: u64 = 5120;
/// Bytes of the header of the extension.
const HEADER: usize = 72;
/// Where in it the address of the configuration space is.
const CONFIG_ADDRESS: usize = 64;
/// Bytes of a [`MaskRecord`].
const MASK: usize = 16;
/// Bytes of a [`CapabilityRecord`].
const CAPABILITY: usize = 8;

const MAGIC: [u8; 4] = *b"WBBX";
const VERSION: u16 = 1;

/// Flag: not all masks fit.
const MASKS_TRUNCATED: u16 = 1;
/// Flag: the capabilities are not complete.
const CAPABILITIES_TRUNCATED: u16 = 2;
/// Flag: a virtual function.
const VIRTUAL: u16 = 4;
/// Flag: a virtual function whose VF Enable is clear.
const DISABLED: u16 = 8;
/// Flag: some bytes follow from the specification and were not read.
const SYNTHESISED: u16 = 16;

/// Bytes of a routing record.
const ROUTING: usize = 16;
/// Flag of a routing record: ARI Capable Hierarchy was set.
const ROUTING_ARI: u16 = 1;
/// Flag of a routing record: VFs were captured with this NumVFs.
const ROUTING_CAPTURED: u16 = 2;
/// Bytes of a range of synthesised bytes.
const RANGE: usize = 4;

/// Flag of a mask record: the fixed bits have the value that it gives.
const VALUE_GIVEN: u16 = 1;

/// Masks that a block has room for. A function with a type 0 header and SR-IOV
/// has 13.
pub const MAX_MASKS: usize = 32;
/// Capabilities that a block has room for.
pub const MAX_CAPABILITIES: usize = ((BLOCK_SIZE - EXTENSION) as usize
    - HEADER
    - MAX_MASKS * MASK
    - MAX_ROUTINGS * ROUTING
    - MAX_RANGES * RANGE)
    / CAPABILITY;
/// Routing records that a block has room for; more are left out.
pub const MAX_ROUTINGS: usize = 16;
/// Ranges of synthesised bytes that a block has room for; a function with more
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

impl RoutingRecord {
    fn flags(&self) -> u16 {
        let mut flags = 0;
        if self.ari {
            flags |= ROUTING_ARI;
        }
        if self.captured {
            flags |= ROUTING_CAPTURED;
        }
        flags
    }
}

/// What a virtual function has more than others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtualRecord<'a> {
    /// Routing ID of its physical function.
    pub physical: u16,
    /// Its number, from 1.
    pub number: u16,
    /// Whether VF Enable is clear, so that the block tells of the future.
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
    /// Size masks, if they are known. More than [`MAX_MASKS`] are cut off,
    /// which a flag of the block says.
    pub masks: &'a [MaskRecord],
    /// Capabilities in list order, conventional before extended. More than
    /// [`MAX_CAPABILITIES`] are cut off, which a flag of the block says.
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

impl FunctionRecord<'_> {
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
        let mut pairs = self.cached.iter().zip(self.cacheable);
        if let Some(at) = pairs.position(|(cached, cacheable)| cached & !cacheable != 0) {
            let stray = self.cached[at] & !self.cacheable[at];
            return Err(BlockError::NotCacheable {
                function,
                offset: ConfigOffset::wrapping((at * 8) as u16 + stray.trailing_zeros() as u16),
            });
        }
        Ok(())
    }

    /// Writes the [`BLOCK_SIZE`] bytes of the block to `address`. What follows
    /// in larger pages is not touched. The input has been checked.
    pub(super) fn write(
        &self,
        address: PhysAddr,
        generation: u64,
        sink: &mut impl PhysMemoryWrite,
    ) {
        let mut crc = Crc32::new();
        let bitmap_size = (CACHED - CACHEABLE) as usize;
        part(sink, &mut crc, address, self.data, CACHEABLE as usize);
        let at = PhysAddr(address.0 + CACHEABLE);
        part(sink, &mut crc, at, self.cacheable, bitmap_size);
        let at = PhysAddr(address.0 + CACHED);
        part(sink, &mut crc, at, self.cached, bitmap_size);

        let mut extension = [0; (BLOCK_SIZE - EXTENSION) as usize];
        let used = self.extend(&mut extension, generation);
        crc.update(&extension[..used]);
        extension[12..16].copy_from_slice(&crc.finalize().to_le_bytes());
        sink.write(PhysAddr(address.0 + EXTENSION), &extension);
    }

    /// Fills in the extension but for its CRC and returns the bytes used.
    fn extend(&self, extension: &mut [u8], generation: u64) -> usize {
        let masks = &self.masks[..self.masks.len().min(MAX_MASKS)];
        let capabilities = &self.capabilities[..self.capabilities.len().min(MAX_CAPABILITIES)];
        let mut flags = 0;
        if masks.len() < self.masks.len() {
            flags |= MASKS_TRUNCATED;
        }
        if capabilities.len() < self.capabilities.len() || !self.capabilities_complete {
            flags |= CAPABILITIES_TRUNCATED;
        }
        let routings = self.routings();
        let ranges = self.virtual_function.map_or(&[][..], |vf| vf.synthesised);
        let capabilities_at = HEADER + masks.len() * MASK;
        let routings_at = capabilities_at + capabilities.len() * CAPABILITY;
        let ranges_at = routings_at + routings.len() * ROUTING;
        let used = ranges_at + ranges.len() * RANGE;
        if let Some(vf) = self.virtual_function {
            flags |= VIRTUAL;
            if vf.disabled {
                flags |= DISABLED;
            }
        }
        if !ranges.is_empty() {
            flags |= SYNTHESISED;
        }

        let mut put = |at: usize, bytes: &[u8]| {
            extension[at..at + bytes.len()].copy_from_slice(bytes);
        };
        let block_offset = |at: usize| (EXTENSION as u32 + at as u32).to_le_bytes();
        put(0, &MAGIC);
        put(4, &VERSION.to_le_bytes());
        put(6, &(HEADER as u16).to_le_bytes());
        put(8, &(used as u32).to_le_bytes());
        put(16, &self.sbdf.segment().to_le_bytes());
        put(18, &self.sbdf.routing_id().to_le_bytes());
        put(20, &self.size.to_le_bytes());
        put(22, &flags.to_le_bytes());
        put(24, &generation.to_le_bytes());
        put(32, &block_offset(HEADER));
        put(36, &(masks.len() as u16).to_le_bytes());
        put(38, &(MASK as u16).to_le_bytes());
        put(40, &block_offset(capabilities_at));
        put(44, &(capabilities.len() as u16).to_le_bytes());
        put(46, &(CAPABILITY as u16).to_le_bytes());
        put(48, &ones(self.cacheable).to_le_bytes());
        put(50, &ones(self.cached).to_le_bytes());
        put(52, &(routings.len() as u16).to_le_bytes());
        put(54, &(ranges.len() as u16).to_le_bytes());
        let place = |count: usize, at: usize| {
            let offset = if count == 0 {
                0
            } else {
                EXTENSION as u16 + at as u16
            };
            offset.to_le_bytes()
        };
        put(56, &place(routings.len(), routings_at));
        put(58, &place(ranges.len(), ranges_at));
        if let Some(vf) = self.virtual_function {
            put(60, &vf.physical.to_le_bytes());
            put(62, &vf.number.to_le_bytes());
        }
        let config_address = self.config_address.map_or(0, |address| address.0);
        put(CONFIG_ADDRESS, &config_address.to_le_bytes());
        for (number, mask) in masks.iter().enumerate() {
            let at = HEADER + number * MASK;
            put(at, &mask.offset.to_le_bytes());
            put(at + 4, &mask.writable.to_le_bytes());
            put(at + 8, &mask.fixed.to_le_bytes());
            if let Some(value) = mask.value {
                put(at + 2, &VALUE_GIVEN.to_le_bytes());
                put(at + 12, &(value & mask.fixed).to_le_bytes());
            }
        }
        for (number, capability) in capabilities.iter().enumerate() {
            let at = capabilities_at + number * CAPABILITY;
            put(at, &capability.id.to_le_bytes());
            put(at + 2, &capability.offset.to_le_bytes());
            put(at + 4, &[capability.version]);
        }
        for (number, record) in routings.iter().enumerate() {
            let at = routings_at + number * ROUTING;
            let RoutingRecord {
                first,
                last,
                offset,
                stride,
                ..
            } = *record;
            let fields = [first, last, offset, stride, record.flags()];
            for (at, value) in (at..).step_by(2).zip(fields) {
                put(at, &value.to_le_bytes());
            }
        }
        for (number, (start, length)) in ranges.iter().enumerate() {
            let at = ranges_at + number * RANGE;
            put(at, &start.to_le_bytes());
            put(at + 2, &length.to_le_bytes());
        }
        used
    }

    /// The routing records that there is room for, ascending by NumVFs.
    fn routings(&self) -> Vec<RoutingRecord> {
        let mut excluded = self.routing.len().saturating_sub(MAX_ROUTINGS);
        let mut kept = self.routing.to_vec();
        kept.retain(|record| {
            let is_left_out = excluded > 0 && !record.captured;
            excluded -= usize::from(is_left_out);
            !is_left_out
        });
        kept.truncate(MAX_ROUTINGS);
        kept
    }
}

/// Writes `bytes` at `address`, fills up with zeros to `size` and takes all of
/// it into the CRC.
fn part(
    sink: &mut impl PhysMemoryWrite,
    crc: &mut Crc32,
    address: PhysAddr,
    bytes: &[u8],
    size: usize,
) {
    const ZEROS: [u8; 4096] = [0; 4096];
    let rest = size - bytes.len();
    sink.write(address, bytes);
    sink.zero(PhysAddr(address.0 + bytes.len() as u64), rest as u64);
    crc.update(bytes);
    crc.update(&ZEROS[..rest]);
}

fn ones(bitmap: &[u8]) -> u16 {
    bitmap.iter().map(|byte| byte.count_ones() as u16).sum()
}

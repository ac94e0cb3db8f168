//! Reading a data block.
//!
//! `docs/pcsc-format.md` is the description of the format.

use warmbus_pci::{ConfigOffset, PhysAddr, Sbdf};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::block::first_not_cacheable;
use crate::decode_error::{DecodeError, DecodeProblem, checked_crc};
use crate::wire::{
    BITMAP, BLOCK_MAGIC, BLOCK_SIZE, BlockHeader, CapabilityEntry, EXTENSION, EXTENSION_SIZE,
    MaskEntry, RangeEntry, RoutingEntry, SPACE, VERSION,
};
use crate::{CapabilityRecord, MaskRecord, RoutingRecord};

/// The base of a data block, which any `pcsc-v1` handover has: configuration
/// space and which bytes of it are known.
#[derive(Clone, Copy, Debug)]
pub struct BlockBase<'a> {
    data: &'a [u8],
    cacheable: &'a [u8],
    cached: &'a [u8],
}

impl<'a> BlockBase<'a> {
    /// Reads the base of the block that `bytes` begin with.
    ///
    /// # Errors
    ///
    /// [`DecodeProblem::TooShort`], or [`DecodeProblem::NotCacheable`] if a byte
    /// is cached that may not be.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let problem = DecodeProblem::TooShort { size: bytes.len() };
        let short = DecodeError::new(0, problem);
        let (data, rest) = bytes.split_at_checked(SPACE).ok_or(short)?;
        let (cacheable, rest) = rest.split_at_checked(BITMAP).ok_or(short)?;
        let cached = rest.get(..BITMAP).ok_or(short)?;
        if let Some(offset) = first_not_cacheable(cached, cacheable) {
            let problem = DecodeProblem::NotCacheable { offset };
            let at = SPACE + BITMAP + offset.index() / 8;
            return Err(DecodeError::new(at, problem));
        }
        Ok(Self {
            data,
            cacheable,
            cached,
        })
    }

    /// Configuration space, 4096 bytes, or as many as the extension says. A byte
    /// that is not [cached](Self::is_cached) has no meaning.
    #[must_use]
    pub const fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Whether the byte at `offset` may be served from the cache.
    #[must_use]
    pub fn is_cacheable(&self, offset: ConfigOffset) -> bool {
        offset.index() < self.data.len() && bit(self.cacheable, offset)
    }

    /// Whether the byte at `offset` is known.
    #[must_use]
    pub fn is_cached(&self, offset: ConfigOffset) -> bool {
        offset.index() < self.data.len() && bit(self.cached, offset)
    }

    /// The byte at `offset`, if it is cached.
    #[must_use]
    pub fn byte(&self, offset: ConfigOffset) -> Option<u8> {
        let is_cached = self.is_cached(offset);
        self.data.get(offset.index()).copied().filter(|_| is_cached)
    }
}

fn bit(bitmap: &[u8], offset: ConfigOffset) -> bool {
    bitmap[offset.index() / 8] >> (offset.index() % 8) & 1 != 0
}

/// What makes the function of a block a virtual one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockVf {
    /// Its physical function.
    pub physical: Sbdf,
    /// Its number, from 1.
    pub number: u16,
    /// Whether VF Enable was clear at the handover: the block has the registers
    /// as they are right after it is set.
    pub disabled: bool,
    /// The record under which it was captured.
    pub routing: RoutingRecord,
}

/// A data block with its extension, checked.
///
/// ```
/// use warmbus_memory::{MappedRange, MemoryRange, PageSize, PhysAddr};
/// use warmbus_kho::KhoAbi;
/// use warmbus_pci::{ConfigOffset, Sbdf};
/// use warmbus_pcsc_format::{Block, FunctionRecord, Index, Layout, Placement, Subtree, build};
///
/// # let function = Sbdf::new(0, 1, 0, 0);
/// # let ids = [0x36, 0x1b, 0x10, 0, 0, 0, 0, 0];
/// # let record = FunctionRecord::new(function, 256, &ids, &[0x0f], &[0x0f]);
/// # let layout = Layout::new(1, KhoAbi::V4, PageSize::K4)?;
/// # let base = PhysAddr(0x4000_0000);
/// # let mut bytes = vec![0; layout.size() as usize];
/// # let scratch = [MemoryRange::new(PhysAddr(0x8000_0000), 1 << 26)];
/// # let placement = Placement::new(base, &scratch, 7);
/// # let handover = build(&layout, &placement, &[record], &mut MappedRange::new(base, &mut bytes))?;
/// # let get = |range: MemoryRange| {
/// #     let start = (range.start.0 - base.0) as usize;
/// #     &bytes[start..start + range.size as usize]
/// # };
/// // `get` returns the bytes of a range of physical memory.
/// let subtree = Subtree::decode(get(handover.subtree()))?;
/// let extension = subtree.extension().expect("Warmbus writes one");
/// let index = Index::decode(get(extension.index))?;
/// index.check_generation(extension.generation)?;
/// let found = index.find(function).expect("it was handed over");
/// let block = Block::decode(get(MemoryRange::new(found.block, 8192)))?;
/// block.check_identity(function, extension.generation)?;
/// assert_eq!(block.base().byte(ConfigOffset::wrapping(0)), Some(0x36));
/// assert_eq!(block.base().byte(ConfigOffset::wrapping(4)), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    base: BlockBase<'a>,
    header: &'a BlockHeader,
    masks: Entries<'a>,
    capabilities: Entries<'a>,
    routing: Entries<'a>,
    synthesised: Entries<'a>,
}

/// Records of one kind.
#[derive(Clone, Copy, Debug)]
struct Entries<'a> {
    bytes: &'a [u8],
    record: usize,
}

impl<'a> Entries<'a> {
    /// Each record that begins with a `T`, converted.
    fn iter<T, R>(self) -> impl Iterator<Item = R> + 'a
    where
        T: FromBytes + Immutable + KnownLayout + 'a,
        R: From<T> + 'a,
    {
        let records = self.bytes.chunks_exact(self.record);
        records.filter_map(|record| {
            T::read_from_prefix(record)
                .ok()
                .map(|(entry, _)| entry.into())
        })
    }
}

impl<'a> Block<'a> {
    /// Checks the block that `bytes` begin with: its sizes, its CRC-32, and that
    /// all its records are in it.
    ///
    /// # Errors
    ///
    /// The first [`DecodeError`], with the offset in the block.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let wrong = |at: usize, problem| Err(DecodeError::new(EXTENSION + at, problem));
        let mut base = BlockBase::decode(bytes)?;
        let whole = bytes.get(..BLOCK_SIZE as usize);
        let size = bytes.len();
        let Some(bytes) = whole else {
            return Err(DecodeError::new(0, DecodeProblem::TooShort { size }));
        };
        let Ok((header, _)) = BlockHeader::ref_from_prefix(&bytes[EXTENSION..]) else {
            return Err(DecodeError::new(0, DecodeProblem::TooShort { size }));
        };
        if header.magic != BLOCK_MAGIC {
            return wrong(0, DecodeProblem::Magic);
        }
        let version = header.version.get();
        if version != VERSION {
            return wrong(4, DecodeProblem::Version { version });
        }
        let (header_size, used) = (header.header_size.get(), header.used.get());
        if usize::from(header_size) < size_of::<BlockHeader>()
            || used < u32::from(header_size)
            || used as usize > EXTENSION_SIZE
        {
            let problem = DecodeProblem::ExtensionSize {
                header: header_size,
                used,
            };
            return wrong(8, problem);
        }
        let bytes = &bytes[..EXTENSION + used as usize];
        checked_crc(bytes, EXTENSION, header.crc.get())?;
        let space = header.space_size.get();
        if space != ConfigOffset::CONVENTIONAL_END && space != ConfigOffset::END {
            return wrong(20, DecodeProblem::SpaceSize { size: space });
        }
        base.data = &base.data[..usize::from(space)];

        let entries = |at: usize, start: u32, count: u16, record: u16, least: usize| {
            let end = start as usize + usize::from(count) * usize::from(record);
            let first = EXTENSION + usize::from(header_size);
            // Where there are none, it does not matter where they are.
            let found = match count {
                0 => Some(&bytes[..0]),
                _ if (start as usize) < first => None,
                _ => bytes.get(start as usize..end),
            };
            let found = found.filter(|_| usize::from(record) >= least);
            let problem = DecodeProblem::Records {
                count,
                record,
                start,
            };
            let bytes = found.ok_or(DecodeError::new(EXTENSION + at, problem))?;
            Ok(Entries {
                bytes,
                record: record.into(),
            })
        };
        let table = |at: usize, table: &crate::wire::Table, least: usize| {
            let (count, record) = (table.count.get(), table.record_size.get());
            entries(at, table.offset.get(), count, record, least)
        };
        let fixed = |at: usize, start: u16, count: u16, record: usize| {
            entries(at, start.into(), count, record as u16, record)
        };
        let block = Self {
            base,
            header,
            masks: table(32, &header.masks, size_of::<MaskEntry>())?,
            capabilities: table(40, &header.capabilities, size_of::<CapabilityEntry>())?,
            routing: fixed(
                52,
                header.routing_offset.get(),
                header.routing_count.get(),
                size_of::<RoutingEntry>(),
            )?,
            synthesised: fixed(
                54,
                header.synthesised_offset.get(),
                header.synthesised_count.get(),
                size_of::<RangeEntry>(),
            )?,
        };
        let count = header.routing_count.get();
        if block.has(BlockHeader::VIRTUAL) && count != 1 {
            return wrong(52, DecodeProblem::Routing { count });
        }
        Ok(block)
    }

    /// Checks that this is the block of `function`, of the handover whose
    /// subtree has the stamp `generation`.
    ///
    /// # Errors
    ///
    /// [`DecodeProblem::Function`] or [`DecodeProblem::Generation`] if it is not.
    pub fn check_identity(&self, function: Sbdf, generation: u64) -> Result<(), DecodeError> {
        let found = self.sbdf();
        if found != function {
            let problem = DecodeProblem::Function { found };
            return Err(DecodeError::new(EXTENSION + 16, problem));
        }
        DecodeError::check_generation(EXTENSION + 24, self.generation(), generation)
    }

    const fn has(&self, flag: u16) -> bool {
        self.header.flags.get() & flag != 0
    }

    /// The function whose block it is.
    #[must_use]
    pub const fn sbdf(&self) -> Sbdf {
        self.header.sbdf()
    }

    /// Physical address of its configuration space, as the processor accesses
    /// it, if it is known.
    #[must_use]
    pub fn config_address(&self) -> Option<PhysAddr> {
        let address = PhysAddr(self.header.config_address.get());
        Some(address).filter(|address| address.0 != 0)
    }

    /// The generation stamp of the handover.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.header.generation.get()
    }

    /// Its configuration space, as long as it is: 256 or 4096 bytes.
    #[must_use]
    pub const fn base(&self) -> BlockBase<'a> {
        self.base
    }

    /// Writable and constant bits of its registers.
    pub fn masks(&self) -> impl Iterator<Item = MaskRecord> + 'a {
        self.masks.iter::<MaskEntry, _>()
    }

    /// Whether no mask is missing.
    #[must_use]
    pub const fn masks_complete(&self) -> bool {
        !self.has(BlockHeader::MASKS_TRUNCATED)
    }

    /// The capabilities in list order, conventional before extended.
    pub fn capabilities(&self) -> impl Iterator<Item = CapabilityRecord> + 'a {
        self.capabilities.iter::<CapabilityEntry, _>()
    }

    /// Whether no capability is missing: one that is not listed does not exist.
    #[must_use]
    pub const fn capabilities_complete(&self) -> bool {
        !self.has(BlockHeader::CAPABILITIES_TRUNCATED)
    }

    /// Of a physical function the routing of its VFs, of a virtual function the
    /// record under which it was captured.
    pub fn routing(&self) -> impl Iterator<Item = RoutingRecord> + 'a {
        self.routing.iter::<RoutingEntry, _>()
    }

    /// Ranges of bytes that were not read, because the specification defines
    /// their value: first offset and bytes.
    pub fn synthesised(&self) -> impl Iterator<Item = (u16, u16)> + 'a {
        self.synthesised.iter::<RangeEntry, _>()
    }

    /// What makes it a virtual function, if it is one.
    #[must_use]
    pub fn virtual_function(&self) -> Option<BlockVf> {
        let routing = self.routing().next();
        let routing = routing.filter(|_| self.has(BlockHeader::VIRTUAL))?;
        let physical = self.header.physical.get();
        Some(BlockVf {
            physical: Sbdf::from_routing_id(self.sbdf().segment(), physical),
            number: self.header.vf_number.get(),
            disabled: self.has(BlockHeader::DISABLED),
            routing,
        })
    }
}

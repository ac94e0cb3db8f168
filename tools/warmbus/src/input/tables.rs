//! The index and the data blocks of a handover, checked as
//! `docs/pcsc-format.md` demands.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail, ensure};
use warmbus_memory::crc32::checksum_around;
use warmbus_pci::Sbdf;
use warmbus_pci::VfRouting;
use warmbus_pcsc_format::block::BLOCK_SIZE;
use warmbus_pcsc_format::{CapabilityRecord, MaskRecord};

use super::memory::Memory;
use super::{Extension, Space, VirtualFunction};

/// What the index starts with.
pub(super) const INDEX_MAGIC: [u8; 4] = *b"WBIX";
const BLOCK_MAGIC: [u8; 4] = *b"WBBX";

/// Version of the index and of the block extension that is known here.
const VERSION: u32 = 1;

/// Flags of a block: a virtual function, and one whose VF Enable is clear.
const VIRTUAL: u16 = 4;
const DISABLED: u16 = 8;

/// Offsets in a data block.
const CACHEABLE: usize = 4096;
const CACHED: usize = 4608;
const EXTENSION: usize = 5120;

/// Checks the index and returns the address of each block.
pub(super) fn read_index(
    memory: &Memory<'_>,
    address: u64,
    size: u64,
    generation: u64,
) -> Result<BTreeMap<Sbdf, u64>> {
    let at = |offset: u64| memory.place(address.saturating_add(offset));
    let bytes = memory
        .get(address, usize::try_from(size)?)
        .context("the index")?;
    ensure!(bytes.len() >= 64, "the index at {} is cut off", at(0));
    ensure!(
        bytes.starts_with(&INDEX_MAGIC),
        "{}: no index: its magic is missing",
        at(0)
    );
    let version = le16(bytes, 4);
    ensure!(
        u32::from(version) == VERSION,
        "{}: the index has version {version} instead of {VERSION}",
        at(4)
    );
    let (header, count, record) = (le16(bytes, 6), le32(bytes, 8), le32(bytes, 32));
    let records = u64::from(count).checked_mul(record.into());
    let whole = records.and_then(|records| records.checked_add(header.into()));
    ensure!(
        record >= 16 && header >= 64 && whole == Some(size) && le64(bytes, 16) == size,
        "{}: {count} records of {record} bytes behind {header} do not make the {size} bytes of the index",
        at(8)
    );
    let crc = checksum_around(bytes, 12).context("the index has no header")?;
    ensure!(
        crc == le32(bytes, 12),
        "{}: the index has the CRC {crc:#010x}, its header {:#010x}",
        at(12),
        le32(bytes, 12)
    );
    ensure!(
        le64(bytes, 24) == generation,
        "{}: the index is of generation {:#x}, the tree of {generation:#x}",
        at(24),
        le64(bytes, 24)
    );
    let mut found = BTreeMap::new();
    let mut last = None;
    for (number, entry) in bytes[usize::from(header)..]
        .chunks_exact(record as usize)
        .enumerate()
    {
        let key = le32(entry, 0);
        ensure!(
            last.is_none_or(|last| last < key),
            "{}: record {number} of the index is not in order",
            at(u64::from(header) + number as u64 * u64::from(record))
        );
        last = Some(key);
        let sbdf = Sbdf::from_routing_id((key >> 16) as u16, key as u16);
        found.insert(sbdf, le64(entry, 8));
    }
    Ok(found)
}

/// Checks and reads a data block; without a `generation`, its base only.
pub(super) fn read_block(
    memory: &Memory<'_>,
    address: u64,
    sbdf: Sbdf,
    generation: Option<u64>,
) -> Result<Space> {
    let block = memory
        .get(address, BLOCK_SIZE as usize)
        .context("its data block")?;
    let mut space = Space {
        bytes: block[..CACHEABLE].to_vec(),
        known: bits(&block[CACHED..EXTENSION]),
        extension: None,
    };
    let cacheable = bits(&block[CACHEABLE..CACHED]);
    let mut pairs = space.known.iter().zip(&cacheable);
    if let Some(byte) = pairs.position(|(known, cacheable)| *known && !*cacheable) {
        bail!(
            "{}: byte {byte:#x} is cached, but may not be",
            memory.place(address + CACHED as u64 + byte as u64 / 8)
        );
    }
    if let Some(generation) = generation {
        let extension = read_extension(block, sbdf, generation).map_err(|(offset, what)| {
            anyhow!("{}: {what}", memory.place(address + offset as u64))
        })?;
        let size = usize::from(le16(block, EXTENSION + 20));
        space.bytes.truncate(size);
        space.known.truncate(size);
        let cacheable = cacheable[..size].to_vec();
        space.extension = Some(Extension {
            cacheable,
            ..extension
        });
    }
    for (byte, known) in space.bytes.iter_mut().zip(&space.known) {
        *byte &= if *known { 0xff } else { 0 };
    }
    Ok(space)
}

/// The extension of `block`, or which byte of it is wrong and how.
fn read_extension(block: &[u8], sbdf: Sbdf, generation: u64) -> Result<Extension, (usize, String)> {
    let wrong = |at: usize, what: String| Err((EXTENSION + at, what));
    let header = &block[EXTENSION..];
    if !header.starts_with(&BLOCK_MAGIC) {
        return wrong(0, "no block extension: its magic is missing".into());
    }
    let version = le16(header, 4);
    if u32::from(version) != VERSION {
        return wrong(
            4,
            format!("the block extension has version {version} instead of {VERSION}"),
        );
    }
    let used = le32(header, 8) as usize;
    if !(72..=header.len()).contains(&used) {
        return wrong(8, format!("the extension cannot have {used} bytes"));
    }
    let stored = le32(header, 12);
    let crc = checksum_around(&block[..EXTENSION + used], EXTENSION + 12).unwrap_or(!stored);
    if crc != stored {
        return wrong(
            12,
            format!("the block has the CRC {crc:#010x}, its header {stored:#010x}"),
        );
    }
    let found = Sbdf::from_routing_id(le16(header, 16), le16(header, 18));
    if found != sbdf {
        return wrong(16, format!("this is the block of {found}"));
    }
    let size = le16(header, 20);
    if size != 256 && size != 4096 {
        return wrong(20, format!("{size} bytes of configuration space"));
    }
    if le64(header, 24) != generation {
        return wrong(
            24,
            format!(
                "the block is of generation {:#x}, the tree of {generation:#x}",
                le64(header, 24)
            ),
        );
    }
    let table = |at: usize, least: usize| {
        let start = le32(header, at) as usize;
        let (count, record) = (
            usize::from(le16(header, at + 4)),
            usize::from(le16(header, at + 6)),
        );
        if record < least || start < EXTENSION + 64 || start + count * record > EXTENSION + used {
            let what = format!("{count} records of {record} bytes at {start:#x} do not fit");
            return Err((EXTENSION + at, what));
        }
        Ok(block[start..start + count * record].chunks_exact(record))
    };
    Ok(Extension {
        cacheable: Vec::new(),
        masks: table(32, 16)?
            .map(|record| MaskRecord {
                offset: le16(record, 0),
                writable: le32(record, 4),
                fixed: le32(record, 8),
                value: (le16(record, 2) & 1 != 0).then(|| le32(record, 12)),
            })
            .collect(),
        capabilities: table(40, 8)?
            .map(|record| CapabilityRecord {
                id: le16(record, 0),
                offset: le16(record, 2),
                version: record[4],
            })
            .collect(),
        capabilities_complete: le16(header, 22) & 2 == 0,
        virtual_function: virtual_function(block, sbdf, used)?,
    })
}

/// What makes the function of `block`, whose extension takes `used` bytes, a
/// virtual one.
fn virtual_function(
    block: &[u8],
    sbdf: Sbdf,
    used: usize,
) -> Result<Option<VirtualFunction>, (usize, String)> {
    let header = &block[EXTENSION..];
    let flags = le16(header, 22);
    if flags & VIRTUAL == 0 {
        return Ok(None);
    }
    let (count, start) = (le16(header, 52), usize::from(le16(header, 56)));
    if count != 1 || start < EXTENSION + 64 || start + 16 > EXTENSION + used {
        let what = format!("{count} routing records at {start:#x} of a virtual function");
        return Err((EXTENSION + 52, what));
    }
    let record = &block[start..start + 16];
    Ok(Some(VirtualFunction {
        physical: Sbdf::from_routing_id(sbdf.segment(), le16(header, 60)),
        number: le16(header, 62),
        routing: VfRouting {
            num_vfs: le16(record, 0),
            offset: le16(record, 4),
            stride: le16(record, 6),
        },
        disabled: flags & DISABLED != 0,
    }))
}

/// One `bool` for each bit, bit `n % 8` of byte `n / 8` first.
fn bits(bitmap: &[u8]) -> Vec<bool> {
    bitmap
        .iter()
        .flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 != 0))
        .collect()
}

fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from(le16(bytes, at)) | u32::from(le16(bytes, at + 2)) << 16
}

pub(super) fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from(le32(bytes, at)) | u64::from(le32(bytes, at + 4)) << 32
}

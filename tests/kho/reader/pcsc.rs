//! Two readers of the `pcsc` tree: one that does what the published Linux
//! consumer does, and one for the extension that follows
//! `docs/pcsc-format.md`.

use std::collections::BTreeMap;

use super::{le64, native_u64, node};
use warmbus_memory::{PhysAddr, TestMemory};

/// Segment, bus, device, function.
pub(crate) type Address = (u16, u8, u8, u8);

/// What the consumer attaches to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Restored {
    pub(crate) data: Vec<u8>,
    pub(crate) cacheable: Vec<u8>,
    pub(crate) cached: Vec<u8>,
}

/// Looks up every function as the published consumer does: node by node, with
/// the shape of a `scanf("dev_%04x_%02x_%02x_%x")`.
pub(crate) fn consume(
    memory: &TestMemory,
    tree: &[u8],
) -> Result<BTreeMap<Address, (u64, Restored)>, String> {
    let (root, _) = node(tree, &[])?;
    if root.get("compatible").map(Vec::as_slice) != Some(b"pcsc-v1\0") {
        return Err("not compatible with pcsc-v1".into());
    }
    // A version of another length or value makes the consumer read hardware.
    if root.get("pv").map(Vec::as_slice) != Some(&1_u32.to_le_bytes()) {
        return Err("another version of the rules".into());
    }
    let wrong = |error: fdt::FdtError| format!("{error:?}");
    let parsed = fdt::Fdt::new_unaligned_fallible(tree).map_err(wrong)?;
    let top = parsed
        .root()
        .map_err(wrong)?
        .find_node("/")
        .map_err(wrong)?;
    let mut found = BTreeMap::new();
    for child in top.ok_or("no root")?.children().map_err(wrong)?.iter() {
        let child = child.map_err(wrong)?;
        let name = child.name().map_err(wrong)?.to_string();
        let address = scan(&name).ok_or_else(|| format!("node {name}"))?;
        let value = child
            .raw_property("da")
            .map_err(wrong)?
            .ok_or("no da")?
            .value;
        let at = u64::from_le_bytes(value.try_into().map_err(|_| "da")?);
        let block = memory.get(PhysAddr(at), 5120).ok_or("block outside")?;
        let restored = Restored {
            data: block[..4096].to_vec(),
            cacheable: block[4096..4608].to_vec(),
            cached: block[4608..5120].to_vec(),
        };
        if found.insert(address, (at, restored)).is_some() {
            return Err(format!("node {name} twice"));
        }
    }
    Ok(found)
}

fn scan(name: &str) -> Option<Address> {
    let mut parts = name.strip_prefix("dev_")?.split('_');
    let mut hex = || u16::from_str_radix(parts.next()?, 16).ok();
    let segment = hex()?;
    let (bus, device, function) = (hex()?, hex()?, hex()?);
    let byte = |number: u16| u8::try_from(number).ok();
    Some((segment, byte(bus)?, byte(device)?, byte(function)?))
}

/// The sorted index, checked.
#[derive(Debug)]
pub(crate) struct Index<'a> {
    records: &'a [u8],
    pub(crate) generation: u64,
    /// Bytes from one data block to the next.
    pub(crate) stride: u64,
}

impl<'a> Index<'a> {
    pub(crate) fn open(memory: &'a TestMemory, tree: &[u8]) -> Result<Self, String> {
        let (root, _) = node(tree, &[])?;
        if root.get("warmbus,version").map(Vec::as_slice) != Some(&1_u32.to_le_bytes()) {
            return Err("another version of the extension".into());
        }
        let at = native_u64(&root, "warmbus,index")?;
        let size = native_u64(&root, "warmbus,index-size")? as usize;
        let table = memory.get(PhysAddr(at), size).ok_or("index outside")?;
        if size < 64 || table[..4] != *b"WBIX" || le16(table, 4) != 1 {
            return Err("no index".into());
        }
        let (start, count) = (usize::from(le16(table, 6)), le32(table, 8) as usize);
        let record = le32(table, 32) as usize;
        if record != 16 || start + count * record != size || le64(table, 16) != size as u64 {
            return Err("sizes of the index".into());
        }
        if crc_without(table, 12) != le32(table, 12) {
            return Err("CRC of the index".into());
        }
        let generation = le64(table, 24);
        if generation != native_u64(&root, "warmbus,generation")? {
            return Err("generation of the index".into());
        }
        Ok(Self {
            records: &table[start..],
            generation,
            stride: le64(table, 40),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len() / 16
    }

    /// The block of a function and the size of its configuration space, by
    /// binary search; also how many records were looked at.
    pub(crate) fn find(&self, function: Address) -> (Option<(u64, u16)>, u32) {
        let (segment, bus, device, number) = function;
        let key = u32::from(segment) << 16
            | u32::from(bus) << 8
            | u32::from(device) << 3
            | u32::from(number);
        let (mut low, mut high, mut steps) = (0, self.len(), 0);
        while low < high {
            steps += 1;
            let middle = usize::midpoint(low, high);
            let record = &self.records[middle * 16..][..16];
            match le32(record, 0).cmp(&key) {
                std::cmp::Ordering::Equal => {
                    return (Some((le64(record, 8), le16(record, 4))), steps);
                }
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        (None, steps)
    }
}

/// The extension of a block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Extension {
    pub(crate) function: u32,
    pub(crate) size: u16,
    pub(crate) flags: u16,
    pub(crate) generation: u64,
    /// Offset, writable bits, fixed bits, value of the fixed bits if given.
    pub(crate) masks: Vec<(u16, u32, u32, Option<u32>)>,
    /// ID, offset, version.
    pub(crate) capabilities: Vec<(u16, u16, u8)>,
    pub(crate) cacheable_bytes: u16,
    pub(crate) cached_bytes: u16,
    /// First and last NumVFs, offset, stride, flags.
    pub(crate) routing: Vec<[u16; 5]>,
    /// First offset and length.
    pub(crate) synthesised: Vec<(u16, u16)>,
    /// Routing ID of the physical function, number of the VF.
    pub(crate) virtual_function: (u16, u16),
    /// Physical address of the configuration space.
    pub(crate) config_address: u64,
}

pub(crate) fn extension(block: &[u8]) -> Result<Extension, String> {
    let block: &[u8; 8192] = block.try_into().map_err(|_| "block size")?;
    let header = &block[5120..];
    if header[..4] != *b"WBBX" || le16(header, 4) != 1 {
        return Err("no extension".into());
    }
    let used = le32(header, 8) as usize;
    if le16(header, 6) != 72 || used < 72 || used > header.len() {
        return Err("size of the extension".into());
    }
    if crc_without(&block[..5120 + used], 5120 + 12) != le32(header, 12) {
        return Err("CRC of the block".into());
    }
    let table = |at: usize| -> Result<std::slice::ChunksExact<'_, u8>, String> {
        let start = le32(header, at) as usize;
        let (count, record) = (le16(header, at + 4), le16(header, at + 6));
        let size = usize::from(count) * usize::from(record);
        if start < 5120 + 72 || start + size > 5120 + used || !start.is_multiple_of(8) {
            return Err("table outside the extension".into());
        }
        Ok(block[start..start + size].chunks_exact(usize::from(record)))
    };
    // Two tables more, of which the sizes of the records are fixed.
    let fixed = |count: usize, at: usize, record: usize, align: usize| {
        let (count, start) = (
            usize::from(le16(header, count)),
            usize::from(le16(header, at)),
        );
        let size = count * record;
        if count == 0 {
            return Ok(block[..0].chunks_exact(record));
        }
        if start < 5120 + 72 || start + size > 5120 + used || !start.is_multiple_of(align) {
            return Err("table outside the extension".to_string());
        }
        Ok(block[start..start + size].chunks_exact(record))
    };
    Ok(Extension {
        function: u32::from(le16(header, 16)) << 16 | u32::from(le16(header, 18)),
        size: le16(header, 20),
        flags: le16(header, 22),
        generation: le64(header, 24),
        masks: table(32)?
            .map(|mask| {
                let value = (le16(mask, 2) & 1 != 0).then(|| le32(mask, 12));
                (le16(mask, 0), le32(mask, 4), le32(mask, 8), value)
            })
            .collect(),
        capabilities: table(40)?
            .map(|capability| (le16(capability, 0), le16(capability, 2), capability[4]))
            .collect(),
        cacheable_bytes: le16(header, 48),
        cached_bytes: le16(header, 50),
        routing: fixed(52, 56, 16, 8)?
            .map(|record| [0, 2, 4, 6, 8].map(|at| le16(record, at)))
            .collect(),
        synthesised: fixed(54, 58, 4, 4)?
            .map(|range| (le16(range, 0), le16(range, 2)))
            .collect(),
        virtual_function: (le16(header, 60), le16(header, 62)),
        config_address: le64(header, 64),
    })
}

/// CRC-32 (IEEE 802.3) bit by bit, with the four bytes at `skip` as zeros.
pub(crate) fn crc_without(bytes: &[u8], skip: usize) -> u32 {
    let mut crc = u32::MAX;
    for (at, byte) in bytes.iter().enumerate() {
        let byte = if (skip..skip + 4).contains(&at) {
            0
        } else {
            *byte
        };
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

//! The `pcsc` tree, its index and its data blocks in memory, read by the steps
//! of `docs/pcsc-format.md`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail, ensure};
use warmbus::kho::block::BLOCK_SIZE;
use warmbus::kho::{CapabilityRecord, MaskRecord};
use warmbus::linux::tokens::{Token, Tree};
use warmbus::pci::Sbdf;

use super::memory::{self, Memory};
use super::{Capture, Extension, Handover, Kind, Place, Space};

const TREE_MAGIC: [u8; 4] = 0xd00d_feed_u32.to_be_bytes();
const INDEX_MAGIC: [u8; 4] = *b"WBIX";
const BLOCK_MAGIC: [u8; 4] = *b"WBBX";

/// Version of the cacheability rules, of the tree's extension, of the index
/// and of the block extension that is known here.
const VERSION: u32 = 1;

/// Offsets in a data block.
const CACHEABLE: usize = 4096;
const CACHED: usize = 4608;
const EXTENSION: usize = 5120;

/// Reads the handover in `file`.
pub(super) fn read(name: &str, file: &[u8], place: Place) -> Result<Capture> {
    let memory = if memory::is_elf(file) {
        Memory::elf(file)?
    } else {
        let base = place.base.or_else(|| find_base(file));
        let hint = "cannot tell where in memory the image was: no pcsc tree with its index is in it; give --base ADDRESS";
        Memory::raw(file, base.context(hint)?)?
    };
    let tree = match place.root {
        Some(root) => follow_root(&memory, root)?,
        None => find_tree(&memory)?,
    };
    read_tree(name, &memory, tree)
}

/// The properties and nodes of a tree with one level of nodes.
#[derive(Debug, Default)]
struct Flat<'a> {
    properties: BTreeMap<String, &'a [u8]>,
    nodes: Vec<(String, BTreeMap<String, &'a [u8]>)>,
}

impl<'a> Flat<'a> {
    fn parse(memory: &Memory<'a>, address: u64) -> Result<Self> {
        let at = || format!("the tree at {}", memory.place(address));
        let bytes = memory
            .from(address)
            .with_context(|| format!("{} is not in the file, which has {memory}", at()))?;
        let tree = Tree::new(bytes).with_context(at)?;
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let mut flat = Self::default();
        let mut depth = 0;
        let mut tokens = tree.tokens();
        while let Some(token) = tokens.next() {
            let (_, token) = token.with_context(|| {
                let inside = tokens.position();
                format!("{}, byte {inside:#x} of its structure block", at())
            })?;
            match token {
                Token::Begin { name } => {
                    depth += 1;
                    if depth == 2 {
                        flat.nodes.push((text(name), BTreeMap::new()));
                    }
                }
                Token::Property { name, value } if depth == 1 => {
                    flat.properties.insert(text(name), value);
                }
                Token::Property { name, value } if depth == 2 => {
                    if let Some((_, properties)) = flat.nodes.last_mut() {
                        properties.insert(text(name), value);
                    }
                }
                Token::Property { .. } => {}
                Token::End => depth -= 1,
            }
        }
        Ok(flat)
    }

    fn is_compatible(&self, with: &str) -> bool {
        self.properties.get("compatible").is_some_and(|value| {
            value
                .split(|byte| *byte == 0)
                .any(|text| text == with.as_bytes())
        })
    }
}

/// A little-endian number that a property holds.
fn number<const N: usize>(properties: &BTreeMap<String, &[u8]>, name: &str) -> Result<u64> {
    let value = properties
        .get(name)
        .with_context(|| format!("the property {name} is missing"))?;
    ensure!(
        value.len() == N,
        "the property {name} has {} bytes instead of {N}",
        value.len()
    );
    let mut bytes = [0; 8];
    bytes[..N].copy_from_slice(value);
    Ok(u64::from_le_bytes(bytes))
}

fn is_pcsc(memory: &Memory<'_>, address: u64) -> bool {
    Flat::parse(memory, address).is_ok_and(|tree| tree.is_compatible("pcsc-v1"))
}

/// The address of the first byte of a raw image, told by where the index lies
/// and where the tree says that it does.
fn find_base(file: &[u8]) -> Option<u64> {
    let memory = Memory::raw(file, 0).ok()?;
    let indexes = memory.pages_with(INDEX_MAGIC);
    for tree in memory.pages_with(TREE_MAGIC) {
        let Ok(flat) = Flat::parse(&memory, tree) else {
            continue;
        };
        let Ok(address) = number::<8>(&flat.properties, "warmbus,index") else {
            continue;
        };
        let Ok(generation) = number::<8>(&flat.properties, "warmbus,generation") else {
            continue;
        };
        for &index in &indexes {
            let header = memory.get(index, 64).ok()?;
            if le64(header, 24) == generation
                && let Some(base) = address.checked_sub(index)
            {
                return Some(base);
            }
        }
    }
    None
}

/// The only `pcsc` tree in memory.
fn find_tree(memory: &Memory<'_>) -> Result<u64> {
    let mut trees = memory.pages_with(TREE_MAGIC);
    trees.retain(|&address| is_pcsc(memory, address));
    match trees[..] {
        [tree] => Ok(tree),
        [] => bail!("no pcsc tree at the start of a page of {memory}"),
        _ => {
            let places: Vec<_> = trees.iter().map(|tree| format!("{tree:#x}")).collect();
            bail!(
                "{} pcsc trees, at {}; say which with --root",
                trees.len(),
                places.join(", ")
            )
        }
    }
}

/// The `pcsc` tree at `root`, or that which the KHO root tree there leads to.
fn follow_root(memory: &Memory<'_>, root: u64) -> Result<u64> {
    let flat = Flat::parse(memory, root)?;
    if flat.is_compatible("pcsc-v1") {
        return Ok(root);
    }
    let version = ["kho-v1", "kho-v3", "kho-v4"]
        .into_iter()
        .find(|version| flat.is_compatible(version))
        .with_context(|| {
            format!(
                "the tree at {} is neither pcsc-v1 nor the root of kho-v1, kho-v3 or kho-v4",
                memory.place(root)
            )
        })?;
    let property = if version == "kho-v1" {
        "fdt"
    } else {
        "preserved-data"
    };
    let (_, pcsc) = flat
        .nodes
        .iter()
        .find(|(name, _)| name == "pcsc")
        .with_context(|| format!("the root tree at {} has no node pcsc", memory.place(root)))?;
    number::<8>(pcsc, property)
        .with_context(|| format!("the node pcsc of the root tree at {}", memory.place(root)))
}

fn read_tree(name: &str, memory: &Memory<'_>, address: u64) -> Result<Capture> {
    let flat = Flat::parse(memory, address)?;
    let at = || format!("the tree at {}", memory.place(address));
    ensure!(
        flat.is_compatible("pcsc-v1"),
        "{} is not compatible with pcsc-v1",
        at()
    );
    let rules = number::<4>(&flat.properties, "pv").with_context(at)?;
    ensure!(
        rules == u64::from(VERSION),
        "{} follows version {rules} of the cacheability rules instead of {VERSION}",
        at()
    );
    let is_extended = number::<4>(&flat.properties, "warmbus,version").ok() == Some(VERSION.into());
    let mut capture = Capture::new(name, Kind::Memory);
    let mut handover = Handover {
        tree: address,
        index: None,
        generation: None,
    };
    let mut index = BTreeMap::new();
    if is_extended {
        let generation = number::<8>(&flat.properties, "warmbus,generation").with_context(at)?;
        let place = number::<8>(&flat.properties, "warmbus,index").with_context(at)?;
        let size = number::<8>(&flat.properties, "warmbus,index-size").with_context(at)?;
        handover.generation = Some(generation);
        handover.index = Some(place);
        match read_index(memory, place, size, generation) {
            Ok(read) => index = read,
            Err(error) => capture.problems.push(format!("{error:#}")),
        }
    }
    capture.handover = Some(handover);
    for (node, properties) in &flat.nodes {
        let sbdf = function_of(node)
            .with_context(|| format!("{}: the node {node} names no function", at()))?;
        let block =
            number::<8>(properties, "da").with_context(|| format!("{}: the node {node}", at()))?;
        if let Some(&indexed) = index.get(&sbdf)
            && indexed != block
        {
            capture.problems.push(format!(
                "{sbdf}: its block is at {block:#x} by the tree and at {indexed:#x} by the index"
            ));
        }
        match read_block(memory, block, sbdf, handover.generation) {
            Ok(space) => {
                if capture.spaces.insert(sbdf, space).is_some() {
                    bail!("{}: the node {node} is there twice", at());
                }
            }
            Err(error) => capture.problems.push(format!("{sbdf}: {error:#}")),
        }
        index.remove(&sbdf);
    }
    for sbdf in index.keys() {
        let problem = format!("{sbdf}: it is in the index, but not in the tree");
        capture.problems.push(problem);
    }
    Ok(capture)
}

/// The function that a node such as `dev_0000_01_00_0` is named after.
fn function_of(node: &str) -> Option<Sbdf> {
    let rest = node.strip_prefix("dev_")?;
    let mut parts = rest.split('_');
    let text = format!(
        "{}:{}:{}.{}",
        parts.next()?,
        parts.next()?,
        parts.next()?,
        parts.next()?
    );
    parts.next().is_none().then(|| text.parse().ok())?
}

/// Checks the index and returns the address of each block.
fn read_index(
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
    let crc = crc_without(bytes, 12);
    ensure!(
        crc == le32(bytes, 12),
        "{}: the index has the CRC {crc:#010x}, but says {:#010x}",
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
fn read_block(
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
    if !(64..=header.len()).contains(&used) {
        return wrong(8, format!("the extension cannot take {used} bytes"));
    }
    let (crc, said) = (
        crc_without(&block[..EXTENSION + used], EXTENSION + 12),
        le32(header, 12),
    );
    if crc != said {
        return wrong(
            12,
            format!("the block has the CRC {crc:#010x}, but says {said:#010x}"),
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
    })
}

/// One `bool` for each bit, bit `n % 8` of byte `n / 8` first.
fn bits(bitmap: &[u8]) -> Vec<bool> {
    bitmap
        .iter()
        .flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 != 0))
        .collect()
}

/// CRC-32 with the four bytes at `skip` taken as 0.
fn crc_without(bytes: &[u8], skip: usize) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..skip]);
    crc.update(&[0; 4]);
    crc.update(&bytes[skip + 4..]);
    crc.finalize()
}

fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from(le16(bytes, at)) | u32::from(le16(bytes, at + 2)) << 16
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from(le32(bytes, at)) | u64::from(le32(bytes, at + 4)) << 32
}

//! The `pcsc` tree, its index and its data blocks in memory, read by the steps
//! of `docs/pcsc-format.md`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use warmbus_fdt::{MAGIC, RawTree, Token};
use warmbus_memory::bytes::le_u64;
use warmbus_pcsc_format::{INDEX_MAGIC, Subtree};

use super::memory::{self, Memory};
use super::tables::{read_block, read_index};
use super::{Capture, Handover, Kind, Place};

const TREE_MAGIC: [u8; 4] = MAGIC.to_be_bytes();

/// Reads the handover in `file`.
pub(super) fn read(name: &str, file: &[u8], place: Place) -> Result<Capture> {
    let memory = if memory::is_elf(file) {
        Memory::elf(file)?
    } else {
        let base = place.base.or_else(|| find_base(file));
        let hint = "the base address is unknown: the image has no pcsc tree with its index; set it with --base ADDRESS";
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
        let tree = RawTree::new(bytes).with_context(at)?;
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

/// The little-endian number in a property.
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

/// The address of the first byte of a raw image: the address of the index in
/// the tree less its offset in the image.
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
            if le_u64(header, 24) == Some(generation)
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
                "{} pcsc trees, at {}; select one with --root",
                trees.len(),
                places.join(", ")
            )
        }
    }
}

/// The `pcsc` tree at `root`, or the one that the KHO root tree there names.
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
    let at = || format!("the tree at {}", memory.place(address));
    let bytes = memory
        .from(address)
        .with_context(|| format!("{} is not in the file, which has {memory}", at()))?;
    let tree = Subtree::decode(bytes).with_context(at)?;
    let extension = tree.extension();
    let generation = extension.map(|extension| extension.generation);
    let mut capture = Capture::new(name, Kind::Memory);
    capture.handover = Some(Handover {
        tree: address,
        index: extension.map(|extension| extension.index.start.0),
        generation,
    });
    let mut index = BTreeMap::new();
    if let Some(extension) = extension {
        match read_index(memory, extension) {
            Ok(read) => index = read,
            Err(error) => capture.problems.push(format!("{error:#}")),
        }
    }
    for &(sbdf, block) in tree.nodes() {
        let block = block.0;
        if let Some(&indexed) = index.get(&sbdf)
            && indexed != block
        {
            capture.problems.push(format!(
                "{sbdf}: its block is at {block:#x} by the tree and at {indexed:#x} by the index"
            ));
        }
        match read_block(memory, block, sbdf, generation) {
            Ok(space) => {
                if capture.spaces.insert(sbdf, space).is_some() {
                    bail!("{}: the node of {sbdf} is there twice", at());
                }
            }
            Err(error) => capture.problems.push(format!("{sbdf}: {error:#}")),
        }
        index.remove(&sbdf);
    }
    // Virtual functions that do not exist now have no node.
    for (sbdf, block) in index {
        match read_block(memory, block, sbdf, generation) {
            Ok(space) if space.is_disabled_vf() => {
                capture.spaces.insert(sbdf, space);
            }
            Ok(_) => capture
                .problems
                .push(format!("{sbdf}: it is in the index, but not in the tree")),
            Err(error) => capture.problems.push(format!("{sbdf}: {error:#}")),
        }
    }
    Ok(capture)
}

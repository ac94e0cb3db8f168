//! A handover that another kernel has made for whoever comes next.
//!
//! Where a running Linux starts this program with `kexec`, memory may hold
//! what the kernel after it relies on. This reads the handover as that kernel
//! would, `kho-v3` and `kho-v4`, and tells which memory must be left alone.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::KhoAbi;
use super::map::Preserved;
use super::map_radix::Shape;
use crate::linux::image::PageSize;
use crate::linux::memory::MemoryRange;
use crate::linux::tokens::{Token, Tree};
use crate::pci::PhysAddr;

/// The subtree that this program writes itself.
const OWN: &str = "pcsc";
/// Most pages of the map that are followed: a map of 2^20 pages of bits covers
/// 128 TiB.
const MOST_NODES: usize = 1 << 20;
/// Most bytes of the array of scratch areas that is believed.
const MOST_SCRATCH: u64 = 1 << 16;
/// Most ranges that [`Incoming::held`] returns.
const MOST_RANGES: usize = 512;

/// Physical memory that can be read.
pub trait Source {
    /// The `length` bytes at `address`; `None` where they are not all memory.
    fn get(&self, address: PhysAddr, length: u64) -> Option<&[u8]>;
}

impl Source for super::Buffer {
    fn get(&self, address: PhysAddr, length: u64) -> Option<&[u8]> {
        self.get(address, usize::try_from(length).ok()?)
    }
}

/// A subtree of a handover: a node of the root tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subtree {
    /// Its name.
    pub name: String,
    /// Its properties, as they are.
    pub properties: Vec<(String, Vec<u8>)>,
}

/// A handover in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The page of the root tree.
    pub root: MemoryRange,
    /// The array of scratch areas.
    pub array: MemoryRange,
    /// The scratch areas.
    pub scratch: Vec<MemoryRange>,
    /// The page size of the kernel that made it.
    pub page_size: PageSize,
    /// All subtrees but `pcsc`.
    pub subtrees: Vec<Subtree>,
    /// Where the memory of the old `pcsc` subtree starts, block by block.
    obsolete: BTreeSet<u64>,
    map: PhysAddr,
}

impl Incoming {
    /// The scratch areas in the array at `array`.
    pub fn scratch(
        source: &impl Source,
        array: MemoryRange,
    ) -> Result<Vec<MemoryRange>, IncomingError> {
        let unreadable = IncomingError::Unreadable { range: array };
        if array.size > MOST_SCRATCH || array.size < 16 {
            return Err(unreadable);
        }
        let bytes = source.get(array.start, array.size).ok_or(unreadable)?;
        let words: Vec<u64> = bytes.chunks_exact(8).map(word).collect();
        let areas = words.chunks_exact(2);
        Ok(areas
            .filter(|area| area[1] != 0)
            .map(|area| MemoryRange::new(PhysAddr(area[0]), area[1]))
            .collect())
    }

    /// Reads the handover whose root tree is at `root` and whose scratch areas
    /// are in the array at `array`, as the boot tree says.
    pub fn read(
        source: &impl Source,
        root: MemoryRange,
        array: MemoryRange,
    ) -> Result<Self, IncomingError> {
        // Linux gives one of its pages to the root tree, and says so.
        let page_size = PageSize::ALL
            .into_iter()
            .find(|size| size.bytes() == root.size)
            .ok_or(IncomingError::PageSize { size: root.size })?;
        let bytes = source.get(root.start, root.size);
        let bytes = bytes.ok_or(IncomingError::Unreadable { range: root })?;
        let mut incoming = Self {
            root,
            array,
            scratch: Self::scratch(source, array)?,
            page_size,
            subtrees: Vec::new(),
            obsolete: BTreeSet::from([root.start.0]),
            map: PhysAddr(0),
        };
        let mut abi = None;
        each_property(bytes, |node, name, value| match (node, name) {
            (None, "compatible") => abi = known_abi(value),
            (None, "preserved-memory-map") if value.len() == 8 => {
                incoming.map = PhysAddr(word(value));
            }
            (None, _) => {}
            (Some(node), _) => {
                let found = incoming.subtrees.iter_mut().find(|tree| tree.name == node);
                let property = (name.into(), value.to_vec());
                match found {
                    Some(tree) => tree.properties.push(property),
                    None => incoming.subtrees.push(Subtree {
                        name: node.into(),
                        properties: alloc::vec![property],
                    }),
                }
            }
        })
        .ok_or(IncomingError::Tree { root })?;
        if !abi.is_some_and(KhoAbi::has_radix_tree) {
            return Err(IncomingError::Abi);
        }
        let own = incoming.subtrees.iter().position(|tree| tree.name == OWN);
        if let Some(own) = own {
            let own = incoming.subtrees.remove(own);
            incoming.forget(source, &own);
        }
        Ok(incoming)
    }

    /// Notes what the old `pcsc` subtree takes, which nobody will look for.
    fn forget(&mut self, source: &impl Source, own: &Subtree) {
        let property = |name: &str| {
            let mut properties = own.properties.iter();
            let (_, value) = properties.find(|(known, value)| known == name && value.len() == 8)?;
            Some(word(value))
        };
        let (Some(start), Some(size)) = (property("preserved-data"), property("blob-size")) else {
            return;
        };
        let Some(bytes) = source.get(PhysAddr(start), size) else {
            return;
        };
        let mut blocks = alloc::vec![start];
        let read = each_property(bytes, |_, name, value| {
            if matches!(name, "da" | "warmbus,index" | "warmbus,absent") && value.len() == 8 {
                blocks.push(word(value));
            }
        });
        if read.is_none() {
            return;
        }
        // What somebody else points to stays, whatever the old cache says.
        let others = self.subtrees.iter().flat_map(|tree| &tree.properties);
        let others: BTreeSet<u64> = others
            .filter(|(_, value)| value.len() == 8)
            .map(|(_, value)| word(value))
            .collect();
        self.obsolete
            .extend(blocks.into_iter().filter(|block| !others.contains(block)));
    }

    /// Shows every entry of the preserved-memory map to `visit`, and every page
    /// of the map itself to `page`.
    fn walk(
        &self,
        source: &impl Source,
        visit: &mut dyn FnMut(Preserved),
        page: &mut dyn FnMut(PhysAddr),
    ) -> Result<(), IncomingError> {
        let mut walk = Walk {
            source,
            shape: Shape::new(self.page_size),
            page: self.page_size.bytes(),
            nodes: 0,
            visit,
            seen: page,
        };
        walk.node(self.map, walk.shape.depth - 1, 0)
    }

    /// The memory that nobody may write to: what is preserved, the map itself,
    /// the root tree and the array of scratch areas. Sorted, without overlaps;
    /// where there are very many ranges, small gaps between them are held as
    /// well.
    pub fn held(&self, source: &impl Source) -> Result<Vec<MemoryRange>, IncomingError> {
        let ranges = core::cell::RefCell::new(Ranges::default());
        ranges.borrow_mut().add(self.root);
        ranges.borrow_mut().add(self.array);
        let page = self.page_size.bytes();
        self.walk(
            source,
            &mut |entry| {
                let size = page << entry.order;
                ranges
                    .borrow_mut()
                    .add(MemoryRange::new(entry.address, size));
            },
            &mut |node| ranges.borrow_mut().add(MemoryRange::new(node, page)),
        )?;
        Ok(ranges.into_inner().finish())
    }

    /// The entries of the map that the next kernel still needs: all but those
    /// of the root tree and of the old `pcsc` subtree. No more than `most`.
    pub fn entries(
        &self,
        source: &impl Source,
        most: usize,
    ) -> Result<Vec<Preserved>, IncomingError> {
        let mut entries = Vec::new();
        let mut count = 0;
        self.walk(
            source,
            &mut |entry| {
                if !self.obsolete.contains(&entry.address.0) {
                    count += 1;
                    if count <= most {
                        entries.push(entry);
                    }
                }
            },
            &mut |_| {},
        )?;
        if count > most {
            return Err(IncomingError::TooMany { count, most });
        }
        Ok(entries)
    }
}

/// Shows every property of a tree to `see`, with the name of the node below the
/// root that it is in. `None` where the tree cannot be read.
fn each_property<'a>(
    bytes: &'a [u8],
    mut see: impl FnMut(Option<&'a str>, &'a str, &'a [u8]),
) -> Option<()> {
    let mut path: Vec<&str> = Vec::new();
    for token in Tree::new(bytes).ok()?.tokens() {
        match token.ok()?.1 {
            Token::Begin { name } => path.push(core::str::from_utf8(name).ok()?),
            Token::End => drop(path.pop()),
            Token::Property { name, value } => {
                let name = core::str::from_utf8(name).ok()?;
                see(path.get(1).copied(), name, value);
            }
        }
    }
    Some(())
}

fn known_abi(compatible: &[u8]) -> Option<KhoAbi> {
    compatible.split(|byte| *byte == 0).find_map(|name| {
        KhoAbi::ALL
            .into_iter()
            .find(|abi| abi.compatible()[0].as_bytes() == name)
    })
}

/// The little-endian number at the start of `bytes`, 8 or more.
fn word(bytes: &[u8]) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(raw)
}

struct Walk<'w, S> {
    source: &'w S,
    shape: Shape,
    page: u64,
    nodes: usize,
    visit: &'w mut dyn FnMut(Preserved),
    seen: &'w mut dyn FnMut(PhysAddr),
}

impl<S: Source> Walk<'_, S> {
    /// Goes through the node at `address`, whose key bits above its own are
    /// `prefix`. Levels only go down, so that there is an end.
    fn node(&mut self, address: PhysAddr, level: u32, prefix: u64) -> Result<(), IncomingError> {
        self.nodes += 1;
        let range = MemoryRange::new(address, self.page);
        let source = self.source;
        let bytes = source
            .get(address, self.page)
            .filter(|_| self.nodes <= MOST_NODES && address.0.is_multiple_of(self.page))
            .ok_or(IncomingError::Map { range })?;
        (self.seen)(address);
        for (slot, bytes) in (0..).zip(bytes.chunks_exact(8)) {
            let value = word(bytes);
            if value == 0 {
                continue;
            }
            if level > 0 {
                let prefix = prefix << self.shape.table_bits | slot;
                self.node(PhysAddr(value), level - 1, prefix)?;
                continue;
            }
            for bit in (0..64).filter(|bit| value >> bit & 1 != 0) {
                let key = (prefix << self.shape.leaf_bits) | (slot * 64 + bit);
                let entry = self.shape.entry(key).ok_or(IncomingError::Map { range })?;
                (self.visit)(entry);
            }
        }
        Ok(())
    }
}

/// Ranges that are joined as they come.
#[derive(Default)]
struct Ranges {
    ranges: Vec<MemoryRange>,
    /// Gaps up to this size are taken as well.
    gap: u64,
}

impl Ranges {
    fn add(&mut self, range: MemoryRange) {
        if let Some(last) = self.ranges.last_mut()
            && range.start.0 >= last.start.0
            && range.start.0 <= last.end()
        {
            last.size = last.size.max(range.end() - last.start.0);
            return;
        }
        self.ranges.push(range);
        if self.ranges.len() >= 2 * MOST_RANGES {
            self.join();
        }
    }

    /// Sorts and joins, and accepts larger gaps until few ranges are left.
    fn join(&mut self) {
        self.ranges.sort_unstable();
        loop {
            let mut joined: Vec<MemoryRange> = Vec::new();
            for range in &self.ranges {
                match joined.last_mut() {
                    Some(last) if range.start.0 <= last.end().saturating_add(self.gap) => {
                        last.size = last.size.max(range.end() - last.start.0);
                    }
                    _ => joined.push(*range),
                }
            }
            self.ranges = joined;
            if self.ranges.len() <= MOST_RANGES {
                return;
            }
            self.gap = (self.gap * 2).max(1 << 16);
        }
    }

    fn finish(mut self) -> Vec<MemoryRange> {
        self.join();
        self.ranges
    }
}

/// Why a handover cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncomingError {
    /// A range is not memory.
    Unreadable {
        /// Which one.
        range: MemoryRange,
    },
    /// The root tree is no page of any kernel.
    PageSize {
        /// Its bytes, as the boot tree says.
        size: u64,
    },
    /// The root tree is damaged.
    Tree {
        /// Where it is.
        root: MemoryRange,
    },
    /// It is neither `kho-v3` nor `kho-v4`.
    Abi,
    /// The preserved-memory map is damaged.
    Map {
        /// The page that makes no sense.
        range: MemoryRange,
    },
    /// The map has too many entries to be copied.
    TooMany {
        /// How many it has.
        count: usize,
        /// How many can be copied.
        most: usize,
    },
}

impl fmt::Display for IncomingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { range } => write!(f, "{range} is no readable memory"),
            Self::PageSize { size } => {
                write!(
                    f,
                    "the root tree has {size:#x} bytes, which is no page size"
                )
            }
            Self::Tree { root } => write!(f, "the root tree at {root} is damaged"),
            Self::Abi => f.write_str("its version is neither kho-v3 nor kho-v4"),
            Self::Map { range } => write!(
                f,
                "the page of the preserved-memory map at {range} makes no sense"
            ),
            Self::TooMany { count, most } => write!(
                f,
                "the preserved-memory map has {count} entries, more than the {most} that can be copied"
            ),
        }
    }
}

impl core::error::Error for IncomingError {}

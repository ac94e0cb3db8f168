//! A handover that another kernel has made for whoever comes next.
//!
//! Where a running Linux starts this program with `kexec`, memory may hold
//! what the kernel after it relies on. This reads the handover as that kernel
//! would, `kho-v3` and `kho-v4`, and tells which memory must be left alone.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::native::{each_property, number};
use crate::preserved_map::Preserved;
use crate::preserved_map::read::{self, MapFault, u64_at};
use crate::{KhoAbi, MAX_SCRATCH_AREAS};
use warmbus_memory::{ADDRESS_END, MemoryRange, PageSize, PhysAddr, PhysMemory, RangeSet};

/// The subtree that this program writes itself.
const PCSC_NODE: &[u8] = b"pcsc";
/// Most ranges of [`PreviousHandover::held`].
const MAX_RANGES: usize = 512;
/// Most blocks of an old cache that are given back.
const MAX_BLOCKS: usize = 1 << 16;
/// The smallest gap between them that is held as well where there are more.
const SMALLEST_GAP: u64 = 1 << 16;

/// A subtree of a handover: a node of the root tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subtree {
    /// Its name.
    pub name: String,
    /// Its properties, as they are.
    pub properties: Vec<(String, Vec<u8>)>,
}

impl Subtree {
    /// A number among its properties.
    fn number(&self, name: &str) -> Option<u64> {
        let mut properties = self.properties.iter();
        let (_, value) = properties.find(|(known, _)| known == name)?;
        number(value)
    }
}

/// What goes on from an earlier handover.
#[derive(Clone, Copy, Debug, Default)]
pub struct InheritedState<'a> {
    /// Subtrees that are handed on as they are.
    pub subtrees: &'a [Subtree],
    /// Memory that stays preserved. Only where the map is a radix tree.
    pub entries: &'a [Preserved],
}

/// A handover in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviousHandover {
    /// The scratch areas.
    pub scratch: Vec<MemoryRange>,
    /// The page size of the kernel that made it.
    pub page_size: PageSize,
    /// All subtrees but `pcsc`.
    pub subtrees: Vec<Subtree>,
    /// The entries of the preserved-memory map that the next kernel still
    /// needs: all but those of the root tree and of the old `pcsc` subtree.
    pub entries: Vec<Preserved>,
    /// The memory that nobody may write to: what is preserved, the map itself,
    /// the root tree and the array of scratch areas. Where there are very many
    /// ranges, small gaps between them are reserved as well.
    pub held: RangeSet,
}

/// The scratch areas in the array at `array`.
pub fn scratch_areas(
    memory: &dyn PhysMemory,
    array: MemoryRange,
) -> Result<Vec<MemoryRange>, PreviousHandoverError> {
    let fault = PreviousHandoverError::Scratch { array };
    let bytes = memory.bytes(array).map_err(|_| fault)?;
    if bytes.len() > MAX_SCRATCH_AREAS * 16 {
        return Err(fault);
    }
    let areas = bytes.chunks_exact(16);
    let areas = areas.map(|area| MemoryRange::new(PhysAddr(u64_at(area, 0)), u64_at(area, 8)));
    let areas: Vec<_> = areas.filter(|area| area.size != 0).collect();
    let is_sound = !areas.is_empty() && areas.iter().all(|area| area.end() <= ADDRESS_END);
    is_sound.then_some(areas).ok_or(fault)
}

impl PreviousHandover {
    /// Reads the handover whose root tree is at `root` and whose scratch areas
    /// are in the array at `array`, as the boot tree says. Its map may have
    /// `most` entries and as many pages.
    pub fn read(
        memory: &dyn PhysMemory,
        root: MemoryRange,
        array: MemoryRange,
        most: usize,
    ) -> Result<Self, PreviousHandoverError> {
        let scratch = scratch_areas(memory, array)?;
        // Linux gives one of its pages to the root tree, and says so.
        let page_size = PageSize::ALL
            .into_iter()
            .find(|size| size.bytes() == root.size)
            .ok_or(PreviousHandoverError::PageSize { size: root.size })?;
        let fault = PreviousHandoverError::Root { root };
        let bytes = memory.bytes(root).map_err(|_| fault)?;
        let mut has_abi = false;
        let mut map = None;
        let mut subtrees: Vec<Subtree> = Vec::new();
        each_property(bytes, &mut |path, name, value| {
            match (path, name) {
                ([_], b"compatible") => {
                    let mut names = value.split(|byte| *byte == 0);
                    let known = KhoAbi::V4.compatible();
                    has_abi = names.any(|name| known.iter().any(|abi| abi.as_bytes() == name));
                }
                ([_], b"preserved-memory-map") => map = number(value),
                ([_], _) => {}
                ([_, node], _) => {
                    let (node, name) = (text(node)?, text(name)?);
                    let known = subtrees.iter().position(|tree| tree.name == node);
                    let known = known.unwrap_or_else(|| {
                        subtrees.push(Subtree {
                            name: node,
                            properties: Vec::new(),
                        });
                        subtrees.len() - 1
                    });
                    subtrees[known].properties.push((name, value.to_vec()));
                }
                // Nobody has nodes below these.
                _ => return None,
            }
            Some(())
        })
        .ok_or(fault)?;
        if !has_abi {
            return Err(PreviousHandoverError::Abi);
        }

        let map = PhysAddr(map.ok_or(fault)?);
        let map = read::entries(memory, KhoAbi::V4, page_size, map, most)?;
        let mut obsolete = alloc::vec![root.start.0];
        let own = subtrees
            .iter()
            .position(|tree| tree.name.as_bytes() == PCSC_NODE);
        if let Some(own) = own.map(|own| subtrees.remove(own)) {
            obsolete_pcsc_pages(memory, &own, &mut obsolete);
        }
        obsolete.sort_unstable();
        // What somebody else points to stays, whatever the old cache says.
        let others = subtrees.iter().flat_map(|tree| &tree.properties);
        let others: Vec<u64> = others.filter_map(|(_, value)| number(value)).collect();
        let needed = |range: &&MemoryRange| {
            let at = range.start.0;
            obsolete.binary_search(&at).is_err() || others.contains(&at)
        };
        let entries = map.entries.iter().filter(needed).map(|range| Preserved {
            order: range.size.ilog2() - page_size.shift(),
            address: range.start,
        });
        let entries = entries.collect();

        let page = |at| MemoryRange::new(PhysAddr(at), page_size.bytes());
        let pages = map.pages.iter().copied().map(page);
        let mut held: RangeSet = map.entries.into_iter().chain(pages).collect();
        held.extend([root, array]);
        held.coalesce(MAX_RANGES, SMALLEST_GAP);
        Ok(Self {
            scratch,
            page_size,
            subtrees,
            entries,
            held,
        })
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    core::str::from_utf8(bytes).ok().map(String::from)
}

/// Adds to `blocks` where the memory of the old `pcsc` subtree starts, block by
/// block. Nobody will look for it.
fn obsolete_pcsc_pages(memory: &dyn PhysMemory, own: &Subtree, blocks: &mut Vec<u64>) {
    let mut look = || {
        let (start, size) = own.number("preserved-data").zip(own.number("blob-size"))?;
        let bytes = memory.bytes(MemoryRange::new(PhysAddr(start), size)).ok()?;
        blocks.push(start);
        let (mut index, mut index_size) = (0, 0);
        each_property(bytes, &mut |_, name, value| {
            match name {
                b"da" => blocks.extend(number(value)),
                b"warmbus,index" => index = number(value)?,
                b"warmbus,index-size" => index_size = number(value)?,
                _ => {}
            }
            (blocks.len() <= MAX_BLOCKS).then_some(())
        })?;
        // Some blocks are named by the index alone.
        let records = MemoryRange::new(PhysAddr(index), index_size);
        let records = memory.bytes(records).ok()?.chunks_exact(16);
        blocks.push(index);
        blocks.extend(
            records
                .skip(4)
                .take(MAX_BLOCKS)
                .map(|record| u64_at(record, 8)),
        );
        Some(())
    };
    // What cannot be read stays as it is.
    let _ = look();
}

/// Why a handover cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreviousHandoverError {
    /// There is no array of scratch areas.
    Scratch {
        /// Where it should be.
        array: MemoryRange,
    },
    /// The root tree is no page of any kernel.
    PageSize {
        /// Its bytes, as the boot tree says.
        size: u64,
    },
    /// There is no readable root tree.
    Root {
        /// Where it should be.
        root: MemoryRange,
    },
    /// It is neither `kho-v3` nor `kho-v4`.
    Abi,
    /// The preserved-memory map is damaged.
    Map {
        /// The page that makes no sense.
        page: PhysAddr,
    },
    /// The map is too long to be copied.
    TooMany {
        /// How many entries, and pages, can be.
        most: usize,
    },
}

impl From<MapFault> for PreviousHandoverError {
    fn from(fault: MapFault) -> Self {
        match fault {
            MapFault::Page(page) | MapFault::Entry(page) => Self::Map { page },
            MapFault::TooMany(most) => Self::TooMany { most },
        }
    }
}

impl fmt::Display for PreviousHandoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scratch { array } => write!(f, "no scratch areas are named at {array}"),
            Self::PageSize { size } => {
                write!(f, "a root tree of {size:#x} bytes is no page")
            }
            Self::Root { root } => write!(f, "the root tree at {root} cannot be read"),
            Self::Abi => f.write_str("its version is neither kho-v3 nor kho-v4"),
            Self::Map { page } => {
                write!(
                    f,
                    "its preserved-memory map leads astray at its page {page}"
                )
            }
            Self::TooMany { most } => {
                write!(
                    f,
                    "its preserved-memory map has more than {most} entries or pages"
                )
            }
        }
    }
}

impl core::error::Error for PreviousHandoverError {}

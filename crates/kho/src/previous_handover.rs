//! The handover that a kernel has made for the kernel after it.
//!
//! Where a running Linux starts this program with `kexec`, memory may hold
//! what the next kernel relies on. This reads the handover as that kernel
//! would, `kho-v3` and `kho-v4`, and finds the memory that must not be written.

use alloc::string::String;
use alloc::vec::Vec;

use thiserror::Error;
use warmbus_memory::{ADDRESS_END, MemoryRange, PageSize, PhysAddr, PhysMemory, RangeSet};

use crate::native::{each_property, number};
use crate::preserved_map::Preserved;
use crate::preserved_map::read::{self, MapFault, u64_at};
use crate::{KhoAbi, MAX_SCRATCH_AREAS};

/// Most ranges of [`PreviousHandover::reserved`].
const MAX_RANGES: usize = 512;
/// The smallest gap between them that is reserved as well where there are more.
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
    /// Where its data is, as the root tree says.
    #[must_use]
    pub fn data(&self) -> Option<MemoryRange> {
        let (start, size) = self
            .number("preserved-data")
            .zip(self.number("blob-size"))?;
        Some(MemoryRange::new(PhysAddr(start), size))
    }

    /// The u64 property called `name`.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        let mut properties = self.properties.iter();
        let (_, value) = properties.find(|(known, _)| known == name)?;
        number(value)
    }
}

/// What goes on from a previous handover.
#[derive(Clone, Copy, Debug, Default)]
pub struct InheritedState<'a> {
    /// Subtrees that are handed on as they are.
    pub subtrees: &'a [Subtree],
    /// Memory that stays preserved. Only where the map is a radix tree.
    pub entries: &'a [Preserved],
}

/// A handover in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PreviousHandover {
    /// The scratch areas.
    pub scratch: Vec<MemoryRange>,
    /// The page size of the kernel that made it.
    pub page_size: PageSize,
    /// Its subtrees.
    pub subtrees: Vec<Subtree>,
    /// The entries of the preserved-memory map that the next kernel still
    /// needs: all but that of the root tree.
    pub entries: Vec<Preserved>,
    /// The memory that must not be written to before the next kernel runs: what
    /// is preserved, the map itself, the root tree and the array of scratch
    /// areas. Where there are very many ranges, small gaps between them are
    /// reserved as well.
    pub reserved: RangeSet,
}

/// The scratch areas in the array at `array`, without the empty ones.
///
/// # Errors
///
/// [`PreviousHandoverError::Scratch`] if the array cannot be read, is longer
/// than [`MAX_SCRATCH_AREAS`], or has no area or one beyond the address space.
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
    /// are in the array at `array`, as the boot tree says
    /// ([`FDT_PROPERTY`](crate::FDT_PROPERTY),
    /// [`SCRATCH_PROPERTY`](crate::SCRATCH_PROPERTY)). Its map may have `most`
    /// entries and as many pages.
    ///
    /// # Errors
    ///
    /// [`PreviousHandoverError`] if a kernel could not use the handover, if its
    /// version is another one, or if its map is longer than `most`.
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
                // No kernel has nodes below these.
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
        let entries = map.entries.iter().map(|range| Preserved {
            order: range.size.ilog2() - page_size.shift(),
            address: range.start,
        });
        let entries = entries.collect();

        let page = |at| MemoryRange::new(PhysAddr(at), page_size.bytes());
        let pages = map.pages.iter().copied().map(page);
        let mut reserved: RangeSet = map.entries.into_iter().chain(pages).collect();
        reserved.extend([root, array]);
        reserved.coalesce(MAX_RANGES, SMALLEST_GAP);
        let mut handover = Self {
            scratch,
            page_size,
            subtrees,
            entries,
            reserved,
        };
        // The next handover has a root tree of its own.
        handover.release(&mut [root.start]);
        Ok(handover)
    }

    /// The subtree called `name`.
    #[must_use]
    pub fn subtree(&self, name: &str) -> Option<&Subtree> {
        self.subtrees.iter().find(|subtree| subtree.name == name)
    }

    /// Removes the subtree called `name`, which the next handover does not pass
    /// on, and the entries of the map that start at one of `memory`: its data
    /// and what that points to. What a property of another subtree points to
    /// stays. The memory stays [reserved](Self::reserved).
    pub fn discard(&mut self, name: &str, memory: &mut [PhysAddr]) {
        self.subtrees.retain(|subtree| subtree.name != name);
        self.release(memory);
    }

    /// Removes the entries that start at one of `memory`, unless a subtree
    /// points to it.
    fn release(&mut self, memory: &mut [PhysAddr]) {
        memory.sort_unstable();
        let properties = self.subtrees.iter().flat_map(|tree| &tree.properties);
        let used: Vec<u64> = properties.filter_map(|(_, value)| number(value)).collect();
        self.entries.retain(|entry| {
            let at = entry.address;
            memory.binary_search(&at).is_err() || used.contains(&at.0)
        });
    }

    /// What the next handover passes on.
    #[must_use]
    pub fn inherited(&self) -> InheritedState<'_> {
        InheritedState {
            subtrees: &self.subtrees,
            entries: &self.entries,
        }
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    core::str::from_utf8(bytes).ok().map(String::from)
}

/// Why a handover cannot be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PreviousHandoverError {
    /// There is no array of scratch areas.
    #[error("no scratch areas are named at {array}")]
    Scratch {
        /// Where it should be.
        array: MemoryRange,
    },
    /// The root tree is no page of any kernel.
    #[error("a root tree of {size:#x} bytes is no page")]
    PageSize {
        /// Its bytes, as the boot tree says.
        size: u64,
    },
    /// There is no readable root tree.
    #[error("the root tree at {root} cannot be read")]
    Root {
        /// Where it should be.
        root: MemoryRange,
    },
    /// It is neither `kho-v3` nor `kho-v4`.
    #[error("its version is neither kho-v3 nor kho-v4")]
    Abi,
    /// The preserved-memory map is damaged.
    #[error("its preserved-memory map is damaged at its page {page}")]
    Map {
        /// The page that is not valid.
        page: PhysAddr,
    },
    /// The map is too long to be copied.
    #[error("its preserved-memory map has more than {most} entries or pages")]
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

//! Memory: what there is, and what of it is taken.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::ControlFlow;

use super::MachineError;
use super::cells::{self, Reader};
use super::tree::{FdtNode, Tree, text};
use warmbus_memory::PhysAddr;

/// More memory ranges, and more reservations, than any machine has. What is
/// done with them takes time that grows with their product.
const MAX_REGIONS: usize = 1024;

/// What makes a node below `/chosen` a boot module.
const MODULES: [&str; 3] = ["multiboot,module", "multiboot,kernel", "multiboot,ramdisk"];

/// A range of physical addresses that is not empty and does not wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub base: PhysAddr,
    /// Bytes, not 0.
    pub size: u64,
}

impl Region {
    /// Last address.
    #[must_use]
    pub const fn last(self) -> PhysAddr {
        PhysAddr(self.base.0.saturating_add(self.size.saturating_sub(1)))
    }

    /// Whether the two have an address in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.base.0 <= other.last().0 && other.base.0 <= self.last().0
    }

    /// The whole pages of `page_size` bytes, a power of two, in it; `None`
    /// where there is not one.
    #[must_use]
    pub fn whole_pages(self, page_size: u64) -> Option<Self> {
        let base = self.base.0.checked_next_multiple_of(page_size)?;
        // One past the last address may be 2^64; the last page then counts.
        let beyond = self.last().0.checked_add(1).unwrap_or(0);
        let size = beyond.wrapping_sub(beyond % page_size).wrapping_sub(base);
        let inside = self.base.0.checked_add(self.size - 1).is_some()
            && base <= self.last().0
            && size <= self.size
            && size != 0;
        inside.then_some(Self {
            base: PhysAddr(base),
            size,
        })
    }

    const fn from_ends(first: u64, last: u64) -> Self {
        Self {
            base: PhysAddr(first),
            size: (last - first).saturating_add(1),
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.base.0, self.last().0)
    }
}

/// Why a range of memory is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservationKind {
    /// Named in the memory reservation block (DT 5.3).
    MemReserve,
    /// A child of `/reserved-memory`.
    ReservedMemory,
    /// A child of `/reserved-memory` that must not even be mapped (`no-map`).
    NoMap,
    /// The initial RAM disk that `/chosen` names.
    Initrd,
    /// A boot module below `/chosen` (`multiboot,module`, `multiboot,kernel`,
    /// `multiboot,ramdisk`).
    Module,
    /// Kept by UEFI for what an operating system reads, such as ACPI tables.
    Firmware,
}

/// A range of memory that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Where it is.
    pub region: Region,
    /// Why it is taken.
    pub kind: ReservationKind,
}

/// All memory of the tree, each region with the number of its NUMA node, 0
/// where the tree does not tell. Those of a node are sorted, without overlaps,
/// neighbours joined.
pub(super) fn memory(
    tree: &Tree<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<(Region, u32)>, MachineError> {
    let mut found: Vec<(u32, Vec<Region>)> = Vec::new();
    tree.walk_root_children(&mut |place| {
        if place.text("device_type")? == Some("memory") && place.is_okay()? {
            // A crash or guest kernel is told to use less than there is.
            let property = match place.property("linux,usable-memory")? {
                Some(_) => "linux,usable-memory",
                None => "reg",
            };
            let number = place.cell("numa-node-id")?.unwrap_or(0);
            let mut regions = Vec::new();
            take_regions(place, property, &mut regions, warnings);
            match found.iter_mut().find(|(node, _)| *node == number) {
                Some((_, of_node)) => of_node.append(&mut regions),
                None => found.push((number, regions)),
            }
        }
        Ok(ControlFlow::Break(()))
    })?;
    let count = found.iter().map(|(_, regions)| regions.len()).sum();
    if count == 0 {
        return Err(MachineError::NoMemory);
    }
    at_most(count, MAX_REGIONS, "memory ranges")?;
    let nodes = found.into_iter().flat_map(|(node, regions)| {
        let regions = normalize(regions).into_iter();
        regions.map(move |region| (region, node))
    });
    Ok(nodes.collect())
}

/// Everything in the tree that memory is taken by.
pub(super) fn reservations(
    tree: &Tree<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Reservation>, MachineError> {
    let mut taken = reserved_by_map(tree, warnings);
    let mut take = |found: Vec<Region>, kind| {
        taken.extend(found.into_iter().map(|region| Reservation { region, kind }));
    };
    let mut initrd = (None, None);
    tree.walk_root_children(&mut |place| {
        let Some(parent) = place.parent().filter(|parent| parent.parent().is_some()) else {
            let name = place.name()?;
            if name == "chosen" {
                initrd = (
                    place.property("linux,initrd-start")?.and_then(one_number),
                    place.property("linux,initrd-end")?.and_then(one_number),
                );
            }
            return Ok(match name.as_str() {
                "chosen" | "reserved-memory" => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            });
        };
        let mut found = Vec::new();
        if parent.name()? == "chosen" {
            let mut is_module = false;
            for kind in MODULES {
                is_module |= place.is_compatible(kind)?;
            }
            if is_module {
                take_regions(place, "reg", &mut found, warnings);
                take(found, ReservationKind::Module);
            }
        } else if place.is_okay()? && place.property("reg")?.is_some() {
            take_regions(place, "reg", &mut found, warnings);
            take(
                found,
                match place.property("no-map")? {
                    Some(_) => ReservationKind::NoMap,
                    None => ReservationKind::ReservedMemory,
                },
            );
        }
        Ok(ControlFlow::Break(()))
    })?;
    match initrd {
        (Some(start), Some(end)) if start < end => take(
            alloc::vec![Region::from_ends(start, end - 1)],
            ReservationKind::Initrd,
        ),
        (Some(start), Some(end)) => warnings.push(format!(
            "/chosen: the initrd from {start:#x} to {end:#x} is empty"
        )),
        _ => {}
    }
    at_most(taken.len(), MAX_REGIONS, "memory reservations")?;
    Ok(taken)
}

/// Refuses a tree with more than `limit` of something.
pub(super) fn at_most(count: usize, limit: usize, what: &'static str) -> Result<(), MachineError> {
    if count > limit {
        return Err(MachineError::TooMany { what, limit });
    }
    Ok(())
}

/// A property of one or two cells, as `/chosen` has them.
fn one_number(value: &[u8]) -> Option<u64> {
    matches!(value.len(), 4 | 8).then(|| Reader::new(value).number(value.len() / 4))?
}

fn take_regions(
    place: &FdtNode<'_, '_>,
    property: &'static str,
    found: &mut Vec<Region>,
    warnings: &mut Vec<String>,
) {
    // Memory is named where the processor sees it: no bus translates.
    match cells::bus_regions(place, property) {
        Ok(regions) => {
            for (base, size) in regions.into_iter().filter(|&(_, size)| size != 0) {
                if base.checked_add(size - 1).is_some() {
                    let base = PhysAddr(base);
                    found.push(Region { base, size });
                } else {
                    warnings.push(format!(
                        "{}: {size:#x} bytes at {base:#x} go past the last address and are left out",
                        place.path(),
                    ));
                }
            }
        }
        Err(error) => warnings.push(format!("{} is left out: {error}", place.path())),
    }
}

/// The memory reservation block: pairs of 64-bit numbers up to a pair of
/// zeros (DT 5.3.2).
fn reserved_by_map(tree: &Tree<'_>, warnings: &mut Vec<String>) -> Vec<Reservation> {
    let offset = tree.reservation_offset() as usize;
    let mut reader = Reader::new(tree.bytes().get(offset..).unwrap_or_default());
    let mut taken = Vec::new();
    loop {
        let (Some(base), Some(size)) = (reader.number(2), reader.number(2)) else {
            warnings.push(format!(
                "the memory reservation block at {offset:#x} has no end"
            ));
            return taken;
        };
        if (base, size) == (0, 0) {
            return taken;
        }
        if size == 0 {
            continue;
        }
        let last = base.saturating_add(size - 1);
        taken.push(Reservation {
            region: Region::from_ends(base, last),
            kind: ReservationKind::MemReserve,
        });
    }
}

/// Sorts regions and joins those that overlap or touch.
pub(super) fn normalize(mut regions: Vec<Region>) -> Vec<Region> {
    regions.sort_by_key(|region| region.base);
    let mut joined: Vec<Region> = Vec::new();
    for region in regions {
        match joined.last_mut() {
            Some(before) if region.base.0 <= before.last().0.saturating_add(1) => {
                let last = before.last().0.max(region.last().0);
                *before = Region::from_ends(before.base.0, last);
            }
            _ => joined.push(region),
        }
    }
    joined
}

/// What is left of `regions` without everything in `holes`.
#[must_use]
pub fn subtract(regions: &[Region], holes: impl IntoIterator<Item = Region>) -> Vec<Region> {
    let mut left = regions.to_vec();
    for hole in holes {
        left = left
            .into_iter()
            .flat_map(|region| {
                if !region.overlaps(hole) {
                    return [Some(region), None];
                }
                let below = (region.base < hole.base)
                    .then(|| Region::from_ends(region.base.0, hole.base.0 - 1));
                let above = (region.last() > hole.last())
                    .then(|| Region::from_ends(hole.last().0 + 1, region.last().0));
                [below, above]
            })
            .flatten()
            .collect();
    }
    left
}

/// The kernel command line that the tree carries.
pub(super) fn bootargs(tree: &Tree<'_>) -> Result<String, MachineError> {
    let value = tree.root_child_property("chosen", "bootargs")?;
    Ok(value.and_then(text).unwrap_or_default().into())
}

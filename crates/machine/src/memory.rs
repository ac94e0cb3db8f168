//! Memory and memory reservations.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::ControlFlow;

use super::MachineError;
use super::cells;
use super::uefi::MemoryMap;
use warmbus_fdt::{Cells, DeviceTree, FdtError, FdtNode};
use warmbus_memory::{MemoryRange, PhysAddr, RamRegion, RangeSet};

/// More memory ranges, and more reservations, than any machine has. The time to
/// subtract them grows with their product.
const MAX_REGIONS: usize = 1024;

/// Bytes of the longest list of ranges: each has four cells at most.
const MAX_LIST: usize = 16 * MAX_REGIONS;
/// Sentences about memory that are kept.
const MAX_WARNINGS: usize = 64;

/// The `compatible` of boot modules below `/chosen`.
const MODULES: [&str; 3] = ["multiboot,module", "multiboot,kernel", "multiboot,ramdisk"];

/// Why a range of memory is reserved.
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
    /// Reserved by UEFI for what an operating system reads, such as ACPI tables.
    Firmware,
}

/// A range of memory that is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The range.
    pub range: MemoryRange,
    /// Why it is reserved.
    pub kind: ReservationKind,
}

/// The memory of a machine, and what of it is reserved: all that it takes to
/// find a place for the heap.
///
/// What is kept of a device tree is bounded, so that reading it takes no more
/// than a small heap, however large the tree is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineMemory {
    /// All memory.
    pub ranges: RangeSet,
    /// The same memory, each range with the number of its NUMA node.
    pub nodes: Vec<RamRegion>,
    /// Reserved memory, in no order.
    pub reservations: Vec<Reservation>,
    /// What is wrong with its description, as sentences: the first 64.
    pub warnings: Vec<String>,
}

impl MachineMemory {
    /// Reads the memory of the device tree that starts with `bytes`.
    pub fn from_device_tree(bytes: &[u8]) -> Result<Self, MachineError> {
        Self::of(&DeviceTree::new(bytes)?)
    }

    /// The same of a tree that is open.
    pub(crate) fn of(tree: &DeviceTree<'_>) -> Result<Self, MachineError> {
        let mut reader = Reader::new(tree);
        tree.walk_root_children(&mut |node| reader.visit(node))?;
        reader.finish()
    }

    /// The memory of `map`, of which `firmware` is reserved besides what `tree` reserves:
    /// as in Linux, memory that the tree names does not count.
    pub fn from_uefi(
        tree: &[u8],
        map: &MemoryMap<'_>,
        firmware: impl IntoIterator<Item = MemoryRange>,
    ) -> Result<Self, MachineError> {
        let tree = DeviceTree::new(tree)?;
        let mut reader = Reader::new(&tree);
        let ram = map.ram();
        reader.ranges = ram.len();
        reader.nodes = alloc::vec![(0, ram.into_iter().collect())];
        tree.walk_root_children(&mut |node| match node.parent() {
            Some(parent) if parent.parent().is_none() && is_memory(node)? => {
                Ok(ControlFlow::Break(()))
            }
            _ => reader.visit(node),
        })?;
        let mut memory = reader.finish()?;
        let kind = ReservationKind::Firmware;
        let firmware = firmware.into_iter().collect::<RangeSet>().into_iter();
        let firmware = firmware.map(|range| Reservation { range, kind });
        memory.reservations.extend(firmware);
        Ok(memory)
    }

    /// The memory that may be mapped: all but what is reserved as `no-map`.
    #[must_use]
    pub fn mappable(&self) -> RangeSet {
        mappable(&self.ranges, &self.reservations)
    }

    /// The memory that is neither reserved nor in `taken`.
    #[must_use]
    pub fn free(&self, taken: &[MemoryRange]) -> RangeSet {
        free(&self.ranges, &self.reservations, taken)
    }
}

/// `memory` without what must not be mapped.
pub(super) fn mappable(memory: &RangeSet, reservations: &[Reservation]) -> RangeSet {
    let is_no_map = |reservation: &&Reservation| reservation.kind == ReservationKind::NoMap;
    let holes = reservations.iter().filter(is_no_map);
    memory.clone().without(holes.map(|hole| hole.range))
}

/// `memory` without what is reserved or in `taken`.
pub(super) fn free(
    memory: &RangeSet,
    reservations: &[Reservation],
    taken: &[MemoryRange],
) -> RangeSet {
    let reserved = reservations.iter().map(|hole| hole.range);
    memory
        .clone()
        .without(reserved.chain(taken.iter().copied()))
}

/// Adds a sentence to `warnings`, if there are not too many of them.
fn warn(warnings: &mut Vec<String>, sentence: impl FnOnce() -> String) {
    if warnings.len() < MAX_WARNINGS {
        warnings.push(sentence());
    }
}

/// What one walk over a tree finds of its memory.
#[derive(Default)]
struct Reader {
    /// The ranges of each NUMA node, which is 0 where the tree names none.
    nodes: Vec<(u32, Vec<MemoryRange>)>,
    /// How many ranges that are, more than are kept if they are too many.
    ranges: usize,
    reservations: Vec<Reservation>,
    /// The same for the reservations.
    reserved: usize,
    /// Start and end of the initrd that `/chosen` names.
    initrd: (Option<u64>, Option<u64>),
    warnings: Vec<String>,
}

impl Reader {
    /// One that has read the memory reservation block of `tree`.
    fn new(tree: &DeviceTree<'_>) -> Self {
        let mut warnings = Vec::new();
        let reservations = reserved_by_map(tree, &mut warnings);
        Self {
            reserved: reservations.len(),
            reservations,
            warnings,
            ..Self::default()
        }
    }

    /// Reads a child of the root, or of one for which this has continued.
    fn visit(&mut self, node: &FdtNode<'_, '_>) -> Result<ControlFlow<()>, FdtError> {
        if let Some(parent) = node.parent().filter(|parent| parent.parent().is_some()) {
            self.reservation(parent, node)?;
            return Ok(ControlFlow::Break(()));
        }
        if is_memory(node)? {
            self.memory(node)?;
        }
        let name = node.name()?;
        if name == "chosen" {
            self.initrd = (
                node.property("linux,initrd-start")?.and_then(one_number),
                node.property("linux,initrd-end")?.and_then(one_number),
            );
        }
        Ok(match name.as_str() {
            "chosen" | "reserved-memory" => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        })
    }

    /// Reads a node that is memory.
    fn memory(&mut self, node: &FdtNode<'_, '_>) -> Result<(), FdtError> {
        if self.ranges > MAX_REGIONS {
            return Ok(());
        }
        // A crash or guest kernel may use less memory than there is.
        let property = match node.property("linux,usable-memory")? {
            Some(_) => "linux,usable-memory",
            None => "reg",
        };
        let number = node.cell("numa-node-id")?.unwrap_or(0);
        let mut regions = Vec::new();
        self.ranges += read_ranges(node, property, &mut regions, &mut self.warnings);
        match self.nodes.iter_mut().find(|(node, _)| *node == number) {
            Some((_, of_node)) => of_node.append(&mut regions),
            None => self.nodes.push((number, regions)),
        }
        Ok(())
    }

    /// Reads a node below `/chosen` or `/reserved-memory`.
    fn reservation(
        &mut self,
        parent: &FdtNode<'_, '_>,
        node: &FdtNode<'_, '_>,
    ) -> Result<(), FdtError> {
        let kind = if parent.name()? == "chosen" {
            let names = node.compatible()?;
            let is_module = MODULES.iter().any(|kind| names.lists(kind));
            is_module.then_some(ReservationKind::Module)
        } else if node.is_okay()? && node.property("reg")?.is_some() {
            Some(match node.property("no-map")? {
                Some(_) => ReservationKind::NoMap,
                None => ReservationKind::ReservedMemory,
            })
        } else {
            None
        };
        if let Some(kind) = kind.filter(|_| self.reserved <= MAX_REGIONS) {
            let mut found = Vec::new();
            self.reserved += read_ranges(node, "reg", &mut found, &mut self.warnings);
            let found = found.into_iter().map(|range| Reservation { range, kind });
            self.reservations.extend(found);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<MachineMemory, MachineError> {
        if self.ranges == 0 {
            return Err(MachineError::NoMemory);
        }
        at_most(self.ranges, MAX_REGIONS, "memory ranges")?;
        at_most(self.reserved, MAX_REGIONS, "memory reservations")?;
        match self.initrd {
            (Some(start), Some(end)) if start < end => self.reservations.push(Reservation {
                range: MemoryRange::from_bounds(start, end),
                kind: ReservationKind::Initrd,
            }),
            (Some(start), Some(end)) => warn(&mut self.warnings, || {
                format!("/chosen: the initrd from {start:#x} to {end:#x} is empty")
            }),
            _ => {}
        }
        let nodes = self.nodes.into_iter().flat_map(|(node, regions)| {
            let ranges = RangeSet::from_iter(regions).into_iter();
            ranges.map(move |range| RamRegion { range, node })
        });
        let nodes: Vec<_> = nodes.collect();
        Ok(MachineMemory {
            ranges: nodes.iter().map(|region| region.range).collect(),
            nodes,
            reservations: self.reservations,
            warnings: self.warnings,
        })
    }
}

/// Whether a child of the root is memory.
fn is_memory(node: &FdtNode<'_, '_>) -> Result<bool, FdtError> {
    Ok(node.text("device_type")? == Some("memory") && node.is_okay()?)
}

/// Refuses a tree with more than `limit` of something.
pub(super) fn at_most(count: usize, limit: usize, what: &'static str) -> Result<(), MachineError> {
    if count > limit {
        return Err(MachineError::TooMany { what, limit });
    }
    Ok(())
}

/// A property of one or two cells, as `/chosen` has them.
pub(super) fn one_number(value: &[u8]) -> Option<u64> {
    matches!(value.len(), 4 | 8).then(|| Cells::new(value).number(value.len() / 4))?
}

/// Adds the ranges of a property to `found`. Returns how many that are, which
/// is more than [`MAX_REGIONS`] where the property is not read, as it is too
/// long.
fn read_ranges(
    node: &FdtNode<'_, '_>,
    property: &'static str,
    found: &mut Vec<MemoryRange>,
    warnings: &mut Vec<String>,
) -> usize {
    if let Ok(Some(value)) = node.property(property)
        && value.len() > MAX_LIST
    {
        return value.len() / 16 + 1;
    }
    // Memory is named by CPU physical addresses: no bus translates them.
    match cells::bus_regions(node, property) {
        Ok(regions) => {
            for (base, size) in regions.into_iter().filter(|&(_, size)| size != 0) {
                let range = MemoryRange::new(PhysAddr(base), size);
                if range.fits() {
                    found.push(range);
                } else {
                    warn(warnings, || {
                        format!(
                            "{}: {size:#x} bytes at {base:#x} go past the last address and are excluded",
                            node.path(),
                        )
                    });
                }
            }
        }
        Err(error) => warn(warnings, || format!("{} is excluded: {error}", node.path())),
    }
    found.len()
}

/// The memory reservation block (DT 5.3); one more than [`MAX_REGIONS`] where
/// it has more.
fn reserved_by_map(tree: &DeviceTree<'_>, warnings: &mut Vec<String>) -> Vec<Reservation> {
    let mut taken = Vec::new();
    for entry in tree.reservations() {
        match entry {
            Ok((_, 0)) => {}
            Ok(_) if taken.len() > MAX_REGIONS => break,
            Ok((address, size)) => taken.push(Reservation {
                range: MemoryRange::new(PhysAddr(address), size),
                kind: ReservationKind::MemReserve,
            }),
            Err(error) => warn(warnings, || error.to_string()),
        }
    }
    taken
}

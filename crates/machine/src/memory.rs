//! Memory and memory reservations.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::ControlFlow;

use super::MachineError;
use super::cells;
use warmbus_fdt::{Cells, DeviceTree, FdtNode, text};
use warmbus_memory::{MemoryRange, PhysAddr, RamRegion, RangeSet};

/// More memory ranges, and more reservations, than any machine has. The time to
/// subtract them grows with their product.
const MAX_REGIONS: usize = 1024;

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

/// All memory of the tree, each range with the number of its NUMA node, 0 where
/// the tree names none.
pub(super) fn memory(
    tree: &DeviceTree<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<RamRegion>, MachineError> {
    let mut found: Vec<(u32, Vec<MemoryRange>)> = Vec::new();
    tree.walk_root_children(&mut |node| {
        if node.text("device_type")? == Some("memory") && node.is_okay()? {
            // A crash or guest kernel may use less memory than there is.
            let property = match node.property("linux,usable-memory")? {
                Some(_) => "linux,usable-memory",
                None => "reg",
            };
            let number = node.cell("numa-node-id")?.unwrap_or(0);
            let mut regions = Vec::new();
            read_ranges(node, property, &mut regions, warnings);
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
        let ranges = RangeSet::from_iter(regions).into_iter();
        ranges.map(move |range| RamRegion { range, node })
    });
    Ok(nodes.collect())
}

/// All memory reservations of the tree.
pub(super) fn reservations(
    tree: &DeviceTree<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Reservation>, MachineError> {
    let mut taken = reserved_by_map(tree, warnings);
    let mut take = |found: Vec<MemoryRange>, kind| {
        taken.extend(found.into_iter().map(|range| Reservation { range, kind }));
    };
    let mut initrd = (None, None);
    tree.walk_root_children(&mut |node| {
        let Some(parent) = node.parent().filter(|parent| parent.parent().is_some()) else {
            let name = node.name()?;
            if name == "chosen" {
                initrd = (
                    node.property("linux,initrd-start")?.and_then(one_number),
                    node.property("linux,initrd-end")?.and_then(one_number),
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
                is_module |= node.is_compatible(kind)?;
            }
            if is_module {
                read_ranges(node, "reg", &mut found, warnings);
                take(found, ReservationKind::Module);
            }
        } else if node.is_okay()? && node.property("reg")?.is_some() {
            read_ranges(node, "reg", &mut found, warnings);
            take(
                found,
                match node.property("no-map")? {
                    Some(_) => ReservationKind::NoMap,
                    None => ReservationKind::ReservedMemory,
                },
            );
        }
        Ok(ControlFlow::Break(()))
    })?;
    match initrd {
        (Some(start), Some(end)) if start < end => take(
            alloc::vec![MemoryRange::from_bounds(start, end)],
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
    matches!(value.len(), 4 | 8).then(|| Cells::new(value).number(value.len() / 4))?
}

fn read_ranges(
    node: &FdtNode<'_, '_>,
    property: &'static str,
    found: &mut Vec<MemoryRange>,
    warnings: &mut Vec<String>,
) {
    // Memory is named by CPU physical addresses: no bus translates them.
    match cells::bus_regions(node, property) {
        Ok(regions) => {
            for (base, size) in regions.into_iter().filter(|&(_, size)| size != 0) {
                let range = MemoryRange::new(PhysAddr(base), size);
                if range.fits() {
                    found.push(range);
                } else {
                    warnings.push(format!(
                        "{}: {size:#x} bytes at {base:#x} go past the last address and are excluded",
                        node.path(),
                    ));
                }
            }
        }
        Err(error) => warnings.push(format!("{} is excluded: {error}", node.path())),
    }
}

/// The memory reservation block (DT 5.3).
fn reserved_by_map(tree: &DeviceTree<'_>, warnings: &mut Vec<String>) -> Vec<Reservation> {
    let mut taken = Vec::new();
    for entry in tree.reservations() {
        match entry {
            Ok((_, 0)) => {}
            Ok((address, size)) => taken.push(Reservation {
                range: MemoryRange::new(PhysAddr(address), size),
                kind: ReservationKind::MemReserve,
            }),
            Err(error) => warnings.push(error.to_string()),
        }
    }
    taken
}

/// The kernel command line that the tree carries.
pub(super) fn bootargs(tree: &DeviceTree<'_>) -> Result<String, MachineError> {
    let value = tree.root_child_property("chosen", "bootargs")?;
    Ok(value.and_then(text).unwrap_or_default().into())
}

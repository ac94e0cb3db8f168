//! Addresses in a device tree, and their translation by buses.

use alloc::string::String;
use alloc::vec::Vec;

use warmbus_fdt::{CellCounts, Cells, FdtError, FdtNode};
use warmbus_memory::{MemoryRange, PhysAddr};

/// Why a device has no CPU physical address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AddressError {
    /// There is no such property.
    #[error("it has no {0} property")]
    Missing(&'static str),
    /// The value ends within an entry, or has numbers of more than 64 bits.
    #[error(
        "the {property} property of {path} cannot be read as addresses and sizes ({length} bytes)"
    )]
    Malformed {
        property: &'static str,
        path: String,
        length: usize,
    },
    /// The end of the range is above 2^64.
    #[error("{size:#x} bytes at {address:#x} go past the last address")]
    Wraps { address: u64, size: u64 },
    /// A bus above the device does not forward the range.
    #[error("{path} does not forward {size:#x} bytes at {address:#x} to the processor")]
    NotForwarded {
        address: u64,
        size: u64,
        path: String,
    },
    /// The tree itself is damaged.
    #[error(transparent)]
    Tree(FdtError),
}

impl From<FdtError> for AddressError {
    fn from(error: FdtError) -> Self {
        Self::Tree(error)
    }
}

/// The entries of a property in the form of `reg` (DT 2.3.6), as addresses and
/// sizes on the bus that the node is on.
pub(super) fn bus_regions(
    node: &FdtNode<'_, '_>,
    property: &'static str,
) -> Result<Vec<(u64, u64)>, AddressError> {
    let value = node
        .property(property)?
        .ok_or(AddressError::Missing(property))?;
    let cells = parent_cells(node)?;
    let malformed = || AddressError::Malformed {
        property,
        path: node.path(),
        length: value.len(),
    };
    let mut reader = Cells::new(value);
    let mut regions = Vec::new();
    while !reader.is_empty() {
        // Without cells an entry would take nothing from the value.
        if cells.address == 0 {
            return Err(malformed());
        }
        let address = reader.number(cells.address).ok_or_else(malformed)?;
        let size = reader.number(cells.size).ok_or_else(malformed)?;
        regions.push((address, size));
    }
    Ok(regions)
}

/// One entry of a property in the form of `reg`, as a CPU physical address; it
/// may have no bytes.
pub(super) fn region(
    node: &FdtNode<'_, '_>,
    property: &'static str,
    index: usize,
) -> Result<MemoryRange, AddressError> {
    let regions = bus_regions(node, property)?;
    let &(address, size) = regions.get(index).ok_or(AddressError::Missing(property))?;
    Ok(MemoryRange::new(
        PhysAddr(to_cpu(node, address, size)?),
        size,
    ))
}

/// The entries of `reg` of a node as CPU physical addresses, without entries of
/// size 0.
pub(super) fn regions(
    node: &FdtNode<'_, '_>,
    property: &'static str,
) -> Result<Vec<MemoryRange>, AddressError> {
    bus_regions(node, property)?
        .into_iter()
        .filter(|&(_, size)| size != 0)
        .map(|(address, size)| {
            Ok(MemoryRange::new(
                PhysAddr(to_cpu(node, address, size)?),
                size,
            ))
        })
        .collect()
}

/// Translates `size` bytes at `address` on the bus that `node` is on into a
/// CPU physical address, through the `ranges` of all buses above (DT 2.3.8).
pub(super) fn to_cpu(node: &FdtNode<'_, '_>, address: u64, size: u64) -> Result<u64, AddressError> {
    let mut address = address;
    let mut bus = node.parent();
    while let Some(here) = bus {
        address
            .checked_add(size.saturating_sub(1))
            .ok_or(AddressError::Wraps { address, size })?;
        if here.parent().is_none() {
            break;
        }
        address = translate_one_bus(here, address, size)?;
        bus = here.parent();
    }
    Ok(address)
}

/// Translates an address on the bus below `bus` into one on the bus above.
fn translate_one_bus(bus: &FdtNode<'_, '_>, address: u64, size: u64) -> Result<u64, AddressError> {
    let not_forwarded = || AddressError::NotForwarded {
        address,
        size,
        path: bus.path(),
    };
    let ranges = bus.property("ranges")?.ok_or_else(not_forwarded)?;
    if ranges.is_empty() {
        return Ok(address);
    }
    let child = bus.cell_counts()?;
    let parent = parent_cells(bus)?;
    // Entries of other widths, such as those of a PCI bus, carry flags.
    if !(1..=2).contains(&child.address) || !(1..=2).contains(&parent.address) {
        return Err(not_forwarded());
    }
    let malformed = || AddressError::Malformed {
        property: "ranges",
        path: bus.path(),
        length: ranges.len(),
    };
    let mut reader = Cells::new(ranges);
    while !reader.is_empty() {
        let child_base = reader.number(child.address).ok_or_else(malformed)?;
        let parent_base = reader.number(parent.address).ok_or_else(malformed)?;
        let bytes = reader.number(child.size).ok_or_else(malformed)?;
        let inside = address
            .checked_sub(child_base)
            .filter(|offset| bytes.checked_sub(*offset).is_some_and(|left| left >= size));
        if let Some(offset) = inside {
            return parent_base.checked_add(offset).ok_or(AddressError::Wraps {
                address: parent_base,
                size: offset,
            });
        }
    }
    Err(not_forwarded())
}

/// Cells of the addresses and sizes on the bus that a node is on.
pub(super) fn parent_cells(node: &FdtNode<'_, '_>) -> Result<CellCounts, FdtError> {
    node.parent()
        .map_or(Ok(CellCounts::DEFAULT), FdtNode::cell_counts)
}

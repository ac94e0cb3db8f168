//! Addresses in a device tree, and how buses translate them.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::MachineError;
use super::tree::{Cells, FdtNode, big_endian_u32};
use warmbus_memory::{MemoryRange, PhysAddr};

/// Cells taken one after the other from a property value.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn cell(&mut self) -> Option<u32> {
        let cell = big_endian_u32(self.bytes, 0)?;
        self.bytes = self.bytes.get(4..)?;
        Some(cell)
    }

    /// A number of `cells` cells. `None` at the end of the value, and where
    /// the number has more than 64 bits.
    pub(super) fn number(&mut self, cells: usize) -> Option<u64> {
        // Bounded by the value, whatever #address-cells says.
        let mut number = 0_u64;
        for _ in 0..cells {
            if number >> 32 != 0 {
                return None;
            }
            number = number << 32 | u64::from(self.cell()?);
        }
        Some(number)
    }
}

/// Why the address of a device is not known to the processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AddressError {
    /// There is no such property.
    Missing(&'static str),
    /// The value ends within an entry, or has numbers of more than 64 bits.
    Malformed {
        property: &'static str,
        path: String,
        length: usize,
    },
    /// The end of the range is above 2^64.
    Wraps { address: u64, size: u64 },
    /// A bus above the device does not forward the range.
    NotForwarded {
        address: u64,
        size: u64,
        path: String,
    },
    /// The tree itself is damaged.
    Tree(MachineError),
}

impl From<MachineError> for AddressError {
    fn from(error: MachineError) -> Self {
        Self::Tree(error)
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(property) => write!(f, "it has no {property} property"),
            Self::Malformed {
                property,
                path,
                length,
            } => write!(
                f,
                "the {property} property of {path} cannot be read as addresses and sizes ({length} bytes)"
            ),
            Self::Wraps { address, size } => {
                write!(
                    f,
                    "{size:#x} bytes at {address:#x} go past the last address"
                )
            }
            Self::NotForwarded {
                address,
                size,
                path,
            } => write!(
                f,
                "{path} does not forward {size:#x} bytes at {address:#x} to the processor"
            ),
            Self::Tree(error) => error.fmt(f),
        }
    }
}

/// The entries of a property in the form of `reg` (DT 2.3.6), as the bus that
/// the node is on numbers them.
pub(super) fn bus_regions(
    place: &FdtNode<'_, '_>,
    property: &'static str,
) -> Result<Vec<(u64, u64)>, AddressError> {
    let value = place
        .property(property)?
        .ok_or(AddressError::Missing(property))?;
    let cells = parent_cells(place)?;
    let malformed = || AddressError::Malformed {
        property,
        path: place.path(),
        length: value.len(),
    };
    let mut reader = Reader::new(value);
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

/// The entries of `reg` of a node, as the processor sees them. Entries of no
/// bytes are left out.
pub(super) fn regions(
    place: &FdtNode<'_, '_>,
    property: &'static str,
) -> Result<Vec<MemoryRange>, AddressError> {
    bus_regions(place, property)?
        .into_iter()
        .filter(|&(_, size)| size != 0)
        .map(|(address, size)| {
            Ok(MemoryRange::new(
                PhysAddr(to_cpu(place, address, size)?),
                size,
            ))
        })
        .collect()
}

/// Translates `size` bytes at `address` on the bus that `place` is on into a
/// CPU physical address, through the `ranges` of all buses above (DT 2.3.8).
pub(super) fn to_cpu(
    place: &FdtNode<'_, '_>,
    address: u64,
    size: u64,
) -> Result<u64, AddressError> {
    let mut address = address;
    let mut bus = place.parent();
    while let Some(here) = bus {
        address
            .checked_add(size.saturating_sub(1))
            .ok_or(AddressError::Wraps { address, size })?;
        if here.parent().is_none() {
            break;
        }
        address = through(here, address, size)?;
        bus = here.parent();
    }
    Ok(address)
}

/// One step of the translation: from the bus below `bus` to the one above.
fn through(bus: &FdtNode<'_, '_>, address: u64, size: u64) -> Result<u64, AddressError> {
    let not_forwarded = || AddressError::NotForwarded {
        address,
        size,
        path: bus.path(),
    };
    let ranges = bus.property("ranges")?.ok_or_else(not_forwarded)?;
    if ranges.is_empty() {
        return Ok(address);
    }
    let child = bus.cells()?;
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
    let mut reader = Reader::new(ranges);
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

/// Cells on the bus that a node is on.
pub(super) fn parent_cells(place: &FdtNode<'_, '_>) -> Result<Cells, MachineError> {
    place.parent().map_or(
        Ok(Cells {
            address: 2,
            size: 1,
        }),
        FdtNode::cells,
    )
}

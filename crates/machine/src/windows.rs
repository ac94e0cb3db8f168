//! The windows of a host bridge.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::cells::{self, AddressError};
use warmbus_fdt::{Cells, FdtNode};
use warmbus_memory::MemoryRange;
use warmbus_pci::{HostBridge, HostWindow, PhysAddr, WindowKind};

/// More windows than any host bridge has. Each is compared with all others.
const MAX_WINDOWS: usize = 64;

/// The windows of a bridge, from its `ranges`. One that cannot be used is
/// excluded, with a warning.
pub(super) fn windows(
    node: &FdtNode<'_, '_>,
    memory: &[MemoryRange],
    warnings: &mut Vec<String>,
) -> Result<Vec<HostWindow>, AddressError> {
    let ranges = node.property("ranges")?.unwrap_or_default();
    let parent = cells::parent_cells(node)?;
    let own = node.cell_counts()?;
    let malformed = || AddressError::Malformed {
        property: "ranges",
        path: node.path(),
        length: ranges.len(),
    };
    if own.address != 3 && !ranges.is_empty() {
        return Err(malformed());
    }
    let mut reader = Cells::new(ranges);
    let mut windows: Vec<HostWindow> = Vec::new();
    while !reader.is_empty() {
        let flags = reader.cell().ok_or_else(malformed)?;
        let pci_address = reader.number(2).ok_or_else(malformed)?;
        let bus_address = reader.number(parent.address).ok_or_else(malformed)?;
        let size = reader.number(own.size).ok_or_else(malformed)?;
        match window(node, flags, pci_address, bus_address, size) {
            Ok(None) => {}
            Ok(Some(window)) => {
                if windows.len() == MAX_WINDOWS {
                    warnings.push(format!(
                        "{}: all windows after the first {MAX_WINDOWS} are excluded",
                        node.path()
                    ));
                    break;
                }
                if let Some(what) = overlap(&window, &windows, memory) {
                    warnings.push(format!(
                        "{}: the window at PCI address {pci_address:#x} is excluded: it overlaps {what}",
                        node.path()
                    ));
                } else {
                    windows.push(window);
                }
            }
            Err(error) => warnings.push(format!(
                "{}: the window at PCI address {pci_address:#x} is excluded: {error}",
                node.path()
            )),
        }
    }
    Ok(windows)
}

/// One entry of `ranges`; `None` where it is not a window.
fn window(
    node: &FdtNode<'_, '_>,
    flags: u32,
    pci_address: u64,
    bus_address: u64,
    size: u64,
) -> Result<Option<HostWindow>, AddressError> {
    // Bits 25:24 are the space, bit 30 is "prefetchable" (IEEE 1275 PCI bus
    // binding 2.2.1.1).
    let (kind, limit) = match flags >> 24 & 3 {
        1 => (WindowKind::Io, u64::from(u32::MAX)),
        // Some trees, that of the Arm Juno is one, have a window of 32-bit space
        // far above 4 GiB.
        2 if pci_address > u64::from(u32::MAX) => (WindowKind::Memory64, u64::MAX),
        2 => (WindowKind::Memory32, u64::from(u32::MAX)),
        3 => (WindowKind::Memory64, u64::MAX),
        _ => return Ok(None),
    };
    if size == 0 {
        return Ok(None);
    }
    let fits = |first: u64, limit| {
        first
            .checked_add(size - 1)
            .filter(|&last| last <= limit)
            .ok_or(AddressError::Wraps {
                address: first,
                size,
            })
    };
    fits(pci_address, limit)?;
    let cpu_address = cells::to_cpu(node, bus_address, size)?;
    fits(cpu_address, u64::MAX)?;
    Ok(Some(HostWindow {
        kind,
        prefetchable: flags >> 30 & 1 != 0,
        pci_address,
        cpu_address: PhysAddr(cpu_address),
        size,
    }))
}

fn cpu_side(window: &HostWindow) -> MemoryRange {
    MemoryRange::new(window.cpu_address, window.size)
}

fn pci_side(window: &HostWindow) -> MemoryRange {
    MemoryRange::new(PhysAddr(window.pci_address), window.size)
}

/// What a window of a bridge overlaps.
fn overlap(window: &HostWindow, others: &[HostWindow], memory: &[MemoryRange]) -> Option<String> {
    let is_io = |window: &HostWindow| window.kind == WindowKind::Io;
    for other in others {
        let same_space = is_io(window) == is_io(other);
        if cpu_side(window).overlaps(cpu_side(other))
            || (same_space && pci_side(window).overlaps(pci_side(other)))
        {
            return Some(format!(
                "the window at PCI address {:#x}",
                other.pci_address
            ));
        }
    }
    let region = memory
        .iter()
        .find(|region| region.overlaps(cpu_side(window)))?;
    Some(format!("memory {region}"))
}

/// Removes windows that a bridge before this one already has.
pub(super) fn drop_shared_windows(
    accepted: &[HostBridge],
    host: &mut HostBridge,
    warnings: &mut Vec<String>,
) {
    let name = &host.name;
    host.windows.retain(|window| {
        let owner = accepted.iter().find(|other| {
            other
                .windows
                .iter()
                .any(|theirs| cpu_side(theirs).overlaps(cpu_side(window)))
        });
        if let Some(owner) = owner {
            warnings.push(format!(
                "{name}: the window at {} is excluded: it overlaps one of {}",
                window.cpu_address, owner.name
            ));
        }
        owner.is_none()
    });
}

//! The host bridges of a device tree.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use super::MachineError;
use super::bindings::{Binding, binding};
use super::cells::AddressError;
use super::memory::at_most;
use super::windows::{drop_shared_windows, windows};
use warmbus_fdt::{Cells, DeviceTree, FdtNode};
use warmbus_memory::MemoryRange;
use warmbus_memory::bytes::be_u32;
use warmbus_pci::{BusRange, HostBridge, PhysAddr};

const PAGE_SIZE: u64 = 4096;
/// More host bridges than any machine has. Each is compared with all others.
pub(super) const MAX_HOSTS: usize = 1024;

/// The host bridges of a machine description.
pub(super) struct Bridges {
    pub(super) hosts: Vec<HostBridge>,
    /// How many were excluded.
    pub(super) unusable: usize,
}

/// Why one host bridge cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum BridgeError {
    #[error(transparent)]
    Address(AddressError),
    #[error("its bus-range from {first} to {last} is not within 0 to 255")]
    BusRange { first: u32, last: u32 },
    #[error("its window of {size:#x} bytes is too small for buses {buses}, which need {needed:#x}")]
    TooSmall {
        size: u64,
        buses: BusRange,
        needed: u64,
    },
    #[error("its window at {0} is not page-aligned")]
    Misaligned(PhysAddr),
    #[error("its window {region} overlaps {what}")]
    Overlap { region: MemoryRange, what: String },
    #[error("buses {buses} of segment {segment:04x} already belong to {other}")]
    SameBuses {
        segment: u16,
        buses: BusRange,
        other: String,
    },
}

impl<E: Into<AddressError>> From<E> for BridgeError {
    fn from(error: E) -> Self {
        Self::Address(error.into())
    }
}

/// Reads all host bridges that are to be used. One that cannot be is excluded
/// with a warning.
pub(super) fn bridges(
    tree: &DeviceTree<'_>,
    memory: &[MemoryRange],
    warnings: &mut Vec<String>,
) -> Result<Bridges, MachineError> {
    let chosen = tree.root_child_property("chosen", "linux,pci-probe-only")?;
    let chosen_preserve = chosen.is_some_and(|value| probe_only(value, "/chosen", warnings));

    // First everything but segment numbers, since one may depend on a node
    // that comes later.
    let mut read = Vec::new();
    tree.walk(&mut |node| {
        if !node.is_okay()? {
            return Ok(ControlFlow::Break(()));
        }
        let names = node.property("compatible")?.unwrap_or_default();
        let Some(binding) = binding(names) else {
            return Ok(ControlFlow::Continue(()));
        };
        let domain = node.cell("linux,pci-domain")?.map(|domain| domain as u16);
        let preserve = match node.property("linux,pci-probe-only")? {
            Some(value) => probe_only(value, &node.path(), warnings),
            None => chosen_preserve,
        };
        let host = bridge(node, binding, preserve, memory, warnings);
        read.push((node.path(), domain, host));
        Ok(ControlFlow::Break(()))
    })?;

    at_most(read.len(), MAX_HOSTS, "host bridges")?;
    let mut segments: BTreeSet<u16> = read.iter().filter_map(|&(_, domain, _)| domain).collect();
    let mut bridges = Bridges {
        hosts: Vec::new(),
        unusable: 0,
    };
    for (path, domain, host) in read {
        let segment = domain.unwrap_or_else(|| {
            let free = (0..=u16::MAX).find(|segment| !segments.contains(segment));
            let free = free.unwrap_or(u16::MAX);
            segments.insert(free);
            free
        });
        let accepted = host
            .map(|mut host| {
                host.segment = segment;
                host
            })
            .and_then(|host| check_neighbours(&bridges.hosts, &host).map(|()| host));
        match accepted {
            Ok(mut host) => {
                drop_shared_windows(&bridges.hosts, &mut host, warnings);
                bridges.hosts.push(host);
            }
            Err(error) => {
                bridges.unusable += 1;
                warnings.push(format!("{path} is excluded: {error}"));
            }
        }
    }
    Ok(bridges)
}

/// The value of `linux,pci-probe-only`; a value that is not one cell is
/// ignored.
fn probe_only(value: &[u8], path: &str, warnings: &mut Vec<String>) -> bool {
    if value.len() != 4 {
        warnings.push(format!(
            "{path}: linux,pci-probe-only has {} bytes instead of 4 and is ignored",
            value.len()
        ));
        return false;
    }
    be_u32(value, 0) != Some(0)
}

/// The ranges that are accessed for configuration space behind a bridge.
fn regions(host: &HostBridge) -> impl Iterator<Item = MemoryRange> {
    host.regions().into_iter()
}

fn bridge(
    node: &FdtNode<'_, '_>,
    binding: &Binding,
    preserve: bool,
    memory: &[MemoryRange],
    warnings: &mut Vec<String>,
) -> Result<HostBridge, BridgeError> {
    let (mechanism, window) = binding.mechanism(node)?;
    let buses = bus_range(node)?;
    let mut host = HostBridge::new(0, mechanism, window, buses).with_name(node.path());
    host.windows = windows(node, memory, warnings)?;
    host.preserve_config = preserve || binding.fixed;
    host.survives_linux_driver = binding.kept;
    check_ranges(&host, memory)?;
    Ok(host)
}

/// Whether the windows and registers of a bridge are whole pages outside of
/// memory, and its window is large enough for its buses.
pub(super) fn check_ranges(host: &HostBridge, memory: &[MemoryRange]) -> Result<(), BridgeError> {
    // The window is the first one.
    let needed = regions(host).next().map_or(0, |region| region.size);
    if host.ecam_size < needed {
        return Err(BridgeError::TooSmall {
            size: host.ecam_size,
            buses: host.buses,
            needed,
        });
    }
    if !MemoryRange::new(host.ecam_base, host.ecam_size).fits() {
        return Err(BridgeError::Address(AddressError::Wraps {
            address: host.ecam_base.0,
            size: host.ecam_size,
        }));
    }
    for region in regions(host) {
        if !region.start.0.is_multiple_of(PAGE_SIZE) {
            return Err(BridgeError::Misaligned(region.start));
        }
        if !region.fits() {
            return Err(BridgeError::Address(AddressError::Wraps {
                address: region.start.0,
                size: region.size,
            }));
        }
        if let Some(overlap) = memory.iter().find(|memory| memory.overlaps(region)) {
            return Err(BridgeError::Overlap {
                region,
                what: format!("memory {overlap}"),
            });
        }
    }
    Ok(())
}

fn bus_range(node: &FdtNode<'_, '_>) -> Result<BusRange, BridgeError> {
    let Some(value) = node.property("bus-range")? else {
        return Ok(BusRange {
            first: 0,
            last: 255,
        });
    };
    let mut reader = Cells::new(value);
    let (Some(first), Some(last)) = (reader.cell(), reader.cell()) else {
        return Err(BridgeError::Address(AddressError::Malformed {
            property: "bus-range",
            path: node.path(),
            length: value.len(),
        }));
    };
    match (u8::try_from(first), u8::try_from(last)) {
        (Ok(low), Ok(high)) if low <= high => Ok(BusRange {
            first: low,
            last: high,
        }),
        _ => Err(BridgeError::BusRange { first, last }),
    }
}

/// Refuses a bridge that has the ECAM or the buses of another one.
pub(super) fn check_neighbours(
    accepted: &[HostBridge],
    host: &HostBridge,
) -> Result<(), BridgeError> {
    for other in accepted {
        let shared = regions(host)
            .flat_map(|region| regions(other).map(move |theirs| (region, theirs)))
            .find(|(region, theirs)| region.overlaps(*theirs));
        if let Some((region, theirs)) = shared {
            return Err(BridgeError::Overlap {
                region,
                what: format!("{theirs} of {}", other.name),
            });
        }
        if other.segment == host.segment
            && other.buses.first <= host.buses.last
            && host.buses.first <= other.buses.last
        {
            return Err(BridgeError::SameBuses {
                segment: host.segment,
                buses: host.buses,
                other: other.name.clone(),
            });
        }
    }
    Ok(())
}

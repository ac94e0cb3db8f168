//! Host bridges of the binding `pci-host-ecam-generic`.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::ControlFlow;

use super::cells::{self, AddressError, Reader};
use super::memory::at_most;
use super::tree::{Place, Tree, big_endian_u32};
use super::windows::{drop_shared_windows, windows};
use super::{MachineError, Region};
use crate::pci::{BusRange, HostBridge, PhysAddr};

/// Bytes of ECAM that one bus takes (PCIe 7.2.2).
pub(super) const BUS_SIZE: u64 = 1 << 20;
const PAGE_SIZE: u64 = 4096;
/// More host bridges than any machine has. Each is compared with all others.
pub(super) const MAX_HOSTS: usize = 1024;

/// What the tree says about its host bridges.
pub(super) struct Bridges {
    pub(super) hosts: Vec<HostBridge>,
    /// How many were left out.
    pub(super) refused: usize,
}

/// Why one host bridge cannot be used.
pub(super) enum BridgeError {
    Address(AddressError),
    BusRange {
        first: u32,
        last: u32,
    },
    TooSmall {
        size: u64,
        buses: BusRange,
        needed: u64,
    },
    Misaligned(PhysAddr),
    Overlap {
        region: Region,
        what: String,
    },
    SameBuses {
        segment: u16,
        buses: BusRange,
        other: String,
    },
}

impl fmt::Display for BridgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(error) => error.fmt(f),
            Self::BusRange { first, last } => {
                write!(
                    f,
                    "its bus-range from {first} to {last} is not within 0 to 255"
                )
            }
            Self::TooSmall {
                size,
                buses,
                needed,
            } => write!(
                f,
                "its ECAM window of {size:#x} bytes is too small for buses {buses}, which need {needed:#x}"
            ),
            Self::Misaligned(base) => write!(f, "its ECAM window at {base} is not page-aligned"),
            Self::Overlap { region, what } => {
                write!(f, "its ECAM window {region} overlaps {what}")
            }
            Self::SameBuses {
                segment,
                buses,
                other,
            } => write!(
                f,
                "buses {buses} of segment {segment:04x} already belong to {other}"
            ),
        }
    }
}

impl<E: Into<AddressError>> From<E> for BridgeError {
    fn from(error: E) -> Self {
        Self::Address(error.into())
    }
}

/// Reads all host bridges that are to be used. One that cannot be is left out
/// with a warning.
pub(super) fn bridges(
    tree: &Tree<'_>,
    memory: &[Region],
    warnings: &mut Vec<String>,
) -> Result<Bridges, MachineError> {
    let chosen = tree.top_property("chosen", "linux,pci-probe-only")?;
    let chosen_preserve = chosen.is_some_and(|value| probe_only(value, "/chosen", warnings));

    // First everything that a node says for itself, since a segment number
    // may depend on a node that comes later.
    let mut read = Vec::new();
    tree.walk(&mut |place| {
        if !place.is_okay()? {
            return Ok(ControlFlow::Break(()));
        }
        if !place.is_compatible("pci-host-ecam-generic")? {
            return Ok(ControlFlow::Continue(()));
        }
        let domain = place.cell("linux,pci-domain")?.map(|domain| domain as u16);
        let preserve = match place.property("linux,pci-probe-only")? {
            Some(value) => probe_only(value, &place.path(), warnings),
            None => chosen_preserve,
        };
        let host = bridge(place, preserve, memory, warnings);
        read.push((place.path(), domain, host));
        Ok(ControlFlow::Break(()))
    })?;

    at_most(read.len(), MAX_HOSTS, "host bridges")?;
    let mut segments: BTreeSet<u16> = read.iter().filter_map(|&(_, domain, _)| domain).collect();
    let mut bridges = Bridges {
        hosts: Vec::new(),
        refused: 0,
    };
    for (path, domain, host) in read {
        let segment = domain.unwrap_or_else(|| {
            let free = (0..=u16::MAX).find(|segment| !segments.contains(segment));
            let free = free.unwrap_or(u16::MAX);
            segments.insert(free);
            free
        });
        let accepted = host
            .map(|host| HostBridge { segment, ..host })
            .and_then(|host| check_neighbours(&bridges.hosts, &host).map(|()| host));
        match accepted {
            Ok(mut host) => {
                drop_shared_windows(&bridges.hosts, &mut host, warnings);
                bridges.hosts.push(host);
            }
            Err(error) => {
                bridges.refused += 1;
                warnings.push(format!("{path} is left out: {error}"));
            }
        }
    }
    Ok(bridges)
}

/// The value of `linux,pci-probe-only`: anything but one cell means nothing.
fn probe_only(value: &[u8], path: &str, warnings: &mut Vec<String>) -> bool {
    if value.len() != 4 {
        warnings.push(format!(
            "{path}: linux,pci-probe-only has {} bytes instead of 4 and is ignored",
            value.len()
        ));
        return false;
    }
    big_endian_u32(value, 0) != Some(0)
}

/// The part of the ECAM window that the buses of a bridge take.
fn ecam(host: &HostBridge) -> Region {
    let buses = u64::from(host.buses.last - host.buses.first) + 1;
    Region {
        base: host.ecam_base,
        size: buses * BUS_SIZE,
    }
}

fn bridge(
    place: &Place<'_, '_>,
    preserve: bool,
    memory: &[Region],
    warnings: &mut Vec<String>,
) -> Result<HostBridge, BridgeError> {
    let window = cells::regions(place, "reg")?;
    let window = window.first().ok_or(AddressError::Missing("reg"))?;
    let buses = bus_range(place)?;
    let host = HostBridge {
        name: place.path(),
        segment: 0,
        ecam_base: window.base,
        ecam_size: window.size,
        buses,
        windows: windows(place, memory, warnings)?,
        preserve,
    };
    check_place(&host, memory)?;
    Ok(host)
}

/// Whether the ECAM window of a bridge is one, and lies outside of memory.
pub(super) fn check_place(host: &HostBridge, memory: &[Region]) -> Result<(), BridgeError> {
    let taken = ecam(host);
    if host.ecam_size < taken.size {
        return Err(BridgeError::TooSmall {
            size: host.ecam_size,
            buses: host.buses,
            needed: taken.size,
        });
    }
    if !host.ecam_base.0.is_multiple_of(PAGE_SIZE) {
        return Err(BridgeError::Misaligned(host.ecam_base));
    }
    if host.ecam_base.0.checked_add(host.ecam_size - 1).is_none() {
        return Err(BridgeError::Address(AddressError::Wraps {
            address: host.ecam_base.0,
            size: host.ecam_size,
        }));
    }
    if let Some(overlap) = memory.iter().find(|region| region.overlaps(taken)) {
        return Err(BridgeError::Overlap {
            region: taken,
            what: format!("memory {overlap}"),
        });
    }
    Ok(())
}

fn bus_range(place: &Place<'_, '_>) -> Result<BusRange, BridgeError> {
    let Some(value) = place.property("bus-range")? else {
        return Ok(BusRange {
            first: 0,
            last: 255,
        });
    };
    let mut reader = Reader::new(value);
    let (Some(first), Some(last)) = (reader.cell(), reader.cell()) else {
        return Err(BridgeError::Address(AddressError::Malformed {
            property: "bus-range",
            path: place.path(),
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

/// Whether two bridges want the same ECAM or the same buses.
pub(super) fn check_neighbours(
    accepted: &[HostBridge],
    host: &HostBridge,
) -> Result<(), BridgeError> {
    for other in accepted {
        if ecam(other).overlaps(ecam(host)) {
            return Err(BridgeError::Overlap {
                region: ecam(host),
                what: format!("{} of {}", ecam(other), other.name),
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

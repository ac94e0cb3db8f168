//! The host bridges of a device tree.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::MachineError;
use super::bindings::{Binding, binding};
use super::cells::AddressError;
use super::host_nodes::{self, FreeSegments, HostNode, Role};
use super::memory::at_most;
use super::windows::{drop_shared_windows, windows};
use warmbus_fdt::{Cells, FdtError, FdtNode};
use warmbus_memory::MemoryRange;
use warmbus_memory::bytes::be_u32;
use warmbus_pci::{BusRange, HostBridge, Mechanism, PhysAddr};

const PAGE_SIZE: u64 = 4096;
/// More host bridges than any machine has. Each is compared with all others.
pub(super) const MAX_HOSTS: usize = 1024;

/// The host bridges of a machine description.
#[derive(Default)]
pub(super) struct Bridges {
    pub(super) hosts: Vec<HostBridge>,
    /// How many were excluded.
    pub(super) unusable: usize,
    /// All of a device tree, those that were excluded as well.
    pub(super) nodes: Vec<HostNode>,
    /// Linux keeps what it finds below all of them.
    pub(super) chosen_probe_only: bool,
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
    #[error("{0} is not supported")]
    Unsupported(String),
    #[error("segment {segment:04x} already belongs to {other}")]
    SameSegment { segment: u16, other: String },
    #[error("no segment number is left for it")]
    NoSegment,
    #[error("there are several nodes of this path")]
    SamePath,
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

/// A host bridge of a device tree, before it is known whether it gets along with
/// the others.
struct Candidate {
    node: HostNode,
    domain: Option<u16>,
    host: Result<HostBridge, BridgeError>,
}

/// What a walk over a device tree finds of host bridges.
pub(super) struct Reader<'m> {
    /// Memory, which no host bridge may overlap.
    memory: &'m [MemoryRange],
    read: Vec<Candidate>,
    /// All segments that some node names: the number of one without may depend
    /// on a node that comes later.
    segments: BTreeSet<u16>,
    /// What `/chosen` says of all host bridges.
    chosen_probe_only: Option<bool>,
    warnings: Vec<String>,
}

impl<'m> Reader<'m> {
    pub(super) const fn new(memory: &'m [MemoryRange]) -> Self {
        Self {
            memory,
            read: Vec::new(),
            segments: BTreeSet::new(),
            chosen_probe_only: None,
            warnings: Vec::new(),
        }
    }

    /// Reads `/chosen`.
    pub(super) fn chosen(&mut self, node: &FdtNode<'_, '_>) -> Result<(), FdtError> {
        if let Some(value) = node.property("linux,pci-probe-only")?
            && self.chosen_probe_only.is_none()
        {
            self.chosen_probe_only = Some(probe_only(value, "/chosen", &mut self.warnings));
        }
        Ok(())
    }

    /// Reads any node.
    pub(super) fn visit(&mut self, node: &FdtNode<'_, '_>) -> Result<(), FdtError> {
        let role = host_nodes::role(node)?;
        if role.is_some() {
            self.segments.extend(host_nodes::domain(node)?);
        }
        if role == Some(Role::Host) {
            let candidate = candidate(node, self.memory, &mut self.warnings)?;
            self.read.push(candidate);
        }
        Ok(())
    }

    /// All host bridges that are to be used. One that cannot be is excluded, with
    /// one of the sentences that are added to `warnings`.
    pub(super) fn finish(mut self, warnings: &mut Vec<String>) -> Result<Bridges, MachineError> {
        warnings.append(&mut self.warnings);
        let chosen_preserve = self.chosen_probe_only.unwrap_or(false);
        bridges(self.read, self.segments, chosen_preserve, warnings)
    }
}

/// Gives segments to all that was read, and excludes what does not get along.
fn bridges(
    mut read: Vec<Candidate>,
    segments: BTreeSet<u16>,
    chosen_preserve: bool,
    warnings: &mut Vec<String>,
) -> Result<Bridges, MachineError> {
    at_most(read.len(), MAX_HOSTS, "host bridges")?;
    refuse_doubles(&mut read);
    let mut free = FreeSegments::new(segments);
    let mut bridges = Bridges {
        chosen_probe_only: chosen_preserve,
        ..Bridges::default()
    };
    for Candidate { node, domain, host } in read {
        let accepted = host.and_then(|mut host| {
            let segment = domain.or_else(|| free.next());
            host.segment = segment.ok_or(BridgeError::NoSegment)?;
            host.preserve_config |= node.probe_only.unwrap_or(chosen_preserve);
            check_neighbours(&bridges.hosts, &host)?;
            Ok(host)
        });
        match accepted {
            Ok(mut host) => {
                drop_shared_windows(&bridges.hosts, &mut host, warnings);
                bridges.hosts.push(host);
            }
            Err(error) => {
                bridges.unusable += 1;
                warnings.push(format!("{} is excluded: {error}", node.path));
            }
        }
        bridges.nodes.push(node);
    }
    Ok(bridges)
}

/// What one node says of its host bridge; what `/chosen` says is not known yet.
fn candidate(
    node: &FdtNode<'_, '_>,
    memory: &[MemoryRange],
    warnings: &mut Vec<String>,
) -> Result<Candidate, FdtError> {
    let path = node.path();
    let own = node.property("linux,pci-probe-only")?;
    let own = own.map(|value| probe_only(value, &path, warnings));
    let domain = host_nodes::domain(node)?;
    let names = node.property("compatible")?.unwrap_or_default();
    let host = match binding(names) {
        None => Err(BridgeError::Unsupported(host_nodes::binding_names(node)?)),
        Some(binding) => bridge(node, binding, memory, warnings),
    };
    let node = HostNode {
        path,
        has_domain: domain.is_some(),
        probe_only: own,
    };
    Ok(Candidate { node, domain, host })
}

/// Refuses what Linux could mistake for one another: a host bridge with the
/// segment of one before it, or of one that is not supported and may be probed
/// first, and those whose path is not theirs alone.
fn refuse_doubles(all: &mut [Candidate]) {
    let mut owners: BTreeMap<u16, String> = BTreeMap::new();
    let mut paths: BTreeMap<String, usize> = BTreeMap::new();
    for candidate in &*all {
        *paths.entry(candidate.node.path.clone()).or_default() += 1;
        let is_supported = !matches!(candidate.host, Err(BridgeError::Unsupported(_)));
        if let (Some(domain), false) = (candidate.domain, is_supported) {
            let owner = owners.entry(domain);
            owner.or_insert_with(|| candidate.node.path.clone());
        }
    }
    for candidate in all {
        let path = &candidate.node.path;
        let mut refusal = None;
        if let Some(segment) = candidate.domain {
            let owner = owners.entry(segment).or_insert_with(|| path.clone());
            if owner != path {
                let other = owner.clone();
                refusal = Some(BridgeError::SameSegment { segment, other });
            }
        }
        if paths.get(path).is_some_and(|&count| count > 1) {
            refusal = Some(BridgeError::SamePath);
        }
        if let (Ok(_), Some(refusal)) = (&candidate.host, refusal) {
            candidate.host = Err(refusal);
        }
    }
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
    memory: &[MemoryRange],
    warnings: &mut Vec<String>,
) -> Result<HostBridge, BridgeError> {
    let (mechanism, window) = binding.mechanism(node)?;
    let mut buses = bus_range(node)?;
    if let Mechanism::Window(layout) = mechanism {
        shorten(&mut buses, window.size >> layout.bus_shift, node, warnings);
    }
    let mut host = HostBridge::new(0, mechanism, window, buses).with_name(node.path());
    host.windows = windows(node, memory, warnings)?;
    host.depends_on = host_nodes::depends_on(node)?;
    let is_started = host.depends_on.is_none();
    host.preserve_config = binding.fixed || !is_started;
    host.survives_linux_driver = binding.kept && is_started;
    check_ranges(&host, memory)?;
    Ok(host)
}

/// Cuts `buses` off where the window ends, which has room for so many, as Linux
/// does. What has no room at all stays, and is refused.
fn shorten(buses: &mut BusRange, room: u64, node: &FdtNode<'_, '_>, warnings: &mut Vec<String>) {
    let last = u64::from(buses.first) + room.saturating_sub(1);
    if let Ok(last) = u8::try_from(last)
        && room != 0
        && last < buses.last
    {
        let all = *buses;
        buses.last = last;
        warnings.push(format!(
            "{}: its window has room for buses {buses} of {all}",
            node.path()
        ));
    }
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

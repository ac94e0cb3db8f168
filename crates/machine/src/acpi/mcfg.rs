//! Host bridges from the MCFG (PCI Firmware Specification 3.3, 4.1.2).
//!
//! The MCFG has where the configuration space of a bus would be; that there is
//! something behind it is in the DSDT and the SSDTs, or in the protocols of
//! UEFI. As in Linux, the buses of each host bridge that is present are looked
//! up in the MCFG, and what none uses is not accessed: it may be without clocks
//! or power.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::mcfg_quirks::{McfgId, McfgQuirk};
use super::roots::{Excluded, RootBridge, RootBuses};
use super::tables::{HEADER_SIZE, Tables};
use crate::bridges::{Bridges, MAX_HOSTS, check_neighbours, check_ranges};
use warmbus_memory::MemoryRange;
use warmbus_memory::bytes::{le_u16, le_u64};
use warmbus_pci::{BusRange, CamLayout, HostBridge, PhysAddr};

/// Bytes between the header and the first entry.
const RESERVED: usize = 8;
const ENTRY_SIZE: usize = 16;
/// Bytes of ECAM that one bus takes (PCIe 7.2.2).
const BUS_SIZE: u64 = 1 << CamLayout::ECAM.bus_shift;

/// The ECAM of some buses of a segment.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Where bus 0 is or would be.
    base: u64,
    segment: u16,
    first: u8,
    last: u8,
}

impl Entry {
    fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            base: le_u64(bytes, 0)?,
            segment: le_u16(bytes, 8)?,
            first: *bytes.get(10)?,
            last: *bytes.get(11)?,
        })
    }

    const fn has_bus(&self, segment: u16, bus: u8) -> bool {
        self.segment == segment && self.first <= bus && bus <= self.last
    }
}

/// The host bridges of `roots` that have ECAM in the MCFG, by segment and bus.
/// Those of `excluded` are known not to be usable.
pub(super) fn bridges(
    tables: &Tables<'_>,
    (roots, mut excluded): (Vec<RootBridge>, Vec<Excluded>),
    memory: &[MemoryRange],
    warnings: &mut Vec<String>,
) -> Bridges {
    let mut bridges = Bridges::default();
    let Some(mcfg) = tables.get(*b"MCFG") else {
        return bridges;
    };
    let entries = mcfg.get(HEADER_SIZE + RESERVED..).unwrap_or_default();
    let entries: Vec<Entry> = entries
        .chunks_exact(ENTRY_SIZE)
        .filter_map(Entry::parse)
        .collect();
    for (index, root) in roots.iter().enumerate() {
        let accepted = host_bridge(
            root,
            &roots[index + 1..],
            &entries,
            McfgId::from_header(mcfg),
        )
        .and_then(|host| {
            let is_room = bridges.hosts.len() < MAX_HOSTS;
            let fits =
                check_ranges(&host, memory).and_then(|()| check_neighbours(&bridges.hosts, &host));
            match fits {
                Err(error) => Err(format!("{} is excluded: {error}", host.name)),
                Ok(()) if !is_room => Err(format!(
                    "{} is excluded: there are more than {MAX_HOSTS}",
                    host.name
                )),
                Ok(()) => Ok(host),
            }
        });
        match accepted {
            Ok(host) => bridges.hosts.push(host),
            Err(reason) => {
                let bus = Some((root.segment, root.buses.first()));
                excluded.push(Excluded { bus, reason });
            }
        }
    }
    let hosts = bridges.hosts.iter();
    let used = hosts.map(|host| (host.segment, host.buses.first));
    let used: Vec<(u16, u8)> = used
        .chain(excluded.iter().filter_map(|root| root.bus))
        .collect();
    bridges.unusable = excluded.len();
    warnings.extend(excluded.into_iter().map(|root| root.reason));
    warnings.extend(entries.iter().filter_map(|entry| unused(entry, &used)));
    bridges
}

/// The host bridge of `root`; `later` are those that start after it.
fn host_bridge(
    root: &RootBridge,
    later: &[RootBridge],
    entries: &[Entry],
    id: Option<McfgId>,
) -> Result<HostBridge, String> {
    let segment = root.segment;
    let first = root.buses.first();
    let name = format!("acpi {segment:04x}:{first:02x}");
    let excluded = |why: &dyn core::fmt::Display| Err(format!("{name} is excluded: {why}"));
    let mut entries = entries.iter();
    let (entry, last) = match root.buses {
        RootBuses::Known(BusRange { last, .. }) => {
            let covers =
                |entry: &&Entry| entry.has_bus(segment, first) && entry.has_bus(segment, last);
            (entries.find(covers), last)
        }
        RootBuses::From(first) => {
            let entry = entries.find(|entry| entry.has_bus(segment, first));
            let end = entry.map_or(first, |entry| entry.last);
            // Where the buses of another one are known, these end before it. A
            // bus that another one only starts at may still be one of these.
            let known = later.iter().find_map(|other| match other.buses {
                RootBuses::Known(buses) if other.segment == segment => Some(buses.first),
                _ => None,
            });
            let last = known
                .filter(|&known| known > first)
                .map_or(end, |known| end.min(known - 1));
            (entry, last)
        }
    };
    let buses = BusRange { first, last };
    let base = match (root.ecam, entry) {
        (Some(base), Some(entry)) if base != entry.base => {
            return excluded(&format_args!(
                "its _CBA is {base:#x}, but its ECAM in the MCFG is at {:#x}",
                entry.base
            ));
        }
        (_, Some(entry)) => entry.base,
        (_, None) => {
            return excluded(&format_args!("no entry of the MCFG has its buses {buses}"));
        }
    };
    if base == 0 {
        return excluded(&"its ECAM in the MCFG is at address 0, which stands for none");
    }
    let Some(ecam) = base.checked_add(u64::from(first) * BUS_SIZE) else {
        return excluded(&format_args!(
            "its ECAM at {base:#x} goes past the last address"
        ));
    };
    // Its windows are in the DSDT, computed by its code.
    let host = HostBridge::ecam(segment, PhysAddr(ecam), buses).preserved();
    let quirk = id.and_then(|id| Some((id, id.quirk(segment)?)));
    match quirk {
        None => Ok(host.with_name(name)),
        Some((_, McfgQuirk::Widths(widths))) => Ok(host.with_name(name).with_widths(widths)),
        Some((id, McfgQuirk::NotEcam(why))) => {
            excluded(&format_args!("{why}, as is known of the MCFG of {id}"))
        }
    }
}

/// Why the buses of an entry are not accessed, where none of `used`, the first
/// buses of all host bridges, is among them.
fn unused(entry: &Entry, used: &[(u16, u8)]) -> Option<String> {
    let Entry {
        base,
        segment,
        first,
        last,
    } = *entry;
    if first > last {
        return Some(format!(
            "an MCFG entry is ignored: its buses of segment {segment:04x} from {first:#04x} to {last:#04x} are none"
        ));
    }
    let is_used = used
        .iter()
        .any(|&(segment, bus)| entry.has_bus(segment, bus));
    (!is_used).then(|| {
        format!(
            "the ECAM at {base:#x} of segment {segment:04x}, buses {first:02x}-{last:02x}, is not accessed: no host bridge device that is present uses it"
        )
    })
}

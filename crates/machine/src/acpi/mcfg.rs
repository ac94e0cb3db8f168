//! Host bridges from the MCFG (PCI Firmware Specification 3.3, 4.1.2).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::scopes::RootBus;
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

/// The host bridges of the MCFG, in its order. An entry with several root
/// buses of `roots` becomes one host bridge for each.
pub(super) fn bridges(
    tables: &Tables<'_>,
    roots: &[RootBus],
    memory: &[MemoryRange],
    warnings: &mut Vec<String>,
) -> Bridges {
    let mut bridges = Bridges::default();
    let entries = tables.get(*b"MCFG").unwrap_or_default();
    let entries = entries.get(HEADER_SIZE + RESERVED..).unwrap_or_default();
    for entry in entries.chunks_exact(ENTRY_SIZE) {
        for host in split(entry, roots) {
            let accepted = match host {
                Ok(host) if bridges.hosts.len() == MAX_HOSTS => Err(format!(
                    "{} is excluded: there are more than {MAX_HOSTS}",
                    host.name
                )),
                Ok(host) => check_ranges(&host, memory)
                    .and_then(|()| check_neighbours(&bridges.hosts, &host))
                    .map_err(|error| format!("{} is excluded: {error}", host.name))
                    .map(|()| host),
                Err(why) => Err(why),
            };
            match accepted {
                Ok(host) => bridges.hosts.push(host),
                Err(why) => {
                    bridges.unusable += 1;
                    warnings.push(why);
                }
            }
        }
    }
    bridges
}

/// The host bridges of one entry: one for each root bus in it, and one that
/// starts at its first bus.
fn split(entry: &[u8], roots: &[RootBus]) -> Vec<Result<HostBridge, String>> {
    let numbers = (
        le_u64(entry, 0),
        le_u16(entry, 8),
        entry.get(10).copied(),
        entry.get(11).copied(),
    );
    let (Some(base), Some(segment), Some(first), Some(last)) = numbers else {
        return Vec::new();
    };
    if first > last {
        return alloc::vec![Err(format!(
            "an MCFG entry is excluded: its buses of segment {segment:04x} from {first:#04x} to {last:#04x} are none"
        ))];
    }
    let mut starts: Vec<u8> = roots
        .iter()
        .filter(|root| root.segment == segment && (first..=last).contains(&root.bus))
        .map(|root| root.bus)
        .collect();
    starts.push(first);
    starts.sort_unstable();
    starts.dedup();
    let ends: Vec<u8> = starts[1..]
        .iter()
        .map(|next| next - 1)
        .chain([last])
        .collect();
    starts
        .into_iter()
        .zip(ends)
        .map(|(start, end)| {
            let name = format!("acpi {segment:04x}:{start:02x}");
            // Bus 0 is at the base address, whatever the first bus is.
            let offset = u64::from(start) * BUS_SIZE;
            let ecam = base.checked_add(offset).ok_or_else(|| {
                format!("{name} is excluded: its ECAM at {base:#x} goes past the last address")
            })?;
            let buses = BusRange {
                first: start,
                last: end,
            };
            // Their windows are in the DSDT, computed by its code.
            let host = HostBridge::ecam(segment, PhysAddr(ecam), buses);
            Ok(host.with_name(name).preserved())
        })
        .collect()
}

//! What a handover says of a function must be true of the function itself.

use warmbus::kho::Gathered;
use warmbus::pci::{
    AssignPolicy, ConfigAccess, ConfigOffset, HostBridge, ScanPolicy, Width, WindowKind, assign,
    enumerate, first_gap,
};
use warmbus::pcsc::Cached;
use warmbus_fabric::{Fabric, topologies};

use crate::common::captured;

fn machines() -> [Fabric; 3] {
    [
        topologies::small(),
        topologies::switch(),
        topologies::sriov(2, 8),
    ]
}

#[test]
fn masks_foretell_what_the_hardware_returns_after_a_write_of_ones() {
    for fabric in machines() {
        let (mut config, topology) = captured(fabric);
        let gathered = Gathered::new(&config, &topology);
        let mut foretold = Vec::new();
        for block in gathered.blocks() {
            for mask in block.masks {
                let bytes = usize::from(mask.offset)..usize::from(mask.offset) + 4;
                let is_cached = |byte: usize| block.cached[byte / 8] >> (byte % 8) & 1 != 0;
                if mask.writable | mask.fixed == u32::MAX && bytes.clone().all(is_cached) {
                    let value = u32::from_le_bytes(block.data[bytes].try_into().unwrap());
                    let after = mask.writable | value & mask.fixed;
                    foretold.push((block.sbdf, mask.offset, value, after));
                }
            }
        }
        assert!(foretold.len() > 2 * topology.functions.len());
        // The devices first: ones in a bridge would send the access elsewhere.
        foretold.sort_by_key(|(function, ..)| core::cmp::Reverse(*function));
        let hardware = config.access_mut();
        for (function, offset, value, after) in foretold {
            let at = ConfigOffset::new(offset);
            hardware.write(function, at, Width::Dword, u32::MAX);
            let found = hardware.read(function, at, Width::Dword);
            hardware.write(function, at, Width::Dword, value);
            assert_eq!(found, after, "{function} offset {at}");
        }
    }
}

#[test]
fn every_capability_is_where_the_handover_says() {
    for fabric in machines() {
        let (mut config, topology) = captured(fabric);
        let gathered = Gathered::new(&config, &topology);
        let blocks = gathered.blocks();
        assert_eq!(blocks.len(), topology.functions.len());
        assert!(blocks.iter().all(|block| block.capabilities_complete));
        let said: Vec<_> = blocks
            .iter()
            .flat_map(|block| block.capabilities.iter().map(|found| (block.sbdf, *found)))
            .collect();
        assert!(said.len() > topology.functions.len());
        for (function, capability) in said {
            let at = ConfigOffset::new(capability.offset);
            let header = config.access_mut().read(function, at, Width::Dword);
            if capability.offset < 0x100 {
                assert_eq!(header & 0xff, u32::from(capability.id));
            } else {
                let version = u32::from(capability.version);
                assert_eq!(header & 0xf_ffff, u32::from(capability.id) | version << 16);
            }
        }
    }
}

/// Enumerates and assigns `fabric` with what `change` leaves of its host
/// bridge, and returns what is not complete.
fn gap(fabric: Fabric, change: impl Fn(&mut HostBridge)) -> Option<String> {
    let mut hosts = fabric.host_bridges();
    hosts.iter_mut().for_each(change);
    let mut clock = fabric.clock();
    let mut config = Cached::new(fabric);
    let mut topology = enumerate(&hosts, &ScanPolicy::default(), &mut config, &mut clock);
    assign(&mut topology, &AssignPolicy::default(), &mut config);
    first_gap(&topology).map(|gap| gap.to_string())
}

#[test]
fn an_assignment_is_complete_when_everything_has_its_place() {
    for fabric in machines() {
        assert_eq!(gap(fabric, |_| ()), None);
    }
    let without_io = gap(topologies::small(), |host| {
        host.windows.retain(|window| window.kind != WindowKind::Io);
    });
    assert_eq!(without_io, None);
}

#[test]
fn what_has_no_address_or_no_bus_makes_an_assignment_incomplete() {
    let little_memory = gap(topologies::small(), |host| {
        for window in &mut host.windows {
            window.size = window.size.min(1 << 20);
        }
    });
    assert!(little_memory.is_some());
    let few_buses = gap(topologies::small(), |host| host.buses.last = 1);
    assert!(few_buses.unwrap().contains("no bus number"));
    let preserved = gap(topologies::small(), |host| host.preserve = true);
    assert!(preserved.is_some());
}

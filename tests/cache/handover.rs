//! What a handover says of a function must be true of the function itself.

use warmbus_boot::pipeline::Pipeline;
use warmbus_boot::unassigned::unassigned_below;
use warmbus_pci::{ConfigAccess, ConfigOffset, HostBridge, Width, WindowKind};
use warmbus_pcie_sim::{Fabric, FunctionModel, SrIovModel, devices, topologies};
use warmbus_pcsc_format::HandoverRecords;

use crate::common::captured;

fn machines() -> [Fabric; 3] {
    [
        topologies::small(),
        topologies::switch(),
        topologies::sriov(2, 8),
    ]
}

#[test]
fn masks_predict_what_the_hardware_returns_after_a_write_of_ones() {
    for fabric in machines() {
        let (mut config, topology) = captured(fabric);
        let gathered = HandoverRecords::new(&config, &topology);
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
        assert!(foretold.len() > 2 * topology.functions().len());
        // The devices first: ones in a bridge would send the access elsewhere.
        foretold.sort_by_key(|(function, ..)| core::cmp::Reverse(*function));
        let hardware = config.access_mut();
        for (function, offset, value, after) in foretold {
            let at = ConfigOffset::wrapping(offset);
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
        let gathered = HandoverRecords::new(&config, &topology);
        let blocks = gathered.blocks();
        assert_eq!(blocks.len(), topology.functions().len());
        assert!(blocks.iter().all(|block| block.capabilities_complete));
        let said: Vec<_> = blocks
            .iter()
            .flat_map(|block| block.capabilities.iter().map(|found| (block.sbdf, *found)))
            .collect();
        assert!(said.len() > topology.functions().len());
        for (function, capability) in said {
            let at = ConfigOffset::wrapping(capability.offset);
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

/// Boots `fabric` with what `change` leaves of its host
/// bridge, and returns what is not complete.
fn gap(fabric: Fabric, change: impl Fn(&mut HostBridge)) -> Option<String> {
    let mut hosts = fabric.host_bridges();
    hosts.iter_mut().for_each(change);
    let mut clock = fabric.clock();
    let captured = Pipeline::default().run(&hosts, fabric, &mut clock, &mut ());
    unassigned_below(&captured.topology, 0).map(|gap| gap.to_string())
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
    let preserved = gap(topologies::small(), |host| host.preserve_config = true);
    assert!(preserved.is_some());
}

/// What is not complete on a machine with `function` below the second of two
/// root ports, on bus 2, and as many buses as `change` leaves.
fn gap_with(function: FunctionModel, change: impl Fn(&mut HostBridge)) -> Option<String> {
    let (mut fabric, host) = Fabric::with_buses(0, 255);
    for (device, below) in [(1, devices::nvme()), (2, function)] {
        let port = fabric.add_root(host, device, 0, devices::root_port(1).link_up());
        fabric.add_below(port, 0, 0, below);
    }
    gap(fabric, change)
}

#[test]
fn what_nobody_could_give_is_no_gap() {
    for header in 3..0x7f {
        let unknown = devices::nvme().set(0x0e, Width::Byte, header);
        assert_eq!(gap_with(unknown, |_| ()), None, "{header:#x}");
    }
    let card_bus = gap_with(devices::nvme().set(0x0e, Width::Byte, 2), |_| ());
    assert!(card_bus.unwrap().contains("CardBus"));

    let physical = |total_vfs, layout| {
        let sr_iov = SrIovModel {
            total_vfs,
            layout,
            ..SrIovModel::default()
        };
        devices::nvme().sriov(sr_iov, FunctionModel::virtual_function(0x01_0802))
    };
    // 65535 VFs behind one another need bus 256 wherever the first one is, and
    // 256 of them one bus beside their own, of which there would be one if this
    // device were on bus 1.
    let in_a_row = |total_vfs, last| {
        let change = move |host: &mut HostBridge| host.buses.last = last;
        gap_with(physical(total_vfs, |_, _| (1, 1)), change)
    };
    assert_eq!(in_a_row(65535, 255), None);
    assert_eq!(in_a_row(256, 255), None);
    let gap = in_a_row(256, 2).unwrap();
    assert!(
        gap.contains("the last of 256 VFs has no bus number"),
        "{gap}"
    );
}

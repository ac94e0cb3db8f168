//! What a handover says of the functions of a machine.

use warmbus_pci::{BusRange, CamLayout, ConfigAccess, ConfigOffset, Mechanism, Sbdf, Width};
use warmbus_pcie_sim::{BarModel, Fabric, devices};
use warmbus_pcsc_format::{CapabilityRecord, RoutingRecord};

use crate::captured::{CapturedMachine, add_host, at, endpoint, of, physical, root_port};

#[test]
fn capabilities_are_complete_where_their_lists_end() {
    let model = || endpoint().power_management(false, 0).serial_number(1);
    // Lists that lead back, into the header, and to an unaligned offset.
    let broken = [
        model().link_capability(0x7c, 0x7c),
        model().link_capability(0x7c, 0x3c),
        model().link_extended(0x100, 0x100),
        model().link_extended(0x100, 0x0fc),
    ];
    for (number, broken) in broken.into_iter().enumerate() {
        let mut fabric = Fabric::new();
        let host = add_host(&mut fabric, 0);
        let broken = broken.named("broken");
        for (device, model) in [(1, model()), (2, broken), (3, model())] {
            let port = fabric.add_root(host, device, 0, root_port(true));
            fabric.add_below(port, 0, 0, model);
        }
        let machine = CapturedMachine::new(fabric, &[]);
        let gathered = machine.gathered();
        let blocks = gathered.blocks();
        assert_eq!(blocks.len(), 6);
        for block in &blocks {
            let is_broken = block.sbdf == at(0, 2, 0, 0);
            assert_eq!(
                block.capabilities_complete, !is_broken,
                "{number}: {}",
                block.sbdf
            );
        }
    }
}

#[test]
fn a_bar_that_does_not_fit_leaves_capabilities_complete() {
    let mut fabric = Fabric::new();
    let host = add_host(&mut fabric, 0);
    let port = fabric.add_root(host, 1, 0, root_port(true));
    let large = endpoint().bar(0, BarModel::memory64(1 << 50));
    fabric.add_below(port, 0, 0, large);
    let machine = CapturedMachine::new(fabric, &[]);
    let function = machine.topology.function(at(0, 1, 0, 0)).expect("found");
    assert!(!function.anomalies.is_empty());
    let gathered = machine.gathered();
    let blocks = gathered.blocks();
    assert!(of(&blocks, at(0, 1, 0, 0)).capabilities_complete);
}

#[test]
fn capabilities_are_in_the_order_of_their_lists_conventional_ones_first() {
    let mut fabric = Fabric::new();
    let host = add_host(&mut fabric, 0);
    let port = fabric.add_root(host, 1, 0, root_port(true));
    let model = endpoint()
        .power_management(false, 0)
        .place_at(0x60)
        .vendor_specific(&[4, 0])
        .serial_number(1)
        .place_at(0x300)
        .extended(0xfff0, 3, &[1]);
    // Express is wherever the model puts it first.
    fabric.add_below(port, 0, 0, model);
    let machine = CapturedMachine::new(fabric, &[]);
    let gathered = machine.gathered();
    let blocks = gathered.blocks();
    let found: Vec<_> = of(&blocks, at(0, 1, 0, 0)).capabilities.to_vec();
    let ids: Vec<_> = found.iter().map(|found| found.id).collect();
    assert_eq!(ids, [0x10, 0x01, 0x09, 0x0003, 0xfff0]);
    let record = |id, offset, version| CapabilityRecord {
        id,
        offset,
        version,
    };
    assert_eq!(found[2], record(0x09, 0x60, 0));
    assert_eq!(found[3], record(0x0003, 0x100, 1));
    assert_eq!(found[4], record(0xfff0, 0x300, 3));
    assert!(found[..3].iter().all(|found| found.version == 0));
}

#[test]
fn what_linux_resets_is_not_handed_over() {
    for lost in [&[][..], &[0], &[1], &[2], &[0, 2], &[0, 1, 2]] {
        let mut fabric = Fabric::new();
        for segment in 0..3 {
            let buses = BusRange { first: 0, last: 31 };
            let mut host = Fabric::host_bridge(segment, buses);
            host.survives_linux_driver = !lost.contains(&usize::from(segment));
            let host = fabric.add_host(host);
            let port = fabric.add_root(host, 1, 0, root_port(true));
            fabric.add_below(port, 0, 0, devices::nvme());
        }
        let machine = CapturedMachine::new(fabric, &[]);
        let gathered = machine.gathered();
        let found: Vec<_> = gathered.blocks().iter().map(|block| block.sbdf).collect();
        let expected: Vec<_> = (0..3_u16)
            .filter(|segment| !lost.contains(&usize::from(*segment)))
            .flat_map(|segment| [at(segment, 0, 1, 0), at(segment, 1, 0, 0)])
            .collect();
        assert_eq!(found, expected, "{lost:?}");
    }
}

#[test]
fn every_function_has_the_address_of_its_configuration_space() {
    let mut fabric = Fabric::new();
    // One window that starts at bus 0x20, one at bus 0, in two segments, and
    // one with 256 bytes a function.
    let mut hosts = [(0, 0x20, 0x7f), (1, 0, 31), (2, 4, 11)]
        .map(|(segment, first, last)| Fabric::host_bridge(segment, BusRange { first, last }));
    hosts[2].mechanism = Mechanism::Window(CamLayout {
        bus_shift: 16,
        single_device_on_root_bus: false,
    });
    for host in hosts.clone() {
        let host = fabric.add_host(host);
        let port = fabric.add_root(host, 3, 0, root_port(true));
        fabric.add_below(port, 0, 0, physical(4, |_, _| (1, 1)));
    }
    let machine = CapturedMachine::new(fabric, &[(at(1, 1, 0, 0), 2)]);
    let gathered = machine.gathered();
    let addresses = |segment: u16| -> Vec<(u8, u8, u64)> {
        let base = hosts[usize::from(segment)].ecam_base.0;
        let blocks = gathered.blocks().into_iter();
        blocks
            .filter(|block| block.sbdf.segment() == segment)
            .map(|block| {
                let address = block.config_address.expect("a window").0;
                (block.sbdf.bus(), block.sbdf.devfn(), address - base)
            })
            .collect()
    };
    assert_eq!(addresses(0), [(0x20, 0x18, 0x1_8000), (0x21, 0, 0x10_0000)]);
    let virtual_functions = [(1, 1, 0x10_1000), (1, 2, 0x10_2000)];
    let mut expected = vec![(0, 0x18, 0x1_8000), (1, 0, 0x10_0000)];
    expected.extend(virtual_functions);
    assert_eq!(addresses(1), expected);
    assert_eq!(addresses(2), [(4, 0x18, 0x1800), (5, 0, 0x1_0000)]);
}

#[test]
fn a_virtual_function_has_its_number_and_the_record_of_its_capture() {
    let mut fabric = Fabric::new();
    let host = add_host(&mut fabric, 0);
    for device in 1..3 {
        let port = fabric.add_root(host, device, 0, root_port(true));
        fabric.add_below(port, 0, 0, physical(8, |num_vfs, _| (num_vfs, 2)));
    }
    let (first, second) = (at(0, 1, 0, 0), at(0, 2, 0, 0));
    let machine = CapturedMachine::new(fabric, &[(first, 3), (second, 4)]);
    let gathered = machine.gathered();
    let blocks = gathered.blocks();
    assert!(blocks.windows(2).all(|pair| pair[0].sbdf < pair[1].sbdf));
    for (physical, num_vfs) in [(first, 3), (second, 4)] {
        let block = of(&blocks, physical);
        assert!(block.virtual_function.is_none());
        let record = |num_vfs, captured| RoutingRecord {
            first: num_vfs,
            last: num_vfs,
            offset: num_vfs,
            stride: 2,
            ari: true,
            captured,
        };
        let (used, total) = (record(num_vfs, true), record(8, false));
        assert_eq!(block.routing, [used, total]);
        for number in 1..=num_vfs {
            let rid = physical.routing_id() + num_vfs + 2 * (number - 1);
            let block = of(&blocks, Sbdf::from_routing_id(0, rid));
            assert_eq!(block.routing, [used]);
            let vf = block.virtual_function.expect("a virtual function");
            assert_eq!((vf.physical, vf.number), (physical.routing_id(), number));
            assert!(vf.disabled);
            assert_eq!(vf.synthesised, [(0x00, 4), (0x0c, 0x20), (0x30, 4)]);
            // Constant bits, but nothing that can be written.
            let masks = &block.masks;
            assert!(
                masks
                    .iter()
                    .all(|mask| mask.writable == 0 && mask.value.is_some())
            );
        }
    }
}

#[test]
fn masks_are_those_of_the_hardware_and_ascend() {
    let mut fabric = Fabric::new();
    let host = add_host(&mut fabric, 0);
    let port = fabric.add_root(host, 1, 0, devices::root_port(1).link_up());
    fabric.add_below(port, 0, 0, devices::nvme());
    let mut machine = CapturedMachine::new(fabric, &[]);
    let gathered = machine.gathered();
    let blocks = gathered.blocks();
    let mut found = Vec::new();
    for block in &blocks {
        assert!(block.masks.is_sorted_by(|a, b| a.offset < b.offset));
        found.extend(block.masks.iter().map(|mask| (block.sbdf, *mask)));
    }
    let functions = blocks.len();
    let (mut with_value, mut bars) = (0, 0);
    for (function, mask) in found {
        let register = ConfigOffset::wrapping(mask.offset);
        let hardware = machine.config.access_mut();
        let before = hardware.read(function, register, Width::Dword);
        if let Some(value) = mask.value {
            // Of registers that are not cached: Command and Link Control.
            with_value += 1;
            assert_eq!(before & mask.fixed, value, "{function} {register}");
            assert_ne!(mask.fixed, 0);
            if mask.offset == 4 {
                // Memory Space, and I/O Space where there is any.
                assert_eq!(mask.writable & !1, 2, "{function}");
                for bit in (0..16).filter(|bit| mask.writable >> bit & 1 != 0) {
                    hardware.write(function, register, Width::Word, before ^ 1 << bit);
                    let after = hardware.read(function, register, Width::Word);
                    assert_eq!((after ^ before) & 0xffff, 1 << bit, "{function}");
                }
                hardware.write(function, register, Width::Word, before);
            } else {
                assert_eq!(mask.writable, 0);
            }
        } else if (0x10..0x28).contains(&mask.offset) {
            bars += 1;
            hardware.write(function, register, Width::Dword, u32::MAX);
            let after = hardware.read(function, register, Width::Dword);
            hardware.write(function, register, Width::Dword, before);
            assert_eq!(after & mask.writable, mask.writable, "{function}");
            assert_eq!(after & mask.fixed, before & mask.fixed, "{function}");
        }
    }
    assert!(with_value >= 2 * functions && bars > functions);
}

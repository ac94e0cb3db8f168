//! Writes after which the value of a register is known without a read: those
//! to bits that the hardware is known to keep, or known to ignore.

use warmbus_pci::{PortType, Sbdf, Width};
use warmbus_pcie_sim::{
    BarModel, BarSpace, BridgeWindows, ExpressModel, FunctionModel, SlotModel, SrIovModel, devices,
    topologies,
};

use crate::twin::{EXPRESS, Register, SR_IOV, Twin, at, machine, virtual_function};

/// Writes each of `values` to a dword as a whole, and then by words and bytes.
/// Each value that it holds after that must be known.
fn assert_known(twin: &mut Twin, function: Sbdf, offset: u16, values: &[u32]) {
    let dword = at(function, offset, Width::Dword);
    let words = [0, 2].map(|lane| at(function, offset + lane, Width::Word));
    let bytes = [0, 1, 2, 3].map(|lane| at(function, offset + lane, Width::Byte));
    for &value in values {
        twin.read(dword);
        twin.write(dword, value);
        twin.assert_served(dword);
        for (parts, bits) in [(&words[..], 16), (&bytes[..], 8)] {
            for (lane, part) in parts.iter().enumerate() {
                let part_of_value = |value: u32| value >> (bits * lane) & part.width.ones();
                twin.write(*part, part_of_value(!value));
                twin.assert_served(dword);
                twin.write(*part, part_of_value(value));
                twin.assert_served(dword);
            }
        }
    }
}

/// What sizing, placing and clearing write.
const VALUES: [u32; 5] = [0, 0x8765_4321, 0xe123_4000, 0xffff_fffe, u32::MAX];

#[test]
fn all_address_registers_of_an_endpoint_are_known_after_a_write() {
    let mut vf_bars = [None; 6];
    vf_bars[0] = Some(BarModel::memory64(0x4000).prefetchable());
    vf_bars[2] = Some(BarModel::memory32(0x1000));
    vf_bars[3] = Some(BarModel::memory64(0x1_0000));
    let sriov = SrIovModel {
        vf_bars,
        ..SrIovModel::default()
    };
    let model = FunctionModel::endpoint(0x1234, 1, 0x02_0000)
        .bar(0, BarModel::memory32(0x1000))
        .bar(1, BarModel::io(0x40))
        .bar(2, BarModel::memory64(0x4000).prefetchable())
        .bar(4, BarModel::new(BarSpace::Io16, 0x10))
        .rom(0x1_0000)
        .express(ExpressModel::new(PortType::Endpoint))
        .sriov(sriov, virtual_function());
    let mut twin = machine(devices::root_port(1), model);
    let endpoint = twin.place("endpoint");
    // BAR 5 is not implemented, and that is known as well.
    for offset in (0x10..0x28).step_by(4).chain([0x30]) {
        assert_known(&mut twin, endpoint, offset, &VALUES);
    }
    let first = twin.extended(endpoint, SR_IOV, 0x24, Width::Dword).offset;
    for offset in (first..first + 0x18).step_by(4) {
        assert_known(&mut twin, endpoint, offset, &VALUES);
    }
    // Each bit is one or the other.
    for mask in twin.cached.block(endpoint).unwrap().write_masks() {
        assert_eq!(mask.writable ^ mask.fixed, u32::MAX, "{mask:x?}");
    }
    // What follows the VF BARs is none of them.
    let offset = twin.extended(endpoint, SR_IOV, 0x3c, Width::Dword).offset;
    let masks = twin.cached.block(endpoint).unwrap().write_masks();
    let mut offsets: Vec<u16> = masks.iter().map(|mask| mask.offset).collect();
    offsets.sort_unstable();
    let mut expected: Vec<u16> = (0x10..0x28).step_by(4).chain([0x30]).collect();
    expected.extend((first..offset).step_by(4));
    assert_eq!(offsets, expected);
}

#[test]
fn all_address_registers_of_a_bridge_are_known_after_a_write() {
    for (io_bits, prefetchable_bits) in [(32, 64), (16, 32), (16, 64), (0, 0)] {
        let windows = BridgeWindows {
            io_bits,
            prefetchable_bits,
        };
        let port = FunctionModel::bridge(0x1234, 4, windows)
            .bar(0, BarModel::memory64(0x100))
            .rom(0x1_0000)
            .express(ExpressModel::new(PortType::RootPort));
        let mut twin = machine(port, devices::virtio_network());
        let port = twin.place("port");
        let mut offsets = vec![0x10, 0x14, 0x20, 0x38];
        if prefetchable_bits > 0 {
            offsets.extend([0x24, 0x28, 0x2c]);
        }
        for offset in offsets {
            // Sized first, for those that no one needed so far.
            twin.write(at(port, offset, Width::Dword), u32::MAX);
            assert_known(&mut twin, port, offset, &VALUES);
        }
        // Secondary Status shares the dword with the window.
        let window = at(port, 0x1c, Width::Word);
        for value in [0, 0xf1f1, 0x4050, 0xffff] {
            twin.write(window, value);
            twin.read(window);
            if io_bits > 0 {
                twin.assert_served(window);
            }
        }
        twin.assert_transparent();
    }
}

#[test]
fn bus_numbers_are_known_after_a_write() {
    let mut twin = machine(devices::root_port(1), devices::nvme());
    let port = twin.place("port");
    for value in [0x0003_0300, 0x0007_0500, 0x00ff_ff07, 0, 0x0001_0100] {
        let numbers = at(port, 0x18, Width::Dword);
        twin.read(numbers);
        twin.write(numbers, value);
        for lane in 0..3 {
            twin.assert_served(at(port, 0x18 + lane, Width::Byte));
        }
    }
}

/// Flips bits of `register` twice. Whether their value is known without a read
/// is `is_known`; what it is, the hardware says.
fn flip(twin: &mut Twin, register: Register, bits: u32, is_known: bool) {
    for _ in 0..2 {
        let now = twin.read(register);
        twin.write(register, now ^ bits);
        assert_eq!(
            twin.is_cached(register),
            is_known,
            "{register:x?} {bits:#x}"
        );
        twin.read(register);
    }
}

#[test]
fn enable_bits_are_known_where_the_function_must_have_them() {
    let sriov = SrIovModel {
        total_vfs: 4,
        ..SrIovModel::default()
    };
    let endpoint = devices::nvme().sriov(sriov, virtual_function());
    let mut twin = machine(devices::root_port(1), endpoint);
    let (port, endpoint) = (twin.place("port"), twin.place("endpoint"));
    // Memory Space, and I/O Space, which the port has a window for.
    flip(&mut twin, at(endpoint, 4, Width::Word), 2, true);
    flip(&mut twin, at(endpoint, 4, Width::Word), 1, false);
    flip(&mut twin, at(endpoint, 4, Width::Word), 4, false);
    // Another bit that is set and stays so is in nobody's way.
    twin.set(at(endpoint, 4, Width::Word), 4);
    flip(&mut twin, at(endpoint, 4, Width::Word), 2, true);
    flip(&mut twin, at(port, 4, Width::Word), 3, true);
    let vf_enable = twin.extended(endpoint, SR_IOV, 8, Width::Word);
    flip(&mut twin, vf_enable, 1, true);
    flip(&mut twin, vf_enable, 8, false);
    let root_control = twin.standard(port, EXPRESS, 0x1c, Width::Word);
    flip(&mut twin, root_control, 0x10, true);
    flip(&mut twin, root_control, 1, false);
    let control_2 = twin.standard(port, EXPRESS, 0x28, Width::Word);
    flip(&mut twin, control_2, 0x20, true);
    flip(&mut twin, control_2, 0x10, false);
    twin.assert_transparent();
    // Wherever the capability is.
    let express = ExpressModel::new(PortType::RootPort).ari_forwarding();
    let port = FunctionModel::bridge(0x1234, 4, BridgeWindows::default()).place_at(0x80);
    let mut twin = machine(port.express(express), devices::nvme());
    let control_2 = twin.standard(twin.place("port"), EXPRESS, 0x28, Width::Word);
    flip(&mut twin, control_2, 0x20, true);
}

#[test]
fn enable_bits_are_not_known_where_the_function_need_not_have_them() {
    // No ARI forwarding, no RRS visibility, no VFs, and none of the bits.
    let express = ExpressModel::new(PortType::RootPort).slot(SlotModel::HOT_PLUG);
    let port = FunctionModel::bridge(0x1234, 4, BridgeWindows::default())
        .express(express.without_rrs_visibility());
    let none = SrIovModel {
        total_vfs: 0,
        ..SrIovModel::default()
    };
    let endpoint =
        devices::nvme()
            .sriov(none, virtual_function())
            .writable(0x12c + 8, Width::Word, 0);
    let mut twin = machine(port, endpoint);
    let (port, endpoint) = (twin.place("port"), twin.place("endpoint"));
    let vf_enable = twin.extended(endpoint, SR_IOV, 8, Width::Word);
    assert_eq!(vf_enable.offset, 0x12c + 8);
    flip(&mut twin, vf_enable, 1, false);
    let root_control = twin.standard(port, EXPRESS, 0x1c, Width::Word);
    flip(&mut twin, root_control, 0x10, false);
    let control_2 = twin.standard(port, EXPRESS, 0x28, Width::Word);
    flip(&mut twin, control_2, 0x20, false);
    // A port of version 1 has none of these registers.
    let express = ExpressModel::new(PortType::RootPort).version(1);
    let port = FunctionModel::bridge(0x1234, 4, BridgeWindows::default()).express(express);
    let mut twin = machine(port, devices::nvme());
    let port = twin.place("port");
    let device_2 = twin.standard(port, EXPRESS, 0x28, Width::Word);
    twin.write(device_2, 0x20);
    assert!(twin.cached.block(port).is_none());
}

#[test]
fn a_windows_decoder_proves_its_enable_bit() {
    for (io_bits, bits) in [(16, 3), (0, 2)] {
        let windows = BridgeWindows {
            io_bits,
            prefetchable_bits: 64,
        };
        let (mut fabric, host) = topologies::empty();
        let port = FunctionModel::bridge(0x1234, 4, windows)
            .express(ExpressModel::new(PortType::RootPort))
            .named("port")
            .link_up();
        let port = fabric.add_root(host, 1, 0, port);
        // One with I/O, so that the window is opened.
        fabric.add_below(port, 0, 0, devices::old_network());
        let twin = Twin::new_with_gaps(fabric);
        let block = twin.cached.block(twin.place("port")).unwrap();
        assert_eq!(block.writable_command_bits(), bits);
    }
}

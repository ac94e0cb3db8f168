//! Structures that move other registers, reset them, or take their time.

use warmbus_pci::{PortType, Width};
use warmbus_pcie_sim::{
    BarModel, ExpressModel, FunctionModel, MILLISECOND, SECOND, SlotModel, SrIovModel,
    VF_ENABLE_TIME, VendorAction,
};

use crate::{ABSENT, Bench, endpoint, ids, port, root_port};

const AT: (u8, u8, u8) = (0, 1, 0);
const BELOW: (u8, u8, u8) = (1, 0, 0);

/// `model` at 01:00.0, below `port` at 00:01.0.
fn below(port: FunctionModel, model: FunctionModel) -> Bench {
    let mut bench = Bench::new();
    let port = bench.fabric.add_root(bench.host, 1, 0, port);
    bench.fabric.add_below(port, 0, 0, model);
    bench.number(AT, 0, 1, 4);
    bench
}

#[test]
fn a_vendor_register_changes_what_is_read_only() {
    let set = VendorAction::Set {
        offset: 8,
        width: Width::Byte,
        value: 7,
    };
    let mut bench = Bench::with_function(endpoint(7).vendor_register(0xf0, set));
    bench.w32(AT, 0xf0, 0);
    assert_eq!(bench.r8(AT, 8), 0);
    bench.w32(AT, 0xf0, 0x100);
    assert_eq!((bench.r8(AT, 8), bench.r32(AT, 0xf0)), (7, 0x100));
    let port = root_port().vendor_register(0xf0, VendorAction::StopForwarding);
    let mut bench = below(port, endpoint(7));
    assert_eq!(bench.r32(BELOW, 0), ids(7));
    bench.w32(AT, 0xf0, 1);
    assert_eq!(bench.r32(BELOW, 0), ABSENT);
}

#[test]
fn each_training_captures_other_presets() {
    let mut bench = below(root_port(), endpoint(7).secondary_pcie(2));
    let presets = |bench: &mut Bench| bench.r32(BELOW, 0x10c);
    let first = presets(&mut bench);
    bench.w16(AT, 0x50, 0x20);
    let second = presets(&mut bench);
    assert_ne!(first, second);
    assert_ne!(second & 0xffff, second >> 16);
    bench.w16(AT, 0x50, 0);
    assert_eq!(presets(&mut bench), second);
    for control in [0x40, 0] {
        bench.w16(AT, 0x3e, control);
        bench.fabric.clock().advance(200 * MILLISECOND);
    }
    assert_ne!(presets(&mut bench), second);
}

#[test]
fn a_slot_command_that_did_not_wait_is_seen_when_it_is_completed() {
    let slot = SlotModel {
        number: 1,
        hot_plug: true,
        power_controller: true,
    };
    let express = ExpressModel::new(PortType::RootPort).slot(slot);
    let port = port(express).slot_command_time(MILLISECOND);
    let mut bench = Bench::with_function(port);
    bench.w16(AT, 0x58, 0x0040);
    assert_eq!((bench.r16(AT, 0x58), bench.r16(AT, 0x5a) & 0x10), (0x40, 0));
    bench.w16(AT, 0x58, 0x0100);
    assert_eq!(bench.r16(AT, 0x58), 0x40);
    bench.fabric.clock().advance(MILLISECOND);
    assert_eq!(
        (bench.r16(AT, 0x58), bench.r16(AT, 0x5a) & 0x10),
        (0x100, 0x10)
    );
}

#[test]
fn a_flattening_portal_decodes_routing_ids_by_its_vector() {
    let mut bench = below(root_port().flattening_portal(), endpoint(7));
    // The capability follows that of PCI Express, at 0x7c.
    assert_eq!(bench.r8(AT, 0x7c), 0x15);
    bench.w32(AT, 0x98, 1);
    bench.w32(AT, 0x9c, 1 << 3);
    bench.w32(AT, 0x88, 0x2300);
    assert_eq!(bench.r32((0x23, 0, 0), 0), ABSENT);
    // Element 1 of the vector: buses from 0 on, with a bit each.
    bench.w32(AT, 0x84, 0x0000_0051);
    assert_eq!(bench.r32((0x23, 0, 0), 0), ids(7));
    assert_eq!(bench.r32((0x24, 0, 0), 0), ABSENT);
    assert_eq!(bench.r32(BELOW, 0), ABSENT);
    // Eight routing IDs a bit: bit 35 is 01:03.0 to 01:03.7.
    bench.w32(AT, 0x88, 0x0100);
    bench.w32(AT, 0x84, 0x0000_0001);
    assert_eq!(bench.r32((0x23, 0, 0), 0), ABSENT);
    bench.w32(AT, 0x98, 0);
    assert_eq!(bench.r32(AT, 0x9c), 0);
    bench.w32(AT, 0x98, 1);
    assert_eq!(bench.r32(AT, 0x9c), 1 << 3);
    let violations = bench.fabric.log().violations();
    assert!(!violations.is_empty(), "the vector was read");
}

#[test]
fn a_cxl_reset_resets_the_device_and_a_lock_ends_with_a_hot_reset() {
    let mut bench = Bench::new();
    let port = bench.fabric.add_root(bench.host, 1, 0, root_port());
    for function in [0, 1] {
        let model = endpoint(7).multi_function();
        let model = model.bar(0, BarModel::memory32(0x1000)).cxl_device();
        bench.fabric.add_below(port, 0, function, model);
    }
    bench.number(AT, 0, 1, 4);
    let second = (1, 0, 1);
    for function in [BELOW, second] {
        bench.w32(function, 0x10, 0x1000_0000);
    }
    bench.w32(BELOW, 0x124, 0x8000_0000);
    bench.w16(BELOW, 0x114, 1);
    bench.w32(BELOW, 0x124, 0);
    assert_eq!(bench.r32(BELOW, 0x124), 0x8000_0000);
    bench.w16(BELOW, 0x110, 4);
    for function in [BELOW, second] {
        assert_eq!(bench.r32(function, 0x10), 0);
    }
    for control in [0x40, 0] {
        bench.w16(AT, 0x3e, control);
        bench.fabric.clock().advance(200 * MILLISECOND);
    }
    bench.w32(BELOW, 0x124, 0x4000_0000);
    assert_eq!(bench.r32(BELOW, 0x124), 0x4000_0000);
}

#[test]
fn a_rom_is_validated_once() {
    let model = endpoint(7).rom(0x1_0000).rom_validated_at(SECOND);
    let mut bench = Bench::with_function(model);
    assert_eq!(bench.r8(AT, 0x30), 2);
    bench.fabric.clock().advance(SECOND);
    assert_eq!(bench.r8(AT, 0x30), 4);
    bench.w32(AT, 0x30, ABSENT);
    assert_eq!(bench.r32(AT, 0x30), 0xffff_0005);
}

#[test]
fn a_self_test_can_reset_and_d3hot_can_take_its_time() {
    let model = endpoint(7)
        .bar(0, BarModel::memory32(0x1000))
        .power_management(false, 0)
        .reset_time(10 * MILLISECOND)
        .bist_that_resets(MILLISECOND, 5);
    let mut bench = Bench::with_function(model);
    bench.w32(AT, 0x10, 0x1000_0000);
    bench.w8(AT, 0x0f, 0x40);
    assert_eq!((bench.r8(AT, 0x0f), bench.r32(AT, 0x10)), (0xc0, 0));
    bench.fabric.clock().advance(MILLISECOND);
    assert_eq!(bench.r8(AT, 0x0f), 0x85);
    // Power Management follows PCI Express.
    assert_eq!(bench.r8(AT, 0x7c), 1);
    bench.w16(AT, 0x80, 3);
    assert_eq!(bench.r32(AT, 0), ids(7));
    bench.w16(AT, 0x80, 0);
    assert_eq!(bench.r32(AT, 0), ABSENT);
    bench.fabric.clock().advance(10 * MILLISECOND);
    assert_eq!(bench.r32(AT, 0), ids(7));
}

#[test]
fn vfs_can_take_longer_and_take_num_vfs_with_them() {
    let model = SrIovModel {
        clears_num_vfs: true,
        follows_forwarding: true,
        layout: |_, ari| if ari { (2, 2) } else { (1, 1) },
        ..SrIovModel::default()
    };
    let template = FunctionModel::virtual_function(0x01_0802).ready_at(50 * MILLISECOND);
    let physical = endpoint(7).sriov(model, template);
    let mut bench = below(root_port(), physical);
    assert_eq!(bench.r32(BELOW, 0x114), 0x0001_0001);
    bench.w16(AT, 0x68, 0x20);
    assert_eq!(bench.r32(BELOW, 0x114), 0x0002_0002);
    bench.w16(BELOW, 0x110, 2);
    bench.w16(BELOW, 0x108, 1);
    bench.fabric.clock().advance(VF_ENABLE_TIME);
    let vf = (1, 0, 2);
    assert_eq!(bench.r32(vf, 8), ABSENT);
    bench.fabric.clock().advance(50 * MILLISECOND);
    assert_ne!(bench.r32(vf, 8), ABSENT);
    assert_eq!(bench.fabric.log().violations(), []);
    bench.w16(BELOW, 0x108, 0);
    assert_eq!((bench.r16(BELOW, 0x110), bench.r32(vf, 8)), (0, ABSENT));
}

#[test]
fn a_disabled_entry_of_enhanced_allocation_leaves_its_bar_to_software() {
    let model = endpoint(7).switchable_allocation(0, 0x3000_0000, 0x1000);
    let mut bench = Bench::with_function(model);
    assert_eq!(bench.size(AT, 0x10), 0);
    // The entry follows the header of the capability.
    bench.w8(AT, 0x83, 0);
    assert_eq!(bench.size(AT, 0x10), 0xffff_f000);
    bench.w8(AT, 0x83, 0x80);
    assert_eq!(bench.r32(AT, 0x10), 0);
}

use warmbus_pci::Sbdf;
use warmbus_pcie_sim::{
    BarModel, FunctionModel, MILLISECOND, NodeId, ProtocolViolation, SrIovModel, VF_ENABLE_TIME,
    VfLayout,
};

use crate::{ABSENT, Bench, endpoint, root_port};

const PF: (u8, u8, u8) = (1, 0, 0);

/// Offset of the SR-IOV capability: ARI is in front of it.
const SRIOV: u16 = 0x108;

/// A physical function at 01:00.0, with buses 1 to 4 below the port.
fn bench(total_vfs: u16, layout: VfLayout) -> (Bench, NodeId) {
    let mut bench = Bench::new();
    let port = bench.fabric.add_root(bench.host, 1, 0, root_port());
    let mut vf_bars = [None; 6];
    vf_bars[0] = Some(BarModel::memory64(0x1000).prefetchable());
    vf_bars[2] = Some(BarModel::memory32(0x4000));
    let model = SrIovModel {
        total_vfs,
        layout,
        vf_bars,
        ..SrIovModel::default()
    };
    let physical = endpoint(7)
        .ari(0)
        .sriov(model, FunctionModel::virtual_function(0x01_0802));
    let node = bench.fabric.add_below(port, 0, 0, physical);
    bench.number((0, 1, 0), 0, 1, 4);
    (bench, node)
}

#[test]
fn offset_and_stride_follow_num_vfs_and_ari() {
    let layout: VfLayout = |num_vfs, ari| if ari { (1, num_vfs) } else { (0x100, 2) };
    let (mut bench, _) = bench(8, layout);
    assert_eq!(bench.r32(PF, SRIOV + 0xc), 0x0008_0008);
    assert_eq!(bench.r32(PF, SRIOV + 0x14), 0x0002_0100);
    bench.w16(PF, SRIOV + 8, 0x10);
    assert_eq!(bench.r16(PF, SRIOV + 8), 0x10);
    for num_vfs in [5, 8, 1] {
        bench.w16(PF, SRIOV + 0x10, num_vfs);
        assert_eq!(bench.r32(PF, SRIOV + 0x14), num_vfs << 16 | 1);
    }
}

#[test]
fn ari_capable_hierarchy_is_set_in_one_function_for_all() {
    let mut bench = Bench::new();
    let port = bench.fabric.add_root(bench.host, 1, 0, root_port());
    for function in 0..2 {
        let model = SrIovModel {
            layout: |_, ari| if ari { (2, 2) } else { (0x100, 2) },
            lowest: function == 0,
            ..SrIovModel::default()
        };
        let physical = endpoint(7)
            .ari(1 - function)
            .sriov(model, FunctionModel::virtual_function(0));
        bench.fabric.add_below(port, 0, function, physical);
    }
    bench.number((0, 1, 0), 0, 1, 4);
    bench.w16((1, 0, 1), SRIOV + 8, 0x10);
    assert_eq!(bench.r16((1, 0, 1), SRIOV + 8), 0);
    assert_eq!(bench.r32((1, 0, 1), SRIOV + 0x14), 0x0002_0100);
    bench.w16(PF, SRIOV + 8, 0x10);
    assert_eq!(bench.r32((1, 0, 1), SRIOV + 0x14), 0x0002_0002);
}

#[test]
fn vfs_appear_100_ms_after_vf_enable_and_no_more_than_num_vfs() {
    let (mut bench, _) = bench(8, |_, _| (0x100, 2));
    assert_eq!(bench.r32((2, 0, 0), 8), ABSENT);
    bench.w16(PF, SRIOV + 0x10, 3);
    bench.w16(PF, SRIOV + 8, 1);
    assert_eq!(bench.r32((2, 0, 0), 8), ABSENT, "too early");
    let early = Sbdf::new(0, 2, 0, 0);
    let expected = [ProtocolViolation::EarlyVf { function: early }];
    assert_eq!(bench.fabric.log().violations(), expected);
    bench.fabric.clock().advance(VF_ENABLE_TIME);
    assert_eq!(VF_ENABLE_TIME, 100 * MILLISECOND);
    // VF1 at 01:00.0 + 0x100, then every second function.
    for function in [0, 2, 4] {
        assert_eq!(bench.r32((2, 0, function), 8), 0x0108_0200);
        assert_eq!(bench.r32((2, 0, function), 0), ABSENT, "VFs have no IDs");
    }
    for function in [1, 3, 5, 6] {
        assert_eq!(bench.r32((2, 0, function), 8), ABSENT);
    }
    bench.w16(PF, SRIOV + 8, 0);
    assert_eq!(bench.r32((2, 0, 0), 8), ABSENT);
}

#[test]
fn vfs_on_the_bus_of_their_physical_function_need_ari_forwarding_beyond_7() {
    let (mut bench, _) = bench(16, |_, _| (4, 4));
    bench.w16(PF, SRIOV + 0x10, 16);
    bench.w16(PF, SRIOV + 8, 1);
    bench.fabric.clock().advance(VF_ENABLE_TIME);
    assert_eq!(bench.r32((1, 0, 4), 8), 0x0108_0200);
    assert_eq!(bench.r32((1, 1, 0), 8), ABSENT);
    bench.w16((0, 1, 0), 0x68, 0x20);
    assert_eq!(bench.r32((1, 1, 0), 8), 0x0108_0200);
    assert_eq!(bench.r32((1, 8, 0), 8), 0x0108_0200);
    assert_eq!(bench.r32((1, 8, 4), 8), ABSENT, "number 17 of 16");
}

#[test]
fn a_routing_id_needs_a_bus_number_that_the_device_has_captured() {
    let (mut bench, _) = bench(300, |_, _| (0x100, 1));
    bench.w16(PF, SRIOV + 0x10, 300);
    bench.w16(PF, SRIOV + 8, 1);
    bench.fabric.clock().advance(VF_ENABLE_TIME);
    // Numbers 256 to 299 are one bus further on.
    assert_eq!(bench.r32((3, 5, 3), 8), 0x0108_0200);
    assert_eq!(bench.r32((3, 5, 4), 8), ABSENT);
    // Beyond Subordinate Bus Number nothing gets through.
    bench.number((0, 1, 0), 0, 1, 2);
    assert_eq!(bench.r32((3, 5, 3), 8), ABSENT);
    assert_eq!(bench.r32((2, 0, 0), 8), 0x0108_0200);
    // After new bus numbers the device counts from the old one until it has
    // seen a write.
    bench.number((0, 1, 0), 0, 0x11, 0x14);
    assert_eq!(bench.r32((0x12, 0, 0), 8), ABSENT);
    bench.w16((0x11, 0, 0), 4, 0);
    assert_eq!(bench.r32((0x12, 0, 0), 8), 0x0108_0200);
}

#[test]
fn vf_bars_grow_with_the_system_page_size() {
    let (mut bench, _) = bench(8, |_, _| (0x100, 1));
    assert_eq!(bench.r32(PF, SRIOV + 0x1c), 0x553);
    assert_eq!(bench.r32(PF, SRIOV + 0x20), 1);
    let sizes = |bench: &mut Bench| [0x24, 0x28, 0x2c, 0x30].map(|o| bench.size(PF, SRIOV + o));
    assert_eq!(sizes(&mut bench), [0xffff_f00c, ABSENT, 0xffff_c000, 0]);
    // 64 KiB pages.
    bench.w32(PF, SRIOV + 0x20, 0x10);
    assert_eq!(sizes(&mut bench), [0xffff_000c, ABSENT, 0xffff_0000, 0]);
    // An unsupported size does not stick.
    bench.w32(PF, SRIOV + 0x20, 8);
    assert_eq!(bench.r32(PF, SRIOV + 0x20), 0);
}

#[test]
fn a_vf_has_its_own_state_and_little_of_it_can_be_written() {
    let (mut bench, _) = bench(2, |_, _| (0x100, 1));
    bench.w16(PF, SRIOV + 0x10, 2);
    bench.w16(PF, SRIOV + 8, 9);
    bench.fabric.clock().advance(VF_ENABLE_TIME);
    let (first, second) = ((2, 0, 0), (2, 0, 1));
    bench.w16(first, 4, 0xffff);
    assert_eq!(bench.r16(first, 4), 4);
    assert_eq!(bench.r16(second, 4), 0);
    for offset in [0x10, 0x14, 0x24, 0x30, 0x3c] {
        assert_eq!(bench.size(first, offset), 0);
    }
    bench.w16(first, 0x48, 0x7fff);
    assert_eq!(bench.r16(first, 0x48), 0);
    bench.w16(first, 0x48, 0x8000);
    assert_eq!(bench.r16(first, 4), 0, "FLR of the VF");
}

#[test]
fn a_reset_of_the_physical_function_takes_its_vfs_away() {
    let (mut bench, _) = bench(2, |_, _| (0x100, 1));
    bench.w16(PF, SRIOV + 0x10, 2);
    bench.w16(PF, SRIOV + 8, 1);
    bench.fabric.clock().advance(VF_ENABLE_TIME);
    assert_eq!(bench.r32((2, 0, 1), 8), 0x0108_0200);
    bench.w16(PF, 0x48, 0x8000);
    assert_eq!(bench.r16(PF, SRIOV + 8), 0);
    assert_eq!(bench.r16(PF, SRIOV + 0x10), 0);
    assert_eq!(bench.r32((2, 0, 1), 8), ABSENT);
}

#[test]
fn num_vfs_cannot_change_while_vfs_are_enabled() {
    let (mut bench, _) = bench(4, |_, _| (0x100, 1));
    bench.w16(PF, SRIOV + 0x10, 2);
    bench.w16(PF, SRIOV + 8, 1);
    bench.w16(PF, SRIOV + 0x10, 4);
    assert_eq!(bench.r16(PF, SRIOV + 0x10), 2);
    let function = Sbdf::new(0, 1, 0, 0);
    let expected = [ProtocolViolation::NumVfsWhileEnabled { function }];
    assert_eq!(bench.fabric.log().violations(), expected);
}

#[test]
fn the_last_of_65535_vfs_can_be_reached_without_making_the_others() {
    let (mut bench, _) = bench(65535, |_, _| (0x100, 1));
    bench.number((0, 1, 0), 0, 1, 255);
    bench.w16(PF, SRIOV + 0x10, 65535);
    bench.w16(PF, SRIOV + 8, 1);
    bench.fabric.clock().advance(VF_ENABLE_TIME);
    // 0x0100 + 0x100 + 0xfdff, number 65024 of them, is ff:1f.7.
    assert_eq!(bench.r32((0xff, 31, 7), 8), 0x0108_0200);
}

//! Registers that change by themselves or drag others along: each is a way to
//! be wrong for a cache that takes them for constant.

use warmbus_pci::{PortType, Sbdf, Width};
use warmbus_pcie_sim::{
    BarModel, ExpressModel, FunctionModel, MILLISECOND, MsiModel, ProtocolViolation, SECOND,
    SlotModel,
};

use crate::{ABSENT, Bench, endpoint, ids, port, root_port};

const F: (u8, u8, u8) = (0, 1, 0);

#[test]
fn the_vpd_flag_turns_over_when_the_transfer_is_done_and_not_before() {
    let data = b"\x82\x05\x00Model\x78".to_vec();
    let model = FunctionModel::endpoint(1, 2, 0).vpd(data, 5 * MILLISECOND);
    let mut bench = Bench::with_function(model);
    bench.w16(F, 0x42, 4);
    assert_eq!(bench.r16(F, 0x42), 4, "the flag is still 0");
    assert_eq!(bench.r32(F, 0x44), 0);
    bench.fabric.clock().advance(5 * MILLISECOND);
    assert_eq!(bench.r16(F, 0x42), 0x8004);
    assert_eq!(bench.r32(F, 0x44), u32::from_le_bytes(*b"odel"));
    // A write: the flag falls when it is done.
    bench.w32(F, 0x44, u32::from_le_bytes(*b"ULES"));
    bench.w16(F, 0x42, 0x8004);
    assert_eq!(bench.r16(F, 0x42), 0x8004);
    bench.fabric.clock().advance(5 * MILLISECOND);
    assert_eq!(bench.r16(F, 0x42), 0x0004);
    bench.w32(F, 0x44, 0);
    bench.w16(F, 0x42, 4);
    bench.fabric.clock().advance(5 * MILLISECOND);
    assert_eq!(bench.r32(F, 0x44), u32::from_le_bytes(*b"ULES"));
    // Past the end there are zeros.
    bench.w16(F, 0x42, 0x7ffc);
    bench.fabric.clock().advance(5 * MILLISECOND);
    assert_eq!(bench.r16(F, 0x42), 0xfffc);
    assert_eq!(bench.r32(F, 0x44), 0);
}

#[test]
fn bist_start_falls_when_the_test_is_done() {
    let model = FunctionModel::endpoint(1, 2, 0).bist(SECOND, 5);
    let mut bench = Bench::with_function(model);
    assert_eq!(bench.r8(F, 0x0f), 0x80);
    bench.w8(F, 0x0f, 0x40);
    assert_eq!(bench.r8(F, 0x0f), 0xc0);
    bench.fabric.clock().advance(SECOND);
    assert_eq!(bench.r8(F, 0x0f), 0x85);
    let mut bench = Bench::with_function(FunctionModel::endpoint(1, 2, 0));
    bench.w8(F, 0x0f, 0x40);
    assert_eq!(bench.r8(F, 0x0f), 0);
}

#[test]
fn exit_latencies_follow_common_clock_configuration() {
    let express = ExpressModel::new(PortType::Endpoint).exit_latencies((7, 6), (2, 1));
    let mut bench = Bench::new();
    let port = bench.fabric.add_root(bench.host, 1, 0, root_port());
    for function in 0..2 {
        let model = FunctionModel::endpoint(1, 2, 0)
            .multi_function()
            .express(express);
        bench.fabric.add_below(port, 0, function, model);
    }
    bench.number(F, 0, 1, 1);
    // L0s in 14:12, L1 in 17:15.
    let latencies = |bench: &mut Bench, function| {
        let link = bench.r32((1, 0, function), 0x4c);
        (link >> 12 & 7, link >> 15 & 7)
    };
    assert_eq!(latencies(&mut bench, 0), (7, 6));
    bench.w16((1, 0, 0), 0x50, 0x40);
    assert_eq!(latencies(&mut bench, 0), (2, 1));
    assert_eq!(latencies(&mut bench, 1), (2, 1));
    bench.w16((1, 0, 0), 0x50, 0);
    assert_eq!(latencies(&mut bench, 1), (7, 6));
}

#[test]
fn retrain_link_reads_0_and_keeps_the_link_up() {
    let mut bench = Bench::new();
    let port = bench.fabric.add_root(bench.host, 1, 0, root_port());
    bench.fabric.add_below(port, 0, 0, endpoint(7));
    bench.number(F, 0, 1, 1);
    bench.w16(F, 0x50, 0x20);
    assert_eq!(bench.r16(F, 0x50), 0);
    assert_eq!(bench.r16(F, 0x52) & 0x0800, 0x0800);
    assert_eq!(bench.r32((1, 0, 0), 0), ids(7));
    bench.fabric.clock().advance(SECOND);
    assert_eq!(bench.r16(F, 0x52) & 0x0800, 0);
}

#[test]
fn interrupt_message_numbers_follow_what_msi_and_msix_grant() {
    let msi = MsiModel {
        vectors_log2: 5,
        address64: true,
        ..MsiModel::default()
    };
    let model = root_port()
        .msi(msi)
        .msix(32, 0, 0)
        .interrupt_messages(0x15, 0x0a)
        .advanced_errors()
        .containment();
    let mut bench = Bench::with_function(model);
    let numbers = |bench: &mut Bench| {
        let express = bench.r16(F, 0x42) >> 9 & 0x1f;
        let errors = bench.r32(F, 0x130) >> 27;
        let containment = bench.r16(F, 0x13c) & 0x1f;
        [express, errors, containment]
    };
    assert_eq!(numbers(&mut bench), [0; 3], "one vector");
    // Multiple Message Enable: 8 vectors, then 32.
    bench.w16(F, 0x7e, 0x0031);
    assert_eq!(numbers(&mut bench), [5; 3]);
    bench.w16(F, 0x7e, 0x0051);
    assert_eq!(numbers(&mut bench), [0x15; 3]);
    bench.w16(F, 0x7e, 0);
    bench.w16(F, 0x8e, 0x8000);
    assert_eq!(numbers(&mut bench), [0x0a; 3]);
    assert_eq!(bench.r16(F, 0x42) & 0x1ff, 0x42, "the rest stays");
}

#[test]
fn a_resized_bar_has_another_mask_and_loses_address_bits() {
    // 1 MiB, 2 MiB and 256 MiB are supported; 1 MiB is set.
    let model = endpoint(1)
        .bar(2, BarModel::memory64(1 << 20).prefetchable())
        .resizable(&[(2, 0x103, 0)]);
    let mut bench = Bench::with_function(model);
    assert_eq!(bench.r32(F, 0x104), 0x0000_1030);
    assert_eq!(bench.r32(F, 0x108), 0x0000_0022);
    assert_eq!(bench.size(F, 0x18), 0xfff0_000c);
    bench.w32(F, 0x108, 0x0000_0800);
    assert_eq!(bench.r32(F, 0x108), 0x0000_0822);
    assert_eq!(bench.r32(F, 0x18), 0xf000_000c);
    assert_eq!(bench.size(F, 0x18), 0xf000_000c);
    // 4 MiB is not supported: nothing changes.
    bench.w32(F, 0x108, 0x0000_0200);
    assert_eq!(bench.size(F, 0x18), 0xf000_000c);
    bench.w16(F, 0x48, 0x8000);
    assert_eq!(bench.r32(F, 0x18), 0x0000_000c);
    assert_eq!(bench.size(F, 0x18), 0xfff0_000c);
}

#[test]
fn containment_holds_the_link_down_until_its_status_is_cleared() {
    let mut bench = Bench::new();
    let model = root_port().containment();
    let port = bench.fabric.add_root(bench.host, 1, 0, model);
    bench.fabric.add_below(port, 0, 0, endpoint(7));
    bench.number(F, 0, 1, 1);
    bench.w16(F, 0x106, 0x40);
    assert_eq!(bench.r32((1, 0, 0), 0), ids(7), "not enabled");
    bench.w16(F, 0x106, 0x41);
    assert_eq!(bench.r16(F, 0x106), 1, "Software Trigger reads 0");
    assert_eq!(bench.r16(F, 0x108) & 7, 7);
    assert_eq!(bench.r32((1, 0, 0), 0), ABSENT);
    bench.w16(F, 0x108, 1);
    bench.fabric.clock().advance(SECOND);
    assert_eq!(bench.r32((1, 0, 0), 0), ids(7));
}

#[test]
fn a_port_loses_ltr_enable_with_its_link() {
    let mut bench = Bench::with_function(root_port());
    bench.w16(F, 0x68, 0x420);
    assert_eq!(bench.r16(F, 0x68), 0x420);
    bench.w16(F, 0x50, 0x10);
    assert_eq!(bench.r16(F, 0x68), 0x020);
}

#[test]
fn a_dropped_link_changes_its_slot() {
    let express = ExpressModel::new(PortType::RootPort)
        .slot(SlotModel::HOT_PLUG)
        .active_reporting();
    let mut bench = Bench::new();
    let model = port(express).link_up().link_drops_at(SECOND);
    let port = bench.fabric.add_root(bench.host, 1, 0, model);
    bench.fabric.add_below(port, 0, 0, endpoint(7));
    bench.number(F, 0, 1, 1);
    assert_eq!(bench.r16(F, 0x5a), 0x40);
    assert_eq!(bench.r16(F, 0x52) & 0x2000, 0x2000);
    bench.fabric.clock().advance(SECOND);
    assert_eq!(bench.r16(F, 0x52) & 0x2000, 0);
    // Presence Detect Changed and Data Link Layer State Changed, both RW1C.
    assert_eq!(bench.r16(F, 0x5a), 0x108);
    bench.w16(F, 0x5a, 0x108);
    assert_eq!(bench.r16(F, 0x5a), 0);
    assert_eq!(bench.r32((1, 0, 0), 0), ABSENT);
}

#[test]
fn reads_with_a_side_effect_are_recorded_whatever_their_width() {
    let model = FunctionModel::endpoint(0x1af4, 0x1041, 0)
        .virtio_access()
        .vendor_specific(&[1, 2, 3])
        .sata();
    let mut bench = Bench::with_function(model);
    for harmless in [0x40, 0x44, 0x48, 0x4c, 0x5c, 0x60, 0x64] {
        bench.r32(F, harmless);
    }
    // The ID, the next pointer and the length of the second: read apart.
    bench.r16(F, 0x54);
    bench.r8(F, 0x56);
    bench.w32(F, 0x50, 0);
    assert!(bench.fabric.log().violations().is_empty());
    bench.r8(F, 0x52);
    bench.r32(F, 0x54);
    bench.r32(F, 0x68);
    let found = bench.fabric.log().violations().iter();
    let offsets: Vec<_> = found
        .map(|violation| match violation {
            ProtocolViolation::ForbiddenRead {
                function,
                offset,
                width,
            } => {
                assert_eq!(*function, Sbdf::new(0, 0, 1, 0));
                (offset.get(), *width)
            }
            other => panic!("{other}"),
        })
        .collect();
    let expected = [
        (0x52, Width::Byte),
        (0x54, Width::Dword),
        (0x68, Width::Dword),
    ];
    assert_eq!(offsets, expected);
}

#[test]
fn a_bar_that_is_sized_while_it_decodes_is_recorded() {
    let model = endpoint(1)
        .bar(0, BarModel::memory64(0x1000))
        .bar(2, BarModel::io(0x10))
        .rom(0x1000);
    let mut bench = Bench::with_function(model);
    for offset in [0x10, 0x14, 0x18, 0x30] {
        bench.size(F, offset);
    }
    bench.w16(F, 4, 2);
    bench.size(F, 0x18);
    bench.size(F, 0x20);
    bench.w32(F, 0x30, 0xffff_fffe);
    assert!(bench.fabric.log().violations().is_empty());
    for offset in [0x10, 0x14, 0x30] {
        bench.size(F, offset);
    }
    bench.w16(F, 4, 1);
    bench.size(F, 0x18);
    assert_eq!(bench.fabric.log().violations().len(), 4);
}

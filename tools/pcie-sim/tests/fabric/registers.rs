use warmbus_pci::{PortType, Width};
use warmbus_pcie_sim::{
    BarModel, BarSpace, BridgeWindows, EaEntry, ExpressModel, FunctionModel, MsiModel, SlotModel,
};

use crate::{Bench, endpoint, root_port};

const F: (u8, u8, u8) = (0, 1, 0);

#[test]
fn a_sized_bar_reads_back_its_mask_and_its_type_bits() {
    let model = endpoint(1)
        .bar(0, BarModel::memory32(0x2_0000))
        .bar(1, BarModel::io(0x20))
        .bar(2, BarModel::memory64(0x10_0000).prefetchable())
        .bar(4, BarModel::memory64(8 << 30))
        .rom(0x4_0000);
    let mut bench = Bench::with_function(model);
    let expected = [
        (0x10, 0xfffe_0000),
        (0x14, 0xffff_ffe1),
        (0x18, 0xfff0_000c),
        (0x1c, 0xffff_ffff),
        (0x20, 0x0000_0004),
        (0x24, 0xffff_fffe),
        (0x30, 0xfffc_0001),
    ];
    for (offset, mask) in expected {
        assert_eq!(bench.size(F, offset), mask, "at {offset:#x}");
    }
}

#[test]
fn a_bar_keeps_only_the_address_bits_above_its_size() {
    let mut bench = Bench::with_function(endpoint(1).bar(0, BarModel::memory32(0x1000)));
    bench.w32(F, 0x10, 0x1234_5678);
    assert_eq!(bench.r32(F, 0x10), 0x1234_5000);
    bench.w8(F, 0x13, 0xfe);
    assert_eq!(bench.r32(F, 0x10), 0xfe34_5000);
}

#[test]
fn the_smallest_and_the_largest_bars_have_the_right_masks() {
    let model = endpoint(1)
        .bar(0, BarModel::memory32(1))
        .bar(1, BarModel::new(BarSpace::Io16, 0x100))
        .bar(2, BarModel::memory64(1 << 63))
        .bar(4, BarModel::memory32(1 << 40))
        .bar(5, BarModel::io(3));
    let mut bench = Bench::with_function(model);
    let masks = [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24].map(|o| bench.size(F, o));
    let expected = [
        0xffff_fff0,
        0x0000_ff01,
        0x0000_0004,
        0x8000_0000,
        0x8000_0000,
        0xffff_fffd,
    ];
    assert_eq!(masks, expected);
}

#[test]
fn the_smallest_64_bit_bar_has_16_bytes() {
    let mut bench = Bench::with_function(endpoint(1).bar(0, BarModel::memory64(16)));
    assert_eq!(
        [0x10, 0x14].map(|o| bench.size(F, o)),
        [0xffff_fff4, 0xffff_ffff]
    );
}

#[test]
fn command_bits_exist_only_for_what_the_function_has() {
    // Bus Master, Parity, SERR#; then memory with a BAR; then INTx Disable.
    let mut plain = Bench::with_function(endpoint(1));
    plain.w16(F, 4, 0xffff);
    assert_eq!(plain.r16(F, 4), 0x0144);
    let model = endpoint(1).bar(0, BarModel::memory32(64)).interrupt_pin(1);
    let mut more = Bench::with_function(model);
    more.w16(F, 4, 0xffff);
    assert_eq!(more.r16(F, 4), 0x0546);
    let mut io = Bench::with_function(endpoint(1).bar(0, BarModel::io(64)));
    io.w16(F, 4, 0xffff);
    assert_eq!(io.r16(F, 4), 0x0145);
}

#[test]
fn status_has_the_capability_list_and_clears_by_ones() {
    let mut bench = Bench::with_function(endpoint(1));
    assert_eq!(bench.r16(F, 6), 0x0010);
    let node = bench.fabric.nodes().next().unwrap();
    bench.fabric.poke(node, 6, Width::Word, 0xf910);
    bench.w16(F, 6, 0x2000);
    assert_eq!(bench.r16(F, 6), 0xd910);
    // A write to COMMAND as a word leaves STATUS alone.
    bench.w16(F, 4, 0xffff);
    assert_eq!(bench.r16(F, 6), 0xd910);
    bench.w32(F, 4, 0xffff_0000);
    assert_eq!(bench.r16(F, 6), 0x0010);
    assert_eq!(bench.r16(F, 4), 0);
}

#[test]
fn bridge_windows_read_back_what_they_implement() {
    let shapes = [
        // I/O bits, prefetchable bits; 1C, 24, 28, 2C, 30 after ones.
        (0, 0, [0x0000, 0, 0, 0, 0]),
        (16, 32, [0xf0f0, 0xfff0_fff0, 0, 0, 0]),
        (
            32,
            64,
            [0xf1f1, 0xfff1_fff1, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff],
        ),
    ];
    for (io_bits, prefetchable_bits, expected) in shapes {
        let windows = BridgeWindows {
            io_bits,
            prefetchable_bits,
        };
        let mut bench = Bench::with_function(FunctionModel::bridge(1, 2, windows));
        bench.w16(F, 0x1c, 0xffff);
        let mut found = [bench.r16(F, 0x1c), 0, 0, 0, 0];
        for (value, offset) in found.iter_mut().skip(1).zip([0x24, 0x28, 0x2c, 0x30]) {
            *value = bench.size(F, offset);
        }
        assert_eq!(found, expected);
        assert_eq!(bench.size(F, 0x20), 0xfff0_fff0);
    }
}

#[test]
fn bridge_control_of_a_port_lacks_what_only_conventional_bridges_have() {
    let mut port = Bench::with_function(root_port());
    port.w16(F, 0x3e, 0xffbf);
    assert_eq!(port.r16(F, 0x3e), 0x001f);
    port.w32(F, 0x18, 0xffff_ffff);
    assert_eq!(port.r32(F, 0x18), 0x00ff_ffff);
    let bridge = FunctionModel::bridge(1, 2, BridgeWindows::default());
    let mut bridge = Bench::with_function(bridge);
    bridge.w16(F, 0x3e, 0xffbf);
    assert_eq!(bridge.r16(F, 0x3e), 0x0b3f);
    bridge.w32(F, 0x18, 0xffff_ffff);
    assert_eq!(bridge.r32(F, 0x18), 0xf8ff_ffff);
}

#[test]
fn capabilities_are_linked_in_the_order_they_were_added_not_by_address() {
    let model = FunctionModel::endpoint(1, 2, 0)
        .place_at(0xc8)
        .power_management(false, 0)
        .place_at(0x50)
        .msix(3, 0, 0)
        .place_at(0xe0)
        .express(ExpressModel::new(PortType::Endpoint).version(1))
        .advanced_errors()
        .serial_number(0x1122_3344_5566_7788);
    let mut bench = Bench::with_function(model);
    assert_eq!(bench.r8(F, 0x34), 0xc8);
    assert_eq!(bench.r16(F, 0xc8), 0x5001);
    assert_eq!(bench.r16(F, 0x50), 0xe011);
    assert_eq!(bench.r16(F, 0xe0), 0x0010);
    assert_eq!(bench.r32(F, 0x100), 0x12c2_0001);
    assert_eq!(bench.r32(F, 0x12c), 0x0001_0003);
    assert_eq!(bench.r32(F, 0x130), 0x5566_7788);
    assert_eq!(bench.r32(F, 0x134), 0x1122_3344);
}

#[test]
fn msi_has_its_registers_where_its_shape_puts_them() {
    let shapes = [
        // 64-bit, masking: bytes, data at, mask at.
        (false, false, 0x0a, 8, None),
        (true, false, 0x0e, 0xc, None),
        (false, true, 0x14, 8, Some(0xc)),
        (true, true, 0x18, 0xc, Some(0x10)),
    ];
    for (address64, masking, length, data, mask) in shapes {
        let msi = MsiModel {
            vectors_log2: 3,
            address64,
            masking,
            extended_data: false,
        };
        let model = FunctionModel::endpoint(1, 2, 0).msi(msi).capability(9, &[]);
        let mut bench = Bench::with_function(model);
        let next = (0x40 + length + 3) & !3;
        assert_eq!(bench.r16(F, 0x40), next << 8 | 5);
        bench.w16(F, 0x42, 0xffff);
        let fixed = 3 << 1 | u32::from(address64) << 7 | u32::from(masking) << 8;
        assert_eq!(bench.r16(F, 0x42), fixed | 0x71);
        assert_eq!(bench.size(F, 0x44), 0xffff_fffc);
        bench.w16(F, 0x40 + data, 0xffff);
        assert_eq!(bench.r16(F, 0x40 + data), 0xffff);
        if let Some(mask) = mask {
            // Eight vectors.
            assert_eq!(bench.size(F, 0x40 + mask), 0xff);
            assert_eq!(bench.size(F, 0x44 + mask), 0, "pending bits");
        }
    }
}

#[test]
fn a_version_1_capability_is_as_long_as_its_kind_needs() {
    let slot = SlotModel {
        number: 3,
        hot_plug: true,
        power_controller: false,
    };
    let kinds = [
        (
            ExpressModel::new(PortType::RootComplexIntegratedEndpoint),
            0x0c,
        ),
        (ExpressModel::new(PortType::Endpoint), 0x14),
        (ExpressModel::new(PortType::DownstreamPort).slot(slot), 0x1c),
        (ExpressModel::new(PortType::RootPort).slot(slot), 0x24),
    ];
    for (express, length) in kinds {
        for (version, length) in [(1, length), (2, 0x3c)] {
            let model = FunctionModel::endpoint(1, 2, 0)
                .express(express.version(version))
                .capability(9, &[]);
            let mut bench = Bench::with_function(model);
            assert_eq!(bench.r8(F, 0x41), 0x40 + length);
            assert_eq!(bench.r8(F, 0x42) & 0xf, u32::from(version));
        }
    }
}

#[test]
fn port_types_and_slots_show_in_the_flags() {
    let slot = SlotModel {
        number: 0x1234,
        hot_plug: true,
        power_controller: true,
    };
    let mut bench = Bench::with_function(crate::port(
        ExpressModel::new(PortType::RootPort).slot(slot),
    ));
    assert_eq!(bench.r16(F, 0x42), 0x0142);
    // Slot number in 31:19, Hot-Plug Capable 6, Power Controller 1.
    assert_eq!(bench.r32(F, 0x54), 0x91a0_0042);
    assert_eq!(bench.r16(F, 0x5e), 1, "RRS visibility capable");
    let mut bench = Bench::with_function(
        FunctionModel::endpoint(1, 2, 0).express(ExpressModel::new(PortType::PcieToPciBridge)),
    );
    assert_eq!(bench.r16(F, 0x42), 0x0072);
}

#[test]
fn enhanced_allocation_entries_use_as_many_dwords_as_their_numbers_need() {
    let entries = [
        EaEntry {
            bei: 0,
            properties: 0,
            base: 0xfe00_0000,
            size: 0x1000,
        },
        EaEntry {
            bei: 2,
            properties: 1,
            base: 0x40_0000_0000,
            size: 0x2_0000_0000,
        },
    ];
    let model = FunctionModel::endpoint(1, 2, 0).enhanced_allocation(&entries, (0, 0));
    let mut bench = Bench::with_function(model);
    assert_eq!(bench.r32(F, 0x40), 0x0002_0014);
    let expected = [
        0x80ff_0002,
        0xfe00_0000,
        0x0000_0ffc,
        0x80ff_0124,
        0x0000_0002,
        0xffff_fffe,
        0x0000_0040,
        0x0000_0001,
    ];
    for (offset, dword) in (0x44..).step_by(4).zip(expected) {
        assert_eq!(bench.r32(F, offset), dword, "at {offset:#x}");
    }
    assert_eq!(bench.size(F, 0x10), 0, "the BAR that it stands for");
}

#[test]
fn acs_and_virtual_channel_controls_have_the_bits_that_are_capable() {
    let model = endpoint(1).access_control(0x1d).virtual_channels(1);
    let mut bench = Bench::with_function(model);
    assert_eq!(bench.r32(F, 0x104), 0x1d);
    bench.w16(F, 0x106, 0xffff);
    assert_eq!(bench.r16(F, 0x106), 0x1d);
    assert_eq!(bench.r32(F, 0x10c), 1);
    // VC0: enabled, TC0 fixed; VC1: TC0 never.
    assert_eq!(bench.size(F, 0x11c), 0x8000_00ff);
    assert_eq!(bench.size(F, 0x128), 0x8700_00fe);
}

//! What the registers of BARs, VF BARs and ROMs are found to be.

use warmbus_boot::unassigned::unassigned_below;
use warmbus_pci::{BarKind, ConfigAccess, ConfigOffset, Sbdf, Width};
use warmbus_pcie_sim::{
    BarModel, BarSpace, Fabric, Fault, FunctionModel, NodeId, SrIovModel, io_window,
};

use crate::{
    ALL_WINDOWS, GIB, HIGH, IO, KIB, LOW, MIB, Machine, at, endpoint, hot_plug_port, integrated,
    root_port, set_up,
};

const F: Sbdf = Sbdf::new(0, 0, 1, 0);

/// `model` at 00:01.0, and a healthy function beside it.
fn with(model: FunctionModel) -> Machine {
    let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
    fabric.log_mut().record();
    fabric.add_root(host, 1, 0, model);
    let healthy = integrated(8).bar(0, BarModel::memory32(4 * KIB));
    fabric.add_root(host, 2, 0, healthy);
    let mut machine = set_up(fabric);
    assert!(machine.decodes(at(0, 2, 0), 0, 4 * KIB));
    assert_eq!(machine.reported(at(0, 2, 0)), [""; 0]);
    assert_eq!(machine.config.self_check().differences, []);
    assert_eq!(machine.fabric().log().violations().len(), 0);
    machine
}

/// Kind, prefetchability and size of every BAR that was found.
fn found(machine: &Machine) -> Vec<(u8, BarKind, bool, u64)> {
    let bars = machine.function(F).bars.iter();
    bars.map(|bar| {
        assert!(!bar.fixed);
        let size = bar.size.expect("it was probed");
        (bar.index, bar.kind, bar.prefetchable, size)
    })
    .collect()
}

/// Dwords of the function at 00:01.0 that were written.
fn written(machine: &Machine, node: NodeId) -> Vec<u16> {
    let entries = machine.fabric().log().entries().iter();
    let mut offsets: Vec<u16> = entries
        .filter(|access| access.write && access.node == Some(node))
        .map(|access| access.offset.dword().get())
        .collect();
    offsets.sort_unstable();
    offsets.dedup();
    offsets
}

#[test]
fn every_kind_of_bar_is_found_with_its_size() {
    let machine = with(
        integrated(1)
            .bar(0, BarModel::memory32(16))
            .bar(1, BarModel::memory32(128 * MIB).prefetchable())
            .bar(2, BarModel::memory64(8 * GIB))
            .bar(4, BarModel::io(4))
            .bar(5, BarModel::new(BarSpace::Io16, 0x100))
            .rom(2 << 10),
    );
    let expected = [
        (0, BarKind::Memory32, false, 16),
        (1, BarKind::Memory32, true, 128 * MIB),
        (2, BarKind::Memory64, false, 8 * GIB),
        (4, BarKind::Io, false, 4),
        (5, BarKind::Io, false, 0x100),
        (6, BarKind::Rom, false, 2 * KIB),
    ];
    assert_eq!(found(&machine), expected);
    for (index, _, _, size) in &expected[..5] {
        assert!(machine.decodes(F, *index, *size), "BAR {index}");
    }
    assert_eq!(machine.reported(F), [""; 0]);
    let rom = machine.register(F, 0x30, Width::Dword);
    assert_eq!(Some(u64::from(rom)), machine.address(F, 6));
    assert_eq!(machine.outcome.assigned, 7);
}

#[test]
fn memory64_bars_may_be_anywhere_but_in_the_last_register() {
    let machine = with(
        integrated(1)
            .bar(1, BarModel::memory64(MIB).prefetchable())
            .bar(4, BarModel::memory64(1 << 33).prefetchable()),
    );
    let expected = [
        (1, BarKind::Memory64, true, MIB),
        (4, BarKind::Memory64, true, 1 << 33),
    ];
    assert_eq!(found(&machine), expected);
}

#[test]
fn a_64_bit_bar_in_the_last_register_is_refused_and_what_follows_is_not_written() {
    for (model, offset, index) in [(integrated(1), 0x24, 5), (root_port(ALL_WINDOWS), 0x14, 1)] {
        let model =
            model
                .set(offset, Width::Dword, 0xc)
                .writable(offset, Width::Dword, 0xffff_0000);
        let machine = with(model);
        let expected = format!("BAR {index} wants 64 bits and is the last one");
        assert_eq!(machine.reported(F), [expected]);
        assert_eq!(machine.bar(F, index), None);
        assert_eq!(machine.register(F, offset, Width::Dword), 0xc);
        if index == 5 {
            // Cardbus CIS Pointer.
            assert!(!written(&machine, machine.node(F)).contains(&0x28));
        }
    }
}

#[test]
fn a_bar_of_the_reserved_type_is_refused_and_those_beside_it_are_used() {
    let model = integrated(1)
        .bar(0, BarModel::memory32(KIB))
        .set(0x14, Width::Dword, 6)
        .writable(0x14, Width::Dword, 0xffff_f000)
        .bar(2, BarModel::memory32(2 * KIB));
    let machine = with(model);
    let expected = "BAR 1 has the reserved memory type: fffff006 after ones";
    assert_eq!(machine.reported(F), [expected]);
    let expected = [
        (0, BarKind::Memory32, false, KIB),
        (2, BarKind::Memory32, false, 2 * KIB),
    ];
    assert_eq!(found(&machine), expected);
    assert_eq!(machine.register(F, 0x14, Width::Dword), 6);
}

#[test]
fn memory_type_1_is_a_32_bit_bar() {
    let model = integrated(1)
        .bar(0, BarModel::memory32(KIB))
        .set(0x10, Width::Dword, 2);
    let machine = with(model);
    assert_eq!(found(&machine), [(0, BarKind::Memory32, false, KIB)]);
    assert!(machine.decodes(F, 0, KIB));
}

#[test]
fn a_bar_whose_mask_has_holes_is_refused_and_what_it_holds_is_not_cached_wrongly() {
    // Low and upper dword: the value after reset and the writable bits.
    for (low, upper, mask) in [
        ((0, 0x0f0f_0f00), (0, 0), "0xffffffff0f0f0f00"),
        ((0x1000_0000, 0x0f0f_0f00), (0, 0), "0xffffffff1f0f0f00"),
        ((4, 0xffff_0000), (0, 0x0000_00ff), "0xffffff0000"),
        ((4, 0xffff_0000), (0xff00_0000, 0x0f), "0xff00000fffff0000"),
        ((1, 0x0000_ff0c), (0, 0), "0xffffffffffffff0c"),
        ((4, 0), (0, 0), "0x0"),
        // 16 bits are all that an I/O BAR may have, but no memory BAR, and
        // one that has more has all 32.
        ((1, 0x00ff_ff00), (0, 0), "0xffffffff00ffff00"),
        ((0, 0x0000_ff00), (0, 0), "0xffffffff0000ff00"),
    ] {
        let model = integrated(1)
            .set(0x10, Width::Dword, low.0)
            .writable(0x10, Width::Dword, low.1)
            .set(0x14, Width::Dword, upper.0)
            .writable(0x14, Width::Dword, upper.1)
            .bar(2, BarModel::memory32(KIB));
        let machine = with(model);
        let expected = format!("BAR 0 is invalid: its address mask is {mask}");
        assert_eq!(machine.reported(F), [expected]);
        assert_eq!(found(&machine), [(2, BarKind::Memory32, false, KIB)]);
        // Writable bits are cleared again, so that it claims no address.
        assert_eq!(machine.register(F, 0x10, Width::Dword) & low.1, 0);
        assert_eq!(machine.register(F, 0x14, Width::Dword) & upper.1, 0);
    }
}

#[test]
fn a_register_that_is_hardwired_to_an_address_is_refused_and_keeps_it() {
    let model = integrated(1).set(0x10, Width::Dword, 0x1234_5670);
    let mut machine = with(model);
    let expected = "BAR 0 is invalid: its address mask is 0xffffffff12345670";
    assert_eq!(machine.reported(F), [expected]);
    assert_eq!(machine.register(F, 0x10, Width::Dword), 0x1234_5670);
    let served = machine
        .config
        .read(F, ConfigOffset::wrapping(0x10), Width::Dword);
    assert_eq!(served, 0x1234_5670);
}

#[test]
fn a_refused_register_that_ignores_writes_is_read_from_the_hardware() {
    // Ones read back as a valid address mask, but they are not writable: only
    // the other half or the place of the register shows that this is no BAR.
    for registers in [
        vec![(0x24, 0xffff_000c)],
        vec![(0x10, 0xffff_0004)],
        vec![(0x10, 0xffff_0004), (0x14, 0xff00_0000)],
        vec![(0x10, 0xffff_0006)],
    ] {
        let mut model = integrated(1);
        for (offset, value) in &registers {
            model = model.hardwired(*offset, Width::Dword, *value);
        }
        let mut machine = with(model);
        assert_eq!(machine.reported(F).len(), 1);
        assert_eq!(machine.function(F).bars, []);
        for (offset, value) in registers {
            let at = ConfigOffset::wrapping(offset);
            let served = machine.config.read(F, at, Width::Dword);
            assert_eq!(served, value, "{offset:#x}");
        }
    }
}

#[test]
fn a_rom_whose_mask_has_holes_is_refused() {
    for (value, mask, address) in [(0, 0x0f0f_0000, "0f0f0000"), (0, 0x8000_0801, "80000800")] {
        let model = integrated(1)
            .set(0x30, Width::Dword, value)
            .writable(0x30, Width::Dword, mask);
        let machine = with(model);
        let expected = format!("expansion ROM is invalid: its address mask is {address}");
        assert_eq!(machine.reported(F), [expected]);
        assert_eq!(found(&machine), []);
        assert_eq!(machine.register(F, 0x30, Width::Dword), 0);
    }
    // Registers that hold nothing or ones are no ROM.
    for value in [0, 0xffff_ffff, 0x7ff] {
        let machine = with(integrated(1).hardwired(0x30, Width::Dword, value));
        assert_eq!((machine.reported(F), found(&machine)), (vec![], vec![]));
    }
}

#[test]
fn a_bridge_has_two_bars_and_its_rom_elsewhere() {
    let model = root_port(ALL_WINDOWS)
        .bar(0, BarModel::memory32(KIB))
        .bar(1, BarModel::memory32(2 * KIB))
        .rom(4 << 10);
    let mut machine = with(model);
    machine.assert_consistent();
    let expected = [
        (0, BarKind::Memory32, false, KIB),
        (1, BarKind::Memory32, false, 2 * KIB),
        (6, BarKind::Rom, false, 4 * KIB),
    ];
    assert_eq!(found(&machine), expected);
    let rom = machine.register(F, 0x38, Width::Dword);
    assert_eq!(Some(u64::from(rom)), machine.address(F, 6));
}

#[test]
fn bars_of_a_host_bridge_function_are_not_written() {
    let bars = |class_code| {
        FunctionModel::endpoint(0x1234, 1, class_code)
            .bar(0, BarModel::memory32(MIB))
            .bar(2, BarModel::memory64(MIB))
            .rom(2 << 10)
    };
    let machine = with(bars(0x06_0000));
    assert_eq!(machine.function(F).bars, []);
    assert_eq!(written(&machine, machine.node(F)), [0; 0]);
    // Only a host bridge decodes memory whatever its Command register says.
    for class_code in [0x06_8000, 0x08_8000, 0x05_0000] {
        let machine = with(bars(class_code));
        assert_eq!(machine.function(F).bars.len(), 3, "{class_code:06x}");
        assert!(machine.decodes(F, 0, MIB), "{class_code:06x}");
    }
}

#[test]
fn bars_of_an_ide_channel_in_compatibility_mode_are_not_written() {
    // Bit 0 and bit 2 of the interface: native mode of each channel.
    for (class_code, expected) in [
        (0x01_0180, vec![4]),
        (0x01_018a, vec![4]),
        (0x01_0181, vec![0, 1, 4]),
        (0x01_0184, vec![2, 3, 4]),
        (0x01_0185, vec![0, 1, 2, 3, 4]),
        // Other mass storage has BARs like any function.
        (0x01_0600, vec![0, 1, 2, 3, 4]),
        (0x01_0000, vec![0, 1, 2, 3, 4]),
    ] {
        let mut model = FunctionModel::endpoint(0x1234, 1, class_code);
        for index in 0..5 {
            model = model.bar(index, BarModel::io(0x10));
        }
        let machine = with(model);
        let indices: Vec<u8> = machine.function(F).bars.iter().map(|b| b.index).collect();
        assert_eq!(indices, expected, "{class_code:06x}");
        let written = written(&machine, machine.node(F));
        for index in 0..5 {
            let offset = 0x10 + 4 * u16::from(index);
            let is_written = written.contains(&offset);
            assert_eq!(is_written, expected.contains(&index), "{offset:#x}");
        }
    }
}

#[test]
fn functions_of_other_header_layouts_have_no_bars() {
    for header in [2, 3, 0x7f] {
        let model = integrated(1)
            .bar(0, BarModel::memory32(MIB))
            .set(0x0e, Width::Byte, header);
        let machine = with(model);
        assert_eq!(machine.function(F).bars, [], "header type {header:#x}");
        assert_eq!(written(&machine, machine.node(F)), [0; 0]);
    }
}

/// A physical function with 32- and 64-bit VF BARs.
fn physical(total_vfs: u16) -> FunctionModel {
    let mut vf_bars = [None; 6];
    vf_bars[0] = Some(BarModel::memory32(8 * KIB));
    vf_bars[2] = Some(BarModel::memory64(MIB).prefetchable());
    vf_bars[5] = Some(BarModel::memory32(4 * KIB));
    let sriov = SrIovModel {
        total_vfs,
        vf_bars,
        ..SrIovModel::default()
    };
    integrated(1).sriov(sriov, FunctionModel::virtual_function(0))
}

#[test]
fn vf_bars_are_found_with_the_size_of_one_vf() {
    let mut machine = with(physical(5));
    machine.assert_consistent();
    let expected = [
        (7, BarKind::VfMemory32, false, 8 * KIB),
        (9, BarKind::VfMemory64, true, MIB),
        (12, BarKind::VfMemory32, false, 4 * KIB),
    ];
    assert_eq!(found(&machine), expected);
    for (index, _, _, size) in expected {
        assert!(machine.decodes(F, index, 5 * size), "VF BAR {index}");
    }
    // Without a VF there is nothing to decode for.
    let machine = with(physical(0));
    assert_eq!(found(&machine), []);
}

#[test]
fn a_function_that_vanishes_while_its_bars_are_probed_is_excluded() {
    let mut excluded = 0;
    for accesses in 0..80 {
        let (mut fabric, host) = Fabric::with_windows(&[IO, LOW, HIGH]);
        let port = fabric.add_root(host, 1, 0, root_port(ALL_WINDOWS));
        let model = endpoint(7)
            .bar(0, BarModel::memory32(MIB))
            .bar(2, BarModel::memory64(MIB))
            .fault(Fault::Vanishes { accesses });
        fabric.add_below(port, 0, 0, model);
        fabric.add_root(host, 2, 0, hot_plug_port());
        let machine = set_up(fabric);
        let function = machine
            .topology
            .functions()
            .iter()
            .find(|f| f.sbdf == at(1, 0, 0));
        let Some(function) = function else { continue };
        let text = "stopped answering while its BARs were sized";
        let is_reported = function.anomalies.iter().any(|one| one.to_string() == text);
        let is_excluded = machine.topology.excluded().contains(&function.sbdf);
        assert_eq!(is_reported, is_excluded, "after {accesses} accesses");
        if is_excluded {
            excluded += 1;
            // What was read of one that is gone is no answer.
            assert_eq!(function.bars, [], "after {accesses} accesses");
            let gap = unassigned_below(&machine.topology, 0).expect("a gap");
            assert_eq!(gap.function, function.sbdf);
        } else {
            let indices: Vec<u8> = function.bars.iter().map(|bar| bar.index).collect();
            assert_eq!(indices, [0, 2], "after {accesses} accesses");
        }
    }
    // Two writes and two reads for each register.
    assert!(excluded >= 12, "{excluded}");
}

#[test]
fn io_bars_are_assigned_addresses_of_16_bits() {
    let (mut fabric, host) = Fabric::with_windows(&[io_window(0, 128 * KIB), LOW]);
    for device in 1..8 {
        let model = integrated(1)
            .bar(0, BarModel::new(BarSpace::Io16, 8 * KIB))
            .bar(1, BarModel::new(BarSpace::Io16, 8 * KIB));
        fabric.add_root(host, device, 0, model);
    }
    let mut machine = set_up(fabric);
    machine.assert_consistent();
    assert_eq!(machine.outcome.assigned, 7);
    assert_eq!(machine.outcome.disabled, 7);
}

#[test]
fn type_bits_that_can_be_written_keep_the_type_and_are_cached_as_they_are() {
    for (register, bar) in [
        (0xffff_ffe1, BarModel::io(0x20)),
        (0xffff_fff8, BarModel::memory32(16).prefetchable()),
    ] {
        let type_bits = register & 0xf;
        let model = integrated(1)
            .bar(0, bar)
            .set(0x10, Width::Dword, 0)
            .writable(0x10, Width::Dword, register);
        let mut machine = with(model);
        let held = machine.register(F, 0x10, Width::Dword);
        assert_eq!(held & 0xf, type_bits, "{held:08x}");
        assert_eq!(
            u64::from(held & !0xf),
            machine.address(F, 0).expect("it fits")
        );
        assert_eq!(machine.config.self_check().differences, []);
    }
}

#[test]
fn a_rom_that_cannot_be_disabled_is_cached_as_it_is() {
    let model = integrated(1)
        .rom(64 << 10)
        .set(0x30, Width::Dword, 1)
        .writable(0x30, Width::Dword, 0xffff_0000);
    let mut machine = with(model);
    assert!(machine.address(F, 6).is_some());
    assert_eq!(machine.register(F, 0x30, Width::Dword) & 1, 1);
    assert_eq!(machine.config.self_check().differences, []);
}

//! Which bytes of a structure are cached, and which the cache reads on its own
//! initiative, where that decides about right and wrong.

use warmbus_pci::{ConfigAccess, ConfigOffset, ConfigSpace, PortType, Probe, Sbdf, Width};
use warmbus_pcie_sim::{
    BarModel, BridgeWindows, ExpressModel, Fabric, Fault, FunctionModel, MILLISECOND, SECOND,
    SrIovModel, devices, topologies,
};
use warmbus_pcsc::{ByteClass, ConfigCache, FunctionCache};

use crate::common::captured;
use crate::twin::{
    EXPRESS, POWER_MANAGEMENT, SR_IOV, Twin, at, bar0, below_port, command, machine,
    virtual_function,
};

/// The device at 00:03.0, captured, and the fabric it is in.
fn integrated(model: FunctionModel) -> (ConfigCache<Fabric>, Sbdf) {
    let (mut fabric, host) = topologies::empty();
    fabric.add_root(host, 3, 0, model);
    let (cached, _) = captured(fabric);
    (cached, Sbdf::new(0, 0, 3, 0))
}

/// An endpoint of the root complex with nothing but its header.
fn bare() -> FunctionModel {
    FunctionModel::endpoint(0x1234, 1, 0x08_8000).named("endpoint")
}

fn express(port: PortType) -> ExpressModel {
    ExpressModel::new(port)
}

const INTEGRATED: PortType = PortType::RootComplexIntegratedEndpoint;

fn is_cacheable(block: &FunctionCache, bytes: core::ops::Range<u16>) -> Vec<bool> {
    let bytes = bytes.map(ConfigOffset::wrapping);
    bytes.map(|byte| block.is_cacheable(byte)).collect()
}

/// Lets the hardware of the endpoint change a byte that no software writes.
fn moves(twin: &mut Twin, offset: u16, value: u32) {
    let endpoint = twin.place("endpoint");
    let node = twin.bare.find("endpoint").unwrap();
    let register = at(endpoint, offset, Width::Byte);
    let before = twin.read(register);
    twin.hardware(|fabric| fabric.poke(node, offset, Width::Byte, value));
    assert_ne!(twin.read(register), before);
    twin.assert_transparent();
}

#[test]
fn interrupt_status_is_seen_where_there_is_an_interrupt_pin() {
    const STATUS: u16 = 0x06;
    let mut twin = below_port(devices::nvme());
    moves(&mut twin, STATUS, 0x18);
    let block = twin.cached.block(twin.place("endpoint")).unwrap();
    assert_eq!(
        block.class(ConfigOffset::wrapping(STATUS)),
        ByteClass::Volatile
    );
    // Without one the byte never changes.
    let (cached, function) = integrated(bare().power_management(true, 0));
    let block = cached.block(function).unwrap();
    assert_eq!(is_cacheable(block, STATUS..STATUS + 2), [true, false]);
    assert!(block.is_cached(ConfigOffset::wrapping(STATUS)));
}

#[test]
fn the_end_of_a_rom_validation_is_seen() {
    const ROM: u16 = 0x30;
    let model = devices::nvme().rom(0x1_0000).rom_validated_at(SECOND);
    let mut twin = below_port(model);
    let rom = at(twin.place("endpoint"), ROM, Width::Byte);
    assert_eq!(twin.read(rom) & 0xe, 2);
    twin.wait(1000);
    assert_eq!(twin.read(rom) & 0xe, 4);
    // The rest of the register is software's, and so is all of it without
    // validation.
    twin.assert_served(at(rom.function, ROM + 1, Width::Byte));
    let mut twin = below_port(devices::nvme().rom(0x1_0000));
    let rom = twin.place("endpoint");
    twin.assert_served(at(rom, ROM, Width::Dword));
}

#[test]
fn a_bar_or_rom_proves_the_enable_bit_of_its_space() {
    let rom = bare().express(express(INTEGRATED)).rom(0x1_0000);
    let io = bare().bar(1, BarModel::io(0x40));
    let both = bare()
        .bar(0, BarModel::io(0x40))
        .bar(2, BarModel::memory64(0x4000));
    let nothing = bare().express(express(INTEGRATED));
    // VF BARs are enabled elsewhere.
    let mut vf_bars = [None; 6];
    vf_bars[0] = Some(BarModel::memory64(0x1000));
    let sriov = SrIovModel {
        vf_bars,
        ..SrIovModel::default()
    };
    let physical = nothing.clone().sriov(sriov, virtual_function());
    for (model, bits) in [(rom, 2), (io, 1), (both, 3), (nothing, 0), (physical, 0)] {
        let (mut cached, function) = integrated(model);
        let block = cached.block(function).unwrap();
        assert_eq!(block.writable_command_bits(), bits);
        // So that the value after a write of it needs no read.
        let at = ConfigOffset::wrapping(4);
        let now = cached.read(function, at, Width::Word);
        cached.write(function, at, Width::Word, now ^ u32::from(bits));
        let block = cached.block(function).unwrap();
        let expected = (now as u16) ^ bits;
        assert_eq!(block.word(4), (bits != 0).then_some(expected));
        assert_eq!(cached.self_check().differences, []);
    }
}

#[test]
fn a_register_in_which_the_reserved_bit_of_io_is_set_is_no_bar() {
    // No I/O BAR has a hole in its address bits either.
    let hole = devices::nvme()
        .set(0x18, Width::Dword, 1)
        .writable(0x18, Width::Dword, 0xf0f0);
    let mut twin = below_port(hole);
    let register = at(twin.place("endpoint"), 0x18, Width::Dword);
    twin.write(register, u32::MAX);
    assert_eq!(twin.read(register), 0xf0f1);
    let block = twin.cached.block(register.function).unwrap();
    assert!(block.write_masks().iter().all(|mask| mask.offset != 0x18));
    // A register of some other kind, where a BAR could be.
    let model = devices::nvme().writable(0x18, Width::Dword, u32::MAX);
    let mut twin = below_port(model);
    let endpoint = twin.place("endpoint");
    let register = at(endpoint, 0x18, Width::Dword);
    for value in [u32::MAX, 0, 0x1234_5678, u32::MAX, 0x8765_4321] {
        twin.write(register, value);
        assert_eq!(twin.read(register), value);
    }
}

#[test]
fn a_structure_ends_where_the_next_one_starts() {
    // Power Management is first in the list and in the middle of what the
    // capability before it in the space would go on with.
    let model = FunctionModel::endpoint(0x1234, 1, 0x02_0000)
        .bar(0, BarModel::memory32(0x1000))
        .place_at(0x80)
        .power_management(true, 0)
        .place_at(0x40)
        .express(express(PortType::Endpoint).version(1))
        .set(0x42, Width::Byte, 2);
    let model = [0x54, 0x58, 0x5c, 0x60]
        .into_iter()
        .fold(model, |model, at| model.writable(at, Width::Dword, 0));
    // The capability is at 0x40; the next one is moved to 0x68.
    let model = model
        .place_at(0x68)
        .capability(0x09, &[4, 0])
        .link_capability(0x80, 0x68)
        .link_capability(0x68, 0x40)
        .link_capability(0x40, 0);
    let mut twin = below_port(model);
    let endpoint = twin.place("endpoint");
    let block = twin.cached.block(endpoint).unwrap();
    assert_eq!(block.capability(EXPRESS), Some(0x40));
    assert_eq!(block.capability(POWER_MANAGEMENT), Some(0x80));
    // Device Control 2 would be at 0x68, and Link Capabilities 2 at 0x6c.
    let expected = [[true; 3].as_slice(), &[false; 13]].concat();
    assert_eq!(is_cacheable(block, 0x68..0x78), expected);
    moves(&mut twin, 0x6c, 0x5a);
}

#[test]
fn no_rule_has_bytes_read_beyond_its_structure() {
    // The DVSEC of a CXL device says whether a range is valid at 0x1c, where
    // another capability has bytes that must not be read.
    let model = FunctionModel::endpoint(0x1234, 1, 0x05_0210)
        .express(express(PortType::Endpoint))
        .extended(0x23, 1, &[0x0381_1e98, 0, 0, 0, 0])
        .unknown_extended(0x7777, 0x20);
    let twin = below_port(model);
    let endpoint = twin.place("endpoint");
    let block = twin.cached.block(endpoint).unwrap();
    assert_eq!(block.extended_capability(0x7777), Some(0x118));
    // Nothing was read that must not be: that is seen in every machine.
    assert_eq!(twin.cached.access().log().violations(), []);
}

#[test]
fn a_dword_with_a_byte_that_nothing_names_is_captured_without_it() {
    const DYNAMIC_POWER: u16 = 0x16;
    // Three substates: the fourth byte is nobody's.
    let model = devices::nvme()
        .extended(DYNAMIC_POWER, 1, &[2, 0, 0, 0x0003_0201])
        .forbidden(0x12c + 0x13, 1);
    let mut twin = below_port(model);
    let endpoint = twin.place("endpoint");
    let power = twin.extended(endpoint, DYNAMIC_POWER, 0x10, Width::Word);
    assert_eq!(power.offset, 0x12c + 0x10);
    twin.assert_served(power);
    twin.assert_served(at(endpoint, power.offset + 2, Width::Byte));
    let block = twin.cached.block(endpoint).unwrap();
    let expected = [true, true, true, false];
    assert_eq!(
        is_cacheable(block, power.offset..power.offset + 4),
        expected
    );
}

#[test]
fn an_extended_list_of_ones_is_none_and_its_function_is_there() {
    let model = bare()
        .express(express(INTEGRATED))
        .set(0x100, Width::Dword, u32::MAX);
    let (cached, function) = crate::classes::inferred(model);
    assert_eq!(cached.block(function).unwrap().size(), 0x100);
}

#[test]
fn a_function_that_vanishes_while_it_is_walked_is_not_known() {
    for accesses in 1..6 {
        let (mut fabric, host) = topologies::empty();
        let model = devices::integrated_usb().fault(Fault::Vanishes { accesses });
        fabric.add_root(host, 3, 0, model);
        let mut cached = ConfigCache::new(fabric);
        let function = Sbdf::new(0, 0, 3, 0);
        assert!(matches!(cached.probe(function), Probe::Present { .. }));
        assert_eq!(cached.walk(function), None);
        assert!(cached.block(function).is_none());
    }
}

#[test]
fn a_link_whose_registers_another_structure_has_has_no_lanes() {
    const SECONDARY_PCIE: u16 = 0x19;
    let model = FunctionModel::endpoint(0x1234, 1, 0)
        .express(express(PortType::Endpoint).version(1))
        .place_at(0x4c)
        .msix(4, 0, 0x800)
        .link_capability(0x4c, 0)
        .extended(SECONDARY_PCIE, 1, &[0; 4]);
    let (cached, function) = crate::classes::inferred(model);
    let block = cached.block(function).unwrap();
    assert_eq!(is_cacheable(block, 0x10c..0x110), [false; 4]);
}

#[test]
fn an_empty_extended_list_is_served() {
    let mut twin =
        below_port(FunctionModel::endpoint(0x1234, 1, 0).express(express(PortType::Endpoint)));
    let endpoint = twin.place("endpoint");
    twin.assert_served(at(endpoint, 0x100, Width::Dword));
    let block = twin.cached.block(endpoint).unwrap();
    assert_eq!(block.size(), 0x1000);
    assert_eq!(is_cacheable(block, 0x104..0x108), [false; 4]);
    // A function with a list has its header there, one without the extended
    // space has nothing.
    let (cached, function) = integrated(bare());
    assert_eq!(cached.block(function).unwrap().size(), 0x100);
}

#[test]
fn the_subsystem_of_a_cardbus_bridge_is_cached_and_the_rest_is_not() {
    let model = bare()
        .set(0x0e, Width::Byte, 2)
        .set(0x40, Width::Dword, 0x1234_5678)
        .forbidden(0x15, 0x2b);
    let (cached, function) = integrated(model);
    let block = cached.block(function).unwrap();
    assert_eq!(block.header_type(), 2);
    assert_eq!(block.dword(0x40), Some(0x1234_5678));
    assert_eq!(
        is_cacheable(block, 0x10..0x44),
        [[false; 4].as_slice(), &[true], &[false; 43], &[true; 4]].concat()
    );
}

#[test]
fn a_port_without_a_slot_has_no_slot_registers() {
    let without = express(PortType::DownstreamPort).version(1);
    let model = FunctionModel::bridge(0x1234, 2, BridgeWindows::default()).express(without);
    // What follows the link registers belongs to the vendor.
    let (mut fabric, host) = topologies::empty();
    let port = fabric.add_root(host, 1, 0, devices::root_port(1).link_up());
    let upstream = fabric.add_below(port, 0, 0, devices::upstream_port());
    fabric.add_below(upstream, 0, 0, model.named("endpoint").link_up());
    let mut twin = Twin::new(fabric);
    let endpoint = twin.place("endpoint");
    let slot = twin.standard(endpoint, EXPRESS, 0x14, Width::Dword).offset;
    let block = twin.cached.block(endpoint).unwrap();
    assert_eq!(is_cacheable(block, slot..slot + 8), [false; 8]);
    moves(&mut twin, slot + 1, 0x5a);
    moves(&mut twin, slot + 4, 0x5a);
}

#[test]
fn initial_vfs_are_constant_unless_vfs_can_migrate() {
    for (migration, expected) in [(1, ByteClass::Volatile), (0, ByteClass::Static)] {
        let model = devices::nvme().sriov(SrIovModel::default(), virtual_function());
        // VF Migration Capable.
        let model = model.set(0x12c + 4, Width::Byte, 2 | migration);
        let mut twin = below_port(model);
        let endpoint = twin.place("endpoint");
        let initial = twin.extended(endpoint, SR_IOV, 0xc, Width::Word);
        assert_eq!(initial.offset, 0x12c + 0xc);
        let block = twin.cached.block(endpoint).unwrap();
        assert_eq!(
            block.class(ConfigOffset::wrapping(initial.offset)),
            expected
        );
        // A write to a register that is known does nothing else.
        twin.event(&[], &[bar0(endpoint), command(endpoint)], |twin| {
            twin.write(initial, 0);
        });
        if migration == 1 {
            moves(&mut twin, initial.offset, 3);
        }
    }
}

#[test]
fn a_late_slot_command_is_seen_however_often_it_is_read() {
    let port = devices::root_port(1).slot_command_time(5 * MILLISECOND);
    let mut twin = machine(port, devices::nvme());
    let control = twin.standard(twin.place("port"), EXPRESS, 0x18, Width::Word);
    let now = twin.read(control);
    for round in 0..3 {
        twin.write(control, now ^ 0x40);
        twin.write(control, now ^ 0x100 ^ round);
        for _ in 0..10 {
            twin.read(control);
            twin.wait(1);
        }
        twin.assert_transparent();
    }
}

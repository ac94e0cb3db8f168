//! What the cache says about itself, and which reads it makes.

use warmbus_pci::{ConfigAccess, ConfigOffset, ConfigSpace, KnownRegisters, PortType, Probe};
use warmbus_pci::{Sbdf, Width};
use warmbus_pcie_sim::{ExpressModel, Fabric, Fault, FunctionModel, devices, topologies};
use warmbus_pcsc::{ConfigCache, Difference, Statistics};

use crate::common::captured;
use crate::twin::{SR_IOV, at, bar0, below_port, ids, sixteen_vfs, virtual_function};

const ENDPOINT: Sbdf = Sbdf::new(0, 1, 0, 0);

fn offset(offset: u16) -> ConfigOffset {
    ConfigOffset::wrapping(offset)
}

#[test]
fn each_access_is_counted_once_and_as_what_it_was() {
    let (mut cached, _) = captured(topologies::small());
    let before = cached.statistics();
    for at in [0, 8, 0x10] {
        cached.read(ENDPOINT, offset(at), Width::Dword);
    }
    // Status is not kept; a register that was written is read again, once.
    cached.read(ENDPOINT, offset(6), Width::Word);
    cached.read(ENDPOINT, offset(4), Width::Dword);
    for value in [5, 6] {
        cached.write(ENDPOINT, offset(0x3c), Width::Byte, value);
        cached.read(ENDPOINT, offset(0x3c), Width::Byte);
        cached.read(ENDPOINT, offset(0x3c), Width::Byte);
    }
    // Nobody is there.
    cached.read(Sbdf::new(0, 9, 0, 0), offset(8), Width::Dword);
    let after = cached.statistics();
    let expected = Statistics {
        hits: before.hits + 5,
        misses: before.misses + 2,
        uncacheable: before.uncacheable + 3,
        writes: before.writes + 2,
        invalidations: before.invalidations + 2,
    };
    assert_eq!(after, expected);
}

#[test]
fn the_number_of_bytes_is_the_number_of_bytes() {
    let (cached, _) = captured(topologies::switch());
    for (_, block) in cached.blocks() {
        let bytes = || (0..block.size()).map(offset);
        let cacheable = bytes().filter(|byte| block.is_cacheable(*byte)).count();
        assert_eq!(usize::from(block.cacheable_bytes()), cacheable);
        let count = bytes().filter(|byte| block.is_cached(*byte)).count();
        assert_eq!(usize::from(block.cached_bytes()), count);
        assert!(count > 0x20);
        let dwords: Vec<u16> = block.cacheable_dwords().map(ConfigOffset::get).collect();
        let expected: Vec<u16> = (0..block.size())
            .step_by(4)
            .filter(|dword| (*dword..dword + 4).any(|byte| block.is_cacheable(offset(byte))))
            .collect();
        assert_eq!(dwords, expected);
        assert!(!block.is_disabled());
    }
}

#[test]
fn a_self_check_finds_what_changed_behind_the_cache() {
    let (mut cached, _) = captured(topologies::small());
    let bytes: u64 = cached
        .blocks()
        .map(|(_, block)| u64::from(block.cached_bytes()))
        .sum();
    let reads = cached.access().log().reads();
    let statistics = cached.statistics();
    let sound = cached.self_check();
    assert_eq!((sound.bytes, sound.differences), (bytes, vec![]));
    assert_eq!(sound.reads, cached.access().log().reads() - reads);
    assert_eq!(cached.statistics(), statistics);
    let nvme = cached.access().find("nvme").unwrap();
    cached.access_mut().poke(nvme, 0x2d, Width::Byte, 0x5a);
    let found = cached.self_check();
    let expected = Difference {
        function: Sbdf::new(0, 3, 0, 0),
        offset: offset(0x2d),
        cached: 0x1a,
        hardware: 0x5a,
    };
    assert_eq!(found.differences, [expected]);
    assert_eq!((found.bytes, found.reads), (bytes, sound.reads));
}

/// What is left to be read of `model` after its lists were walked.
fn missing(model: FunctionModel) -> Vec<(u16, Width)> {
    let (cached, function) = crate::classes::inferred(model);
    let missing = cached.missing_reads(function);
    let reads = missing.iter().map(|read| (read.offset.get(), read.width));
    reads.collect()
}

#[test]
fn a_capture_makes_one_read_a_dword_and_none_that_must_not_be_made() {
    let dwords = |offsets: &[u16]| -> Vec<_> {
        let reads = offsets.iter().map(|offset| (*offset, Width::Dword));
        reads.collect()
    };
    let header = [
        8, 0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x28, 0x2c, 0x30, 0x38,
    ];
    let bare = FunctionModel::endpoint(0x1234, 1, 0x08_8000);
    // The walk read the pointer to the capabilities only where there are some.
    let without_list = [header.as_slice(), &[0x34]].concat();
    let mut all = dwords(&without_list);
    all.sort_by_key(|(offset, _)| *offset);
    assert_eq!(missing(bare.clone()), all);
    // Bridge extensions of Power Management: one byte between others that change
    // on their own.
    let model = bare.clone().power_management(true, 0);
    let expected = dwords(&[header.as_slice(), &[0x44]].concat());
    assert_eq!(missing(model), expected);
    // A control register with its status, which may be read.
    let model = bare.clone().express(ExpressModel::new(PortType::Endpoint));
    let mut expected = dwords(&header);
    expected.extend(dwords(&[0x44, 0x48, 0x50, 0x64, 0x68, 0x6c, 0x70]));
    assert_eq!(missing(model.clone()), expected);
    // Lane Margining: a control beside a status, for each of four lanes.
    let model = model.extended(0x27, 1, &[0]);
    expected.extend((0x104..0x118).step_by(4).map(|at| (at, Width::Dword)));
    assert_eq!(missing(model.clone()), expected);
    let (mut cached, function) = crate::classes::inferred(model);
    cached.capture(function);
    assert_eq!(cached.missing_reads(function), []);
    assert_eq!(cached.missing_reads(ENDPOINT), []);
    let constant = cached.block(function).unwrap().constant_bits();
    let mut offsets: Vec<u16> = constant.iter().map(|known| known.offset).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, [4, 0x50]);
}

#[test]
fn a_byte_that_was_written_is_read_with_its_dword() {
    let (mut cached, _) = captured(topologies::small());
    let function = Sbdf::new(0, 0, 1, 0);
    for at in [0x3c, 0x0d] {
        cached.write(function, offset(at), Width::Byte, 0x5a);
    }
    let missing = cached.missing_reads(function);
    let reads: Vec<_> = missing.iter().map(|r| (r.offset.get(), r.width)).collect();
    assert_eq!(reads, [(0x0c, Width::Dword), (0x3c, Width::Dword)]);
}

#[test]
fn ones_that_were_written_are_no_missing_answer() {
    let (mut cached, _) = captured(topologies::small());
    let nvme = Sbdf::new(0, 3, 0, 0);
    let express = cached.block(nvme).unwrap().capability(0x10).unwrap();
    let control = offset(express + 8);
    cached.write(nvme, control, Width::Word, 0x8000);
    cached.read(nvme, offset(0), Width::Dword);
    let reads = |cached: &ConfigCache<Fabric>| cached.access().log().reads();
    cached.read(nvme, offset(0x10), Width::Dword);
    // The upper half of a BAR reads ones after ones were written, which needs
    // no look at the IDs; any other register that reads ones does.
    cached.write(nvme, offset(0x14), Width::Dword, u32::MAX);
    let before = reads(&cached);
    assert_eq!(cached.read(nvme, offset(0x14), Width::Dword), u32::MAX);
    assert_eq!(reads(&cached), before + 1);
    let node = cached.access().find("nvme").unwrap();
    cached.access_mut().poke(node, 0x3c, Width::Byte, 0xff);
    cached.write(nvme, offset(0x3c), Width::Byte, 0xff);
    let before = reads(&cached);
    assert_eq!(cached.read(nvme, offset(0x3c), Width::Byte), 0xff);
    assert_eq!(reads(&cached), before + 2);
}

#[test]
fn what_is_known_costs_no_read_and_what_is_asked_for_does() {
    let (mut cached, _) = captured(topologies::small());
    let reads = |cached: &ConfigCache<Fabric>| cached.access().log().reads();
    let before = reads(&cached);
    let class = cached.known(ENDPOINT, offset(8), Width::Dword);
    assert_eq!(class, Some(0x0200_0001));
    assert_eq!(cached.known(ENDPOINT, offset(6), Width::Word), None);
    assert_eq!(
        cached.known(Sbdf::new(0, 9, 0, 0), offset(8), Width::Word),
        None
    );
    assert_eq!(reads(&cached), before);
    let real = cached.read_hardware(ENDPOINT, offset(8), Width::Dword);
    assert_eq!((Some(real), reads(&cached)), (class, before + 1));
    // A register that does not behave as it should.
    let masks = |cached: &ConfigCache<Fabric>| {
        let block = cached.block(ENDPOINT).unwrap();
        let mut masks: Vec<u16> = block.write_masks().iter().map(|mask| mask.offset).collect();
        masks.sort_unstable();
        masks
    };
    let mut expected = masks(&cached);
    let invalidations = cached.statistics().invalidations;
    cached.invalidate_register(ENDPOINT, 0x14);
    expected.retain(|offset| *offset != 0x14);
    assert_eq!(masks(&cached), expected);
    assert_eq!(cached.statistics().invalidations, invalidations + 4);
    let block = cached.block(ENDPOINT).unwrap();
    let bytes = [0x13, 0x14, 0x15, 0x16, 0x17, 0x18].map(|byte| block.is_cached(offset(byte)));
    assert_eq!(bytes, [true, false, false, false, false, true]);
}

#[test]
fn a_fault_of_the_machine_passes_through() {
    let (mut fabric, host) = topologies::empty();
    let model = devices::integrated_usb().fault(Fault::Aborts { from: 8, to: 12 });
    fabric.add_root(host, 3, 0, model);
    let mut cached = ConfigCache::new(fabric);
    let function = Sbdf::new(0, 0, 3, 0);
    assert!(matches!(cached.probe(function), Probe::Present { .. }));
    assert_eq!(cached.take_fault(), None);
    cached.read(function, offset(8), Width::Dword);
    let fault = cached.take_fault().expect("the read was aborted");
    assert_eq!((fault.function, fault.offset), (function, offset(8)));
    assert_eq!(cached.take_fault(), None);
}

#[test]
fn a_function_is_identified_by_both_of_its_ids() {
    let mut cached = ConfigCache::new(topologies::small());
    let port = Sbdf::new(0, 0, 1, 0);
    let reads = |cached: &ConfigCache<Fabric>| cached.access().log().reads();
    // The Vendor ID alone says that it is there; the Device ID is read too.
    cached.read(port, offset(0), Width::Word);
    assert_eq!(reads(&cached), 2);
    assert_eq!(cached.block(port).unwrap().dword(0), Some(0x000c_1b36));
    cached.read(port, offset(0), Width::Dword);
    assert_eq!(reads(&cached), 2);
    cached.read(Sbdf::new(0, 0, 4, 0), offset(0), Width::Dword);
    assert_eq!(reads(&cached), 3);
    // One byte of it is no identification, and nobody needs no second look.
    let other = Sbdf::new(0, 0, 2, 0);
    cached.read(other, offset(0), Width::Byte);
    assert!(cached.block(other).is_none());
    cached.read(Sbdf::new(0, 0, 9, 0), offset(0), Width::Word);
    assert_eq!(reads(&cached), 5);
}

#[test]
fn a_write_drops_exactly_what_it_can_change() {
    let mut twin = below_port(devices::nvme().sriov(sixteen_vfs(), virtual_function()));
    let endpoint = twin.place("endpoint");
    let start = twin.extended(endpoint, SR_IOV, 0, Width::Dword).offset;
    let own = |bytes: core::ops::Range<u16>| bytes.map(|byte| (endpoint, byte));
    let dropped = |twin: &mut crate::twin::Twin, register, value| {
        let before = twin.cached_bytes();
        twin.write(register, value);
        let after = twin.cached_bytes();
        before.difference(&after).copied().collect::<Vec<_>>()
    };
    let control = at(endpoint, start + 8, Width::Word);
    let num_vfs = at(endpoint, start + 0x10, Width::Word);
    twin.write(num_vfs, 3);
    for register in [control, num_vfs, at(endpoint, start + 0x14, Width::Dword)] {
        twin.read(register);
    }
    // VF Enable is writable for certain; it can take NumVFs with it.
    assert_eq!(dropped(&mut twin, control, 1), []);
    let expected: Vec<_> = own(start + 0x10..start + 0x12)
        .chain(own(start + 0x14..start + 0x18))
        .collect();
    assert_eq!(dropped(&mut twin, control, 0), expected);
    twin.read(num_vfs);
    twin.read(at(endpoint, start + 0x14, Width::Dword));
    let expected: Vec<_> = own(start + 0x11..start + 0x12)
        .chain(own(start + 0x14..start + 0x18))
        .collect();
    let high = at(endpoint, start + 0x11, Width::Byte);
    assert_eq!(dropped(&mut twin, high, 1), expected);
    assert_eq!(twin.read(ids(endpoint)) & 0xffff, 0x1b36);
    twin.assert_served(bar0(endpoint));
}

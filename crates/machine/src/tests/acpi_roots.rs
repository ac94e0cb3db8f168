//! Which host bridges are used: devices of the DSDT that are present, with ECAM
//! in the MCFG. The AML is made here, from the encoding in ACPI 6.5, 20.2.

extern crate std;

use std::vec;

use super::acpi::{SWITCH, Tables, sealed, table};
use super::*;

/// An object with a `PkgLength` of two bytes.
fn package(operation: &[u8], content: &[u8]) -> Vec<u8> {
    let size = content.len() + 2;
    assert!(size < 4096);
    let length = [0x40 | (size & 0xf) as u8, (size >> 4) as u8];
    [operation, &length, content].concat()
}

/// `Device (NAME) { ... }`.
fn device(name: [u8; 4], objects: &[Vec<u8>]) -> Vec<u8> {
    package(&[0x5b, 0x82], &[name.to_vec(), objects.concat()].concat())
}

/// `Name (NAME, number)`.
fn name(name: [u8; 4], number: u64) -> Vec<u8> {
    [&[0x08], &name[..], &[0x0e], &number.to_le_bytes()].concat()
}

/// `Method (NAME) { Return (number) }`.
fn method(name: [u8; 4], number: u8) -> Vec<u8> {
    package(&[0x14], &[&name[..], &[0, 0xa4, 0x0a, number]].concat())
}

/// `Method (NAME) { Return (Local0) }`.
fn computed(name: [u8; 4]) -> Vec<u8> {
    package(&[0x14], &[&name[..], &[0, 0xa4, 0x60]].concat())
}

/// `Name (_HID, EisaId ("PNP0A08"))`.
fn hid() -> Vec<u8> {
    b"\x08_HID\x0c\x41\xd0\x0a\x08".to_vec()
}

/// `Name (_CRS, ResourceTemplate () { WordBusNumber (...) })`.
fn crs(first: u16, last: u16, count: u16) -> Vec<u8> {
    let mut descriptor = b"\x88\x0d\x00\x02\x0c\x00".to_vec();
    for word in [0, first, last, 0, count] {
        descriptor.extend(word.to_le_bytes());
    }
    descriptor.extend([0x79, 0]);
    package(b"\x08_CRS\x11", &[&[0x0a, 18], &descriptor[..]].concat())
}

/// An entry of the MCFG.
fn entry(base: u64, segment: u16, first: u8, last: u8) -> Vec<u8> {
    let mut entry = base.to_le_bytes().to_vec();
    entry.extend(segment.to_le_bytes());
    entry.extend([first, last, 0, 0, 0, 0]);
    entry
}

/// The machine with these entries in its MCFG and these devices in its DSDT.
fn machine_with(entries: &[Vec<u8>], devices: &[Vec<u8>]) -> Machine {
    let mcfg = table(*b"MCFG", &[vec![0; 8], entries.concat()].concat());
    let dsdt = table(
        *b"DSDT",
        &package(b"\x10", &[b"_SB_".to_vec(), devices.concat()].concat()),
    );
    Tables::assemble(&[sealed(mcfg), sealed(dsdt)])
        .machine()
        .unwrap()
}

/// Segment, first and last bus, and address of every host bridge.
fn hosts(machine: &Machine) -> Vec<(u16, u8, u8, u64)> {
    let host = |host: &HostBridge| {
        let (first, last) = (host.buses.first, host.buses.last);
        (host.segment, first, last, host.ecam_base.0)
    };
    machine.hosts.iter().map(host).collect()
}

const ECAM: u64 = 0x40_0000_0000;

#[test]
fn a_window_without_a_device_that_is_present_is_not_touched() {
    let entries =
        [0, 1, 2, 3].map(|segment| entry(ECAM + (u64::from(segment) << 28), segment, 0, 255));
    let machine = machine_with(
        &entries,
        &[
            device(*b"PCI0", &[hid(), name(*b"_STA", 0xf)]),
            device(*b"PCI1", &[hid(), name(*b"_SEG", 1), method(*b"_STA", 0)]),
            device(*b"PCI2", &[hid(), name(*b"_SEG", 2), computed(*b"_STA")]),
            // A device of another kind.
            device(*b"DEV3", &[name(*b"_SEG", 3), name(*b"_BBN", 0)]),
        ],
    );
    assert_eq!(hosts(&machine), [(0, 0, 255, ECAM)]);
    assert_eq!(
        machine.warnings,
        [
            "acpi 0002:00 is excluded: its _STA is computed by AML",
            "the ECAM at 0x4010000000 of segment 0001, buses 00-ff, is not accessed: no host bridge device that is present uses it",
            "the ECAM at 0x4030000000 of segment 0003, buses 00-ff, is not accessed: no host bridge device that is present uses it",
        ]
    );
    assert_eq!(machine.unusable_host_bridges, 1);
}

#[test]
fn presence_is_that_of_the_device_itself() {
    for (status, is_used) in [
        (vec![], true),
        (name(*b"_STA", 0), false),
        (name(*b"_STA", 6), false),
        (name(*b"_STA", 1), true),
        (name(*b"_STA", 8), true),
        (name(*b"_STA", u64::MAX), true),
        (method(*b"_STA", 0xf), true),
        (method(*b"_STA", 0), false),
        // Which of two counts is decided by code around them.
        ([name(*b"_STA", 0xf), name(*b"_STA", 0)].concat(), false),
        // A device inside it is another one, before or after its own names.
        (
            device(*b"RP00", &[name(*b"_STA", 0), name(*b"_BBN", 9)]),
            true,
        ),
        // A name that is only mentioned.
        (package(b"\x14", b"TEST\x00\x70_STA\x60"), true),
    ] {
        for objects in [[status.clone(), hid()], [hid(), status.clone()]] {
            let device = device(*b"PCI0", &objects);
            let machine = machine_with(&[entry(ECAM, 0, 0, 255)], &[device]);
            assert_eq!(machine.hosts.len(), usize::from(is_used), "{status:x?}");
        }
    }
}

#[test]
fn an_entry_at_address_0_is_no_ecam() {
    let entries = [entry(0, 0, 0, 255), entry(ECAM, 1, 0, 255)];
    let devices = [
        device(*b"PCI0", &[hid()]),
        device(*b"PCI1", &[hid(), name(*b"_SEG", 1)]),
    ];
    let machine = machine_with(&entries, &devices);
    assert_eq!(hosts(&machine), [(1, 0, 255, ECAM)]);
    assert_eq!(
        machine.warnings,
        ["acpi 0000:00 is excluded: its ECAM in the MCFG is at address 0, which stands for none"]
    );
    // As firmware leaves it that fills the table in later.
    let zeros = std::vec![entry(0, 0, 0, 0); 10];
    let machine = machine_with(&zeros, &[device(*b"PCI0", &[hid(), crs(0, 0, 1)])]);
    assert_eq!(machine.hosts, []);
}

#[test]
fn buses_are_those_of_the_resources_and_must_be_in_one_entry() {
    let entries = [
        entry(ECAM, 0, 0, 0x3f),
        entry(ECAM + (1 << 28), 1, 0x10, 0x8f),
    ];
    for (segment, objects, expected) in [
        (0, crs(0, 0x1f, 0x20), Ok((0, 0x1f))),
        (0, crs(0, 0x3f, 0x40), Ok((0, 0x3f))),
        // _CRS counts, whatever _BBN is.
        (
            0,
            [crs(8, 0x1f, 0x18), name(*b"_BBN", 4)].concat(),
            Ok((8, 0x1f)),
        ),
        (
            0,
            crs(0, 0x40, 0x41),
            Err("acpi 0000:00 is excluded: no entry of the MCFG has its buses 00-40"),
        ),
        (
            1,
            crs(0, 0x1f, 0x20),
            Err("acpi 0001:00 is excluded: no entry of the MCFG has its buses 00-1f"),
        ),
        (1, crs(0x20, 0x2f, 0x10), Ok((0x20, 0x2f))),
        // Numbers that do not fit together are filled in by code.
        (
            1,
            [crs(0x20, 0x2f, 0), name(*b"_BBN", 0x30)].concat(),
            Ok((0x30, 0x8f)),
        ),
        (
            1,
            [
                crs(0x20, 0x2f, 0x10),
                crs(0x40, 0x4f, 0x10),
                name(*b"_BBN", 0x30),
            ]
            .concat(),
            Ok((0x30, 0x8f)),
        ),
        (1, name(*b"_BBN", 0x50), Ok((0x50, 0x8f))),
        (
            1,
            name(*b"_BBN", 0x90),
            Err("acpi 0001:90 is excluded: no entry of the MCFG has its buses 90-90"),
        ),
        (
            1,
            computed(*b"_BBN"),
            Err("a host bridge of segment 0001 is excluded: its _BBN is computed by AML"),
        ),
        (
            1,
            name(*b"_BBN", 0x100),
            Err("a host bridge of segment 0001 is excluded: its _BBN is computed by AML"),
        ),
    ] {
        let device = device(*b"PCI0", &[hid(), name(*b"_SEG", segment), objects]);
        let machine = machine_with(&entries, &[device]);
        match expected {
            Ok((first, last)) => {
                let ecam = ECAM + (segment << 28) + (u64::from(first) << 20);
                assert_eq!(hosts(&machine), [(segment as u16, first, last, ecam)]);
            }
            Err(line) => {
                assert_eq!(machine.hosts, []);
                assert_eq!(machine.warnings[0], line);
            }
        }
    }
}

#[test]
fn a_root_bus_that_is_wrong_costs_no_bus_beside_it() {
    let entries = [entry(ECAM, 0, 0, 255)];
    let first = device(*b"PCI0", &[hid(), name(*b"_BBN", 0)]);
    let known = device(*b"PCI0", &[hid(), crs(0, 255, 256)]);
    let absent = device(*b"PCI1", &[hid(), name(*b"_BBN", 5), name(*b"_STA", 0)]);
    let unknown = device(*b"PCI2", &[hid(), name(*b"_BBN", 5)]);
    for (devices, lines) in [
        (vec![first.clone(), absent.clone()], 0),
        (vec![absent, known.clone()], 0),
        (vec![unknown.clone(), first.clone()], 1),
        (vec![unknown, known], 1),
    ] {
        let machine = machine_with(&entries, &devices);
        assert_eq!(hosts(&machine), [(0, 0, 255, ECAM)]);
        assert_eq!(machine.warnings.len(), lines);
        if let Some(line) = machine.warnings.first() {
            assert_eq!(
                line,
                "acpi 0000:05 is excluded: its window 0x4000500000-0x400fffffff overlaps 0x4000000000-0x400fffffff of acpi 0000:00"
            );
        }
    }
    // Where a root bus has its resources, the one before ends there.
    let other = device(*b"PCI3", &[hid(), crs(0x80, 0xff, 0x80)]);
    let machine = machine_with(&entries, &[other, first]);
    let expected = [(0, 0, 0x7f, ECAM), (0, 0x80, 0xff, ECAM + 0x800_0000)];
    assert_eq!(
        (hosts(&machine), machine.warnings.len()),
        (expected.to_vec(), 0)
    );
}

#[test]
fn an_address_in_the_device_must_be_that_of_the_mcfg() {
    for (address, is_used) in [
        (name(*b"_CBA", ECAM), true),
        (name(*b"_CBA", ECAM + (1 << 28)), false),
        (computed(*b"_CBA"), false),
    ] {
        let device = device(*b"PCI0", &[hid(), address]);
        let machine = machine_with(&[entry(ECAM, 0, 0, 255)], &[device]);
        assert_eq!(machine.hosts.len(), usize::from(is_used));
        assert_eq!(machine.warnings.len(), usize::from(!is_used));
    }
}

#[test]
fn host_bridges_that_cannot_be_are_excluded_with_the_reason() {
    let ram = 0x4000_0000;
    let entries = [
        entry(0x40_1000_0000, 0, 0, 0x3f),
        entry(0x40_1000_0000, 1, 0, 0x3f),
        entry(ram, 2, 0, 0),
        entry(0x50_0000_0800, 3, 0, 0),
        entry(u64::MAX - 0xfffff, 4, 1, 0xff),
        entry(0x50_0000_0000, 5, 9, 8),
        entry(0x60_0000_0000, 6, 0x10, 0x1f),
        vec![0; 7],
    ];
    let buses = [0, 0, 0, 0, 1, 9, 0x10];
    let devices: Vec<_> = (0..7)
        .map(|segment: u8| {
            let name_of = [b'P', b'C', b'I', b'0' + segment];
            let bus = name(*b"_BBN", buses[usize::from(segment)]);
            device(name_of, &[hid(), name(*b"_SEG", segment.into()), bus])
        })
        .collect();
    let machine = machine_with(&entries, &devices);
    assert_eq!(
        hosts(&machine),
        [
            (0, 0, 0x3f, 0x40_1000_0000),
            (6, 0x10, 0x1f, 0x60_0100_0000)
        ]
    );
    assert_eq!(machine.unusable_host_bridges, 5);
    for (warning, why) in machine.warnings.iter().zip([
        "overlaps",
        "overlaps memory",
        "not page-aligned",
        "past the last address",
        "no entry of the MCFG",
        "are none",
    ]) {
        assert!(warning.contains(why), "{warning}");
    }
    assert_eq!(machine.warnings.len(), 6);
}

/// AML that nests as deep as its bytes allow, or has as many devices as they
/// allow, is read once.
#[test]
fn the_work_is_bounded_by_the_size_of_the_tables() {
    let mut nested = Vec::new();
    for depth in 0_u32..200_000 {
        // Four bytes of length, which embraces all that follows.
        let size = 5 + 11 * (200_000 - depth - 1) + 4;
        let high = (size >> 4).to_le_bytes();
        nested.extend([
            0x5b,
            0x82,
            0xc0 | (size & 0xf) as u8,
            high[0],
            high[1],
            high[2],
        ]);
        nested.extend(b"A___\x00");
    }
    let dsdt = sealed(table(*b"DSDT", &nested));
    let mut tables = vec![Tables::new(SWITCH).table(b"MCFG").clone(), dsdt];
    // One table a thousand times.
    let ssdt = sealed(table(*b"SSDT", &std::vec![0x5b; 1 << 20]));
    tables.push(ssdt);
    let mut tables = Tables::assemble(&tables);
    let listed = tables.table(b"XSDT")[44..52].to_vec();
    let tables = tables.change(b"XSDT", |xsdt| {
        for _ in 0..1000 {
            xsdt.extend(&listed);
        }
    });
    let start = std::time::Instant::now();
    let machine = tables.machine().unwrap();
    assert_eq!(machine.hosts, []);
    let seconds = start.elapsed().as_secs();
    assert!(seconds < 5, "{seconds} s");
    // The tables that are there are counted once.
    let lines = &machine.warnings;
    assert!(
        !lines.iter().any(|line| line.contains("more than")),
        "{lines:?}"
    );
    // More bytes than any machine has are not read.
    let ssdt = sealed(table(*b"SSDT", &vec![0x5b; 15 << 20]));
    let many = Tables::assemble(&vec![ssdt; 5]).machine().unwrap();
    assert_eq!(
        many.warnings,
        ["the ACPI tables have more than 0x4000000 bytes; those from 0x50000100 on are ignored"]
    );
}

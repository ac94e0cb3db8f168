//! ACPI tables: real ones, changed ones, damaged ones.

use alloc::vec;

use super::*;
use crate::uefi::MemoryMap;
use crate::{AcpiError, Source};
use warmbus_memory::{NotMemory, PhysMemory, slice_at};

pub(super) const SWITCH: &[u8] = include_bytes!("../../../../tests/fixtures/acpi/qemu-virt.tables");
pub(super) const ROOTS: &[u8] =
    include_bytes!("../../../../tests/fixtures/acpi/qemu-virt-roots.tables");

/// Memory with nothing but tables in it.
#[derive(Clone)]
pub(super) struct Tables(pub(super) Vec<(u64, Vec<u8>)>);

impl Tables {
    pub(super) fn new(mut file: &[u8]) -> Self {
        let mut pieces = Vec::new();
        let number = |file: &mut &[u8]| {
            let (number, rest) = file.split_at(8);
            *file = rest;
            u64::from_le_bytes(number.try_into().unwrap())
        };
        while !file.is_empty() {
            let (address, size) = (number(&mut file), number(&mut file) as usize);
            pieces.push((address, file[..size].to_vec()));
            file = &file[size..];
        }
        Self(pieces)
    }

    /// The tables of a machine with nothing but `tables`.
    pub(super) fn assemble(tables: &[Vec<u8>]) -> Self {
        let mut pieces = Vec::new();
        let mut address = 0x4c40_0000;
        let mut place = |bytes: Vec<u8>| {
            let at = address;
            address += (bytes.len() as u64).next_multiple_of(64);
            pieces.push((at, bytes));
            at
        };
        let mut xsdt = table(*b"XSDT", &[]);
        let mut fadt = table(*b"FACP", &[0; 240]);
        for bytes in tables {
            let at = place(bytes.clone()).to_le_bytes();
            match &bytes[..4] {
                b"DSDT" => fadt[140..148].copy_from_slice(&at),
                _ => xsdt.extend(at),
            }
        }
        xsdt.extend(place(sealed(fadt)).to_le_bytes());
        let mut rsdp = [0; 36];
        rsdp[..8].copy_from_slice(b"RSD PTR ");
        rsdp[15] = 2;
        rsdp[24..32].copy_from_slice(&place(sealed(xsdt)).to_le_bytes());
        // The sum of the first 20 bytes, then that of all.
        for (at, size) in [(8, 20), (32, 36)] {
            rsdp[at] = 0_u8.wrapping_sub(sum(&rsdp[..size]));
        }
        place(rsdp.to_vec());
        Self(pieces)
    }

    pub(super) fn rsdp(&self) -> PhysAddr {
        let is_rsdp = |piece: &&(u64, Vec<u8>)| piece.1.starts_with(b"RSD PTR ");
        PhysAddr(self.0.iter().find(is_rsdp).unwrap().0)
    }

    pub(super) fn table(&mut self, signature: &[u8]) -> &mut Vec<u8> {
        let mut pieces = self.0.iter_mut();
        &mut pieces
            .find(|piece| piece.1.starts_with(signature))
            .unwrap()
            .1
    }

    /// Changes a table and makes its checksum right again.
    pub(super) fn change(mut self, signature: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let table = self.table(signature);
        change(table);
        *table = sealed(core::mem::take(table));
        self
    }

    pub(super) fn machine(&self) -> Result<Machine, AcpiError> {
        self.machine_at(self.rsdp())
    }

    pub(super) fn machine_at(&self, rsdp: PhysAddr) -> Result<Machine, AcpiError> {
        let map = memory_map(&[
            (7, 0x4000_0000, 0xc00_0000),
            (9, 0x4c40_0000, 0x3_0000),
            (2, 0x4c43_0000, 0x3bd_0000),
        ]);
        Machine::from_acpi(self, rsdp, &MemoryMap::new(&map, 48))
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// A table with `body`, without its size and checksum.
pub(super) fn table(signature: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut table = signature.to_vec();
    table.resize(36, 0);
    table.extend(body);
    table
}

/// A table with its size and checksum.
pub(super) fn sealed(mut table: Vec<u8>) -> Vec<u8> {
    let size = u32::try_from(table.len()).unwrap();
    table[4..8].copy_from_slice(&size.to_le_bytes());
    table[9] = 0;
    table[9] = 0_u8.wrapping_sub(sum(&table));
    table
}

impl PhysMemory for Tables {
    fn bytes(&self, range: MemoryRange) -> Result<&[u8], NotMemory> {
        // A table that was made longer may reach into the next one.
        let mut tables = self.0.iter().rev();
        tables
            .find_map(|(start, bytes)| slice_at(PhysAddr(*start), bytes, range).ok())
            .ok_or(NotMemory { range })
    }
}

/// A memory map with descriptors of 48 bytes: type, address, bytes.
fn memory_map(regions: &[(u32, u64, u64)]) -> Vec<u8> {
    let mut map = Vec::new();
    for &(kind, base, size) in regions {
        for number in [u64::from(kind), base, 0, size / 4096, 0xf, 0] {
            map.extend(number.to_le_bytes());
        }
    }
    map
}

#[test]
fn the_tables_of_a_machine_say_what_its_device_tree_says() {
    let acpi = Tables::new(SWITCH).machine().unwrap();
    let tree = machine(QEMU);
    assert_eq!(acpi.source, Source::Acpi);
    assert_eq!(acpi.warnings, [""; 0]);
    assert_eq!(acpi.model.as_deref(), Some("BOCHS BXPC"));
    assert_eq!((acpi.hosts.len(), acpi.unusable_host_bridges), (1, 0));
    let (ours, theirs) = (&acpi.hosts[0], &tree.hosts[0]);
    assert_eq!(ours.name, "acpi 0000:00");
    assert_eq!(
        (ours.segment, ours.buses, ours.ecam_base, ours.ecam_size),
        (0, theirs.buses, theirs.ecam_base, theirs.ecam_size)
    );
    assert!(ours.preserve_config && ours.windows.is_empty());
    assert_eq!(acpi.early_devices.psci, tree.early_devices.psci);
    let (ours, theirs) = (
        acpi.early_devices.console.unwrap(),
        tree.early_devices.console.unwrap(),
    );
    assert_eq!((ours.kind, ours.base), (theirs.kind, theirs.base));
    assert_eq!(acpi.cpus, 1);
}

#[test]
fn root_buses_processors_and_nodes_are_found() {
    let machine = Tables::new(ROOTS).machine().unwrap();
    let hosts: Vec<_> = machine
        .hosts
        .iter()
        .map(|host| {
            (
                host.name.as_str(),
                host.buses.first,
                host.buses.last,
                host.ecam_base.0,
            )
        })
        .collect();
    assert_eq!(
        hosts,
        [
            ("acpi 0000:00", 0, 0x7f, 0x40_1000_0000),
            ("acpi 0000:80", 0x80, 0x81, 0x40_1800_0000)
        ]
    );
    assert_eq!(machine.cpus, 3);
    assert_eq!(
        machine.memory_nodes,
        [
            in_node(0x4000_0000, 0x800_0000, 0),
            in_node(0x4800_0000, 0x400_0000, 1),
            in_node(0x4c40_0000, 0x3c0_0000, 1)
        ]
    );
}

#[test]
fn memory_is_what_the_map_lets_an_operating_system_have() {
    let machine = Tables::new(SWITCH).machine().unwrap();
    assert_eq!(
        machine.memory[..],
        [
            region(0x4000_0000, 0xc00_0000),
            region(0x4c40_0000, 0x3c0_0000)
        ]
    );
    // The ACPI tables are not free.
    assert_eq!(
        machine.free_memory(&[])[..],
        [
            region(0x4000_0000, 0xc00_0000),
            region(0x4c43_0000, 0x3bd_0000)
        ]
    );
    let all = |kind, attributes: u64| {
        let mut map = memory_map(&[(kind, 0x1000, 0x1000)]);
        map[32..40].copy_from_slice(&attributes.to_le_bytes());
        MemoryMap::new(&map, 48).ram().len()
    };
    let usable: Vec<_> = (0..=15).filter(|&kind| all(kind, 8) == 1).collect();
    assert_eq!(usable, [1, 2, 3, 4, 7, 9]);
    assert_eq!((all(7, 7), all(7, 8 | 1 << 18)), (0, 0));
}

#[test]
fn a_memory_map_that_makes_no_sense_is_no_memory() {
    let map = memory_map(&[
        (7, u64::MAX - 0xfff, 0x2000),
        (7, 0x1000, 0),
        (7, 0, u64::MAX),
    ]);
    for (bytes, size) in [
        (&map[..48], 48),
        (&map[48..96], 48),
        (&map[..], 0),
        (&map[..], 39),
        (&map[..47], 48),
    ] {
        assert_eq!(MemoryMap::new(bytes, size).ram()[..], []);
        assert!(!MemoryMap::new(bytes, size).is_memory(region(0, 1)));
    }
    let map = memory_map(&[
        (7, 0x1000, 0x1000),
        (10, 0x2000, 0x1000),
        (11, 0x3000, 0x1000),
        (8, 0x4000, 0x1000),
        (15, 0x5000, 0x1000),
    ]);
    let map = MemoryMap::new(&map, 48);
    for (address, size, expected) in [
        (0x1000, 0x2000, true),
        (0x1000, 0x2001, false),
        (0x3000, 1, false),
        (0x4000, 1, false),
        (0x5000, 1, false),
        (0x1000, 0, false),
        (u64::MAX, 2, false),
    ] {
        assert_eq!(
            map.is_memory(region(address, size)),
            expected,
            "{address:#x}"
        );
    }
}

#[test]
fn a_damaged_table_costs_what_it_describes_and_a_sentence_says_so() {
    for (signature, gone) in [
        (
            &b"MCFG"[..],
            (|machine| machine.hosts.is_empty()) as fn(&Machine) -> bool,
        ),
        (b"SPCR", |machine| machine.early_devices.console.is_none()),
        (b"FACP", |machine| {
            machine.early_devices.psci == Psci::NotKnown
        }),
        (b"APIC", |machine| machine.cpus == 0),
    ] {
        let mut tables = Tables::new(SWITCH);
        tables.table(signature)[40] ^= 0x10;
        let machine = tables.machine().unwrap();
        assert!(gone(&machine));
        // Without the FADT, nobody knows the DSDT with the host bridges.
        let sums = machine
            .warnings
            .iter()
            .filter(|line| line.contains("add up to"));
        assert_eq!(sums.count(), 1, "{:?}", machine.warnings);
        let gone = usize::from(signature == b"FACP");
        assert_eq!(machine.warnings.len(), 1 + gone, "{:?}", machine.warnings);
    }
}

#[test]
fn without_an_rsdp_or_an_xsdt_there_is_no_machine() {
    let error = |change: fn(&mut Tables)| {
        let mut tables = Tables::new(SWITCH);
        let rsdp = tables.rsdp();
        change(&mut tables);
        Machine::from_acpi(&tables, rsdp, &MemoryMap::new(&[], 48))
            .unwrap_err()
            .to_string()
    };
    let named = [
        (
            (|tables| tables.0.clear()) as fn(&mut Tables),
            "the RSDP should be at",
        ),
        (|tables| tables.table(b"RSD")[0] = b'X', "no RSDP"),
        (|tables| tables.table(b"RSD")[15] = 0, "revision 0"),
        (|tables| tables.table(b"RSD")[30] ^= 1, "the RSDP at"),
        (|tables| tables.table(b"XSDT")[0] = b'Y', "no XSDT"),
        (|tables| tables.table(b"XSDT")[50] ^= 1, "the XSDT at"),
        (
            |tables| tables.table(b"XSDT")[4] = 35,
            "an invalid size of 0x23 bytes",
        ),
        (|tables| tables.table(b"XSDT")[7] = 0xff, "invalid size"),
        (|tables| tables.table(b"XSDT")[5] = 1, "no"),
    ];
    for (change, why) in named {
        let error = error(change);
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn after_a_kexec_memory_is_what_linux_goes_on_with_and_the_rest_is_in_the_tables() {
    let tables = Tables::new(ROOTS);
    let map = memory_map(&[(7, 0x4000_0000, 0xc00_0000), (9, 0x4c40_0000, 0x3_0000)]);
    let map = MemoryMap::new(&map, 48);
    let reserved = Reservation {
        range: region(0x4100_0000, 0x1000),
        kind: ReservationKind::Firmware,
    };
    let memory = MachineMemory {
        ranges: map.ram(),
        nodes: vec![in_node(0x4000_0000, 0xc00_0000, 0)],
        reservations: vec![reserved],
        warnings: vec!["a warning".to_string()],
    };
    let expected = Machine::from_acpi(&tables, tables.rsdp(), &map).unwrap();
    let found = Machine::after_uefi(&tables, Some(tables.rsdp()), &map, memory.clone());
    assert_eq!(found.hosts, expected.hosts);
    assert_eq!(found.hosts.len(), 2);
    assert_eq!(found.early_devices, expected.early_devices);
    assert_eq!(found.memory_nodes, expected.memory_nodes);
    assert_eq!(found.reservations, [reserved]);
    assert_eq!(found.warnings, ["a warning"]);

    // Without tables Linux is started all the same.
    let mut damaged = tables.clone();
    damaged.table(b"RSD PTR ")[0] = b'X';
    for (rsdp, warning) in [
        (
            None,
            "the machine is not known: UEFI has no table that names the RSDP of ACPI 2.0 or later",
        ),
        (
            Some(tables.rsdp()),
            "the machine is not known: what is at 0x40430018 is no RSDP",
        ),
    ] {
        let found = Machine::after_uefi(&damaged, rsdp, &map, memory.clone());
        assert_eq!(found.warnings[0], warning);
        assert_eq!(found.source, Source::Acpi);
        assert_eq!(found.hosts, []);
        assert_eq!(found.memory, memory.ranges);
        assert_eq!(found.memory_nodes, memory.nodes);
        assert_eq!(found.reservations, [reserved]);
    }
}

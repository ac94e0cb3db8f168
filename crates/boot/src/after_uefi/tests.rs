use alloc::string::ToString;

use proptest::prelude::*;
use warmbus_fdt::FdtWriter;
use warmbus_machine::ReservationKind;
use warmbus_memory::{PhysMemoryWrite, TestMemory};

use super::*;

/// 16 MiB of memory, of which UEFI has described the first 8.
const BASE: u64 = 0x4000_0000;
const SYSTEM_TABLE: u64 = BASE + 0x1_0040;
/// Where UEFI sees its data, and where that is.
const VIRTUAL: u64 = 0x2000_0000;
const RUNTIME: u64 = BASE + 0x1_0000;
const MAP: u64 = BASE + 0x2_0000;
const FIRST_RESERVED: u64 = BASE + 0x2_1000;
const SECOND_RESERVED: u64 = BASE + 0x5_0ff0;
const SCRATCH_ARRAY: u64 = BASE + 0x5_8000;
const RSDP: u64 = BASE + 0x3_0014;

const fn range(start: u64, end: u64) -> MemoryRange {
    MemoryRange::from_bounds(start, end)
}

/// Types, starts and ends of what is in the map.
const PIECES: [(u32, u64, u64); 7] = [
    // Conventional, runtime data, loader data, ACPI reclaim, boot services data,
    // conventional, device registers.
    (7, BASE, RUNTIME),
    (6, RUNTIME, MAP),
    (2, MAP, BASE + 0x3_0000),
    (9, BASE + 0x3_0000, BASE + 0x4_0000),
    (4, BASE + 0x4_0000, BASE + 0x5_0000),
    (7, BASE + 0x5_0000, BASE + 0x80_0000),
    (11, 0x900_0000, 0x901_0000),
];

fn map(pieces: &[(u32, u64, u64)]) -> Vec<u8> {
    let mut map = Vec::new();
    for &(kind, start, end) in pieces {
        let is_runtime = kind == 6;
        let virtual_start = if is_runtime { VIRTUAL } else { 0 };
        let attributes = if kind == 11 { 1 } else { 0xf } | u64::from(is_runtime) << 63;
        map.extend(u64::from(kind).to_le_bytes());
        for number in [start, virtual_start, (end - start) / 4096, attributes, 0] {
            map.extend(number.to_le_bytes());
        }
    }
    map
}

/// What UEFI has left, and a Linux with it.
struct Left {
    memory: TestMemory,
    map: Vec<u8>,
    tree: Vec<u8>,
    uefi: UefiInChosen,
    loaded: Vec<MemoryRange>,
    scratch: Option<MemoryRange>,
}

impl Left {
    fn new() -> Self {
        let map = map(&PIECES);
        let mut left = Self {
            memory: TestMemory::new(PhysAddr(BASE), 8 << 20),
            tree: tree(map.len(), true),
            map,
            uefi: UefiInChosen {
                system_table: PhysAddr(SYSTEM_TABLE),
                map: range(MAP, MAP),
                descriptor_size: 48,
                is_stub: true,
            },
            loaded: Vec::new(),
            scratch: None,
        };
        left.uefi.map.size = left.map.len() as u64;
        let mut header = [0; 120];
        header[..8].copy_from_slice(b"IBI SYST");
        header[104] = 3;
        header[112..].copy_from_slice(&(VIRTUAL + 0x800).to_le_bytes());
        left.memory.write(PhysAddr(SYSTEM_TABLE), &header);
        let entries: [(u128, u64); 3] = [
            // EFI_SYSTEM_RESOURCE_TABLE, EFI_ACPI_20_TABLE, LINUX_EFI_MEMRESERVE_TABLE, as
            // the bytes of their GUIDs.
            (0x7ba3_22b1_6136_6849_9929_78f8_b0d6_2180, SYSTEM_TABLE),
            (0x71e8_6888_f1e4_d311_bc22_0080_c73c_8881, RSDP),
            (0xc6b0_8e88_de8e_f54f_a8f0_9aee_5cb9_77c2, FIRST_RESERVED),
        ];
        for (index, (guid, place)) in (0..).zip(entries) {
            let at = RUNTIME + 0x800 + index * 24;
            left.memory.write(PhysAddr(at), &guid.to_be_bytes());
            left.memory.write(PhysAddr(at + 16), &place.to_le_bytes());
        }
        left.reserve(
            FIRST_RESERVED,
            2,
            1,
            SECOND_RESERVED,
            &[(BASE + 0x60_0000, 0x1_0000)],
        );
        // It counts one more than it has space.
        left.reserve(SECOND_RESERVED, 1, 2, 0, &[(BASE + 0x62_0000, 0x2000)]);
        left
    }

    /// Writes a node of the list of reserved memory.
    fn reserve(&mut self, at: u64, space: u32, used: u32, next: u64, entries: &[(u64, u64)]) {
        let mut node = [space, used].map(u32::to_le_bytes).concat();
        node.extend(next.to_le_bytes());
        for (start, size) in entries {
            node.extend(start.to_le_bytes());
            node.extend(size.to_le_bytes());
        }
        self.memory.write(PhysAddr(at), &node);
    }

    fn read(&self) -> Result<(MachineMemory, Option<PhysAddr>), MemoryError> {
        let map = MemoryMap::new(&self.map, self.uefi.descriptor_size);
        let left = LeftByLinux {
            loaded: &self.loaded,
            scratch: self.scratch,
        };
        memory(&self.tree, &self.uefi, &map, &self.memory, left)
    }
}

/// The tree of the EFI stub, or one that has memory and a reservation as well.
fn tree(map_size: usize, is_stub: bool) -> Vec<u8> {
    let mut tree = FdtWriter::new();
    tree.begin_node("");
    tree.property_u32("#address-cells", 2);
    tree.property_u32("#size-cells", 2);
    if !is_stub {
        tree.begin_node("memory@c0000000");
        tree.property_string("device_type", "memory");
        let reg = [0xc000_0000_u64, 1 << 30].map(u64::to_be_bytes);
        tree.property("reg", reg.as_flattened());
        tree.end_node();
        tree.begin_node("reserved-memory");
        tree.property_u32("#address-cells", 2);
        tree.property_u32("#size-cells", 2);
        tree.begin_node("carveout@40700000");
        let reg = [BASE + 0x70_0000, 0x1000].map(u64::to_be_bytes);
        tree.property("reg", reg.as_flattened());
        tree.end_node();
        tree.end_node();
    }
    tree.begin_node("chosen");
    tree.property("linux,uefi-system-table", &SYSTEM_TABLE.to_be_bytes());
    tree.property("linux,uefi-mmap-start", &MAP.to_be_bytes());
    tree.property_u32("linux,uefi-mmap-size", map_size as u32);
    tree.property_u32("linux,uefi-mmap-desc-size", 48);
    tree.property_u32("linux,uefi-mmap-desc-ver", 1);
    tree.end_node();
    tree.end_node();
    tree.finish().expect("it is small")
}

#[test]
fn chosen_names_what_uefi_has_left() {
    let left = Left::new();
    assert_eq!(UefiInChosen::find(&left.tree), Ok(Some(left.uefi)));
    let whole = tree(left.map.len(), false);
    let uefi = UefiInChosen {
        is_stub: false,
        ..left.uefi
    };
    assert_eq!(UefiInChosen::find(&whole), Ok(Some(uefi)));
    let mut none = FdtWriter::new();
    none.begin_node("");
    none.end_node();
    let none = none.finish().expect("it is small");
    assert_eq!(UefiInChosen::find(&none), Ok(None));
}

#[test]
fn what_is_free_was_free_when_uefi_ended_and_no_linux_has_reserved_it_since() {
    let (memory, rsdp) = Left::new().read().expect("it can be read");
    assert_eq!(rsdp, Some(PhysAddr(RSDP)));
    let ram = [range(BASE, RUNTIME), range(MAP, BASE + 0x80_0000)];
    assert_eq!(memory.ranges, ram.into_iter().collect());
    let free = [
        range(BASE, RUNTIME),
        range(BASE + 0x5_0000, SECOND_RESERVED),
        range(SECOND_RESERVED + 32, BASE + 0x60_0000),
        range(BASE + 0x61_0000, BASE + 0x62_0000),
        range(BASE + 0x62_2000, BASE + 0x80_0000),
    ];
    assert_eq!(memory.free(&[]), free.into_iter().collect());
    assert!(
        memory
            .reservations
            .iter()
            .all(|one| one.kind == ReservationKind::Firmware)
    );
}

#[test]
fn memory_of_scratch_areas_and_loaded_files_holds_no_table() {
    let mut left = Left::new();
    let scratch = range(BASE + 0x4_2000, BASE + 0x4_4000);
    let array = [scratch.start.0, scratch.size].map(u64::to_le_bytes);
    left.memory
        .write(PhysAddr(SCRATCH_ARRAY), array.as_flattened());
    left.scratch = Some(range(SCRATCH_ARRAY, SCRATCH_ARRAY + 16));
    let file = range(BASE + 0x2_8000, BASE + 0x3_0000);
    left.loaded.push(file);
    let (memory, _) = left.read().expect("it can be read");
    let free = memory.free(&[]);
    assert!(free.contains_range(scratch) && free.contains_range(file));
    // What is beside them stays.
    assert!(!free.contains_range(range(BASE + 0x4_4000, BASE + 0x4_4001)));
    assert!(!free.contains_range(range(file.start.0 - 1, file.start.0)));
    // An array that cannot be read costs what would be known by it.
    left.scratch = Some(range(BASE + (8 << 20), BASE + (8 << 20) + 16));
    let (memory, _) = left.read().expect("it can be read");
    assert!(!memory.free(&[]).contains_range(scratch));
}

#[test]
fn memory_of_the_tree_does_not_count_and_its_reservations_do() {
    let mut left = Left::new();
    left.tree = tree(left.map.len(), false);
    let (memory, _) = left.read().expect("it can be read");
    assert!(
        !memory
            .ranges
            .contains_range(range(0xc000_0000, 0xc000_1000))
    );
    let reserved = range(BASE + 0x70_0000, BASE + 0x70_1000);
    assert!(memory.ranges.contains_range(reserved));
    assert!(
        !memory
            .free(&[])
            .contains_range(range(reserved.start.0, reserved.start.0 + 1))
    );
}

#[test]
fn without_a_virtual_map_pointers_are_physical() {
    let mut left = Left::new();
    left.memory.write(
        PhysAddr(SYSTEM_TABLE + 112),
        &(RUNTIME + 0x800).to_le_bytes(),
    );
    for piece in left.map.chunks_exact_mut(48) {
        piece[16..24].fill(0);
    }
    let (_, rsdp) = left.read().expect("it can be read");
    assert_eq!(rsdp, Some(PhysAddr(RSDP)));
}

#[test]
fn what_is_damaged_is_an_error_with_the_address() {
    type Damage = fn(&mut Left);
    let faults: [(Damage, &str); 8] = [
        (
            |left| left.memory.write(PhysAddr(SYSTEM_TABLE), b"X"),
            "what is at 0x40010040 is no system table of UEFI",
        ),
        (
            |left| left.uefi.system_table = PhysAddr(u64::MAX - 8),
            "the system table of UEFI should be at",
        ),
        (
            |left| left.memory.write(PhysAddr(SYSTEM_TABLE + 106), &[1]),
            "UEFI has left more than 1024 configuration tables",
        ),
        (
            |left| left.memory.write(PhysAddr(SYSTEM_TABLE + 119), &[0x7f]),
            "the list of configuration tables of UEFI should be at",
        ),
        // A list that ends nowhere, or in itself.
        (
            |left| left.reserve(SECOND_RESERVED, 1, 1, 0x1000, &[]),
            "the list of reserved memory of UEFI should be at 0x1000",
        ),
        (
            |left| left.reserve(SECOND_RESERVED, 1, 1, FIRST_RESERVED, &[]),
            "UEFI has left more than 65536 ranges of reserved memory",
        ),
        (
            |left| left.reserve(SECOND_RESERVED, u32::MAX, 1, 0, &[]),
            "the list of reserved memory of UEFI should be at",
        ),
        // Nothing but what UEFI keeps.
        (
            |left| {
                for piece in left.map.chunks_exact_mut(48) {
                    piece[0] = 6;
                }
            },
            "the machine description names no memory",
        ),
    ];
    for (damage, expected) in faults {
        let mut left = Left::new();
        damage(&mut left);
        let error = left.read().expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_damaged_descriptor_costs_what_it_describes() {
    let mut left = Left::new();
    // The second piece of free memory has more pages than there are addresses.
    let at = 5 * 48 + 24;
    left.map[at..at + 8].fill(0xff);
    let (memory, _) = left.read().expect("the rest can be read");
    let free = [range(BASE, RUNTIME)];
    assert_eq!(memory.free(&[]), free.into_iter().collect());
}

proptest! {
    #[test]
    fn whatever_is_damaged_nothing_panics_and_what_is_free_is_memory(
        changes in proptest::collection::vec((0..7_usize, 0..200_usize, any::<u8>()), 1..12),
    ) {
        let mut left = Left::new();
        for (part, offset, value) in changes {
            let at = [SYSTEM_TABLE, RUNTIME + 0x800, FIRST_RESERVED, SECOND_RESERVED];
            match at.get(part) {
                Some(at) => left.memory.write(PhysAddr(at + offset as u64), &[value]),
                None => {
                    let count = left.map.len();
                    left.map[(part * 200 + offset) % count] = value;
                }
            }
        }
        if let Ok((memory, _)) = left.read() {
            let map = MemoryMap::new(&left.map, left.uefi.descriptor_size);
            let ram = map.ram();
            prop_assert!(memory.free(&[]).iter().all(|free| ram.contains_range(*free)));
        }
    }
}

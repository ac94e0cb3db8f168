//! What must hold for every row, whatever a function contains.

extern crate std;

use alloc::vec;
use alloc::vec::Vec;
use std::format;
use std::string::String;

use super::*;
use crate::names::{Layout, RegisterMap};
use warmbus_pci::registers::capability as ids;
use warmbus_pci::{Capability, ExtendedCapability, PortType};

const STANDARD: u16 = 0x50;
const EXPRESS: u16 = 0xa0;
const EXTENDED: u16 = 0x100;

/// A function with the content of `bytes`.
struct Function {
    bytes: Vec<u8>,
    facts: Facts,
}

impl Function {
    /// A function with random content, of which few or many bits are set.
    fn random(seed: u64) -> Self {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mask = next() & next();
        let mut bytes: Vec<u8> = (0..4096)
            .map(|_| {
                (next()
                    & if seed.is_multiple_of(2) {
                        mask
                    } else {
                        u64::MAX
                    }) as u8
            })
            .collect();
        if seed.is_multiple_of(3) {
            bytes[0..2].copy_from_slice(&0x1af4_u16.to_le_bytes());
            bytes[0x53] = [1, 2, 3, 4, 5, 8][(next() % 6) as usize];
        }
        if seed % 3 == 1 {
            // A CXL DVSEC of any ID.
            bytes[0x104..0x106].copy_from_slice(&0x1e98_u16.to_le_bytes());
            bytes[0x108..0x10a].copy_from_slice(&((next() % 11) as u16).to_le_bytes());
        }
        let port_type = PortType::from_flags(u16::from_le_bytes([bytes[0xa2], bytes[0xa3]]));
        let facts = Facts {
            vendor_id: u16::from_le_bytes([bytes[0], bytes[1]]),
            header_type: (next() % 4) as u8,
            port_type: Some(port_type),
            lanes: 0,
        };
        let express = [Capability {
            id: ids::EXPRESS,
            offset: EXPRESS as u8,
        }];
        let facts = facts.with_lanes(&express, |_| 0x100, |offset| dword(&bytes, offset));
        Self { bytes, facts }
    }

    fn describe(
        &self,
        start: u16,
        end: u16,
        describe: impl Fn(&mut Shape<'_>) -> Ranges,
    ) -> Vec<Range> {
        let mut read = |offset| dword(&self.bytes, offset);
        describe(&mut Shape::new(start, end, &self.facts, &mut read)).ranges
    }
}

fn dword(bytes: &[u8], offset: u16) -> u32 {
    let at = usize::from(offset);
    bytes
        .get(at..at + 4)
        .map_or(0, |found| u32::from_le_bytes(found.try_into().unwrap()))
}

/// All tables: the name of each and its rows.
fn tables() -> Vec<(String, &'static [Row])> {
    let mut tables = vec![
        (String::from("header"), header::COMMON),
        (String::from("no extended"), header::NO_EXTENDED_CAPABILITY),
    ];
    for layout in 0..=2 {
        tables.push((format!("header {layout}"), header::layout(layout)));
    }
    for id in 0..=u8::MAX {
        tables.push((format!("capability {id:#x}"), standard::structure(id).rows));
    }
    for id in 0..=0xff {
        tables.push((format!("extended {id:#x}"), extended::structure(id).rows));
    }
    for id in 0..=0xff {
        tables.push((format!("CXL {id}"), dvsec::cxl(id)));
    }
    tables
}

#[test]
fn every_row_has_a_name_and_bytes_behind_the_header() {
    let mut rows = 0;
    for (table, found) in tables() {
        for row in found {
            assert!(!row.name.trim().is_empty(), "{table}: {:#x}", row.at);
            assert!(row.len > 0, "{table}: {} is empty", row.name);
            let least = match &table {
                table if table.starts_with("cap") => 2,
                table if table.starts_with("ext") || table.starts_with("CXL") => 4,
                _ => 0,
            };
            assert!(row.at >= least, "{table}: {} is in the header", row.name);
            rows += 1;
        }
    }
    assert!(rows > 350, "{rows} rows");
}

#[test]
fn structures_without_a_description_have_a_name() {
    for id in 0..=u8::MAX {
        assert!(!standard::structure(id).name.is_empty(), "{id:#x}");
    }
    for id in 0..=0xff {
        assert!(!extended::structure(id).name.is_empty(), "{id:#x}");
    }
}

/// Ranges that rows emit in any structure, before [`collect`] drops those that
/// overlap.
fn emitted(rows: &[Row], function: &Function, start: u16) -> Vec<Range> {
    let mut read = |offset| dword(&function.bytes, offset);
    let mut shape = Shape::new(start, start + 0xb0, &function.facts, &mut read);
    let mut ranges = Vec::new();
    expand(rows, &mut shape, &mut |range| ranges.push(range));
    ranges
}

#[test]
fn no_two_rows_of_a_structure_overlap_in_any_function() {
    for seed in 0..200 {
        let function = Function::random(seed);
        for (table, rows) in tables() {
            let start = if table.starts_with("head") { 0 } else { 0x100 };
            let mut found = emitted(rows, &function, start);
            found.sort_by_key(|range| range.at);
            for pair in found.windows(2) {
                assert!(
                    pair[0].at + pair[0].len <= pair[1].at,
                    "{table}, function {seed}: {pair:x?}"
                );
            }
        }
    }
}

#[test]
fn a_table_over_registers_of_its_own_structure_is_not_believed() {
    let mut function = Function::random(1);
    function.bytes[0x100..0x200].fill(0);
    // One resource, whose port arbitration table of 128 phases starts on it.
    function.bytes[0x110..0x114].copy_from_slice(&0x0100_0008_u32.to_le_bytes());
    let found = function.describe(0x100, 0x200, |shape| extended(0x02, shape));
    assert_eq!(found.last().unwrap().name, "Resource Status");
    // Behind the registers it is: 128 entries of 1 bit.
    function.bytes[0x113] = 2;
    let found = function.describe(0x100, 0x200, |shape| extended(0x02, shape));
    let table = found.last().unwrap();
    assert_eq!((table.at, table.len), (0x20, 16));
    assert_eq!(table.name, "Port Arbitration Table");
}

#[test]
fn names_cover_the_bytes_of_the_rules_and_no_others() {
    let mut bytes_with_rules = 0;
    for seed in 0..60 {
        let function = Function::random(seed);
        for id in 0..0x40_u8 {
            let capabilities = [
                Capability {
                    id,
                    offset: STANDARD as u8,
                },
                Capability {
                    id: ids::EXPRESS,
                    offset: EXPRESS as u8,
                },
            ];
            let extended_capabilities = [ExtendedCapability {
                id: u16::from(id),
                version: 1,
                offset: EXTENDED,
            }];
            let names = RegisterMap::new(&Layout {
                header_type: function.facts.header_type,
                capabilities: &capabilities,
                extended_capabilities: &extended_capabilities,
                bytes: &function.bytes,
            });
            let end = header_end(function.facts.header_type);
            for (start, ranges) in [
                (0, function.describe(0, end, header)),
                (
                    STANDARD,
                    function.describe(STANDARD, EXPRESS, |shape| standard(id, shape)),
                ),
                (
                    EXTENDED,
                    function.describe(EXTENDED, 4096, |shape| extended(u16::from(id), shape)),
                ),
            ] {
                let mut described = vec![false; 4096];
                for range in &ranges {
                    for at in start + range.at..start + range.at + range.len {
                        let register = names.at(at).expect("each range has a name");
                        assert_eq!(register.name, range.name, "{id:#x} at {at:#x}");
                        described[usize::from(at)] = true;
                        bytes_with_rules += usize::from(range.rule.class != ByteClass::Unknown);
                    }
                }
                let last = match start {
                    0 => end,
                    STANDARD => EXPRESS,
                    _ => 4096,
                };
                for at in start..last {
                    assert_eq!(
                        names.at(at).is_some(),
                        described[usize::from(at)],
                        "{id:#x} at {at:#x}, function {seed}"
                    );
                }
            }
        }
    }
    assert!(bytes_with_rules > 100_000, "{bytes_with_rules} bytes");
}

/// The names and classes of the bytes of capability `id` whose first dwords
/// are `dwords`.
fn bytes(
    id: u8,
    vendor_id: u16,
    dwords: &[u32],
    len: u16,
) -> Vec<Option<(&'static str, ByteClass)>> {
    let facts = Facts {
        vendor_id,
        header_type: 0,
        port_type: None,
        lanes: 0,
    };
    let mut read = |offset: u16| dwords.get(usize::from(offset / 4)).copied().unwrap_or(0);
    let found = standard(id, &mut Shape::new(0, len, &facts, &mut read));
    let mut bytes = vec![None; usize::from(len)];
    for range in found.ranges {
        bytes[usize::from(range.at)..usize::from(range.at + range.len)]
            .fill(Some((range.name, range.rule.class)));
    }
    bytes
}

#[test]
fn the_four_shapes_of_msi_put_pending_bits_where_the_specification_does() {
    for (control, pending) in [
        (0x0000, None),
        (0x0080, None),
        (0x0100, Some(0x10)),
        (0x0180, Some(0x14)),
    ] {
        let bytes = bytes(ids::MSI, 0x8086, &[control << 16 | 5], 0x18);
        let found = bytes
            .iter()
            .position(|&byte| byte == Some(("Pending Bits", ByteClass::Volatile)));
        assert_eq!(found, pending, "control {control:#x}");
    }
}

#[test]
fn extended_message_data_is_a_register_only_where_it_exists() {
    let at = |control: u32, at: usize| bytes(ids::MSI, 0, &[control << 16 | 5], 0x18)[at];
    let data = Some(("Extended Message Data", ByteClass::Software));
    assert_eq!(at(0x0080, 0x0e), None);
    assert_eq!(at(0x0280, 0x0e), data);
    assert_eq!(at(0x0000, 0x0a), None);
    assert_eq!(at(0x0200, 0x0a), data);
}

#[test]
fn the_data_window_of_virtio_is_never_touched() {
    let bytes = bytes(ids::VENDOR, 0x1af4, &[0x0514_0009], 0x14);
    assert_eq!(bytes[4], Some(("Virtio BAR", ByteClass::Software)));
    let data = Some(("Virtio Configuration Data", ByteClass::SideEffect));
    assert!(bytes[0x10..].iter().all(|&byte| byte == data));
}

#[test]
fn a_virtio_structure_that_is_too_short_has_names_but_no_rules() {
    let bytes = bytes(ids::VENDOR, 0x1af4, &[0x0213_0009], 0x14);
    let at = |at: usize| bytes[at].unwrap();
    assert_eq!(at(4), ("Virtio BAR", ByteClass::Unknown));
    assert_eq!(at(0x10), ("Virtio Notify Multiplier", ByteClass::Unknown));
}

#[test]
fn the_body_of_another_vendor_has_no_register() {
    let bytes = bytes(ids::VENDOR, 0x8086, &[0x0514_0009], 0x14);
    assert_eq!(bytes[2], Some(("Length", ByteClass::Static)));
    assert!(bytes[3..].iter().all(Option::is_none));
}

#[test]
fn l1_substates_have_a_status_from_version_2_on() {
    let mut function = Function::random(5);
    for (version, has_status) in [(1, false), (2, true)] {
        function.bytes[0x102] = version;
        let found = function.describe(0x100, 0x120, |shape| extended(0x1e, shape));
        let status = found.iter().any(|range| range.name == "Status");
        assert_eq!(status, has_status, "version {version}");
    }
}

#[test]
fn the_bytes_behind_the_select_byte_of_power_budgeting_are_reserved() {
    let function = Function::random(7);
    let found = function.describe(0x100, 0x110, |shape| extended(0x04, shape));
    let at = |at| found.iter().find(|range| range.at == at).unwrap();
    assert_eq!((at(4).len, at(4).name), (1, "Data Select"));
    assert_eq!((at(5).len, at(5).name), (3, "Reserved"));
    assert_eq!(at(5).rule, ByteRule::UNKNOWN);
}

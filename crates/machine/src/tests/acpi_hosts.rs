//! Host bridges of ACPI: those of real machines against what an interpreter of
//! AML and the rules of Linux make of the same tables, and the quirks.

extern crate std;

use std::collections::{BTreeMap, BTreeSet};
use std::vec;

use super::acpi::{ROOTS, SWITCH, Tables};
use super::*;
use crate::{McfgId, McfgQuirk};
use warmbus_pci::AccessWidths;

macro_rules! edk2 {
    ($name:literal) => {
        include_bytes!(concat!("../../../../tests/fixtures/acpi/edk2/", $name))
    };
}

/// What `acpiexec` says of the host bridge devices of each machine: path,
/// `_STA`, `_SEG`, `_BBN`, `_CBA`, and the buses in `_CRS`.
const INTERPRETED: &str = include_str!("../../../../tests/fixtures/acpi/hosts.txt");
/// The table of Linux 7.3: OEM ID, OEM Table ID, OEM Revision, segment, and the
/// operations that Linux uses.
const QUIRKS: &str = include_str!("../../../../tests/fixtures/acpi/linux-7.3-mcfg-quirks.txt");

/// A machine: its tables, MCFG first, and what `acpiexec` says of them.
pub(super) struct Set {
    pub(super) name: String,
    pub(super) tables: Vec<Vec<u8>>,
    interpreted: String,
}

/// The machines of the fixtures, and those of the folder that the environment
/// variable `WARMBUS_ACPI` names, if it is set: a folder each, with the tables
/// as `*.dat` and the lines of `acpiexec` as `hosts.txt`.
pub(super) fn machines() -> Vec<Set> {
    let own = |name: &str, tables: &[&[u8]]| {
        let lines = INTERPRETED.lines();
        let lines = lines.skip_while(|line| *line != format!("machine {name}"));
        let lines = lines.skip(1).take_while(|line| line.starts_with('\\'));
        Set {
            name: name.into(),
            tables: tables.iter().map(|table| table.to_vec()).collect(),
            interpreted: lines.collect::<Vec<_>>().join("\n"),
        }
    };
    let qemu = |name, file| {
        let mut tables = Tables::new(file);
        let tables = [b"MCFG", b"DSDT"].map(|signature| tables.table(signature).clone());
        own(name, &[&tables[0], &tables[1]])
    };
    let mut sets = vec![
        qemu("qemu-virt", SWITCH),
        qemu("qemu-virt-roots", ROOTS),
        own(
            "kunpeng920",
            &[edk2!("kunpeng920-mcfg.dat"), edk2!("kunpeng920-dsdt.dat")],
        ),
        own("d05", &[edk2!("d05-mcfg.dat"), edk2!("d05-dsdt.dat")]),
        own("n1sdp", &[edk2!("n1sdp-mcfg.dat"), edk2!("n1sdp-ssdt.dat")]),
        own(
            "synquacer",
            &[edk2!("synquacer-mcfg.dat"), edk2!("synquacer-ssdt.dat")],
        ),
        own(
            "sbsa-ref",
            &[edk2!("sbsa-ref-mcfg.dat"), edk2!("sbsa-ref-dsdt.dat")],
        ),
    ];
    if let Ok(folder) = std::env::var("WARMBUS_ACPI") {
        for entry in std::fs::read_dir(folder).unwrap() {
            sets.push(read_set(&entry.unwrap().path()));
        }
    }
    sets
}

fn read_set(folder: &std::path::Path) -> Set {
    let mut tables = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "dat") {
            tables.push(std::fs::read(path).unwrap());
        }
    }
    tables.sort_by_key(|table| !table.starts_with(b"MCFG"));
    Set {
        name: folder.display().to_string(),
        tables,
        interpreted: std::fs::read_to_string(folder.join("hosts.txt")).unwrap_or_default(),
    }
}

/// Segment, first and last bus, address and widths of a host bridge.
type Host = (u16, u8, u8, u64, AccessWidths);

/// The host bridges that Linux uses through the generic driver, by its rules:
/// present, and the first entry of the MCFG that has all of its buses, unless
/// the quirk table has another driver.
fn linux(set: &Set, override_sta: Option<&str>) -> Vec<Host> {
    let number = |text| u64::from_str_radix(text, 16).unwrap();
    let mcfg = &set.tables[0];
    let mut hosts = Vec::new();
    for line in set.interpreted.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, sta, seg, bbn, _, crs] = words[..] else {
            panic!("{line}");
        };
        if number(override_sta.unwrap_or(sta)) & 9 == 0 {
            continue;
        }
        let (first, last) = crs.split_once('-').map_or((number(bbn), 0xff), |(a, b)| {
            if a.is_empty() {
                (number(bbn), 0xff)
            } else {
                (number(a), number(b))
            }
        });
        let segment = number(seg) as u16;
        let entry = mcfg[44..].chunks_exact(16).find(|entry| {
            let covers = u64::from(entry[10]) <= first && u64::from(entry[11]) >= last;
            u16::from_le_bytes([entry[8], entry[9]]) == segment && covers
        });
        let Some(entry) = entry else { continue };
        let base = u64::from_le_bytes(entry[..8].try_into().unwrap()) + (first << 20);
        let text =
            |range: core::ops::Range<usize>| core::str::from_utf8(&mcfg[range]).unwrap_or_default();
        let revision = u32::from_le_bytes(mcfg[24..28].try_into().unwrap());
        let key = format!("{}|{}|{revision}|{segment}|", text(10..16), text(16..24));
        let operations = QUIRKS.lines().find_map(|row| row.strip_prefix(&*key));
        let widths = match operations {
            None => AccessWidths::All,
            Some("pci_32b_read_ops") => AccessWidths::DwordReads,
            Some("pci_32b_ops") => AccessWidths::Dwords,
            Some(_) => continue,
        };
        if base != 0 {
            hosts.push((segment, first as u8, last as u8, base, widths));
        }
    }
    hosts.sort_by_key(|&(segment, first, ..)| (segment, first));
    hosts
}

fn hosts(machine: &Machine) -> Vec<Host> {
    let host = |host: &HostBridge| {
        let (first, last) = (host.buses.first, host.buses.last);
        (host.segment, first, last, host.ecam_base.0, host.widths)
    };
    machine.hosts.iter().map(host).collect()
}

#[test]
fn host_bridges_are_those_of_an_interpreter_and_the_rules_of_linux() {
    let mut counts = Vec::new();
    for set in machines() {
        let name = &set.name;
        let machine = Tables::assemble(&set.tables).machine().unwrap();
        let (ours, theirs) = (hosts(&machine), linux(&set, None));
        for host in &ours {
            assert!(theirs.contains(host), "{name}: {host:x?} of {theirs:x?}");
        }
        // What Linux uses and we do not has a line with the reason.
        for host in theirs.iter().filter(|host| !ours.contains(host)) {
            let line = format!("acpi {:04x}:{:02x} is excluded: ", host.0, host.1);
            let mut warnings = machine.warnings.iter();
            assert!(
                warnings.any(|warning| warning.starts_with(&line)),
                "{name}: {host:x?} {:?}",
                machine.warnings
            );
        }
        std::println!("{name}: {} of {} host bridges", ours.len(), theirs.len());
        counts.push((set.name, ours.len(), theirs.len()));
    }
    // N1SDP works in Linux with patches of its vendor only.
    let expected = [
        ("qemu-virt", 1, 1),
        ("qemu-virt-roots", 2, 2),
        ("kunpeng920", 12, 12),
        ("d05", 0, 0),
        ("n1sdp", 0, 2),
        ("synquacer", 0, 0),
        ("sbsa-ref", 1, 1),
    ];
    let expected = expected.map(|(name, ours, theirs)| (String::from(name), ours, theirs));
    assert_eq!(counts[..7], expected);
}

#[test]
fn a_host_bridge_whose_presence_is_computed_is_left_alone_with_a_line() {
    let set = machines().into_iter().find(|set| set.name == "synquacer");
    let set = set.unwrap();
    assert_eq!(linux(&set, Some("f")).len(), 2);
    let machine = Tables::assemble(&set.tables).machine().unwrap();
    assert_eq!(hosts(&machine), []);
    assert_eq!(
        machine.warnings,
        [
            "acpi 0000:00 is excluded: its _STA is computed by AML",
            "acpi 0001:00 is excluded: its _STA is computed by AML"
        ]
    );
    assert_eq!(machine.unusable_host_bridges, 2);
}

#[test]
fn every_row_of_the_quirk_table_of_linux_is_known_and_no_other() {
    let mut rows: BTreeMap<(&str, &str, u32, u16), &str> = BTreeMap::new();
    for row in QUIRKS.lines() {
        let words: Vec<&str> = row.split('|').collect();
        let [oem, table, revision, segment, operations] = words[..] else {
            panic!("{row}");
        };
        let key = (
            oem,
            table,
            revision.parse().unwrap(),
            segment.parse().unwrap(),
        );
        rows.insert(key, operations);
    }
    assert_eq!(rows.len(), 110);
    let names: BTreeSet<(&str, &str)> = rows.keys().map(|&(oem, table, ..)| (oem, table)).collect();
    for (oem, table) in names {
        for revision in 0..6 {
            for segment in 0..24 {
                let id = McfgId {
                    oem_id: oem.as_bytes().try_into().unwrap(),
                    oem_table_id: table.as_bytes().try_into().unwrap(),
                    oem_revision: revision,
                };
                let expected = rows.get(&(oem, table, revision, segment)).copied();
                let found = match id.quirk(segment) {
                    None => None,
                    Some(McfgQuirk::Widths(AccessWidths::DwordReads)) => Some("pci_32b_read_ops"),
                    Some(McfgQuirk::Widths(AccessWidths::Dwords)) => Some("pci_32b_ops"),
                    Some(McfgQuirk::Widths(AccessWidths::All)) => Some("none"),
                    Some(McfgQuirk::NotEcam(_)) => {
                        expected.filter(|operations| !operations.starts_with("pci_32b"))
                    }
                };
                assert_eq!(found, expected, "{id} segment {segment}");
            }
        }
    }
}

/// QEMU's machine with the OEM fields of another one in its MCFG.
fn with_oem(oem: [u8; 6], table: [u8; 8], revision: u32) -> Machine {
    let tables = Tables::new(SWITCH).change(b"MCFG", |mcfg| {
        mcfg[10..16].copy_from_slice(&oem);
        mcfg[16..24].copy_from_slice(&table);
        mcfg[24..28].copy_from_slice(&revision.to_le_bytes());
    });
    tables.machine().unwrap()
}

#[test]
fn a_host_of_dword_reads_is_used_by_dwords() {
    let machine = with_oem(*b"Ampere", *b"Altra   ", 1);
    assert_eq!(machine.hosts[0].widths, AccessWidths::DwordReads);
    let machine = with_oem(*b"QCOM  ", *b"QDF2432 ", 1);
    assert_eq!(machine.hosts[0].widths, AccessWidths::Dwords);
    assert!(machine.hosts[0].preserve_config);
    // The quirk is of one revision only.
    let machine = with_oem(*b"Ampere", *b"Altra   ", 2);
    assert_eq!(machine.hosts[0].widths, AccessWidths::All);
}

#[test]
fn a_host_that_is_no_ecam_is_left_alone_with_a_line_that_names_the_quirk() {
    for (oem, table, revision, line) in [
        (
            *b"AMAZON",
            *b"GRAVITON",
            0,
            "acpi 0000:00 is excluded: the window does not show its root port, whose registers are elsewhere, as is known of the MCFG of AMAZON GRAVITON revision 0x0",
        ),
        (
            *b"HISI  ",
            *b"HIP07   ",
            0,
            "the MCFG of HISI HIP07 revision 0x0",
        ),
        (
            *b"NVIDIA",
            *b"TEGRA194",
            1,
            "selects the function that the window shows",
        ),
        (*b"APM   ", *b"XGENE   ", 4, "APM XGENE revision 0x4"),
        (*b"CAVIUM", *b"THUNDERX", 2, "CAVIUM THUNDERX revision 0x2"),
        (
            *b"ARMLTD",
            *b"ARMN1SDP",
            0x2018_1101,
            "ARMLTD ARMN1SDP revision 0x20181101",
        ),
    ] {
        let machine = with_oem(oem, table, revision);
        assert_eq!(machine.hosts, []);
        assert_eq!(machine.unusable_host_bridges, 1);
        assert_eq!(machine.warnings.len(), 1, "{:?}", machine.warnings);
        assert!(machine.warnings[0].contains(line), "{:?}", machine.warnings);
    }
}

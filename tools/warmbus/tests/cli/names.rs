//! The names of registers against `setpci`, and against the rules of the
//! cache.

use std::process::Command;

use warmbus_pci::ConfigSpace;
use warmbus_pci::Probe;
use warmbus_pci::{ConfigOffset, DumpedConfigSpace};
use warmbus_pcie_sim::topologies;
use warmbus_pcsc::ConfigCache;
use warmbus_pcsc::names::{Layout, RegisterMap};

use crate::machine::Machine;

/// What `setpci` calls a header register, by the name here.
const IN_SETPCI: &[(&str, &str)] = &[
    ("REVISION", "Revision ID"),
    ("CARDBUS_CIS", "CardBus CIS Pointer"),
    ("ROM_ADDRESS", "Expansion ROM BAR"),
    ("BRIDGE_ROM_ADDRESS", "Expansion ROM BAR"),
    ("CAPABILITIES", "Capabilities Pointer"),
    ("PRIMARY_BUS", "Primary Bus Number"),
    ("SECONDARY_BUS", "Secondary Bus Number"),
    ("SUBORDINATE_BUS", "Subordinate Bus Number"),
    ("SEC_LATENCY_TIMER", "Secondary Latency Timer"),
    ("IO_BASE", "I/O Base"),
    ("IO_LIMIT", "I/O Limit"),
    ("SEC_STATUS", "Secondary Status"),
    ("PREF_MEMORY_BASE", "Prefetchable Memory Base"),
    ("PREF_MEMORY_LIMIT", "Prefetchable Memory Limit"),
    ("PREF_BASE_UPPER32", "Prefetchable Base Upper 32 Bits"),
    ("PREF_LIMIT_UPPER32", "Prefetchable Limit Upper 32 Bits"),
    ("IO_BASE_UPPER16", "I/O Base Upper 16 Bits"),
    ("IO_LIMIT_UPPER16", "I/O Limit Upper 16 Bits"),
];

#[test]
fn header_registers_are_where_setpci_says_and_as_wide() {
    let output = Command::new("setpci")
        .arg("--dumpregs")
        .output()
        .expect("the tests need setpci from the package pciutils");
    let listed = String::from_utf8(output.stdout).unwrap();
    let maps = [0, 1].map(|header_type| {
        RegisterMap::new(&Layout {
            header_type,
            capabilities: &[],
            extended_capabilities: &[],
            bytes: &[],
        })
    });
    let mut compared = 0;
    for line in listed.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[offset, width, name] = &words[..] else {
            continue;
        };
        let (Ok(offset), Some(len)) = (
            u16::from_str_radix(offset, 16),
            [("B", 1), ("W", 2), ("L", 4)]
                .iter()
                .find(|(w, _)| *w == width),
        ) else {
            continue;
        };
        let ours = IN_SETPCI
            .iter()
            .find(|(theirs, _)| *theirs == name)
            .map_or_else(
                || name.replace('_', " ").replace("BASE ADDRESS", "BAR"),
                |(_, ours)| (*ours).to_owned(),
            );
        // The class code is one register here; CardBus has names of its own.
        if name.starts_with("CB_") || name.starts_with("CLASS_") || name.starts_with("CAP_") {
            continue;
        }
        let normal = |text: &str| text.to_uppercase().replace(['_', ' '], "");
        let found = maps
            .iter()
            .flat_map(RegisterMap::iter)
            .find(|register| register.offset == offset && normal(register.name) == normal(&ours));
        let found = found.unwrap_or_else(|| panic!("{line}: no {ours}"));
        assert_eq!(found.len, len.1, "{line}");
        compared += 1;
    }
    assert!(compared > 40, "{compared} registers\n{listed}");
}

/// The first byte of each run of bytes that may be cached but have no name.
fn nameless(config: &ConfigCache<impl warmbus_pci::ConfigAccess>) -> Vec<String> {
    let mut found = Vec::new();
    for (sbdf, block) in config.blocks() {
        let map = RegisterMap::new(&Layout {
            header_type: block.header_type(),
            capabilities: block.capabilities(),
            extended_capabilities: block.extended_capabilities(),
            bytes: block.data(),
        });
        for at in 0..block.size() {
            if block.is_cacheable(ConfigOffset::wrapping(at)) && map.at(at).is_none() {
                found.push(format!("{sbdf} {at:03x}: {}", map.describe(at, 1)));
            }
        }
    }
    found
}

#[test]
fn every_byte_that_may_be_cached_has_a_name() {
    let fabrics = [topologies::switch(), topologies::sriov(2, 16)];
    for fabric in fabrics {
        assert_eq!(nameless(&Machine::boot(fabric).captured.config), [""; 0]);
    }
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/corpus");
    let mut functions = 0;
    for entry in std::fs::read_dir(corpus).expect("the corpus") {
        let path = entry.expect("the corpus").path();
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        let Ok(recorded) = DumpedConfigSpace::parse(&text) else {
            continue;
        };
        let mut config = ConfigCache::new(recorded.clone());
        for sbdf in recorded.functions() {
            if matches!(config.probe(sbdf), Probe::Present { .. }) {
                config.infer(sbdf);
                config.capture(sbdf);
                functions += 1;
            }
        }
        assert_eq!(nameless(&config), [""; 0], "{}", path.display());
    }
    assert!(functions > 100, "{functions} functions");
}

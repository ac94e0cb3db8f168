//! What a kernel command line says about PCI: the words of `pci=`.
//!
//! The words that arm64 Linux knows are those of `pci_setup` and
//! `pci_setup_cardbus`. What is set aside for hot-plug ports can be done before
//! Linux as well; all else that changes bus numbers or addresses can only be
//! done by Linux.

use alloc::string::String;

use crate::command_line::{memory_size, number, parameters};

/// Words that change neither bus numbers nor addresses. Those that end in `=`
/// have a value.
const HARMLESS: [&str; 15] = [
    "nomsi",
    "noats",
    "noaer",
    "earlydump",
    "realloc=off",
    "nodomains",
    "noari",
    "notph",
    "ecrc=",
    "pcie_bus_tune_off",
    "pcie_bus_safe",
    "pcie_bus_perf",
    "pcie_bus_peer2peer",
    "disable_acs_redir=",
    "config_acs=",
];

/// What the words of `pci=` ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PciParameters {
    /// `hpbussize=`: buses of a hot-plug port at least, 0 to 255.
    pub hot_plug_buses: Option<u8>,
    /// `hpmmiosize=`, `hpmemsize=`: bytes of memory of a hot-plug port.
    pub hot_plug_memory: Option<u64>,
    /// `hpmmioprefsize=`, `hpmemsize=`: bytes of prefetchable memory of one.
    pub hot_plug_prefetchable: Option<u64>,
    /// `hpiosize=`: bytes of I/O space of one.
    pub hot_plug_io: Option<u64>,
    /// The first other word that changes bus numbers or addresses, or that is
    /// not known.
    pub reassigns: Option<String>,
}

impl PciParameters {
    /// Reads the words of all `pci=` of `line`, the last of two that say the
    /// same counting.
    #[must_use]
    pub fn from_command_line(line: &str) -> Self {
        let mut found = Self::default();
        for parameter in parameters(line).take_while(|&word| word != "--") {
            let value = parameter.trim_matches('"').strip_prefix("pci=");
            for word in value.unwrap_or_default().trim_matches('"').split(',') {
                if !word.is_empty() && !found.set(word) && found.reassigns.is_none() {
                    found.reassigns = Some(word.into());
                }
            }
        }
        found
    }

    /// Applies a word; `false` where only Linux can.
    fn set(&mut self, word: &str) -> bool {
        let Some((name, value)) = word.split_once('=') else {
            return is_harmless(word);
        };
        if name == "hpbussize" {
            let buses = number(value.as_bytes()).map(|(buses, _)| buses);
            // Linux takes its default, one bus, for more.
            self.hot_plug_buses = buses.map(|buses| u8::try_from(buses).unwrap_or(1));
            return buses.is_some();
        }
        let size = memory_size(value.as_bytes());
        match name {
            "hpiosize" => self.hot_plug_io = size,
            "hpmmiosize" => self.hot_plug_memory = size,
            "hpmmioprefsize" => self.hot_plug_prefetchable = size,
            "hpmemsize" => (self.hot_plug_memory, self.hot_plug_prefetchable) = (size, size),
            _ => return is_harmless(word),
        }
        size.is_some()
    }
}

/// Whether a word is one of [`HARMLESS`]. Linux compares only as many letters
/// of most of them as they have.
fn is_harmless(word: &str) -> bool {
    HARMLESS.iter().any(|harmless| word.starts_with(harmless))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> PciParameters {
        PciParameters::from_command_line(line)
    }

    #[test]
    fn what_is_set_aside_for_hot_plug_ports_is_read_as_linux_reads_it() {
        let found = read(
            "quiet pci=noaer,hpbussize=0x10,hpmmiosize=32M pci=hpmmioprefsize=4G,hpiosize=010000",
        );
        let expected = PciParameters {
            hot_plug_buses: Some(16),
            hot_plug_memory: Some(32 << 20),
            hot_plug_prefetchable: Some(4 << 30),
            hot_plug_io: Some(4096),
            reassigns: None,
        };
        assert_eq!(found, expected);
        let found = read("pci=hpmemsize=1G,hpbussize=300");
        assert_eq!(found.hot_plug_memory, Some(1 << 30));
        assert_eq!(found.hot_plug_prefetchable, Some(1 << 30));
        assert_eq!(found.hot_plug_buses, Some(1));
        assert_eq!(found.reassigns, None);
    }

    #[test]
    fn words_that_change_no_assignment_are_no_reason() {
        for line in [
            "",
            "pci=",
            "pci=nomsi,noats,noaer,earlydump,nodomains,noari,notph,ecrc=on",
            "pci=pcie_bus_tune_off pci=pcie_bus_safe pci=pcie_bus_perf pci=pcie_bus_peer2peer",
            "pci=realloc=off,disable_acs_redir=0000:01:00.0,config_acs=101@pci:0:0",
            // Parameters of others, and those for init.
            "pcie_aspm=off xpci=realloc foo=pci=realloc -- pci=realloc",
        ] {
            assert_eq!(read(line), PciParameters::default(), "{line}");
        }
    }

    #[test]
    fn words_that_change_the_assignment_or_are_not_known_are_named() {
        for word in [
            "realloc",
            "realloc=on",
            "resource_alignment=20@pci:8086:1234",
            "assign-busses",
            "nocrs",
            "use_crs",
            "lastbus=7",
            "big_root_window",
            "pcie_scan_all",
            "cbiosize=4K",
            "cbmemsize=64M",
            "hpbussize=many",
            "hpmmiosize=",
            "anything_new",
        ] {
            for line in [
                &alloc::format!("pci={word}"),
                &alloc::format!("quiet pci=noaer,{word},nomsi root=/dev/vda"),
                &alloc::format!("\"pci=noaer,{word}\""),
                &alloc::format!("pci=\"{word}\""),
            ] {
                assert_eq!(read(line).reassigns.as_deref(), Some(word), "{line}");
            }
        }
    }
}

//! Who is measured, and which part of a recording is whose.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One who accesses configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// U-Boot from power-on to its prompt, and off.
    UBoot,
    /// EDK2 from power-on to its boot manager.
    Edk2,
    /// Warmbus from power-on to the start of Linux.
    Warmbus,
    /// Linux as it is, without any firmware before it.
    LinuxStock,
    /// Linux with our patches, without any firmware before it.
    LinuxCold,
    /// Linux with our patches, started by Warmbus.
    LinuxAfterWarmbus,
    /// Linux with our patches, started by kexec from the former.
    LinuxAfterKexec,
}

impl Peer {
    /// All of them, in the order in which tables show them.
    pub const ALL: [Self; 7] = [
        Self::UBoot,
        Self::Edk2,
        Self::Warmbus,
        Self::LinuxStock,
        Self::LinuxCold,
        Self::LinuxAfterWarmbus,
        Self::LinuxAfterKexec,
    ];

    /// What options and results call it.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::UBoot => "u-boot",
            Self::Edk2 => "edk2",
            Self::Warmbus => "warmbus",
            Self::LinuxStock => "linux-stock",
            Self::LinuxCold => "linux-cold",
            Self::LinuxAfterWarmbus => "linux-after-warmbus",
            Self::LinuxAfterKexec => "linux-after-kexec",
        }
    }

    /// Reads a key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|peer| peer.key() == text);
        found.ok_or_else(|| format!("peers are {}", Self::ALL.map(Self::key).join(", ")))
    }

    /// What people call it.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::UBoot => "U-Boot",
            Self::Edk2 => "EDK2",
            Self::Warmbus => "Warmbus",
            Self::LinuxStock => "Linux, stock",
            Self::LinuxCold => "Linux, cache cold",
            Self::LinuxAfterWarmbus => "Linux, after Warmbus",
            Self::LinuxAfterKexec => "Linux, after kexec",
        }
    }

    /// Whether it is a kernel.
    #[must_use]
    pub fn is_linux(self) -> bool {
        self >= Self::LinuxStock
    }

    /// The boot that shows it.
    #[must_use]
    pub fn boot(self) -> Boot {
        match self {
            Self::UBoot => Boot::UBoot,
            Self::Edk2 => Boot::Edk2,
            Self::Warmbus | Self::LinuxAfterWarmbus | Self::LinuxAfterKexec => Boot::Chain,
            Self::LinuxStock => Boot::Stock,
            Self::LinuxCold => Boot::Cold,
        }
    }

    /// The part of a recording of its [`boot`](Self::boot) that is its own, as
    /// a range of accesses. `said` are the lines of the console, each with the
    /// number of accesses that came before its end; `all` is the number of all
    /// accesses.
    pub fn part(self, said: &[(usize, String)], all: usize) -> Result<[usize; 2]> {
        let starts: Vec<usize> = said
            .iter()
            .filter(|(_, line)| line.contains(LINUX_STARTS))
            .map(|(at, _)| *at)
            .collect();
        let start = |which: usize| {
            let start = starts.get(which).copied();
            start.with_context(|| format!("the console names {} starts of Linux", starts.len()))
        };
        Ok(match self {
            Self::UBoot => [0, all],
            Self::Edk2 => {
                let taken = said.iter().find(|(_, line)| line.contains(CLEAR_SCREEN));
                [
                    0,
                    taken.context("the boot manager of EDK2 did not start")?.0,
                ]
            }
            Self::Warmbus => [0, start(0)?],
            Self::LinuxStock | Self::LinuxCold => [start(0)?, all],
            Self::LinuxAfterWarmbus => [start(0)?, starts.get(1).copied().unwrap_or(all)],
            Self::LinuxAfterKexec => [start(1)?, all],
        })
    }
}

/// The first thing that an arm64 kernel says.
const LINUX_STARTS: &str = "Booting Linux on physical CPU";
/// What the boot manager of EDK2 does first.
pub(super) const CLEAR_SCREEN: &str = "\x1b[2J";

/// A boot of a machine, which may show more than one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Boot {
    /// U-Boot alone.
    UBoot,
    /// EDK2 alone.
    Edk2,
    /// Linux as it is, alone.
    Stock,
    /// Linux with our patches, alone.
    Cold,
    /// Warmbus, then Linux with our patches, then the same once more by kexec.
    Chain,
}

impl Boot {
    /// What progress calls it.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::UBoot => "U-Boot",
            Self::Edk2 => "EDK2",
            Self::Stock => "stock Linux",
            Self::Cold => "Linux with the cache, cold",
            Self::Chain => "Warmbus, Linux, kexec, Linux",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_results() {
        for peer in Peer::ALL {
            assert_eq!(Peer::parse(peer.key()), Ok(peer));
            let written = serde_json::to_value(peer).unwrap();
            assert_eq!(written, peer.key());
        }
        assert!(Peer::parse("grub").unwrap_err().contains("u-boot"));
    }

    #[test]
    fn each_kernel_owns_what_comes_between_its_start_and_the_next() {
        let said = [
            (40, "warmbus: result: ok"),
            (
                41,
                "[    0.000000] Booting Linux on physical CPU 0x0000000000",
            ),
            (70, "warmbus: linux: done"),
            (
                90,
                "[    0.000000] Booting Linux on physical CPU 0x0000000000",
            ),
        ]
        .map(|(at, line)| (at, line.to_owned()));
        let part = |peer: Peer| peer.part(&said, 100).unwrap();
        assert_eq!(part(Peer::Warmbus), [0, 41]);
        assert_eq!(part(Peer::LinuxAfterWarmbus), [41, 90]);
        assert_eq!(part(Peer::LinuxAfterKexec), [90, 100]);
        assert!(Peer::LinuxAfterKexec.part(&said[..3], 100).is_err());
        assert!(Peer::Edk2.part(&said, 100).is_err());
    }
}

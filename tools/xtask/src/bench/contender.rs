//! The firmware and kernels that are measured, and the boots that show them.

use serde::{Deserialize, Serialize};

/// A program that accesses configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// U-Boot from power-on to its prompt, and off.
    UBoot,
    /// EDK2 from power-on to its boot manager.
    Edk2,
    /// Warmbus from power-on to the start of Linux.
    Warmbus,
    /// Stock Linux, without firmware before it.
    LinuxStock,
    /// Linux with our patches, without any firmware before it.
    LinuxCold,
    /// Linux with our patches, started by Warmbus.
    LinuxAfterWarmbus,
    /// Linux with our patches, started by kexec from the former.
    LinuxAfterKexec,
}

impl Contender {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 7] = [
        Self::UBoot,
        Self::Edk2,
        Self::Warmbus,
        Self::LinuxStock,
        Self::LinuxCold,
        Self::LinuxAfterWarmbus,
        Self::LinuxAfterKexec,
    ];

    /// The name in options and results.
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

    /// The contender with the key `text`.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let found = Self::ALL
            .into_iter()
            .find(|contender| contender.key() == text);
        found.ok_or_else(|| format!("contenders are {}", Self::ALL.map(Self::key).join(", ")))
    }

    /// The name in tables and plots.
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
}

/// A boot of a machine, which can show more than one contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Boot {
    /// U-Boot alone.
    UBoot,
    /// EDK2 alone.
    Edk2,
    /// Stock Linux alone.
    Stock,
    /// Linux with our patches, alone.
    Cold,
    /// Warmbus, Linux with our patches, and the same Linux again by kexec.
    Chain,
}

impl Boot {
    /// The name in messages.
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
        for contender in Contender::ALL {
            assert_eq!(Contender::parse(contender.key()), Ok(contender));
            let written = serde_json::to_value(contender).unwrap();
            assert_eq!(written, contender.key());
        }
        assert!(Contender::parse("grub").unwrap_err().contains("u-boot"));
    }
}

//! The versions of all programs of a run.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::contender::Contender;
use crate::setup::{self, Private};
use crate::{image, linux, paths, process, programs};

/// Versions of what was measured, and of what it was measured with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// QEMU, with the revision of its package.
    pub qemu: String,
    /// The machine type, with its options.
    pub machine: String,
    /// U-Boot, by its package.
    pub u_boot: String,
    /// EDK2, by its package.
    pub edk2: String,
    /// The stock kernel.
    pub linux: String,
    /// The patches that the other kernel has more: how many, and the start of
    /// the SHA-256 of all of them.
    pub linux_patches: String,
    /// The commit of Warmbus, with a `+` where files had been changed since.
    pub warmbus: String,
    /// The compiler.
    pub rustc: String,
}

impl Versions {
    /// Reads the versions. `stock` is the stock kernel.
    pub fn find(stock: &Path, machine: &str) -> Result<Self> {
        let first = |program: &str, words: &[&str]| -> Result<String> {
            let text = process::output(programs::command(program).args(words))?;
            Ok(text.lines().next().unwrap_or_default().to_owned())
        };
        let qemu = first("qemu-system-aarch64", &["--version"])?;
        Ok(Self {
            qemu: qemu.trim_start_matches("QEMU emulator version ").to_owned(),
            machine: machine.to_owned(),
            u_boot: package(setup::u_boot().as_deref(), "u-boot-qemu"),
            edk2: package(setup::edk2().as_deref(), "qemu-efi-aarch64"),
            linux: image::facts(stock)?.version,
            linux_patches: patches()?,
            warmbus: commit(),
            rustc: first("rustc", &["--version"])?,
        })
    }

    /// Whether the counts of `contender` have to be the same with `other` as with
    /// this, unless Warmbus or its patches changed what they do.
    #[must_use]
    pub fn comparable(&self, other: &Self, contender: Contender) -> bool {
        let machine = (&self.qemu, &self.machine) == (&other.qemu, &other.machine);
        let same = match contender {
            Contender::UBoot => self.u_boot == other.u_boot,
            Contender::Edk2 => self.edk2 == other.edk2,
            Contender::Warmbus => true,
            Contender::LinuxStock
            | Contender::LinuxCold
            | Contender::LinuxAfterWarmbus
            | Contender::LinuxAfterKexec => self.linux == other.linux,
        };
        machine && same
    }

    /// Each with its name, for people.
    #[must_use]
    pub fn rows(&self) -> [(&'static str, &str); 8] {
        [
            ("QEMU", &self.qemu),
            ("machine", &self.machine),
            ("U-Boot", &self.u_boot),
            ("EDK2", &self.edk2),
            ("Linux", &self.linux),
            ("patches", &self.linux_patches),
            ("Warmbus", &self.warmbus),
            ("rustc", &self.rustc),
        ]
    }
}

/// The version of the Debian package `name` that `file` is from.
fn package(file: Option<&Path>, name: &str) -> String {
    if file.is_none() {
        return "not installed".into();
    }
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Version}", name]);
    let installed = process::output(&mut query).ok();
    installed
        .or_else(|| Private::here().version(name))
        .unwrap_or_else(|| "not of a package".into())
}

/// The commit of this work tree.
fn commit() -> String {
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        process::output(command.args(words).current_dir(paths::root()))
    };
    let Ok(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".into();
    };
    // What the run itself writes does not make another Warmbus.
    let changed = git(&[
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ".",
        ":!bench/results",
        ":!README.md",
    ]);
    let mark = match changed.as_deref() {
        Ok("") => "",
        _ => "+",
    };
    format!("{}{mark}", commit.trim())
}

/// The series in `linux/patches`, without their cover letters.
fn patches() -> Result<String> {
    let series = linux::Series::read(&["a-", "b-"])?;
    let mut hash = Sha256::new();
    let mut count = 0;
    for patch in series.text() {
        hash.update(patch);
        count += 1;
    }
    let hash = linux::hex(&hash.finalize()[..6]);
    Ok(format!("{count} patches, SHA-256 {hash}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contender_is_compared_only_with_the_same_version_of_itself() {
        let now = Versions::default();
        let mut other = now.clone();
        other.u_boot = "2024.01".into();
        assert!(!now.comparable(&other, Contender::UBoot));
        assert!(now.comparable(&other, Contender::Edk2));
        other.linux = "7.4".into();
        assert!(!now.comparable(&other, Contender::LinuxCold));
        assert!(now.comparable(&other, Contender::Warmbus));
        other.qemu = "9.0".into();
        assert!(!now.comparable(&other, Contender::Edk2));
    }

    #[test]
    fn the_series_has_a_fingerprint() {
        let text = patches().unwrap();
        assert!(text.contains(" patches, SHA-256 "), "{text}");
    }
}

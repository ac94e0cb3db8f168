//! Boot loaders for UEFI, as Debian ships them for arm64.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::debian::Archive;
use crate::paths;

/// What the boot manager of UEFI starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum UefiLoader {
    /// GRUB, behind Warmbus as an application.
    Grub,
    /// GRUB 2.06 of Debian 12, behind Warmbus as an application.
    #[value(name = "grub-2.06")]
    Grub206,
    /// shim, behind Warmbus as an application, and GRUB behind it.
    Shim,
    /// shim, which starts Warmbus in the place of GRUB, and GRUB behind it.
    ShimFirst,
    /// systemd-boot, which loads Warmbus as a driver.
    SystemdBoot,
    /// A unified kernel image, behind Warmbus as an application.
    Uki,
}

impl UefiLoader {
    const fn package(self) -> &'static str {
        match self {
            Self::Grub | Self::Grub206 => "grub-efi-arm64-signed",
            Self::Shim | Self::ShimFirst => "shim-signed",
            Self::SystemdBoot | Self::Uki => "systemd-boot-efi",
        }
    }

    /// Its program in the package. Of a unified kernel image it is the stub.
    const fn program(self) -> &'static str {
        match self {
            Self::Grub | Self::Grub206 => "usr/lib/grub/arm64-efi-signed/grubaa64.efi.signed",
            Self::Shim | Self::ShimFirst => "usr/lib/shim/shimaa64.efi.signed",
            Self::SystemdBoot => "usr/lib/systemd/boot/efi/systemd-bootaa64.efi",
            Self::Uki => "usr/lib/systemd/boot/efi/linuxaa64.efi.stub",
        }
    }

    /// The program, which is downloaded where it was not before.
    pub(super) fn file(self) -> Result<PathBuf> {
        let (package, program) = (self.package(), self.program());
        if self == Self::Grub206 {
            return kept("grub-2.06.efi", Archive::of_debian_12, package, program);
        }
        program_of(package, program)
    }
}

/// EDK2 of Debian 13 as it is built with its strictest protection of memory against
/// execution (`strictnx`). It has no shell.
pub fn strict_nx_flash() -> Result<PathBuf> {
    let file = "usr/share/AAVMF/AAVMF_CODE.secboot.strictnx.fd";
    program_of("qemu-efi-aarch64", file)
}

/// What `package` of Debian's for arm64 has as `program`, which is downloaded
/// where it was not before.
fn program_of(package: &str, program: &str) -> Result<PathBuf> {
    let name = program.rsplit('/').next().unwrap_or(program);
    kept(name, Archive::open, package, program)
}

/// The same of the Debian in `archive`, kept as `name`.
fn kept(
    name: &str,
    archive: impl FnOnce() -> Result<Archive>,
    package: &str,
    program: &str,
) -> Result<PathBuf> {
    let directory = paths::cache().join("uefi-loaders");
    let kept = directory.join(name);
    if kept.is_file() {
        return Ok(kept);
    }
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let unpacked = tempfile::tempdir_in(&directory)?;
    archive()?.unpack(package, unpacked.path())?;
    fs::rename(unpacked.path().join(program), &kept)
        .with_context(|| format!("{package} has no {program}"))?;
    Ok(kept)
}

/// The configuration of GRUB that starts `kernel` with `initrd`, files of its
/// volume, and the command line `line`.
pub(super) fn grub_configuration(kernel: &str, initrd: Option<&str>, line: &str) -> String {
    let initrd = initrd_line(initrd);
    format!("set timeout=0\nset default=0\nmenuentry Linux {{\nlinux {kernel} {line}\n{initrd}}}\n")
}

/// The entry of systemd-boot for the same.
pub(super) fn systemd_boot_entry(kernel: &str, initrd: Option<&str>, line: &str) -> String {
    let initrd = initrd_line(initrd);
    format!("title Linux\nlinux {kernel}\n{initrd}options {line}\n")
}

/// The line that both have for an initrd.
fn initrd_line(initrd: Option<&str>) -> String {
    initrd.map_or_else(String::new, |initrd| format!("initrd {initrd}\n"))
}

/// Where a loader looks for its configuration, below the volume.
pub(super) const GRUB_CONFIGURATION: &str = "EFI/debian/grub.cfg";
/// See [`GRUB_CONFIGURATION`].
pub(super) const SYSTEMD_BOOT_ENTRY: &str = "loader/entries/linux.conf";
/// Where systemd-boot looks for drivers.
pub(super) const SYSTEMD_BOOT_DRIVERS: &str = "EFI/systemd/drivers";

//! The kernel that Debian ships, which has no Kexec HandOver.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Store;
use crate::debian::Archive;

/// What always depends on the newest kernel of the suite.
const PACKAGE: &str = "linux-image-arm64";

/// The kernel of Debian, as it is installed for GRUB. It is downloaded with
/// `refresh`, or if there is none yet.
pub(super) fn image(store: &Store, refresh: bool) -> Result<PathBuf> {
    let directory_of = |name: &str| store.path(&format!("debian-{}", release(name)));
    let kept = |name: &str| directory_of(name).join("vmlinuz");
    if let Some(name) = store.noted(PACKAGE).filter(|_| !refresh)
        && kept(&name).is_file()
    {
        return Ok(kept(&name));
    }
    let archive = Archive::open()?;
    let depends = archive.field(PACKAGE, "Depends").unwrap_or_default();
    let name = kernel(&depends)
        .with_context(|| format!("{PACKAGE} of Debian depends on no kernel, but on: {depends}"))?;
    let file = kept(name);
    if !file.is_file() {
        let package = tempfile::tempdir_in(&store.directory)?;
        archive.unpack(name, package.path())?;
        let depends = archive.field(name, "Depends").unwrap_or_default();
        for part in parts(&depends, release(name)) {
            archive.unpack(part, package.path())?;
        }
        let unpacked = self::file(package.path(), "vmlinuz", release(name))?;
        // Whole or not at all.
        let whole = tempfile::tempdir_in(&store.directory)?;
        fs::rename(&unpacked, whole.path().join("vmlinuz"))
            .with_context(|| format!("cannot move {}", unpacked.display()))?;
        fs::rename(whole.keep(), directory_of(name))?;
    }
    store.note(PACKAGE, name)?;
    Ok(file)
}

/// The packages that the package of the kernel `release` has its files in, among
/// what it `depends` on: since Linux 7.3 it has none itself.
pub(crate) fn parts<'a>(depends: &'a str, release: &str) -> Vec<&'a str> {
    let names = ["linux-binary-", "linux-base-"];
    let is_part = |word: &&str| {
        names
            .iter()
            .any(|name| word.strip_prefix(name) == Some(release))
    };
    depends.split([',', ' ', '|']).filter(is_part).collect()
}

/// The file `name`, as `vmlinuz` or `config`, of the kernel `release` whose packages
/// are `unpacked`.
pub(crate) fn file(unpacked: &Path, name: &str, release: &str) -> Result<PathBuf> {
    let places = [
        format!("boot/{name}-{release}"),
        format!("usr/lib/modules/{release}/{name}"),
    ];
    let mut files = places.iter().map(|place| unpacked.join(place));
    files
        .find(|file| file.is_file())
        .with_context(|| format!("the packages have neither {}", places.join(" nor ")))
}

/// The release of Linux that is in the package `name`.
pub(crate) fn release(name: &str) -> &str {
    name.trim_start_matches("linux-image-")
}

/// The package of the kernel itself among what `depends` names.
fn kernel(depends: &str) -> Option<&str> {
    depends
        .split([',', ' ', '|'])
        .find(|word| word.starts_with("linux-image-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_found_among_what_its_package_depends_on() {
        let depends = "firmware, linux-image-6.12.57+deb13-arm64 (= 6.12.57-1)";
        assert_eq!(kernel(depends), Some("linux-image-6.12.57+deb13-arm64"));
        assert_eq!(kernel("initramfs-tools"), None);
    }

    #[test]
    fn the_parts_of_a_kernel_are_those_of_its_release() {
        let depends = "dracut | initramfs-tools (>= 0.120), linux-base (>= 4.3), \
                       linux-base-7.3.4+deb13-arm64 (= 7.3.4-1), \
                       linux-binary-7.3.4+deb13-arm64 (= 7.3.4-1), \
                       linux-modules-7.3.4+deb13-arm64 (= 7.3.4-1)";
        assert_eq!(
            parts(depends, "7.3.4+deb13-arm64"),
            [
                "linux-base-7.3.4+deb13-arm64",
                "linux-binary-7.3.4+deb13-arm64"
            ]
        );
        assert_eq!(parts("linux-base (>= 4.3)", "6.1.0-41-arm64"), [""; 0]);
    }
}

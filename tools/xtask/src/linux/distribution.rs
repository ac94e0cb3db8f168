//! The kernel that Debian ships, which has no Kexec HandOver.

use std::fs;
use std::path::PathBuf;

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
        let unpacked = package
            .path()
            .join(format!("boot/vmlinuz-{}", release(name)));
        // Whole or not at all.
        let whole = tempfile::tempdir_in(&store.directory)?;
        fs::rename(&unpacked, whole.path().join("vmlinuz"))
            .with_context(|| format!("{name} has no {}", unpacked.display()))?;
        fs::rename(whole.keep(), directory_of(name))?;
    }
    store.note(PACKAGE, name)?;
    Ok(file)
}

/// The release of Linux that is in the package `name`.
fn release(name: &str) -> &str {
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
}

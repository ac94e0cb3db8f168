//! The root file system of the test Linux: busybox and one script.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use cpio::newc::{Builder, ModeFileType, trailer};

use super::{Store, key};
use crate::debian::Archive;
use crate::{Refusal, paths};

const PACKAGE: &str = "busybox-static";

/// The archive for Linux, made if it is not in `store`.
pub(super) fn file(store: &Store) -> Result<PathBuf> {
    let script = paths::root().join("linux/initramfs/init");
    let script = fs::read(&script).with_context(|| format!("cannot read {}", script.display()))?;
    let busybox = busybox(store)?;
    let archive = archive(&script, &busybox)?;
    let file = store.path(&format!("initramfs-{}.cpio", key([&archive[..]])));
    if !file.is_file() {
        // Under its name only once it is whole.
        let whole = store.path("initramfs.new");
        fs::write(&whole, archive).with_context(|| format!("cannot write {}", whole.display()))?;
        fs::rename(&whole, &file)?;
    }
    Ok(file)
}

/// Busybox for arm64, fetched from Debian once.
fn busybox(store: &Store) -> Result<Vec<u8>> {
    let file = store.path("busybox");
    if !file.is_file() {
        let archive = Archive::open()?;
        if archive.version(PACKAGE).is_none() {
            return Err(Refusal(format!("Debian offers no {PACKAGE}")).into());
        }
        let package = tempfile::tempdir_in(&store.directory)?;
        archive.unpack(PACKAGE, package.path())?;
        let unpacked = ["usr/bin/busybox", "bin/busybox"]
            .map(|place| package.path().join(place))
            .into_iter()
            .find(|place| place.is_file())
            .with_context(|| format!("{PACKAGE} holds no busybox"))?;
        fs::rename(unpacked, &file)?;
    }
    fs::read(&file).with_context(|| format!("cannot read {}", file.display()))
}

/// A cpio archive with `script` as `/init`. The same files make the same
/// bytes.
fn archive(script: &[u8], busybox: &[u8]) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    let mut number = 0;
    let mut add = |name: &str, kind: ModeFileType, mode: u32, bytes: &[u8]| -> Result<()> {
        number += 1;
        let entry = Builder::new(name)
            .ino(number)
            .mode(mode)
            .set_mode_file_type(kind);
        let mut writer = entry.write(&mut archive, u32::try_from(bytes.len())?);
        writer.write_all(bytes)?;
        writer.finish()?;
        Ok(())
    };
    for directory in ["bin", "dev", "proc", "sys", "tmp"] {
        add(directory, ModeFileType::Directory, 0o755, &[])?;
    }
    add("bin/busybox", ModeFileType::Regular, 0o755, busybox)?;
    add("bin/sh", ModeFileType::Symlink, 0o777, b"busybox")?;
    add("init", ModeFileType::Regular, 0o755, script)?;
    trailer(&mut archive)?;
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpio::newc::Reader;
    use std::io::Read;

    #[test]
    fn the_script_is_an_executable_init_and_its_interpreter_is_there() {
        let archive = archive(b"#!/bin/sh\n", b"ELF").unwrap();
        let mut from = &archive[..];
        let mut found = Vec::new();
        loop {
            let mut reader = Reader::new(from).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            let entry = reader.entry();
            found.push((entry.name().to_owned(), entry.mode(), bytes));
            from = reader.finish().unwrap();
        }
        let entry = |name: &str| found.iter().find(|(known, ..)| known == name).unwrap();
        assert_eq!(entry("init").1, 0o100_755);
        assert_eq!(entry("init").2, b"#!/bin/sh\n");
        assert_eq!(
            (entry("bin/sh").1, &entry("bin/sh").2[..]),
            (0o120_777, &b"busybox"[..])
        );
        assert_eq!(
            (entry("bin/busybox").1, &entry("bin/busybox").2[..]),
            (0o100_755, &b"ELF"[..])
        );
        assert_eq!(entry("dev").1, 0o040_755);
    }
}

//! The root file system of the test Linux: busybox, the test init with its steps,
//! and a small program for what cannot be done in a shell.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cpio::newc::{Builder, ModeFileType, trailer};

use super::{CROSS, Store, key};
use crate::debian::Archive;
use crate::{UsageError, paths, process, programs};

const PACKAGE: &str = "busybox-static";
/// How the program is compiled.
const FLAGS: [&str; 7] = [
    "-std=gnu11",
    "-Os",
    "-static",
    "-s",
    "-Wall",
    "-Wextra",
    "-Werror",
];

/// The archive for Linux, made if it is not in `store`.
pub(super) fn file(store: &Store) -> Result<PathBuf> {
    let place = paths::root().join("linux/initramfs");
    let mut files = vec![
        ("bin/busybox".to_owned(), busybox(store)?),
        ("bin/tool".to_owned(), tool(store, &place.join("tool"))?),
        ("init".to_owned(), read(&place.join("init"))?),
    ];
    for step in listed(&place.join("steps"))? {
        let name = step.file_name().unwrap_or_default().to_string_lossy();
        files.push((format!("steps/{name}"), read(&step)?));
    }
    let archive = archive(&files)?;
    let file = store.path(&format!("initramfs-{}.cpio", key([&archive[..]])));
    if !file.is_file() {
        // Under its name only once it is whole.
        let whole = store.path("initramfs.new");
        fs::write(&whole, archive).with_context(|| format!("cannot write {}", whole.display()))?;
        fs::rename(&whole, &file)?;
    }
    Ok(file)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// The files of a directory, in the order of their names.
fn listed(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    Ok(files)
}

/// The program that is made of the C files in `from`, compiled if it is not in
/// `store`.
fn tool(store: &Store, from: &Path) -> Result<Vec<u8>> {
    let compiler = format!("{CROSS}gcc");
    let version = process::output(programs::command(&compiler).arg("--version"))?;
    let files = listed(from)?;
    let mut inputs = vec![version.into_bytes(), FLAGS.join(" ").into_bytes()];
    for file in &files {
        inputs.push(read(file)?);
    }
    let program = store.path(&format!("tool-{}", key(inputs.iter().map(Vec::as_slice))));
    if !program.is_file() {
        let whole = store.path("tool.new");
        let sources = files
            .iter()
            .filter(|file| file.extension().is_some_and(|end| end == "c"));
        let mut command = programs::command(&compiler);
        command.args(FLAGS).arg("-o").arg(&whole).args(sources);
        process::output(&mut command)?;
        fs::rename(&whole, &program)?;
    }
    read(&program)
}

/// Busybox for arm64, fetched from Debian once.
fn busybox(store: &Store) -> Result<Vec<u8>> {
    let file = store.path("busybox");
    if !file.is_file() {
        let archive = Archive::open()?;
        if archive.version(PACKAGE).is_none() {
            return Err(UsageError(format!("Debian offers no {PACKAGE}")).into());
        }
        let package = tempfile::tempdir_in(&store.directory)?;
        archive.unpack(PACKAGE, package.path())?;
        let unpacked = ["usr/bin/busybox", "bin/busybox"]
            .map(|place| package.path().join(place))
            .into_iter()
            .find(|place| place.is_file())
            .with_context(|| format!("{PACKAGE} has no busybox"))?;
        fs::rename(unpacked, &file)?;
    }
    fs::read(&file).with_context(|| format!("cannot read {}", file.display()))
}

/// A cpio archive with `files`, each by its path, and the directories that
/// Linux is to find. The same files make the same bytes.
pub(super) fn archive(files: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
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
    for directory in ["bin", "dev", "kexec", "proc", "steps", "sys", "tmp"] {
        add(directory, ModeFileType::Directory, 0o755, &[])?;
    }
    add("bin/sh", ModeFileType::Symlink, 0o777, b"busybox")?;
    for (name, bytes) in files {
        add(name, ModeFileType::Regular, 0o755, bytes)?;
    }
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
        let files = [("init", "#!/bin/sh\n"), ("bin/busybox", "ELF")];
        let files = files.map(|(name, text)| (name.to_owned(), text.into()));
        let archive = archive(&files).unwrap();
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

//! Debian packages (`deb(5)`), written without the tools of Debian.

use anyhow::Result;

use super::archive::{self, File, Files};

/// What a package says of itself.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Its name.
    pub package: &'a str,
    /// Its version.
    pub version: &'a str,
    /// `amd64`, `arm64` or `all`.
    pub architecture: &'a str,
    /// Other fields of the control file, each with the end of its line.
    pub fields: &'a str,
    /// One line.
    pub summary: &'a str,
    /// Further lines.
    pub description: &'a str,
}

/// The package with `files`.
///
/// # Errors
///
/// If a path is too long for an archive.
pub fn package(about: &About<'_>, files: &Files, time: u64) -> Result<Vec<u8>> {
    let kibibytes: usize = files
        .values()
        .map(|file| file.bytes.len().div_ceil(1024))
        .sum();
    let description = about.description.lines().map(|line| format!(" {line}\n"));
    let control = format!(
        "Package: {}\nVersion: {}\nArchitecture: {}\nMaintainer: The Warmbus developers <warmbus@localhost>\nInstalled-Size: {kibibytes}\n{}Section: admin\nPriority: optional\nDescription: {}\n{}",
        about.package,
        about.version,
        about.architecture,
        about.fields,
        about.summary,
        description.collect::<String>(),
    );
    let control = Files::from([("control".to_owned(), File::new(control))]);
    let control = archive::tar_gz(&control, time)?;
    let data = archive::tar_gz(files, time)?;
    Ok(archive::ar(
        &[
            ("debian-binary", b"2.0\n"),
            ("control.tar.gz", &control),
            ("data.tar.gz", &data),
        ],
        time,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// What `dpkg-deb` reads.
    #[test]
    fn a_package_is_read_by_the_tools_of_debian() {
        let program = File {
            bytes: b"#!/bin/sh\n".to_vec(),
            executable: true,
        };
        let files = Files::from([("usr/bin/warmbus-test".to_owned(), program)]);
        let about = About {
            package: "warmbus-test",
            version: "1.2.3",
            architecture: "all",
            fields: "Suggests: warmbus\n",
            summary: "a test",
            description: "Two\nlines.",
        };
        let package = package(&about, &files, 1_700_000_000).unwrap();
        assert_eq!(
            package,
            super::package(&about, &files, 1_700_000_000).unwrap()
        );
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("test.deb");
        std::fs::write(&file, package).unwrap();
        let dpkg = |words: &[&str]| {
            let output = Command::new("dpkg-deb").args(words).arg(&file).output();
            let Ok(output) = output else {
                return None;
            };
            assert!(output.status.success(), "{output:?}");
            Some(String::from_utf8(output.stdout).unwrap())
        };
        let Some(fields) = dpkg(&["--field"]) else {
            eprintln!("skipped: dpkg-deb is not installed");
            return;
        };
        for field in [
            "Package: warmbus-test",
            "Version: 1.2.3",
            "Suggests: warmbus",
            "Description: a test",
            " lines.",
        ] {
            assert!(
                fields.lines().any(|line| line == field),
                "{field}: {fields}"
            );
        }
        let listed = dpkg(&["--contents"]).unwrap();
        assert!(
            listed.contains("-rwxr-xr-x root/root") || listed.contains("-rwxr-xr-x 0/0"),
            "{listed}"
        );
        assert!(listed.contains("usr/bin/warmbus-test"), "{listed}");
    }
}

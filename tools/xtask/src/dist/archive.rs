//! Archives whose bytes depend on their content only: sorted, owned by root,
//! and of one time.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use tar::{EntryType, Header};

/// A file of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Whether it is a program.
    pub executable: bool,
}

impl File {
    /// A file that is no program.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            bytes: bytes.into(),
            executable: false,
        }
    }

    /// The permissions of it.
    #[must_use]
    pub fn mode(&self) -> u32 {
        if self.executable { 0o755 } else { 0o644 }
    }
}

/// Files by their path, without a slash at the start.
pub type Files = BTreeMap<String, File>;

/// How every file that gzip packs starts (RFC 1952).
pub const GZIP: &[u8] = &[0x1f, 0x8b];

/// `bytes` as `gzip -9n` packs them.
///
/// # Errors
///
/// None in practice: memory is written to.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    // Without a name and a time in the header.
    let mut packer = GzBuilder::new().write(Vec::new(), Compression::best());
    packer.write_all(bytes)?;
    Ok(packer.finish()?)
}

/// A tar archive of `files` with the folders that they are in, packed with gzip.
/// `time` is in seconds since 1970.
///
/// # Errors
///
/// If a path is too long for an archive.
pub fn tar_gz(files: &Files, time: u64) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut folders = BTreeSet::new();
    let header = |kind, mode, size| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(time);
        header.set_uid(0);
        header.set_gid(0);
        header
    };
    let mut add = |header: &mut Header, path: &str, bytes: &[u8]| {
        archive
            .append_data(header, path, bytes)
            .with_context(|| format!("cannot pack {path}"))
    };
    for (path, file) in files {
        let ends = path.match_indices('/').map(|(at, _)| at);
        for end in ends {
            let folder = format!("{}/", &path[..end]);
            if folders.insert(folder.clone()) {
                add(&mut header(EntryType::Directory, 0o755, 0), &folder, &[])?;
            }
        }
        let size = file.bytes.len() as u64;
        let mut header = header(EntryType::Regular, file.mode(), size);
        add(&mut header, path, &file.bytes)?;
    }
    gzip(&archive.into_inner()?)
}

/// An `ar` archive with `members`, as `deb(5)` has it.
#[must_use]
pub fn ar(members: &[(&str, &[u8])], time: u64) -> Vec<u8> {
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, content) in members {
        let size = content.len();
        bytes.extend(
            format!(
                "{name:<16}{time:<12}{:<6}{:<6}{:<8}{size:<10}`\n",
                0, 0, 100_644
            )
            .bytes(),
        );
        bytes.extend_from_slice(content);
        if !size.is_multiple_of(2) {
            bytes.push(b'\n');
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn files() -> Files {
        let program = File {
            bytes: b"#!/bin/sh\n".to_vec(),
            executable: true,
        };
        Files::from([
            ("usr/bin/a".to_owned(), program),
            ("usr/share/doc/a/copyright".to_owned(), File::new("free")),
        ])
    }

    /// What GNU tar lists.
    #[test]
    fn an_archive_has_its_files_of_root_at_one_time_and_the_folders_once() {
        let packed = tar_gz(&files(), 1_700_000_000).unwrap();
        assert_eq!(packed, tar_gz(&files(), 1_700_000_000).unwrap());
        let mut tar = Command::new("tar")
            .args(["-tvzf", "-", "--utc", "--full-time", "--numeric-owner"])
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        tar.stdin.take().unwrap().write_all(&packed).unwrap();
        let listed = tar.wait_with_output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let rows: Vec<Vec<&str>> = listed
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        let expected = [
            ("drwxr-xr-x", "usr/"),
            ("drwxr-xr-x", "usr/bin/"),
            ("-rwxr-xr-x", "usr/bin/a"),
            ("drwxr-xr-x", "usr/share/"),
            ("drwxr-xr-x", "usr/share/doc/"),
            ("drwxr-xr-x", "usr/share/doc/a/"),
            ("-rw-r--r--", "usr/share/doc/a/copyright"),
        ];
        assert_eq!(rows.len(), expected.len(), "{listed}");
        for (row, (mode, path)) in rows.iter().zip(expected) {
            assert_eq!((row[0], row[1], row[5]), (mode, "0/0", path), "{listed}");
            assert_eq!((row[3], row[4]), ("2023-11-14", "22:13:20"), "{listed}");
        }
    }

    #[test]
    fn members_of_odd_length_are_padded() {
        let archive = ar(&[("a", b"123"), ("b", b"45")], 7);
        assert!(archive.len().is_multiple_of(2));
        assert_eq!(&archive[8 + 60..8 + 60 + 4], b"123\n");
        assert!(archive.ends_with(b"`\n45"));
    }
}

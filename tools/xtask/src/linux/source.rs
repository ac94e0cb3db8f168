//! Where the source of a kernel comes from.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::{Options, Store, hex};
use crate::debian::Archive;
use crate::progress::Progress;
use crate::{UsageError, process, programs};

/// How long unpacking may take.
const LIMIT: Duration = Duration::from_mins(30);

/// The source of a kernel.
pub(super) enum Source {
    /// A version of a Debian package, and the archive if it was just read.
    Debian {
        package: String,
        version: String,
        archive: Option<Archive>,
    },
    /// A tarball, with the hash of its bytes.
    Tarball { file: PathBuf, hash: String },
    /// A directory of the user: only `make` knows what changed.
    Directory(PathBuf),
}

impl Source {
    /// The source that `options` select. The newest revision is looked up in the
    /// archive of Debian only with `refresh`; otherwise the last result is used.
    pub(super) fn find(store: &Store, options: &Options, refresh: bool) -> Result<Self> {
        if let Some(given) = &options.source {
            return Self::given(given);
        }
        let package = format!("linux-source-{}", options.version);
        match store.noted(&package) {
            Some(version) if !refresh => Ok(Self::Debian {
                package,
                version,
                archive: None,
            }),
            _ => {
                let archive = Archive::open()?;
                let version = newest(&archive, &package)?;
                store.note(&package, &version)?;
                Ok(Self::Debian {
                    package,
                    version,
                    archive: Some(archive),
                })
            }
        }
    }

    fn given(path: &Path) -> Result<Self> {
        let path = path.canonicalize().map_err(|error| {
            UsageError(format!(
                "the kernel source {} cannot be read: {error}",
                path.display()
            ))
        })?;
        if !path.is_dir() {
            let mut file = File::open(&path)?;
            let mut hash = Sha256::new();
            io::copy(&mut file, &mut Hashing(&mut hash))
                .with_context(|| format!("cannot read {}", path.display()))?;
            let hash = hex(&hash.finalize());
            return Ok(Self::Tarball { file: path, hash });
        }
        if path.join("arch/arm64/Kconfig").is_file() {
            return Ok(Self::Directory(path));
        }
        Err(UsageError(format!("{} is not a kernel source", path.display())).into())
    }

    /// A unique name of this source, for the key of kernels that are built from it.
    pub(super) fn identity(&self) -> String {
        match self {
            Self::Debian {
                package, version, ..
            } => format!("debian {package} {version}"),
            Self::Tarball { hash, .. } => format!("tarball {hash}"),
            Self::Directory(path) => format!("directory {}", path.display()),
        }
    }

    /// A short name, for messages and file names.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Debian { version, .. } => version.clone(),
            Self::Tarball { file: path, .. } | Self::Directory(path) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let name = name.trim_end_matches(".xz").trim_end_matches(".gz");
                name.trim_end_matches(".tar").to_owned()
            }
        }
    }

    /// The directory to build from: that of the user, or `work/source`, which
    /// is made if it is not there.
    pub(super) fn unpack(&self, work: &Path) -> Result<PathBuf> {
        let ready = work.join("source");
        match self {
            Self::Directory(path) => return Ok(path.clone()),
            _ if ready.is_dir() => return Ok(ready),
            Self::Tarball { file, .. } => extract(file, work)?,
            Self::Debian {
                package,
                version,
                archive,
            } => {
                let files = tempfile::tempdir_in(work)?;
                let opened;
                let archive = match archive {
                    Some(archive) => archive,
                    None => {
                        opened = Archive::open()?;
                        &opened
                    }
                };
                archive.unpack(&format!("{package}={version}"), files.path())?;
                let tarball = fs::read_dir(files.path().join("usr/src"))?
                    .flatten()
                    .map(|entry| entry.path())
                    .find(|path| path.to_string_lossy().contains(".tar"))
                    .with_context(|| format!("{package} holds no tarball"))?;
                extract(&tarball, work)?;
            }
        }
        // Under its name only once it is whole.
        fs::rename(work.join("unpacked"), &ready)?;
        Ok(ready)
    }
}

struct Hashing<'a>(&'a mut Sha256);

impl io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The newest revision of `package`, or a refusal with what there is instead.
fn newest(archive: &Archive, package: &str) -> Result<String> {
    if let Some(version) = archive.version(package) {
        return Ok(version);
    }
    let prefix = "linux-source-";
    let offered: Vec<_> = archive
        .names(prefix)?
        .iter()
        .filter_map(|name| name.strip_prefix(prefix).map(str::to_owned))
        .collect();
    Err(UsageError(format!(
        "Debian offers no {package}; it offers the versions {}; for others there is --source",
        offered.join(", ")
    ))
    .into())
}

/// Unpacks the one directory in `tarball` to `work/unpacked`.
fn extract(tarball: &Path, work: &Path) -> Result<()> {
    let step = Progress::begin("unpacking the kernel source");
    let into = work.join("unpacked");
    if into.exists() {
        fs::remove_dir_all(&into)?;
    }
    fs::create_dir_all(&into)?;
    let mut command = programs::command("tar");
    command
        .args(["--extract", "--strip-components=1", "--file"])
        .arg(tarball)
        .arg("--directory")
        .arg(&into)
        // xz uses one processor by default.
        .env("XZ_DEFAULTS", "--threads=0");
    process::watch(&mut command, LIMIT, |line| step.detail(line))?;
    if !into.join("arch/arm64/Kconfig").is_file() {
        return Err(UsageError(format!("{} is not a kernel source", tarball.display())).into());
    }
    Ok(())
}

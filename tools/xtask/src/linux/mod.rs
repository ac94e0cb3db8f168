//! `cargo xtask linux`: a Linux to start, and something for it to run.
//!
//! What is built is kept in the cache directory under a name made of all that
//! went into it, so that it is built once, for all work trees. Source and objects
//! of Debian's kernels stay there as well (`work-...`, some 2 GB): another
//! configuration, or the patches on top, take a minute then. They may be removed.

pub(crate) mod distribution;
mod initramfs;
mod kernel;
mod patches;
mod source;
mod trees;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::{paths, setup};

pub use kernel::{PageSize, Zboot};
pub(crate) use patches::Series;
pub use trees::Trees;

/// The default version.
pub const VERSION: &str = "7.3";
/// The prefix of the cross compiler and its tools.
const CROSS: &str = "aarch64-linux-gnu-";

/// The kernel to build.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask linux
  cargo xtask linux --consumer
  cargo xtask linux --fewer-reads
  cargo xtask linux --debian
  cargo xtask linux --version 7.2 --page-size 64
  cargo xtask linux --source linux-6.18.tar.xz
  ./qemu-run.sh --kernel $(cargo xtask linux --source ~/linux)")]
pub struct Options {
    /// Version of Debian's kernel source package
    #[arg(long, value_name = "VERSION", default_value = VERSION, conflicts_with = "source")]
    pub version: String,

    /// Kernel source: a directory, which is not modified, or a tarball
    #[arg(long, value_name = "DIR|TARBALL")]
    pub source: Option<PathBuf>,

    /// Apply the patches of `linux/patches`, which read the cache
    #[arg(long)]
    pub consumer: bool,

    /// Apply only those that need no cache: `linux/patches/a-*`
    #[arg(long, conflicts_with = "consumer")]
    pub fewer_reads: bool,

    /// Download the kernel that Debian ships, which has no Kexec HandOver
    #[arg(long, conflicts_with_all = ["version", "source", "consumer", "fewer_reads", "page_size", "zboot"])]
    pub debian: bool,

    /// Page size in KiB: 4, 16 or 64
    #[arg(long, value_name = "KIB", default_value = "4", value_parser = PageSize::parse)]
    pub page_size: PageSize,

    /// Pack it as a program of UEFI that unpacks itself (zboot)
    #[arg(long, value_name = "FORMAT")]
    pub zboot: Option<Zboot>,

    /// Check for a newer revision in the archive of Debian
    #[arg(long, conflicts_with = "source")]
    pub refresh: bool,
}

impl Options {
    /// The Linux of the tests with our patches, which reads the cache.
    #[must_use]
    pub fn consumer() -> Self {
        Self {
            consumer: true,
            ..Self::default()
        }
    }

    /// The Linux of the tests that reads less without a cache.
    #[must_use]
    pub fn fewer_reads() -> Self {
        Self {
            fewer_reads: true,
            ..Self::default()
        }
    }

    /// The kernel that Debian ships.
    #[must_use]
    pub fn debian() -> Self {
        Self {
            debian: true,
            ..Self::default()
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: VERSION.into(),
            source: None,
            consumer: false,
            fewer_reads: false,
            debian: false,
            page_size: PageSize::K4,
            zboot: None,
            refresh: false,
        }
    }
}

/// Builds the kernel that `options` describe, unless it exists, and prints the
/// path of the Image on standard output.
pub fn run(options: &Options) -> Result<()> {
    println!("{}", image(options)?.display());
    eprintln!("initramfs for it: {}", initramfs()?.display());
    Ok(())
}

/// The Image that `options` describe; built where it is not there yet.
pub fn image(options: &Options) -> Result<PathBuf> {
    setup::ensure_for_linux()?;
    Store::locked(|store| {
        if options.debian {
            distribution::image(store, options.refresh)
        } else {
            kernel::image(store, options)
        }
    })
}

/// The initramfs with the test init; made where it is not there yet.
pub fn initramfs() -> Result<PathBuf> {
    setup::ensure_for_linux()?;
    Store::locked(initramfs::file)
}

/// The device trees of all arm64 boards in the source of Linux; compiled where they
/// are not there yet.
pub fn trees() -> Result<Trees> {
    setup::ensure_for_linux()?;
    Store::locked(trees::compiled)
}

/// An archive with `files`, each by its path below the root, that Linux unpacks
/// as well where it follows the initramfs in an initrd.
pub fn further(files: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    initramfs::archive(files)
}

/// An initrd of `initramfs` and the kernel `image`, at the place where its init
/// finds the kernel that it starts by kexec.
pub fn with_kernel(initramfs: &Path, image: &Path) -> Result<Vec<u8>> {
    let kernel = fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
    with_files(initramfs, &[("kexec/Image".to_owned(), kernel)])
}

/// An initrd of `initramfs` and `files`, each by its path below the root.
pub fn with_files(initramfs: &Path, files: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut initrd =
        fs::read(initramfs).with_context(|| format!("cannot read {}", initramfs.display()))?;
    // The kernel skips zeros between archives, and each starts aligned.
    initrd.resize(initrd.len().next_multiple_of(4), 0);
    initrd.extend(further(files)?);
    Ok(initrd)
}

/// The directory of what was built, which no other process uses meanwhile.
struct Store {
    directory: PathBuf,
}

impl Store {
    /// Runs `work` in the directory, which is locked meanwhile.
    fn locked<T>(work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let directory = paths::cache().join("linux");
        let store = Self { directory };
        paths::exclusively(&store.directory, "another build of Linux", || work(&store))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The note `name`, if there is one.
    fn noted(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path(name)).ok()
    }

    /// Keeps `text` under `name`.
    fn note(&self, name: &str, text: &str) -> Result<()> {
        let file = self.path(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// A short name for all of `inputs` together.
fn key<'a>(inputs: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for input in inputs {
        // With its length, so that no two lists look the same.
        hash.update((input.len() as u64).to_le_bytes());
        hash.update(input);
    }
    hex(&hash.finalize()[..6])
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_and_where_it_ends_is_in_the_key() {
        let keys = [
            key([&b"ab"[..], b"c"]),
            key([&b"a"[..], b"bc"]),
            key([&b"abc"[..]]),
            key([&b"abc"[..], b""]),
        ];
        for (number, one) in keys.iter().enumerate() {
            assert_eq!(one.len(), 12);
            assert!(!keys[..number].contains(one));
        }
    }
}

//! The command `warmbus` as static programs.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::progress::Progress;
use crate::toolchain::{GUESTS, Toolchain};
use crate::{process, remap};

/// An architecture for which the command is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Architecture {
    /// Its name in Debian.
    pub(super) debian: &'static str,
    /// Its name in file names and in Rust.
    pub(super) name: &'static str,
    /// The target of the compiler.
    target: &'static str,
}

/// Those that there are.
pub(super) const ARCHITECTURES: [Architecture; 2] = [
    Architecture {
        debian: "amd64",
        name: "x86_64",
        target: "x86_64-unknown-linux-musl",
    },
    Architecture {
        debian: "arm64",
        name: "aarch64",
        target: GUESTS,
    },
];

/// The linker that comes with the compiler links for all of them.
const FLAGS: [&str; 3] = [
    "-Clinker=rust-lld",
    "-Clink-self-contained=yes",
    "-Cstrip=symbols",
];
/// Whom a command is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Users {
    /// For everybody.
    All,
    /// For the guests of the tests: with what the tests of the host have built
    /// already, in half the time.
    Guests,
}

impl Users {
    /// The profile in `Cargo.toml`, and its folder.
    fn profile(self) -> [&'static str; 2] {
        match self {
            Self::All => ["command"; 2],
            Self::Guests => ["dev", "debug"],
        }
    }
}

impl Architecture {
    /// Whether this machine runs its programs.
    #[must_use]
    pub(super) fn is_here(self) -> bool {
        std::env::consts::ARCH == self.name
    }

    /// Whether the guests of the tests run its programs.
    pub(super) fn is_for_guests(self) -> bool {
        self.name == "aarch64"
    }

    /// Whether the standard library for it is installed.
    pub(super) fn can_be_built(self, toolchain: &Toolchain) -> bool {
        toolchain.is_active() && toolchain.has_standard_library(self.target)
    }

    /// Builds the command for `users`, and returns its file.
    ///
    /// # Errors
    ///
    /// If the standard library for the target is not installed, or the
    /// compiler fails.
    pub(super) fn build(self, toolchain: &Toolchain, users: Users) -> Result<PathBuf> {
        let what = format!("the command for {}", self.name);
        let step = Progress::begin(&format!("building {what}"));
        let [profile, folder] = users.profile();
        let mut command = process::cargo("build");
        command
            .args(["--locked", "--package", "warmbus-cli", "--bin", "warmbus"])
            .args(["--profile", profile, "--target", self.target]);
        remap::configure(&mut command, self.target, &FLAGS, &toolchain.prefixes());
        process::watch(&mut command, Duration::from_hours(1), |line| step.detail(line))
            .with_context(|| {
                format!(
                    "cannot build {what}; the standard library for it is installed by `rustup target add {}`",
                    self.target
                )
            })?;
        let file = crate::paths::target()
            .join(self.target)
            .join(folder)
            .join("warmbus");
        let program = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        ensure!(
            !has_interpreter(&program)?,
            "{} is not static",
            file.display()
        );
        step.end(&format!("built {what}: {} bytes", program.len()));
        Ok(file)
    }
}

/// Whether a program needs a dynamic linker (`PT_INTERP`).
fn has_interpreter(program: &[u8]) -> Result<bool> {
    use object::read::elf::{FileHeader, ProgramHeader};

    let header = object::elf::FileHeader64::<object::Endianness>::parse(program)?;
    let endian = header.endian()?;
    let mut segments = header.program_headers(endian, program)?.iter();
    Ok(segments.any(|segment| segment.p_type(endian) == object::elf::PT_INTERP))
}

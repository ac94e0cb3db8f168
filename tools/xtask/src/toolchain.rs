//! Which compiler builds the firmware, and where its core library is from.
//!
//! The firmware needs `core` and `alloc` for a target without an operating
//! system. In order of preference they are installed with the active compiler,
//! or built from the source of exactly its version, or built from the source
//! that belongs to Debian's newest compiler, with that compiler. The firmware's
//! source, its options and its tests are the same with all of them.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::remap::{self, Prefix};
use crate::setup::Private;
use crate::{paths, process, programs};

/// The targets that the firmware can be built for, best first.
pub const TARGETS: [&str; 2] = ["aarch64-unknown-none-softfloat", "aarch64-unknown-none"];
/// The target of programs that run in the Linux of the tests.
pub const GUESTS: &str = "aarch64-unknown-linux-musl";

/// The oldest Rust release that builds the firmware: `rust-version` of the
/// manifest.
#[must_use]
pub fn oldest() -> (u32, u32) {
    numbers(env!("CARGO_PKG_RUST_VERSION")).unwrap_or_default()
}

/// One installed Rust compiler with its cargo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    rustc: PathBuf,
    cargo: PathBuf,
    /// Its release, for example `1.95.0`.
    pub release: String,
    /// Its commit, or its release where it does not say.
    version: String,
    host: String,
    sysroot: PathBuf,
    /// Not the one that built this program.
    other: bool,
}

impl Compiler {
    /// The compiler that a plain `cargo build` uses here.
    pub fn active() -> Result<Self> {
        let variable = |name, program| {
            PathBuf::from(env::var_os(name).unwrap_or_else(|| OsName::from(program)))
        };
        Self::probe(
            variable("RUSTC", "rustc"),
            variable("CARGO", "cargo"),
            false,
        )
        .context("the active Rust compiler cannot be used")
    }

    /// The compiler of Debian's packages, installed or private, if it and its
    /// cargo are there in one version.
    #[must_use]
    pub fn of_debian() -> Option<Self> {
        let places = [PathBuf::from("/usr/bin"), Private::here().bin()];
        places.iter().find_map(|place| {
            let [rustc, cargo] = ["rustc", "cargo"].map(|name| place.join(name));
            let compiler = Self::probe(rustc, cargo, true).ok()?;
            let mut command = Command::new(&compiler.cargo);
            command.arg("--version").env_remove("LD_LIBRARY_PATH");
            let cargo = process::output(&mut command).ok()?;
            let same = cargo.split_whitespace().nth(1) == Some(compiler.release.as_str());
            (same && at_least(&compiler.release, oldest())).then_some(compiler)
        })
    }

    fn probe(rustc: PathBuf, cargo: PathBuf, other: bool) -> Result<Self> {
        let ask = |argument: &[&str]| {
            let mut command = Command::new(&rustc);
            if other {
                command.env_remove("LD_LIBRARY_PATH");
            }
            process::output(command.args(argument))
        };
        let version = ask(&["-vV"])?;
        let field = |name: &str| {
            let found = version.lines().find_map(|line| line.strip_prefix(name));
            found
                .map(str::to_owned)
                .with_context(|| format!("rustc -vV has no line {name:?}"))
        };
        let release = field("release: ")?;
        let commit = field("commit-hash: ").ok().filter(|hash| hash != "unknown");
        Ok(Self {
            version: commit.unwrap_or_else(|| release.clone()),
            release,
            host: field("host: ")?,
            sysroot: ask(&["--print", "sysroot"])?.trim().into(),
            rustc,
            cargo,
            other,
        })
    }

    /// Whether rustup has installed it.
    #[must_use]
    pub fn is_from_rustup(&self) -> bool {
        self.sysroot.starts_with(paths::rustup_home())
    }

    /// Whether the libraries of `target` are installed with this compiler.
    #[must_use]
    pub fn has_library(&self, target: &str) -> bool {
        let libraries = self.sysroot.join("lib/rustlib").join(target).join("lib");
        fs::read_dir(libraries).is_ok_and(|files| {
            files.flatten().any(|file| {
                let name = file.file_name();
                let name = name.to_string_lossy();
                name.starts_with("libcore-") && name.ends_with(".rlib")
            })
        })
    }

    /// The source of the core library in the place where this compiler's cargo
    /// looks for it, if it is of this version.
    fn own_source(&self) -> Option<PathBuf> {
        let source = self.sysroot.join("lib/rustlib/src/rust");
        let is_own = match fs::read_to_string(source.join("src/version")) {
            Ok(version) => version.trim() == self.release,
            // The source that rustup installs carries no version: it comes
            // with the compiler.
            Err(_) => true,
        };
        let library = source.join("library");
        (is_own && library.join("Cargo.lock").is_file()).then_some(library)
    }

    /// The source of the core library that a Debian package installed for
    /// some compiler, if it is of this version.
    fn packaged_source(&self) -> Option<PathBuf> {
        let library = format!("/usr/src/rustc-{}/library", self.release);
        let private = Private::here().file(&library);
        let mut places = [Some(library.into()), private].into_iter().flatten();
        places.find(|library: &PathBuf| library.join("Cargo.lock").is_file())
    }

    /// The linker that comes with this compiler, if one does.
    fn own_linker(&self) -> Option<PathBuf> {
        let linker = self
            .sysroot
            .join("lib/rustlib")
            .join(&self.host)
            .join("bin/rust-lld");
        linker.is_file().then_some(linker)
    }
}

type OsName = std::ffi::OsString;

/// Whether the Rust release `release` is not older than `oldest`.
#[must_use]
pub fn at_least(release: &str, oldest: (u32, u32)) -> bool {
    numbers(release).is_some_and(|numbers| numbers >= oldest)
}

/// The first two numbers of a release.
fn numbers(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split('.').map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// Where the core library comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Core {
    /// It is installed with the compiler.
    Prebuilt,
    /// It is built from the source in this directory.
    Source(PathBuf),
}

/// All that is chosen before the firmware is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    compiler: Compiler,
    core: Core,
    /// The target to build for.
    pub target: &'static str,
    /// A linker other than the one that the compiler finds by itself.
    linker: Option<PathBuf>,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            compiler,
            core,
            target,
            ..
        } = self;
        write!(f, "Rust {}", compiler.release)?;
        if compiler.other {
            write!(f, " ({})", compiler.rustc.display())?;
        }
        match core {
            Core::Prebuilt => write!(f, " for {target}, core library as installed"),
            Core::Source(from) => write!(f, " for {target}, core library from {}", from.display()),
        }
    }
}

impl Toolchain {
    /// Whether libraries for `target` are installed with the compiler.
    #[must_use]
    pub fn has_standard_library(&self, target: &str) -> bool {
        self.compiler.has_library(target)
    }

    /// What there is, in the order above.
    #[must_use]
    pub fn find(active: &Compiler) -> Option<Self> {
        Self::prebuilt(active).or_else(|| Self::from_source(active))
    }

    /// What needs no building: a core library that is installed with `active`.
    #[must_use]
    pub fn prebuilt(active: &Compiler) -> Option<Self> {
        let target = TARGETS
            .into_iter()
            .find(|target| active.has_library(target))?;
        Self::new(active.clone(), Core::Prebuilt, target)
    }

    /// What is installed to build the core library from source.
    fn from_source(active: &Compiler) -> Option<Self> {
        let source = active.own_source().or_else(|| active.packaged_source());
        if let Some(source) = source {
            return Self::new(active.clone(), Core::Source(source), TARGETS[0]);
        }
        let debian = Compiler::of_debian()?;
        let source = debian.own_source()?;
        Self::new(debian, Core::Source(source), TARGETS[0])
    }

    /// `None` where no linker is found.
    fn new(compiler: Compiler, core: Core, target: &'static str) -> Option<Self> {
        let linker = match compiler.own_linker() {
            Some(_) => None,
            None => Some(linker()?),
        };
        Some(Self {
            compiler,
            core,
            target,
            linker,
        })
    }

    /// Whether this is the compiler that built this program, so that its
    /// other tools, clippy for one, go with it.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self.compiler.other
    }

    /// Cargo's target directory for firmware: one of its own, so that its
    /// builds neither wait for nor disturb those for the host.
    #[must_use]
    pub fn target_dir() -> PathBuf {
        paths::target().join("firmware")
    }

    /// The prefixes of paths that the image is not to depend on.
    #[must_use]
    pub fn prefixes(&self) -> Vec<Prefix> {
        let source = match &self.core {
            Core::Prebuilt => None,
            Core::Source(library) => Some(library.as_path()),
        };
        remap::prefixes(&self.compiler.sysroot, source, &self.compiler.version)
    }

    /// `cargo <subcommand>` for the firmware target, to be run in the work
    /// tree; the caller adds further arguments.
    #[must_use]
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.compiler.cargo);
        command
            .current_dir(paths::root())
            .arg(subcommand)
            .args(["--target", self.target, "--target-dir"])
            .arg(Self::target_dir());
        if self.compiler.other {
            // What the active toolchain's cargo set up for its children does
            // not hold for this compiler.
            for variable in ["CARGO", "RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH", "RUSTDOC"] {
                command.env_remove(variable);
            }
            command.env("RUSTC", &self.compiler.rustc);
        }
        if let Some(linker) = &self.linker {
            let target = self.target.to_uppercase().replace('-', "_");
            command.env(format!("CARGO_TARGET_{target}_LINKER"), linker);
        }
        if let Core::Source(library) = &self.core {
            // Building the core library is an option that stable compilers
            // hide. The firmware itself uses no unstable feature: the first
            // two ways of getting a toolchain build it without this.
            command.env("RUSTC_BOOTSTRAP", "1").args([
                "-Zbuild-std=core,alloc,compiler_builtins",
                "-Zbuild-std-features=compiler-builtins-mem",
            ]);
            if !library.starts_with(&self.compiler.sysroot) {
                command.env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
            }
        }
        command
    }
}

/// A linker for bare-metal ARM: the one of the active compiler, or an
/// installed LLVM's.
#[must_use]
pub fn linker() -> Option<PathBuf> {
    Compiler::active()
        .ok()
        .and_then(|active| active.own_linker())
        .or_else(|| programs::working("ld.lld"))
        .or_else(|| newest_versioned(Path::new("/usr/bin")))
}

/// The newest `ld.lld-<version>` in `directory`.
fn newest_versioned(directory: &Path) -> Option<PathBuf> {
    fs::read_dir(directory)
        .ok()?
        .flatten()
        .filter_map(|file| {
            let version: u32 = file
                .file_name()
                .to_str()?
                .strip_prefix("ld.lld-")?
                .parse()
                .ok()?;
            Some((version, file.path()))
        })
        .max()
        .map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_compare_by_number_not_by_letter() {
        assert!(at_least("1.88.0", (1, 88)));
        assert!(at_least("1.100.0", (1, 88)));
        assert!(at_least("2.0.0-nightly", (1, 88)));
        assert!(!at_least("1.9.0", (1, 88)));
        assert!(!at_least("1.85.0+dfsg3-1", (1, 88)));
        assert!(!at_least("", (1, 0)));
        assert!(oldest() >= (1, 88));
    }

    #[test]
    fn the_readme_asks_for_the_oldest_release_of_the_manifest() {
        let readme = fs::read_to_string(paths::root().join("README.md")).unwrap();
        let (major, minor) = oldest();
        assert!(readme.contains(&format!("Rust {major}.{minor} or newer")));
    }

    fn compiler(sysroot: &Path, other: bool) -> Compiler {
        Compiler {
            version: "0123abcd".into(),
            rustc: "/usr/bin/rustc".into(),
            cargo: "/usr/bin/cargo".into(),
            release: "1.88.0".into(),
            host: "x86_64-unknown-linux-gnu".into(),
            sysroot: sysroot.into(),
            other,
        }
    }

    /// What `command` sets the variable `name` to; `-` where it removes it.
    fn environment(command: &Command, name: &str) -> Option<String> {
        let (_, value) = command.get_envs().find(|(key, _)| *key == name)?;
        Some(value.map_or("-".into(), |value| value.to_string_lossy().into_owned()))
    }

    #[test]
    fn a_prebuilt_core_library_takes_neither_unstable_options_nor_another_compiler() {
        let toolchain = Toolchain {
            compiler: compiler(Path::new("/sysroot"), false),
            core: Core::Prebuilt,
            target: TARGETS[0],
            linker: None,
        };
        let command = toolchain.cargo("build");
        assert!(!process::words(&command).contains("-Z"));
        assert_eq!(command.get_envs().count(), 0);
    }

    #[test]
    fn source_outside_the_sysroot_is_named_to_cargo_and_source_inside_is_not() {
        let mut toolchain = Toolchain {
            compiler: compiler(Path::new("/sysroot"), true),
            core: Core::Source("/usr/src/rustc-1.88.0/library".into()),
            target: TARGETS[0],
            linker: Some("/usr/bin/ld.lld".into()),
        };
        let root = "__CARGO_TESTS_ONLY_SRC_ROOT";
        let command = toolchain.cargo("build");
        assert_eq!(
            environment(&command, root),
            Some("/usr/src/rustc-1.88.0/library".into())
        );
        assert_eq!(environment(&command, "RUSTUP_TOOLCHAIN"), Some("-".into()));
        assert_eq!(
            environment(
                &command,
                "CARGO_TARGET_AARCH64_UNKNOWN_NONE_SOFTFLOAT_LINKER"
            ),
            Some("/usr/bin/ld.lld".into())
        );
        toolchain.core = Core::Source("/sysroot/lib/rustlib/src/rust/library".into());
        assert_eq!(environment(&toolchain.cargo("build"), root), None);
    }
}

//! `cargo xtask setup`: finds what is needed, installs what is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::progress::Step;
use crate::toolchain::{self, Compiler, OLDEST, TARGETS, Toolchain};
use crate::{Refusal, paths, process};

/// What a machine is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Building the firmware and starting it in QEMU.
    Run,
    /// Building Linux. Not needed for the firmware.
    Linux,
    /// All of that, and all tests.
    Test,
}

/// A program that has to be there.
struct Tool {
    name: &'static str,
    package: &'static str,
    purpose: Purpose,
    find: fn() -> Option<PathBuf>,
}

impl Tool {
    fn described(&self) -> String {
        format!("{} (package {})", self.name, self.package)
    }
}

const TOOLS: [Tool; 16] = [
    Tool {
        name: "QEMU for ARM",
        package: "qemu-system-arm",
        purpose: Purpose::Run,
        find: || paths::program("qemu-system-aarch64"),
    },
    Tool {
        name: "QEMU's network boot ROMs",
        package: "ipxe-qemu",
        purpose: Purpose::Run,
        find: network_rom,
    },
    Tool {
        name: "a linker for bare-metal ARM",
        package: "lld",
        purpose: Purpose::Run,
        find: toolchain::linker,
    },
    Tool {
        name: "a C compiler for arm64",
        package: "gcc-aarch64-linux-gnu",
        purpose: Purpose::Linux,
        find: || paths::program("aarch64-linux-gnu-gcc"),
    },
    Tool {
        name: "a C library for arm64",
        package: "libc6-dev-arm64-cross",
        purpose: Purpose::Linux,
        find: library,
    },
    Tool {
        name: "patch",
        package: "patch",
        purpose: Purpose::Linux,
        find: || paths::program("patch"),
    },
    Tool {
        name: "a C compiler",
        package: "gcc",
        purpose: Purpose::Linux,
        find: || paths::program("gcc"),
    },
    Tool {
        name: "make",
        package: "make",
        purpose: Purpose::Linux,
        find: || paths::program("make"),
    },
    Tool {
        name: "flex",
        package: "flex",
        purpose: Purpose::Linux,
        find: || paths::program("flex"),
    },
    Tool {
        name: "bison",
        package: "bison",
        purpose: Purpose::Linux,
        find: || paths::program("bison"),
    },
    Tool {
        name: "bc",
        package: "bc",
        purpose: Purpose::Linux,
        find: || paths::program("bc"),
    },
    Tool {
        name: "perl",
        package: "perl",
        purpose: Purpose::Linux,
        find: || paths::program("perl"),
    },
    Tool {
        name: "xz",
        package: "xz-utils",
        purpose: Purpose::Linux,
        find: || paths::program("xz"),
    },
    Tool {
        name: "lspci",
        package: "pciutils",
        purpose: Purpose::Test,
        find: || paths::program("lspci"),
    },
    Tool {
        name: "the device tree compiler",
        package: "device-tree-compiler",
        purpose: Purpose::Test,
        find: || paths::program("fdtput"),
    },
    Tool {
        name: "U-Boot for QEMU",
        package: "u-boot-qemu",
        purpose: Purpose::Test,
        find: u_boot,
    },
];

/// The ROM file without which QEMU does not start an e1000.
fn network_rom() -> Option<PathBuf> {
    let listed = process::output(Command::new("qemu-system-aarch64").args(["-L", "help"])).ok()?;
    listed
        .lines()
        .map(|directory| Path::new(directory).join("efi-e1000.rom"))
        .find(|file| file.is_file())
}

/// The C library that programs for the test Linux are linked with.
fn library() -> Option<PathBuf> {
    let mut command = Command::new("aarch64-linux-gnu-gcc");
    let said = process::output(command.arg("-print-file-name=libc.a")).ok()?;
    // A library that is not there is told by its bare name.
    let file = PathBuf::from(said.trim());
    file.is_absolute().then_some(file)
}

/// U-Boot as firmware of QEMU's `virt` machine.
#[must_use]
pub fn u_boot() -> Option<PathBuf> {
    let file = PathBuf::from("/usr/lib/u-boot/qemu_arm64/u-boot.bin");
    file.is_file().then_some(file)
}

/// How long `rustup` may take: where there is no way to its server it hangs.
const RUSTUP_LIMIT: Duration = Duration::from_secs(20);
/// How long a failure of `rustup` is remembered.
const RUSTUP_REST: Duration = Duration::from_secs(24 * 3600);
/// How long the package manager may take.
const APT_LIMIT: Duration = Duration::from_secs(1800);

/// Sets of Debian packages that hold one compiler: rustc, cargo, source.
const COMPILER_SETS: [[&str; 3]; 2] = [
    ["rustc-web", "cargo-web", "rust-web-src"],
    ["rustc", "cargo", "rust-src"],
];

/// Makes sure that all is there for `purpose`, installs what is missing, and
/// returns the toolchain for the firmware. What cannot be installed is named
/// in a [`Refusal`].
pub fn ensure(purpose: Purpose) -> Result<Toolchain> {
    let active = Compiler::active()?;
    let tools = missing_tools(purpose);
    let mut toolchain = Toolchain::prebuilt(&active);
    if toolchain.is_none() {
        add_target_with_rustup(&active);
        toolchain = Toolchain::prebuilt(&active).or_else(|| Toolchain::from_source(&active));
    }
    if let (Some(toolchain), true) = (toolchain, tools.is_empty()) {
        return Ok(toolchain);
    }

    let apt = Apt::find().ok_or_else(|| refusal(&active, purpose))?;
    apt.update()?;
    let mut packages: Vec<String> = tools.iter().map(|tool| tool.package.to_owned()).collect();
    if Toolchain::prebuilt(&active)
        .or_else(|| Toolchain::from_source(&active))
        .is_none()
    {
        packages.extend(core_library_packages(&active.release, versions)?);
    }
    apt.install(&packages)?;
    Toolchain::prebuilt(&active)
        .or_else(|| Toolchain::from_source(&active))
        .filter(|_| missing_tools(purpose).is_empty())
        .ok_or_else(|| refusal(&active, purpose).into())
}

/// Makes sure that Linux can be built here, or refuses with what is missing.
pub fn ensure_for_linux() -> Result<()> {
    let missing = missing_tools(Purpose::Linux);
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<_> = missing.iter().map(|tool| tool.package.to_owned()).collect();
    let refusal = || {
        let missing: Vec<_> = missing.iter().map(|tool| tool.described()).collect();
        Refusal(format!(
            "Linux cannot be built here: missing, and not to be installed without root and apt: {}; \
             --probe-only works without Linux, and --kernel takes one that is built",
            missing.join("; ")
        ))
    };
    let apt = Apt::find().ok_or_else(refusal)?;
    apt.update()?;
    apt.install(&packages)?;
    if missing_tools(Purpose::Linux).is_empty() {
        return Ok(());
    }
    Err(refusal().into())
}

/// `cargo xtask setup --check`: says what is there and what is missing, and
/// changes nothing.
pub fn check() -> Result<()> {
    let active = Compiler::active()?;
    for tool in &TOOLS {
        match (tool.find)() {
            Some(path) => println!("{}: {}", tool.name, path.display()),
            None => println!("{}: missing (package {})", tool.name, tool.package),
        }
    }
    let toolchain = Toolchain::prebuilt(&active).or_else(|| Toolchain::from_source(&active));
    match &toolchain {
        Some(toolchain) => println!("toolchain for the firmware: {toolchain}"),
        None => println!("toolchain for the firmware: missing"),
    }
    if toolchain.is_none() || !missing_tools(Purpose::Test).is_empty() {
        return Err(refusal(&active, Purpose::Test).into());
    }
    Ok(())
}

fn missing_tools(purpose: Purpose) -> Vec<&'static Tool> {
    TOOLS
        .iter()
        .filter(|tool| tool.purpose <= purpose && (tool.find)().is_none())
        .collect()
}

/// Names what is missing and the ways to get it.
fn refusal(active: &Compiler, purpose: Purpose) -> Refusal {
    let mut missing: Vec<_> = missing_tools(purpose)
        .iter()
        .map(|tool| tool.described())
        .collect();
    if Toolchain::prebuilt(active)
        .or_else(|| Toolchain::from_source(active))
        .is_none()
    {
        let [rustc, cargo, source] = COMPILER_SETS[0];
        missing.push(format!(
            "a core library for {} (`rustup target add {}`, or the packages {rustc}, {cargo} and {source})",
            TARGETS[0], TARGETS[0]
        ));
    }
    Refusal(format!(
        "missing, and to be installed with root and apt: {}",
        missing.join("; ")
    ))
}

/// Asks rustup for the core library of the firmware's target, unless that
/// failed lately. Failure is no error: there are other ways.
fn add_target_with_rustup(active: &Compiler) {
    if paths::program("rustup").is_none() {
        return;
    }
    let target = TARGETS[0];
    let failed = paths::cache().join(format!("rustup-failed-{}-{target}", active.release));
    let rests = fs::metadata(&failed)
        .and_then(|file| file.modified())
        .is_ok_and(|when| when.elapsed().is_ok_and(|age| age < RUSTUP_REST));
    if rests {
        return;
    }
    let step = Step::begin(&format!("adding {target} with rustup"));
    let mut command = Command::new("rustup");
    command.args(["target", "add", target]);
    match process::watch(&mut command, RUSTUP_LIMIT, |line| step.detail(line)) {
        Ok(()) => step.end(&format!("added {target} with rustup")),
        Err(error) => {
            let why = error.to_string();
            step.end(&format!(
                "{}; looking for another way, and not asking again for a day",
                why.lines().next().unwrap_or_default()
            ));
            // Not being able to remember only costs time at the next start.
            let _ = fs::create_dir_all(paths::cache()).and_then(|()| fs::write(&failed, why));
        }
    }
}

/// The packages to install so that the core library can be built: the source
/// of the active compiler's release if there is one, else a compiler with its
/// source. `offered` lists the versions of a package, newest first.
fn core_library_packages(
    release: &str,
    offered: impl Fn(&str) -> Result<Vec<String>>,
) -> Result<Vec<String>> {
    let find = |package: &str, release: &str| -> Result<Option<String>> {
        let versions = offered(package)?;
        let version = versions.iter().find(|version| upstream(version) == release);
        Ok(version.map(|version| format!("{package}={version}")))
    };
    for [_, _, source] in COMPILER_SETS {
        if let Some(package) = find(source, release)? {
            return Ok(vec![package]);
        }
    }
    for [rustc, cargo, source] in COMPILER_SETS {
        for version in offered(rustc)? {
            let release = upstream(&version);
            if let (true, Some(cargo), Some(source)) = (
                toolchain::at_least(release, OLDEST),
                find(cargo, release)?,
                find(source, release)?,
            ) {
                return Ok(vec![format!("{rustc}={version}"), cargo, source]);
            }
        }
    }
    let (major, minor) = OLDEST;
    Err(Refusal(format!(
        "no package has the source of Rust {release}, and none a compiler of {major}.{minor} or newer with its source; `rustup target add {}` is what is left",
        TARGETS[0]
    ))
    .into())
}

/// The versions that apt offers of `package`, newest first.
fn versions(package: &str) -> Result<Vec<String>> {
    let table = process::output(Command::new("apt-cache").args(["madison", package]))?;
    Ok(parse_madison(&table))
}

/// Takes the versions out of apt's table: `package | version | source` lines.
fn parse_madison(table: &str) -> Vec<String> {
    table
        .lines()
        .filter_map(|line| Some(line.split('|').nth(1)?.trim().to_owned()))
        .collect()
}

/// The upstream part of a Debian version: `1.96.0` of `1.96.0+dfsg1-1`.
fn upstream(version: &str) -> &str {
    let version = version
        .split_once(':')
        .map_or(version, |(_, version)| version);
    version.split(['+', '-', '~']).next().unwrap_or(version)
}

/// Debian's package manager, with the right to install.
struct Apt {
    sudo: bool,
}

impl Apt {
    fn find() -> Option<Self> {
        paths::program("apt-get")?;
        let root = process::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
        if root {
            return Some(Self { sudo: false });
        }
        process::succeeds(Command::new("sudo").args(["-n", "true"])).then_some(Self { sudo: true })
    }

    fn command(&self) -> Command {
        let mut command = if self.sudo {
            let mut command = Command::new("sudo");
            command.args(["-n", "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
            command
        } else {
            Command::new("apt-get")
        };
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Fetches the lists of packages.
    fn update(&self) -> Result<()> {
        let step = Step::begin("asking apt for its list of packages");
        process::watch(self.command().arg("update"), APT_LIMIT, |line| {
            step.detail(line);
        })
    }

    /// Installs `packages`; removes none.
    fn install(&self, packages: &[String]) -> Result<()> {
        let step = Step::begin(&format!("installing {}", packages.join(", ")));
        let mut command = self.command();
        command
            .args(["install", "--yes", "--no-install-recommends", "--no-remove"])
            .args(packages);
        process::watch(&mut command, APT_LIMIT, |line| step.detail(line))?;
        step.end(&format!("installed {}", packages.join(", ")));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apts_table_of_versions_is_read_newest_first() {
        let table = " rust-src | 1.96.0+dfsg1-1~deb12u2 | somewhere/main amd64 Packages\n rust-src | 1.85.0+dfsg3-1 | elsewhere\n";
        let versions = parse_madison(table);
        assert_eq!(versions, ["1.96.0+dfsg1-1~deb12u2", "1.85.0+dfsg3-1"]);
        assert_eq!(parse_madison(""), Vec::<String>::new());
    }

    #[test]
    fn the_upstream_version_is_without_epoch_and_revision() {
        assert_eq!(upstream("1.96.0+dfsg1-1~deb12u2"), "1.96.0");
        assert_eq!(upstream("1:7.2+dfsg-7"), "7.2");
        assert_eq!(upstream("1.95.0-1"), "1.95.0");
        assert_eq!(upstream("1.95.0"), "1.95.0");
    }

    fn chosen(release: &str, offers: &[(&str, &str)]) -> Result<Vec<String>> {
        core_library_packages(release, |package| {
            let versions = offers.iter().filter(|(name, _)| *name == package);
            Ok(versions.map(|(_, version)| (*version).to_owned()).collect())
        })
    }

    #[test]
    fn the_source_of_the_active_release_goes_before_another_compiler() {
        let offers = [
            ("rustc-web", "1.96.0+dfsg1-1"),
            ("cargo-web", "1.96.0+dfsg1-1"),
            ("rust-web-src", "1.96.0+dfsg1-1"),
            ("rust-src", "1.90.0+dfsg1-2"),
        ];
        let source = chosen("1.90.0", &offers).unwrap();
        assert_eq!(source, ["rust-src=1.90.0+dfsg1-2"]);
        assert_eq!(
            chosen("1.95.0", &offers).unwrap(),
            [
                "rustc-web=1.96.0+dfsg1-1",
                "cargo-web=1.96.0+dfsg1-1",
                "rust-web-src=1.96.0+dfsg1-1"
            ]
        );
    }

    #[test]
    fn a_compiler_is_never_mixed_with_the_source_or_the_cargo_of_another() {
        let offers = [
            ("rustc-web", "1.96.0+dfsg1-1"),
            ("rustc-web", "1.92.0+dfsg1-1"),
            ("cargo-web", "1.92.0+dfsg3-9"),
            ("rust-web-src", "1.96.0+dfsg1-1"),
            ("rust-web-src", "1.92.0+dfsg1-1"),
            ("rustc", "1.63.0+dfsg1-2"),
            ("cargo", "1.63.0"),
            ("rust-src", "1.63.0+dfsg1-2"),
        ];
        assert_eq!(
            chosen("1.95.0", &offers).unwrap(),
            [
                "rustc-web=1.92.0+dfsg1-1",
                "cargo-web=1.92.0+dfsg3-9",
                "rust-web-src=1.92.0+dfsg1-1"
            ]
        );
        let too_old = chosen("1.95.0", &offers[5..]).unwrap_err();
        assert!(too_old.is::<Refusal>(), "{too_old}");
    }
}

//! `cargo xtask setup`: finds what is needed, and gets what is missing.
//!
//! What is there and works is taken as it is. What is missing is installed with
//! apt where that removes and downgrades nothing and the right to is there, and
//! else unpacked into the private folder. What cannot be had either way is named.

mod apt;
mod packages;
mod private;
mod rust;
mod status;
mod tools;

use std::path::PathBuf;

use anyhow::{Context, Result};

pub use self::apt::is_root;
use self::packages::Packages;
pub use self::private::Private;
use self::rust::COMPILER_SETS;
use self::tools::Tool;
pub(crate) use self::tools::qemu_data;
pub use self::tools::{Purpose, edk2, edk2_flash, edk2_secure_code, edk2_test_keys, u_boot};
use crate::toolchain::{Compiler, GUESTS, TARGETS, Toolchain};
use crate::{UsageError, programs};

/// Makes sure that all is there for `purpose`, gets what is missing, and
/// returns the toolchain for the firmware. What cannot be had is named in a
/// [`UsageError`].
pub fn ensure(purpose: Purpose) -> Result<Toolchain> {
    let active = Compiler::active()?;
    if Toolchain::prebuilt(&active).is_none() {
        rust::add_target_with_rustup(&active, TARGETS[0], "looking for another way");
    }
    if purpose == Purpose::Test && active.is_from_rustup() && !active.has_library(GUESTS) {
        let otherwise = "skipping the tests that need it";
        rust::add_target_with_rustup(&active, GUESTS, otherwise);
    }
    obtain(purpose, Some(&active))?;
    Toolchain::find(&active).context("the toolchain that was just there is gone")
}

/// Makes sure that the tools for `purpose` are there, which does not build the
/// firmware.
pub fn ensure_for(purpose: Purpose) -> Result<()> {
    obtain(purpose, None)
}

/// Makes sure that Linux can be built here, or refuses with what is missing.
pub fn ensure_for_linux() -> Result<()> {
    obtain(Purpose::Linux, None).map_err(|error| match error.downcast::<UsageError>() {
        Ok(UsageError(lines)) => UsageError(format!(
            "{lines}\nLinux cannot be built without; --probe-only works without Linux, and \
             --kernel takes one that is built"
        ))
        .into(),
        Err(error) => error,
    })
}

/// Makes sure that the ROM file `name`, which a device of QEMU asks for, is
/// there.
pub fn ensure_rom(name: &str) -> Result<()> {
    let package = tools::package_of_rom(name).ok_or_else(|| {
        UsageError(format!(
            "QEMU has no file {name}, which a device of the topology needs, and no package is \
             known to hold it; `romfile=` starts the device without"
        ))
    })?;
    let mut packages = Packages::find();
    packages.get(vec![package.to_owned()]);
    if tools::rom(name).is_some() {
        return Ok(());
    }
    Err(UsageError(lines(
        &[format!(
            "{name} for a device of the topology (package {package})"
        )],
        &packages.problems,
    ))
    .into())
}

/// The program `name` of `package`, for a few tests only: where it is not there
/// it is unpacked into the private folder, and never installed.
pub fn private_program(name: &str, package: &str) -> Result<PathBuf> {
    if let Some(found) = programs::find(name) {
        return Ok(found);
    }
    let private = Private::here();
    private.install(&private.archive()?, &[package.to_owned()])?;
    programs::find(name).with_context(|| format!("the package {package} has no program {name}"))
}

/// `cargo xtask setup --check`: says what is there and what is missing, and
/// changes nothing.
pub fn check() -> Result<()> {
    let active = Compiler::active()?;
    for tool in tools::needed(Purpose::Test) {
        match tool.find() {
            Some(path) => println!("{}: {}", tool.name, path.display()),
            None => println!("{}: missing (package {})", tool.name, tool.package),
        }
    }
    match Toolchain::find(&active) {
        Some(toolchain) => println!("toolchain for the firmware: {toolchain}"),
        None => println!("toolchain for the firmware: missing"),
    }
    let missing = Missing::of(Purpose::Test, Some(&active));
    missing.refuse(&["nothing was installed, since this only checks".to_owned()])
}

/// What is not there.
struct Missing<'a> {
    tools: Vec<&'static Tool>,
    /// The compiler for which there is no core library.
    core: Option<&'a Compiler>,
}

impl<'a> Missing<'a> {
    /// What is missing for `purpose`, and for the firmware if it is to be built
    /// with the compiler `active`.
    fn of(purpose: Purpose, active: Option<&'a Compiler>) -> Self {
        Self {
            tools: tools::missing(purpose),
            core: active.filter(|active| Toolchain::find(active).is_none()),
        }
    }

    fn is_empty(&self) -> bool {
        self.tools.is_empty() && self.core.is_none()
    }

    /// Fails with a line for each, unless there is none.
    fn refuse(&self, problems: &[String]) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let mut missing: Vec<_> = self.tools.iter().map(|tool| tool.described()).collect();
        if self.core.is_some() {
            let [rustc, cargo, source] = COMPILER_SETS[0];
            missing.push(format!(
                "a core library for {} (`rustup target add {}`, or the packages {rustc}, {cargo} \
                 and {source})",
                TARGETS[0], TARGETS[0]
            ));
        }
        Err(UsageError(lines(&missing, problems)).into())
    }
}

/// A line for each thing that is missing, after what stood in the way.
fn lines(missing: &[String], problems: &[String]) -> String {
    let missing = missing.iter().map(|what| format!("missing: {what}"));
    let lines: Vec<_> = problems.iter().cloned().chain(missing).collect();
    lines.join("\n")
}

/// Gets what is missing for `purpose`, and for the firmware if it is to be built
/// with the compiler `active`.
fn obtain(purpose: Purpose, active: Option<&Compiler>) -> Result<()> {
    let mut missing = Missing::of(purpose, active);
    if missing.is_empty() {
        return Ok(());
    }
    let private = Private::here();
    let unpacked = |tool: &&Tool| private.version(tool.package).is_some();
    if missing.tools.iter().any(unpacked) {
        // It worked once: the system's libraries are no longer what they were.
        eprintln!("unpacking the private tools anew, of which some no longer start");
        private.clear()?;
        missing = Missing::of(purpose, active);
    }
    let mut packages = Packages::find();
    let names = missing.tools.iter().map(|tool| tool.package.to_owned());
    let mut names: Vec<_> = names.collect();
    if let Some(active) = missing.core {
        match rust::core_library_packages(&active.release, |name| packages.versions(name)) {
            Ok(core) => names.extend(core),
            Err(error) => packages.problems.push(format!("{error:#}")),
        }
    }
    packages.get(names);
    for tool in &missing.tools {
        if tool.find().is_none()
            && let Some(program) = tool.in_system()
            && private.version(tool.package).is_some()
        {
            private.prefer(program)?;
        }
    }
    Missing::of(purpose, active).refuse(&packages.problems)
}

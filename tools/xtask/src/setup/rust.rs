//! The core library for the firmware's target: with rustup, or from packages
//! with the source of a compiler.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::progress::Progress;
use crate::toolchain::{self, Compiler, TARGETS, oldest};
use crate::{UsageError, paths, process, programs};

/// How long `rustup` may take: where there is no way to its server it hangs.
const RUSTUP_LIMIT: Duration = Duration::from_secs(20);
/// How long a failure of `rustup` is remembered.
const RUSTUP_REST: Duration = Duration::from_hours(24);
/// Sets of Debian packages that hold one compiler: rustc, cargo, source.
pub(super) const COMPILER_SETS: [[&str; 3]; 2] = [
    ["rustc-web", "cargo-web", "rust-web-src"],
    ["rustc", "cargo", "rust-src"],
];

/// Asks rustup for the libraries of `target`, unless that failed lately. Failure
/// is no error: `otherwise` says how it goes on.
pub(super) fn add_target_with_rustup(active: &Compiler, target: &str, otherwise: &str) {
    if programs::find_in_system("rustup").is_none() {
        return;
    }
    let failed = paths::cache().join(format!("rustup-failed-{}-{target}", active.release));
    let rests = fs::metadata(&failed)
        .and_then(|file| file.modified())
        .is_ok_and(|when| when.elapsed().is_ok_and(|age| age < RUSTUP_REST));
    if rests {
        return;
    }
    let step = Progress::begin(&format!("adding {target} with rustup"));
    let mut command = Command::new("rustup");
    command.args(["target", "add", target]);
    match process::watch(&mut command, RUSTUP_LIMIT, |line| step.detail(line)) {
        Ok(()) => step.end(&format!("added {target} with rustup")),
        Err(error) => {
            let why = error.to_string();
            step.end(&format!(
                "{}; {otherwise}, and not asking again for a day",
                why.lines().next().unwrap_or_default().trim_end_matches(':')
            ));
            // Not being able to remember only costs time at the next start.
            let _ = fs::create_dir_all(paths::cache()).and_then(|()| fs::write(&failed, why));
        }
    }
}

/// The packages to install so that the core library can be built: the source
/// of the active compiler's release if there is one, else a compiler with its
/// source. `offered` lists the versions of a package, newest first.
pub(super) fn core_library_packages(
    release: &str,
    mut offered: impl FnMut(&str) -> Result<Vec<String>>,
) -> Result<Vec<String>> {
    for [_, _, source] in COMPILER_SETS {
        if let Some(package) = of_release(source, &offered(source)?, release) {
            return Ok(vec![package]);
        }
    }
    for [rustc, cargo, source] in COMPILER_SETS {
        let (rustcs, cargos, sources) = (offered(rustc)?, offered(cargo)?, offered(source)?);
        for version in &rustcs {
            let release = upstream(version);
            if let (true, Some(cargo), Some(source)) = (
                toolchain::at_least(release, oldest()),
                of_release(cargo, &cargos, release),
                of_release(source, &sources, release),
            ) {
                return Ok(vec![format!("{rustc}={version}"), cargo, source]);
            }
        }
    }
    let (major, minor) = oldest();
    Err(UsageError(format!(
        "no package has the source of Rust {release}, and none a compiler of {major}.{minor} or newer with its source; `rustup target add {}` is what is left",
        TARGETS[0]
    ))
    .into())
}

/// `package` in that of its `versions` which is of the upstream `release`.
fn of_release(package: &str, versions: &[String], release: &str) -> Option<String> {
    let mut versions = versions.iter();
    let version = versions.find(|version| upstream(version) == release)?;
    Some(format!("{package}={version}"))
}

/// The upstream part of a Debian version: `1.96.0` of `1.96.0+dfsg1-1`.
fn upstream(version: &str) -> &str {
    let version = version
        .split_once(':')
        .map_or(version, |(_, version)| version);
    version.split(['+', '-', '~']).next().unwrap_or(version)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(too_old.is::<UsageError>(), "{too_old}");
    }
}

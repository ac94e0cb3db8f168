//! `cargo xtask test --long dist`: what `cargo xtask dist` makes has the same
//! bytes in another folder with another home, and its packages are installed,
//! used and removed in fresh systems.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Made, archive, kernels, listed};
use crate::fresh::root::{self, Host, System, USER};
use crate::fresh::{RELEASES, Release};
use crate::progress::Progress;
use crate::{UsageError, paths, process};

/// What the names of these tests start with.
pub const NAME: &str = "dist";

/// Where what was made is in a fresh system.
const FOLDER: &str = "/srv/warmbus";
/// Where the command looks for an EFI system partition. The folder there looks
/// like one with systemd-boot.
const ESP: &str = "/boot/efi";
/// What package managers write for themselves, and where packages were put.
const NOT_OF_PACKAGES: [&str; 5] = ["var/lib/dpkg", "var/lib/apt", "var/log", "var/cache", "srv"];

/// What is tried with a release.
enum Trial {
    /// The packages, in a fresh system.
    Packages,
    /// The command, on its arm64 kernels.
    Kernels,
}

/// Runs the tests whose names contain `name`, and returns how many passed and
/// how many did not.
pub fn run(name: &str) -> Result<(u64, u64)> {
    let wanted = |test: &str| test.contains(name);
    let reproducible = format!("{NAME}-reproducible");
    let of = |what: &str, release: Release| format!("{NAME}{what}-{release}");
    let all = RELEASES.into_iter().flat_map(|release| {
        [
            (of("", release), release, Trial::Packages),
            (of("-kernels", release), release, Trial::Kernels),
        ]
    });
    let trials: Vec<_> = all.filter(|(test, ..)| wanted(test)).collect();
    if trials.is_empty() && !wanted(&reproducible) {
        return Ok((0, 0));
    }
    let host = Host::find()?;
    let made = super::make(&paths::target().join("dist"))?;
    let mut results = vec![(format!("{NAME}-sums"), sums_are_right(&made))];
    for (test, release, trial) in trials {
        let result = match trial {
            Trial::Packages => works_in(&host, release, &made),
            Trial::Kernels => kernels::are_described(&host, release, &made).map(|lines| {
                for line in &lines {
                    println!("{line}");
                }
            }),
        };
        results.push((test, result));
    }
    if wanted(&reproducible) {
        results.push((reproducible, is_reproducible(&host, &made)));
    }
    let mut failed = 0;
    for (test, result) in &results {
        match result {
            Ok(()) => println!("test {test} ... ok"),
            Err(error) => {
                failed += 1;
                println!("test {test} ... FAILED: {error:#}");
            }
        }
    }
    Ok((results.len() as u64 - failed, failed))
}

/// What `sha256sum` of this machine says of the sums.
fn sums_are_right(made: &Made) -> Result<()> {
    let mut command = Command::new("sha256sum");
    command.args(["--check", "--strict", "--quiet", "SHA256SUMS"]);
    process::output(command.current_dir(&made.folder)).map(drop)
}

/// Builds the commit again, in another folder, by a user with another home.
fn is_reproducible(host: &Host, made: &Made) -> Result<()> {
    let mut status = Command::new("git");
    status
        .args(["status", "--porcelain"])
        .current_dir(paths::root());
    let changed = process::output(&mut status)?;
    if !changed.is_empty() {
        return Err(UsageError(format!(
            "the second build is of the last commit, and these files are not committed:\n{changed}"
        ))
        .into());
    }
    let other = tempfile::tempdir_in(&host.directory)?;
    let [place, home] =
        ["of another/warmbus", "home of another"].map(|name| other.path().join(name));
    root::copy(&host.clone, &place)?;
    let cargo = home.join(".cargo");
    let registry = paths::cargo_home().join("registry");
    if registry.is_dir() {
        root::copy(&registry, &cargo.join("registry"))?;
    }
    let output = other.path().join("output");
    let step = Progress::begin("building everything again, in another folder");
    let mut command = process::cargo("xtask");
    command
        .args(["dist", "--output"])
        .arg(&output)
        .current_dir(&place)
        .env("HOME", &home)
        .env("CARGO_HOME", &cargo)
        .env("RUSTUP_HOME", paths::rustup_home())
        .env(
            "XDG_CACHE_HOME",
            paths::cache()
                .parent()
                .context("the cache is in a folder")?,
        )
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_MANIFEST_DIR");
    process::watch(&mut command, root::LIMIT, |line| step.detail(line))?;
    drop(step);
    let name = made.folder.file_name().context("the folder has a name")?;
    let [here, there] = [&made.folder, &output.join(name)].map(|folder| listed(folder, &[]));
    let (here, there) = (here?, there?);
    ensure!(
        here == there,
        "there are other files: {:?}",
        differing(&here, &there)
    );
    for file in here.iter().filter(|file| !file.ends_with('/')) {
        let [one, other] =
            [&made.folder, &output.join(name)].map(|folder| fs::read(folder.join(file)));
        ensure!(one? == other?, "{file} differs");
    }
    Ok(())
}

fn differing(one: &BTreeSet<String>, other: &BTreeSet<String>) -> Vec<String> {
    one.symmetric_difference(other).cloned().collect()
}

/// Does what the README says, in a fresh system of `release`, and purges the
/// packages again.
fn works_in(host: &Host, release: Release, made: &Made) -> Result<()> {
    let system = host.system(release)?;
    let step = Progress::begin(&format!("{NAME}-{release}: installing, using and removing"));
    root::copy(&made.folder, &system.file(FOLDER))?;
    fs::write(
        system.file("/etc/apt/apt.conf.d/yes"),
        "APT::Get::Assume-Yes \"true\";\n",
    )?;
    let loader = system.file(ESP).join("EFI/systemd");
    fs::create_dir_all(&loader)?;
    fs::write(loader.join("systemd-bootaa64.efi"), "loader")?;
    let before = listed(&system.root, &NOT_OF_PACKAGES)?;
    let architecture = system.run_as_root(&["dpkg", "--print-architecture"])?;
    let page = fs::read_to_string(made.folder.join("README.md"))?;
    let commands: Vec<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("$ "))
        .collect();
    ensure!(commands.len() >= 4, "the README has {commands:?}");
    let sysfs: [(PathBuf, String); 1] = [("/sys".into(), "/sys".into())];
    for command in commands {
        step.detail(command);
        // The README is for arm64, and root needs no sudo.
        let here = command
            .replace("arm64.deb", &format!("{}.deb", architecture.trim()))
            .replace("sudo ", "");
        let (user, home) = if command.contains("sudo ") {
            ("root", "/root".to_owned())
        } else {
            (USER, format!("/home/{USER}"))
        };
        let words = ["sh", "-ec", &here];
        process::output(&mut system.command(user, &home, FOLDER, &sysfs, &words))?;
    }
    expect_nothing(&system, &["dpkg", "--audit"])?;
    expect_nothing(
        &system,
        &["dpkg", "--verify", "warmbus", "warmbus-firmware"],
    )?;
    for page in ["warmbus", "warmbus-survey"] {
        let file = system.file(&format!("/usr/share/man/man1/{page}.1.gz"));
        let page = fs::read(&file).with_context(|| format!("no {}", file.display()))?;
        ensure!(
            page.starts_with(archive::GZIP),
            "{} is not packed",
            file.display()
        );
    }
    let completion = "/usr/share/bash-completion/completions/warmbus";
    system.run_as_root(&["bash", "-n", completion])?;
    used(&system)?;
    system.run_as_root(&["apt-get", "purge", "warmbus", "warmbus-firmware"])?;
    expect_nothing(&system, &["dpkg", "--audit"])?;
    let after = listed(&system.root, &NOT_OF_PACKAGES)?;
    ensure!(
        after == before,
        "not as before: {:?}",
        differing(&before, &after)
    );
    Ok(())
}

/// Uses both packages together: files of the one are found by the other.
fn used(system: &System) -> Result<()> {
    let said = system.run_as_root(&["warmbus", "--version"])?;
    let version = env!("CARGO_PKG_VERSION");
    ensure!(
        said.trim() == format!("warmbus {version}"),
        "it is {said:?}"
    );
    let before = listed(&system.file(ESP), &[])?;
    system.run_as_root(&["warmbus", "install", "systemd-boot"])?;
    let driver = system
        .file(ESP)
        .join("EFI/systemd/drivers/warmbus-driver-aa64.efi");
    let packaged = system.file("/usr/lib/warmbus/warmbus-driver-aa64.efi");
    ensure!(
        fs::read(driver)? == fs::read(packaged)?,
        "another driver was installed"
    );
    system.run_as_root(&["warmbus", "uninstall"])?;
    let after = listed(&system.file(ESP), &[])?;
    ensure!(
        after == before,
        "uninstall left {:?}",
        differing(&before, &after)
    );
    Ok(())
}

/// Fails with what `words` print, if they print something.
fn expect_nothing(system: &System, words: &[&str]) -> Result<()> {
    let said = system.run_as_root(words)?;
    ensure!(said.is_empty(), "{}: {said}", words.join(" "));
    Ok(())
}

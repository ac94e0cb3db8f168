//! `warmbus check-kernel` on the arm64 kernels of a release of Debian. What it
//! says is compared with the configuration that is in the package beside each.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Made;
use crate::fresh::Release;
use crate::fresh::root::{Host, System};
use crate::linux::distribution;
use crate::progress::Progress;

/// What depends on the newest kernel of a suite.
const PACKAGE: &str = "linux-image-arm64:arm64";
/// What is in the version of a package of the backports.
const OF_BACKPORTS: &str = "~bpo";

/// Checks the newest kernel of `release` and that of its backports. Returns what
/// was said of each, a line each.
pub(super) fn are_described(host: &Host, release: Release, made: &Made) -> Result<Vec<String>> {
    let system = host.system(release)?;
    let step = Progress::begin(&format!("getting the arm64 kernels of {release}"));
    system.run_as_root(&["dpkg", "--add-architecture", "arm64"])?;
    system.run_as_root(&["apt-get", "update"])?;
    let offered = system.run_as_root(&["apt-cache", "show", PACKAGE])?;
    let names = kernels(&offered);
    ensure!(
        names.len() == 2,
        "a release and its backports have {names:?}"
    );
    let mut lines = Vec::new();
    for name in names.values() {
        step.detail(name);
        lines.push(is_described(&system, name, made).with_context(|| name.clone())?);
    }
    Ok(lines)
}

/// The newest kernel of the release (`false`) and of its backports (`true`), by
/// what `apt-cache show` prints: the newest first.
fn kernels(offered: &str) -> BTreeMap<bool, String> {
    let mut names = BTreeMap::new();
    for stanza in offered.split("\n\n") {
        let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name));
        let (Some(version), Some(depends)) = (field("Version: "), field("Depends: ")) else {
            continue;
        };
        let mut words = depends.split([',', ' ', '|']);
        let kernel = words.find(|word| word.starts_with("linux-image-"));
        if let Some(kernel) = kernel {
            let key = version.contains(OF_BACKPORTS);
            names.entry(key).or_insert_with(|| kernel.to_owned());
        }
    }
    names
}

fn is_described(system: &System, name: &str, made: &Made) -> Result<String> {
    let folder = format!("/srv/{name}");
    fs::create_dir_all(system.file(&folder))?;
    let release = distribution::release(name);
    let offered = system.run_as_root(&["apt-cache", "show", &format!("{name}:arm64")])?;
    let mut depends = offered
        .lines()
        .filter_map(|line| line.strip_prefix("Depends: "));
    let mut packages = vec![name];
    packages.extend(distribution::parts(
        depends.next().unwrap_or_default(),
        release,
    ));
    let packages = packages.join(":arm64 ");
    let download = format!(
        "cd {folder} && apt-get download {packages}:arm64 && \
         for package in *.deb; do dpkg-deb -x $package .; done"
    );
    system.run_as_root(&["sh", "-c", &download])?;
    let unpacked = system.file(&folder);
    let image = distribution::file(&unpacked, "vmlinuz", release)?;
    let config = fs::read_to_string(distribution::file(&unpacked, "config", release)?)?;
    let found = described(&made.folder, &image, &config)?;
    let is = |what: &str, expected: Value| {
        ensure!(
            found[what] == expected,
            "{what} is {} and not {expected}",
            found[what]
        );
        Ok(())
    };
    let set = |option: &str| config.lines().any(|line| line == format!("{option}=y"));
    let sizes = [(4_u32, "4K"), (16, "16K"), (64, "64K")];
    let size = sizes
        .into_iter()
        .find(|(_, name)| set(&format!("CONFIG_ARM64_{name}_PAGES")));
    let (size, _) = size.context("the configuration has no size of a page")?;
    is("release", release.into())?;
    is("page_size", (size * 1024).into())?;
    is("efi_stub", set("CONFIG_EFI_STUB").into())?;
    is("reads_cache", false.into())?;
    for (what, option) in [
        ("kho", "CONFIG_KEXEC_HANDOVER"),
        ("configuration", "CONFIG_IKCONFIG"),
    ] {
        ensure!(
            found[what].is_null() != set(option),
            "{what} is {}, and {option} is {}",
            found[what],
            set(option)
        );
    }
    let kho = found["kho"].as_str().unwrap_or("no Kexec HandOver");
    Ok(format!(
        "{release}: {size}K pages, {kho}, packed in {}",
        found["packings"]
    ))
}

/// What the command says of `image`, whose exit status has to fit to `config`.
fn described(folder: &Path, image: &Path, config: &str) -> Result<Value> {
    let program = folder.join(format!("warmbus-{}", std::env::consts::ARCH));
    let output = Command::new(program)
        .args(["check-kernel", "--json"])
        .arg(image)
        .output()?;
    let expected = i32::from(!config.contains("CONFIG_KEXEC_HANDOVER=y"));
    ensure!(
        output.status.code() == Some(expected),
        "check-kernel ended with {} and not {expected}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_of_a_release_and_of_its_backports_is_found() {
        let stanza = |version: &str, kernel: &str| {
            format!(
                "Package: linux-image-arm64\nVersion: {version}\nDepends: {kernel} (= {version})\n"
            )
        };
        let offered = [
            stanza("6.12.9-1~bpo12+1", "linux-image-6.12.9+bpo-arm64"),
            stanza("6.1.158-1", "linux-image-6.1.0-41-arm64"),
            stanza("6.1.148-1", "linux-image-6.1.0-38-arm64"),
        ];
        let names: Vec<_> = kernels(&offered.join("\n")).into_values().collect();
        assert_eq!(
            names,
            ["linux-image-6.1.0-41-arm64", "linux-image-6.12.9+bpo-arm64"]
        );
    }
}

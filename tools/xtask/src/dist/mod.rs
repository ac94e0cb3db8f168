//! `cargo xtask dist`: everything for users without Rust, in one folder. Two
//! builds of a commit have the same bytes.

pub mod archive;
mod command;
pub mod deb;
mod kernels;
pub mod trial;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::fresh::root;
use crate::linux::hex;
use crate::setup::{self, Purpose};
use crate::toolchain::Toolchain;
use crate::{build, paths, process};
use archive::{File, Files, gzip};
use command::{ARCHITECTURES, Architecture, Users};
use deb::About;

/// The files of the firmware.
const FIRMWARE: [&str; 3] = ["warmbus.img", build::UEFI_APPLICATION, build::UEFI_DRIVER];
/// Pages and licences, which are where the tree has them: they link to each other.
const PAGES: [&str; 9] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "tests/corpus/README.md",
    "tools/warmbus/README.md",
];
/// Folders with more of them, and with the patches.
const FOLDERS: [&str; 4] = ["bench/results", "boards", "docs", PATCHES];
/// The patches.
const PATCHES: &str = "linux/patches";
/// The shells that there are completions for, with the path of each in a package.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/warmbus"),
    ("fish", "usr/share/fish/vendor_completions.d/warmbus.fish"),
    ("zsh", "usr/share/zsh/vendor-completions/_warmbus"),
];
const COPYRIGHT: &str = "\
Warmbus is licensed under either of Apache-2.0 (/usr/share/common-licenses/Apache-2.0)
or MIT, at your option. The firmware image links fdt and ucs2, which are under
MPL-2.0. The patches for Linux are under GPL-2.0
(/usr/share/common-licenses/GPL-2).

";

/// Where to put it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The folder has warmbus.img, warmbus.efi, the driver, the command for arm64 and
x86-64 (static), man pages, completions, the patches, the pages, Debian packages
and SHA256SUMS. Files are of the time of the commit, or of SOURCE_DATE_EPOCH.

The command needs the standard library for musl:
  rustup target add x86_64-unknown-linux-musl aarch64-unknown-linux-musl")]
pub struct Options {
    /// The folder in which warmbus-VERSION is made [default: target/dist]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Builds everything, writes it, and prints where.
pub fn run(options: &Options) -> Result<()> {
    let output = options.output.clone();
    let made = make(&output.unwrap_or_else(|| paths::target().join("dist")))?;
    println!(
        "{}: {} files\nSHA-256 of SHA256SUMS: {}",
        made.folder.display(),
        made.files,
        made.sum
    );
    Ok(())
}

/// What was made.
struct Made {
    /// `warmbus-VERSION`.
    folder: PathBuf,
    /// The number of files in it.
    files: usize,
    /// The SHA-256 of its `SHA256SUMS`.
    sum: String,
}

/// Builds everything, and writes it to a folder in `output`.
fn make(output: &Path) -> Result<Made> {
    let toolchain = setup::ensure(Purpose::Build)?;
    build::firmware(&toolchain)?;
    let mut commands = Vec::new();
    for architecture in ARCHITECTURES {
        commands.push((architecture, architecture.build(&toolchain, Users::All)?));
    }
    let version = env!("CARGO_PKG_VERSION");
    let mut files = collect(&commands)?;
    let packages = packages(&files, version, time()?)?;
    files.extend(packages);
    let sum = |bytes: &[u8]| hex(&Sha256::digest(bytes));
    let mut sums = String::new();
    for (path, file) in &files {
        let _ = writeln!(sums, "{}  {path}", sum(&file.bytes));
    }
    let made = Made {
        folder: output.join(format!("warmbus-{version}")),
        files: files.len() + 1,
        sum: sum(sums.as_bytes()),
    };
    files.insert("SHA256SUMS".into(), File::new(sums));
    write(&made.folder, &files)?;
    Ok(made)
}

/// The static command for the guests of tests; `None` where Rust has no standard
/// library for it.
///
/// # Errors
///
/// If it does not build.
pub fn command_for_guests(toolchain: &Toolchain) -> Result<Option<PathBuf>> {
    let guest = ARCHITECTURES
        .into_iter()
        .find(|one| one.is_for_guests() && one.can_be_built(toolchain));
    guest
        .map(|guest| guest.build(toolchain, Users::Guests))
        .transpose()
}

/// The time of all files: that of the commit, unless `SOURCE_DATE_EPOCH` is set.
fn time() -> Result<u64> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => process::output(
            Command::new("git")
                .args(["log", "-1", "--format=%ct"])
                .current_dir(paths::root()),
        )?,
    };
    let text = text.trim();
    text.parse()
        .with_context(|| format!("{text:?} is no time in seconds since 1970"))
}

/// The file at `path`.
fn read(path: &Path) -> Result<File> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(File::new(bytes))
}

/// Pages, licences and patches.
fn pages() -> Result<Files> {
    let mut files = Files::new();
    for name in PAGES {
        files.insert(name.into(), read(&paths::root().join(name))?);
    }
    for name in FOLDERS {
        add_folder(&paths::root().join(name), name, &mut files)?;
    }
    Ok(files)
}

/// Everything but the packages.
fn collect(commands: &[(Architecture, PathBuf)]) -> Result<Files> {
    let mut files = pages()?;
    for name in FIRMWARE {
        files.insert(name.into(), read(&paths::images().join(name))?);
    }
    for (architecture, path) in commands {
        let program = File {
            executable: true,
            ..read(path)?
        };
        files.insert(format!("warmbus-{}", architecture.name), program);
    }
    let here = commands.iter().find(|(one, _)| one.is_here());
    let (_, here) = here.context("this machine runs none of the commands that were built")?;
    for (shell, _) in COMPLETIONS {
        let text = process::output(Command::new(here).args(["generate", shell]))?;
        files.insert(format!("completions/warmbus.{shell}"), File::new(text));
    }
    let pages = tempfile::tempdir()?;
    process::output(
        Command::new(here)
            .args(["generate", "man", "-o"])
            .arg(pages.path()),
    )?;
    add_folder(pages.path(), "man", &mut files)?;
    Ok(files)
}

/// Adds the files below `folder` as files below `to`.
fn add_folder(folder: &Path, to: &str, files: &mut Files) -> Result<()> {
    for name in listed(folder, &[])? {
        if !name.ends_with('/') {
            files.insert(format!("{to}/{name}"), read(&folder.join(&name))?);
        }
    }
    Ok(())
}

/// Every file below `folder`, and every folder with a `/` at its end, by its
/// path; without what starts with one of `without`.
fn listed(folder: &Path, without: &[&str]) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        let entries =
            fs::read_dir(&next).with_context(|| format!("cannot list {}", next.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let name = path.strip_prefix(folder)?.to_string_lossy().into_owned();
            if without.contains(&&*name) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                all.insert(format!("{name}/"));
                folders.push(path);
            } else {
                all.insert(name);
            }
        }
    }
    Ok(all)
}

/// The Debian packages made of `files`, by their path.
fn packages(files: &Files, version: &str, time: u64) -> Result<Files> {
    let doc = |package: &str, content: &mut Files| -> Result<()> {
        let place = format!("usr/share/doc/{package}");
        let licence = String::from_utf8_lossy(&files["LICENSE-MIT"].bytes).into_owned();
        let copyright = COPYRIGHT.to_owned() + &licence;
        content.insert(format!("{place}/copyright"), File::new(copyright));
        let changes = gzip(&files["CHANGELOG.md"].bytes)?;
        content.insert(format!("{place}/changelog.gz"), File::new(changes));
        Ok(())
    };
    let below = |start: &str| {
        let start = start.to_owned();
        files.iter().filter_map(move |(path, file)| {
            let name = path.strip_prefix(&start)?;
            Some((name.to_owned(), file.clone()))
        })
    };
    let mut packages = Files::new();
    for architecture in ARCHITECTURES {
        let mut content = Files::new();
        let command = files[&format!("warmbus-{}", architecture.name)].clone();
        content.insert("usr/bin/warmbus".into(), command);
        for (shell, path) in COMPLETIONS {
            let text = files[&format!("completions/warmbus.{shell}")].clone();
            content.insert(path.into(), text);
        }
        for (name, page) in below("man/") {
            let page = File::new(gzip(&page.bytes)?);
            content.insert(format!("usr/share/man/man1/{name}.gz"), page);
        }
        doc("warmbus", &mut content)?;
        let about = About {
            package: "warmbus",
            version,
            architecture: architecture.debian,
            fields: "Suggests: warmbus-firmware\n",
            summary: "survey and inspect PCI configuration space for Warmbus",
            description: "Says what Warmbus would save on this machine, checks kernels, installs\nWarmbus on an EFI system partition and shows what it did.",
        };
        let name = format!("debian/warmbus_{version}_{}.deb", architecture.debian);
        packages.insert(name, File::new(deb::package(&about, &content, time)?));
    }
    let mut content = Files::new();
    for name in FIRMWARE {
        content.insert(format!("usr/lib/warmbus/{name}"), files[name].clone());
    }
    for (name, page) in below("docs/") {
        content.insert(format!("usr/share/doc/warmbus-firmware/{name}"), page);
    }
    for (name, patch) in below(&format!("{PATCHES}/")) {
        content.insert(format!("usr/share/warmbus/patches/{name}"), patch);
    }
    doc("warmbus-firmware", &mut content)?;
    let about = About {
        package: "warmbus-firmware",
        version,
        architecture: "all",
        fields: "Recommends: warmbus\n",
        summary: "firmware that reads PCI configuration space once for Linux",
        description: "Runs on arm64 before Linux, walks PCI Express and hands configuration\nspace over by Kexec HandOver. This package changes nothing of the boot;\n`warmbus install` does.",
    };
    let name = format!("debian/warmbus-firmware_{version}_all.deb");
    packages.insert(name, File::new(deb::package(&about, &content, time)?));
    Ok(packages)
}

/// Writes `files` to `folder`, which is emptied first.
fn write(folder: &Path, files: &Files) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;

    root::remove(folder)?;
    for (path, file) in files {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.bytes)
            .with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_pages_of_the_folder_link_to_is_in_it() {
        let files = pages().unwrap();
        let mut checked = 0;
        for name in ["README.md", "docs/survey.md", "docs/uefi.md"] {
            let page = String::from_utf8(files[name].bytes.clone()).unwrap();
            for link in page.split("](").skip(1) {
                let link = link.split([')', '#']).next().unwrap();
                if link.is_empty() || link.contains("://") {
                    continue;
                }
                let folder = Path::new(name).parent().unwrap();
                let target = folder.join(link).to_string_lossy().into_owned();
                let target = target
                    .strip_prefix("docs/../")
                    .unwrap_or(&target)
                    .to_owned();
                let is_there = files.keys().any(|file| {
                    *file == target
                        || file.starts_with(&format!("{}/", target.trim_end_matches('/')))
                });
                assert!(is_there, "{name}: {link}");
                checked += 1;
            }
        }
        assert!(checked > 20, "{checked}");
    }

    /// The other commands are run by the tests of fresh systems.
    #[test]
    fn the_readme_names_the_packages_of_this_version() {
        let page = fs::read_to_string(paths::root().join("README.md")).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        for package in [
            format!("warmbus_{version}_arm64"),
            format!("warmbus-firmware_{version}_all"),
        ] {
            assert!(
                page.contains(&format!("./debian/{package}.deb")),
                "{package}"
            );
        }
    }
}

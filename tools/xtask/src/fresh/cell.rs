//! One fresh system, and what the README's commands do there.

use std::fmt;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};

use super::root::{self, Host, LIMIT, System, USER};
use super::{NAME, Release, Rust};
use crate::progress::Progress;
use crate::{paths, process};

/// Where the project is.
const PLACE: &str = "/srv/warmbus";
/// What dpkg knows.
const STATUS: &str = "/var/lib/dpkg/status";

/// A system to test.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    pub(super) release: Release,
    pub(super) rust: Rust,
    pub(super) is_root: bool,
    /// Whether a package is installed that QEMU of the release cannot be
    /// installed beside.
    pub(super) conflicts: bool,
    /// Whether Linux is built and all tests run.
    pub(super) is_whole: bool,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = if self.is_root { "root" } else { "ordinary" };
        let conflict = if self.conflicts { "conflict" } else { "plain" };
        let rust = self.rust.name();
        let whole = if self.is_whole { "-whole" } else { "" };
        write!(f, "{NAME}-{}-{rust}-{user}-{conflict}{whole}", self.release)
    }
}

/// What became of it.
#[derive(Default)]
pub(super) struct Report {
    /// The first command.
    pub(super) run: String,
    /// The second.
    pub(super) test: String,
    /// QEMU's version, and where it is from.
    pub(super) qemu: String,
    pub(super) problems: Vec<String>,
}

impl Report {
    pub(super) fn passed(&self) -> bool {
        self.problems.is_empty()
    }
}

/// How a command ended.
struct Ended {
    status: Option<i32>,
    output: String,
    error: String,
    time: String,
}

impl Cell {
    /// The directory of what its commands said.
    fn log(&self) -> PathBuf {
        paths::images().join(self.to_string())
    }

    /// The name of the directory of what it builds.
    pub(super) fn target(&self) -> String {
        format!("{}-{}", self.release, self.rust.name())
    }

    fn user(&self) -> (&'static str, String) {
        if self.is_root {
            ("root", "/root".into())
        } else {
            (USER, format!("/home/{USER}"))
        }
    }

    /// Installs the system, runs the commands in it, and removes it.
    pub(super) fn test(&self, host: &Host) -> Report {
        let mut report = Report::default();
        if let Err(error) = self.test_with(host, &mut report) {
            report.problems.push(format!("{error:#}"));
        }
        report
    }

    fn test_with(&self, host: &Host, report: &mut Report) -> Result<()> {
        root::remove(&self.log())?;
        let system = host.system(self.release)?;
        self.prepare(&system)?;
        let mounts = self.mounts(host, &system)?;
        let before = fs::read(system.file(STATUS))?;

        let first: &[&str] = if self.is_whole {
            &["./qemu-run.sh"]
        } else {
            &["./qemu-run.sh", "--probe-only"]
        };
        let ended = self.run(&system, &mounts, first)?;
        report.run = ended.summary();
        if self.rust == Rust::Old {
            report.refused(&ended);
            return Ok(());
        }
        report.expect(ended.status == Some(0), "./qemu-run.sh failed");
        let found = ended.output.contains("warmbus: result: ok");
        report.expect(found, "the firmware did not report success");

        let second: &[&str] = if self.is_whole {
            &["cargo", "xtask", "test"]
        } else {
            &["cargo", "xtask", "test", "--host"]
        };
        let ended = self.run(&system, &mounts, second)?;
        let sum = ended.output.lines().last().unwrap_or_default().to_owned();
        report.test = format!("{}: {sum}", ended.summary());
        report.expect(ended.status == Some(0), "cargo xtask test failed");

        let check = self.run(&system, &mounts, &["cargo", "xtask", "setup", "--check"])?;
        report.qemu = self.qemu(&system, &mounts, &check.output)?;
        self.expect_packages_unharmed(&system, &before, report)
    }

    /// Installs what the cell has besides the fresh system, and the project.
    fn prepare(&self, system: &System) -> Result<()> {
        let step = Progress::begin(&format!("{self}: installing"));
        system.run_as_root(&["apt-get", "update"])?;
        let install = ["apt-get", "install", "--yes", "--no-install-recommends"];
        if !self.rust.packages().is_empty() {
            system.run_as_root(&[&install[..], self.rust.packages()].concat())?;
        }
        if self.conflicts {
            let backports = format!("{}-backports", self.release.suite);
            let words = ["--target-release", &backports, "qemu-utils"];
            system.run_as_root(&[&install[..], &words].concat())?;
        }
        drop(step);
        Ok(())
    }

    /// What the system shares with this machine and with the others of its
    /// compiler: what they built, which they would build alike, and the sources
    /// of crates.
    fn mounts(&self, host: &Host, system: &System) -> Result<Vec<(PathBuf, String)>> {
        let (_, home) = self.user();
        let target = host.shared(&self.target())?;
        root::copy(&host.clone, &system.file(PLACE))?;
        let mut mounts = vec![
            (host.shared("registry")?, format!("{home}/.cargo/registry")),
            (target, format!("{PLACE}/target")),
        ];
        if self.rust == Rust::Rustup {
            let [rustup, cargo] = host.rustup.as_ref().context("there is no rustup here")?;
            mounts.push((rustup.clone(), format!("{home}/.rustup")));
            let bin = system.file(&format!("{home}/.cargo/bin"));
            root::copy(&cargo.join("bin"), &bin)?;
        }
        if !self.is_root {
            let owner = format!("{USER}:{USER}");
            let mut words = vec!["chown", "--recursive", &owner, PLACE, &home];
            let shared: Vec<_> = mounts[..2].to_vec();
            words.push(PLACE);
            let mut command = system.command("root", "/root", "/", &shared, &words);
            process::output(&mut command)?;
        }
        Ok(mounts)
    }

    /// Runs `words` in the project, as the user, and keeps what they say.
    fn run(&self, system: &System, mounts: &[(PathBuf, String)], words: &[&str]) -> Result<Ended> {
        let (user, home) = self.user();
        let step = Progress::begin(&format!("{self}: {}", words.join(" ")));
        let began = Instant::now();
        let mut command = system.command(user, &home, PLACE, mounts, words);
        // In files, where it can be read meanwhile.
        let files = ["out", "err"].map(|end| {
            let name = words.join("-").replace(['/', '.'], "");
            self.log().join(format!("{name}.{end}"))
        });
        fs::create_dir_all(self.log())?;
        let [out, err] = &files;
        command
            .stdout(File::create(out)?)
            .stderr(File::create(err)?);
        let status = process::limited(&mut command, LIMIT)?;
        drop(step);
        let seconds = began.elapsed().as_secs();
        let read = |file: &PathBuf| -> Result<String> {
            Ok(String::from_utf8_lossy(&fs::read(file)?).into_owned())
        };
        Ok(Ended {
            status: status.code(),
            output: read(out)?,
            error: read(err)?,
            time: format!("{} min {:02} s", seconds / 60, seconds % 60),
        })
    }

    /// The version of QEMU that was used, and where it is from.
    fn qemu(&self, system: &System, mounts: &[(PathBuf, String)], check: &str) -> Result<String> {
        let mut lines = check.lines();
        let program = lines
            .find_map(|line| line.strip_prefix("QEMU for ARM: "))
            .context("setup does not say where QEMU is")?;
        let version = self.run(system, mounts, &[program, "--version"])?;
        let version = version
            .output
            .split_whitespace()
            .nth(3)
            .unwrap_or_default()
            .to_owned();
        let place = if program.starts_with("/usr/") {
            "installed"
        } else {
            "private"
        };
        Ok(format!("{version}, {place}"))
    }

    /// What was installed has to be still, and whole; where it was no root's
    /// doing, nothing else either.
    fn expect_packages_unharmed(
        &self,
        system: &System,
        before: &[u8],
        report: &mut Report,
    ) -> Result<()> {
        let audit = system.run_as_root(&["dpkg", "--audit"])?;
        report.expect(audit.is_empty(), "dpkg --audit finds faults");
        if self.conflicts {
            let shown = [
                "dpkg-query",
                "--show",
                "--showformat",
                "${db:Status-Status}",
                "qemu-utils",
            ];
            let status = system.run_as_root(&shown).unwrap_or_default();
            report.expect(status == "installed", "qemu-utils is no longer installed");
        }
        let after = fs::read(system.file(STATUS))?;
        report.expect(
            self.is_root || after == before,
            "a user changed the packages",
        );
        Ok(())
    }
}

impl Ended {
    fn summary(&self) -> String {
        match self.status {
            Some(0) => format!("ok in {}", self.time),
            Some(status) => format!("status {status} after {}", self.time),
            None => format!("killed after {}", self.time),
        }
    }
}

impl Report {
    fn expect(&mut self, holds: bool, problem: &str) {
        if !holds {
            self.problems.push(problem.to_owned());
        }
    }

    /// A Rust that is too old is one line with the ways to a newer one.
    fn refused(&mut self, ended: &Ended) {
        self.expect(
            ended.status == Some(2),
            "an old Rust does not end with status 2",
        );
        let lines: Vec<_> = ended.error.lines().collect();
        self.expect(lines.len() == 1, "an old Rust is not one line");
        for way in ["rustup", "cargo-web rustc-web"] {
            self.expect(ended.error.contains(way), &format!("no way by {way}"));
        }
    }
}

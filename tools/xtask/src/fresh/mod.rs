//! `cargo xtask test --long fresh`: the commands of the README on systems that
//! were installed just now.
//!
//! Each is a root directory with nothing but what Debian's smallest
//! installation has, git, and what the README asks for: a Rust, with the C
//! compiler that it links with. The project is cloned into it as it was last
//! committed, and its two commands run there, by root or by an ordinary user.
//! What these leave of the packages that were there is part of the test.

mod cell;
pub(crate) mod root;

use std::fmt;

use anyhow::Result;

use self::cell::{Cell, Report};
use self::root::Host;
use crate::UsageError;

/// What the names of these tests start with.
pub const NAME: &str = "fresh";

/// A release of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Release {
    number: u32,
    suite: &'static str,
}

pub(crate) const RELEASES: [Release; 2] = [
    Release {
        number: 12,
        suite: "bookworm",
    },
    Release {
        number: 13,
        suite: "trixie",
    },
];

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "debian-{}", self.number)
    }
}

/// Where Rust is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rust {
    /// The compiler of this machine, as rustup installed it.
    Rustup,
    /// The packages of the release that are new enough.
    Web,
    /// The packages of the release that are too old.
    Old,
}

impl Rust {
    fn name(self) -> &'static str {
        match self {
            Self::Rustup => "rustup",
            Self::Web => "cargo-web",
            Self::Old => "cargo",
        }
    }

    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Rustup => &[],
            Self::Web => &["cargo-web", "rustc-web"],
            Self::Old => &["cargo", "rustc"],
        }
    }
}

/// All systems, in an order in which most follow one that built the same.
fn cells() -> Vec<Cell> {
    let mut all = Vec::new();
    let mut add = |release, rust, is_root, conflicts, is_whole| {
        all.push(Cell {
            release,
            rust,
            is_root,
            conflicts,
            is_whole,
        });
    };
    for release in RELEASES {
        add(release, Rust::Old, true, false, false);
        for rust in [Rust::Rustup, Rust::Web] {
            for is_root in [false, true] {
                for conflicts in [false, true] {
                    add(release, rust, is_root, conflicts, false);
                }
            }
            // Linux is built by one user, who has nothing but private tools for
            // that.
            if (release, rust) == (RELEASES[0], Rust::Rustup) {
                add(release, rust, false, true, true);
            }
        }
    }
    all
}

/// Tests the systems whose names contain `name`, and returns how many passed
/// and how many did not. Prints the table of all.
pub fn run(name: &str) -> Result<(u64, u64)> {
    let cells: Vec<_> = cells()
        .into_iter()
        .filter(|cell| cell.to_string().contains(name))
        .collect();
    if cells.is_empty() {
        return Ok((0, 0));
    }
    let host = Host::find()?;
    let mut reports = Vec::new();
    for (done, &cell) in cells.iter().enumerate() {
        let report = cell.test(&host);
        // What the systems of one compiler build takes up to 11 GB: no two of
        // them are kept at a time.
        let is_last = cells[done + 1..]
            .iter()
            .all(|later| later.target() != cell.target());
        if is_last {
            host.forget(&cell.target())?;
        }
        match &report.problems[..] {
            [] => println!("test {cell} ... ok"),
            problems => println!("test {cell} ... FAILED: {}", problems.join("; ")),
        }
        reports.push((cell, report));
    }
    print!("{}", table(&reports));
    let failed = reports
        .iter()
        .filter(|(_, report)| !report.passed())
        .count() as u64;
    Ok((reports.len() as u64 - failed, failed))
}

/// Refuses what only root can do.
fn refuse_unless_root() -> Result<()> {
    if crate::setup::is_root() {
        return Ok(());
    }
    Err(UsageError("fresh systems are installed and entered by root only".into()).into())
}

fn table(reports: &[(Cell, Report)]) -> String {
    let head = "| system | Rust | user | qemu-utils of backports | ./qemu-run.sh | cargo xtask test | QEMU | \
                result |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n";
    let rows = reports.iter().map(|(cell, report)| {
        let yes = |yes| if yes { "yes" } else { "no" };
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |\n",
            cell.release,
            cell.rust.name(),
            if cell.is_root { "root" } else { "ordinary" },
            yes(cell.conflicts),
            report.run,
            report.test,
            report.qemu,
            if report.passed() { "ok" } else { "FAILED" },
        )
    });
    std::iter::once(head.to_owned()).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn systems_of_one_compiler_follow_each_other() {
        let mut targets: Vec<_> = cells().iter().map(Cell::target).collect();
        targets.dedup();
        let different: BTreeSet<_> = targets.iter().collect();
        assert_eq!(targets.len(), different.len(), "{targets:?}");
    }

    #[test]
    fn every_system_has_its_own_name_and_is_found_by_it() {
        let names: BTreeSet<_> = cells().iter().map(Cell::to_string).collect();
        assert_eq!(names.len(), cells().len());
        assert_eq!(names.len(), 2 * (1 + 2 * 2 * 2) + 1);
        assert!(names.iter().all(|name| name.starts_with(NAME)));
        assert!(names.contains("fresh-debian-12-rustup-ordinary-conflict"));
        assert_eq!(cells().iter().filter(|cell| cell.is_whole).count(), 1);
    }
}

//! Debian's package manager, as it serves the whole system.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::process;
use crate::programs;
use crate::progress::Progress;

/// How long the package manager may take.
const LIMIT: Duration = Duration::from_mins(30);
/// How many seconds to wait for another package manager.
const LOCK_SECONDS: u32 = 120;

/// Whether this is root.
#[must_use]
pub fn is_root() -> bool {
    process::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// Apt, with the right to install.
pub(super) struct Apt {
    sudo: bool,
}

impl Apt {
    /// `None` where there is no apt, or no right to install.
    pub(super) fn find() -> Option<Self> {
        programs::find_in_system("apt-get")?;
        if is_root() {
            return Some(Self { sudo: false });
        }
        process::succeeds(Command::new("sudo").args(["-n", "true"])).then_some(Self { sudo: true })
    }

    fn command(&self) -> Command {
        let mut command = if self.sudo {
            let mut command = Command::new("sudo");
            command.args(["-n", "env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"]);
            command.arg("apt-get");
            command
        } else {
            Command::new("apt-get")
        };
        command
            .args(["-o", &format!("DPkg::Lock::Timeout={LOCK_SECONDS}")])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C");
        command
    }

    /// Fetches the lists of packages.
    pub(super) fn update(&self) -> Result<()> {
        let step = Progress::begin("asking apt for its list of packages");
        process::watch(self.command().arg("update"), LIMIT, |line| {
            step.detail(line);
        })
    }

    /// What of `packages` can be installed beside everything that is, all of it
    /// together, and what cannot.
    pub(super) fn split(&self, packages: Vec<String>) -> (Vec<String>, Vec<String>) {
        split(packages, |packages| {
            let mut command = self.command();
            command
                .args(["--simulate", "install", "--yes", "--no-install-recommends"])
                .args(packages);
            process::output(&mut command).is_ok_and(|text| is_harmless(&text))
        })
    }

    /// Installs `packages`; removes and downgrades none.
    pub(super) fn install(&self, packages: &[String]) -> Result<()> {
        let step = Progress::begin(&format!("installing {}", packages.join(", ")));
        let mut command = self.command();
        command
            .args(["install", "--yes", "--no-install-recommends", "--no-remove"])
            .args(packages);
        process::watch(&mut command, LIMIT, |line| step.detail(line))?;
        step.end(&format!("installed {}", packages.join(", ")));
        Ok(())
    }
}

/// Divides `packages` into those that `harmless` says may be installed, all of
/// them together, and the others.
fn split(
    packages: Vec<String>,
    harmless: impl Fn(&[String]) -> bool,
) -> (Vec<String>, Vec<String>) {
    if packages.is_empty() || harmless(&packages) {
        return (packages, Vec::new());
    }
    let (mut good, mut others) = (Vec::new(), Vec::new());
    for package in packages {
        good.push(package);
        if !harmless(&good) {
            others.extend(good.pop());
        }
    }
    (good, others)
}

/// Whether a simulated installation, as apt prints it, leaves all that is
/// installed where it is, or makes it newer.
fn is_harmless(simulation: &str) -> bool {
    simulation.lines().all(|line| {
        let removes = line.starts_with("Remv ") || line.starts_with("Purg ");
        !removes && !line.contains(" will be DOWNGRADED") && !line.contains(" will be REMOVED")
    })
}

/// The versions in a table of `apt-cache madison`: `package | version | source`
/// lines, newest first.
pub(super) fn parse_madison(table: &str) -> Vec<String> {
    table
        .lines()
        .filter_map(|line| Some(line.split('|').nth(1)?.trim().to_owned()))
        .collect()
}

/// The versions that the system's apt offers of `package`, newest first.
pub(super) fn versions(package: &str) -> Result<Vec<String>> {
    let table = process::output(Command::new("apt-cache").args(["madison", package]))?;
    Ok(parse_madison(&table))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What apt of Debian 12 prints about QEMU of its own beside `qemu-utils`
    /// of the backports, shortened.
    const REMOVES: &str = "\
The following additional packages will be installed:
  libslirp0 qemu-system-common qemu-system-data
Recommended packages:
  qemu-system-gui qemu-utils qemu-efi-aarch64 qemu-block-extra
The following packages will be REMOVED:
  qemu-utils
The following NEW packages will be installed:
  libslirp0 qemu-system-arm qemu-system-common qemu-system-data
0 upgraded, 4 newly installed, 1 to remove and 125 not upgraded.
Remv qemu-utils [1:10.0.2+ds-2+deb13u1~bpo12+1]
Inst libslirp0 (4.7.0-1 Debian:12.15/oldstable [amd64])
Inst qemu-system-arm (1:7.2+dfsg-7+deb12u18+b3 Debian:12.15/oldstable [amd64])
Conf libslirp0 (4.7.0-1 Debian:12.15/oldstable [amd64])
";

    #[test]
    fn an_installation_that_removes_or_downgrades_is_not_harmless() {
        assert!(!is_harmless(REMOVES));
        let only_simulated: String = REMOVES
            .lines()
            .filter(|line| !line.contains("REMOVED"))
            .flat_map(|line| [line, "\n"])
            .collect();
        assert!(!is_harmless(&only_simulated));
        assert!(!is_harmless(
            "The following packages will be DOWNGRADED:\n  xz-utils\n\
             0 upgraded, 0 newly installed, 1 downgraded, 0 to remove and 0 not upgraded.\n\
             Inst xz-utils [5.4.1-1] (5.2.5-2.1 Debian:11.11/oldoldstable [amd64])\n"
        ));
        assert!(is_harmless(
            "The following packages will be upgraded:\n  libslirp0\n\
             1 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.\n\
             Inst libslirp0 [4.6.0-1] (4.7.0-1 Debian:12.15/oldstable [amd64])\n\
             Conf libslirp0 (4.7.0-1 Debian:12.15/oldstable [amd64])\n"
        ));
    }

    #[test]
    fn what_does_harm_is_set_apart_from_what_does_none() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let all: Vec<String> = names(&["bc", "qemu-system-arm", "flex"]);
        let harmless = |packages: &[String]| !packages.contains(&"qemu-system-arm".to_owned());
        assert_eq!(
            split(all.clone(), harmless),
            (names(&["bc", "flex"]), names(&["qemu-system-arm"]))
        );
        assert_eq!(split(all.clone(), |_| true), (all.clone(), names(&[])));
        assert_eq!(split(all.clone(), |_| false), (names(&[]), all));
    }

    #[test]
    fn apts_table_of_versions_is_read_newest_first() {
        let table = " rust-src | 1.96.0+dfsg1-1~deb12u2 | somewhere/main amd64 Packages\n rust-src | 1.85.0+dfsg3-1 | elsewhere\n";
        let versions = parse_madison(table);
        assert_eq!(versions, ["1.96.0+dfsg1-1~deb12u2", "1.85.0+dfsg3-1"]);
        assert_eq!(parse_madison(""), Vec::<String>::new());
    }
}

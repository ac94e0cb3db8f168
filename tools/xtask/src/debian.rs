//! Debian packages that are downloaded and not installed: those of a newer
//! suite or another architecture, which the user's own apt does not offer, and
//! those that cannot be installed beside what is.
//!
//! They come through an apt of our own. Its lists, cache and state are in the
//! cache directory, so that the user's stay as they are, and nothing of it needs
//! root. The mirrors, the keys and the way to the network are the user's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::progress::Progress;
use crate::{UsageError, paths, process, programs};

/// The suites that are looked at, unless others are asked for.
const SUITES: [&str; 2] = ["trixie", "trixie-backports"];
/// The architecture of the machine that everything is for.
const ARCHITECTURE: &str = "arm64";
/// The keys of the archive, as Debian installs them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// What of the user's settings would act on the user's own directories, or
/// fetch what nobody needs here.
const SETTINGS: &str = "\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::IndexTargets::deb::DEP-11;
";
/// How long a download may take.
const LIMIT: Duration = Duration::from_mins(30);

/// What an archive offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offer {
    /// Suites that were asked for, for the machine that everything is for.
    Suites,
    /// What the user's settings say, for this machine.
    System,
}

/// Packages, with lists that were fetched just now.
pub struct Archive {
    directory: PathBuf,
    offer: Offer,
}

impl Archive {
    /// Debian's archive for arm64. Fetches the lists of packages from the first
    /// mirror in the user's settings that has the suites.
    pub fn open() -> Result<Self> {
        Self::of_suites(paths::cache().join("apt"), &SUITES)
    }

    /// What Debian 12 has, which is older.
    pub fn of_debian_12() -> Result<Self> {
        Self::of_suites(paths::cache().join("apt-12"), &["bookworm"])
    }

    fn of_suites(directory: PathBuf, suites: &[&str]) -> Result<Self> {
        let archive = Self::prepare(directory, Offer::Suites, "")?;
        let step = Progress::begin("asking Debian for its list of packages");
        let mut failure = None;
        for mirror in mirrors()? {
            archive.write(
                "sources.list",
                &sources(&mirror, suites, Path::new(KEYRING).is_file()),
            )?;
            let mut command = archive.command("apt-get");
            command.args(["--error-on=any", "update"]);
            match process::watch(&mut command, LIMIT, |line| step.detail(line)) {
                Ok(()) => return Ok(archive),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) => Err(error.context("no mirror of the apt settings could be used")),
            None => Err(UsageError(
                "packages of Debian are needed, and the apt settings name no mirror".into(),
            )
            .into()),
        }
    }

    /// What the user's own settings offer. `status` lists what counts as
    /// installed, in the format of dpkg. Lists, state and downloads are in
    /// `directory`.
    pub fn of_system(directory: PathBuf, status: &str) -> Result<Self> {
        let archive = Self::prepare(directory, Offer::System, status)?;
        let step = Progress::begin("asking apt for its list of packages, without root");
        // A source that cannot be reached makes this fail, and the packages may
        // be in the others.
        let update = process::watch(archive.command("apt-get").arg("update"), LIMIT, |line| {
            step.detail(line);
        });
        if let Err(error) = update {
            step.end(&format!("some lists of packages are missing: {error}"));
        }
        Ok(archive)
    }

    fn prepare(directory: PathBuf, offer: Offer, status: &str) -> Result<Self> {
        for program in ["apt-get", "dpkg-deb"] {
            if programs::find_in_system(program).is_none() {
                let why = format!("packages of Debian are needed, and there is no {program}");
                return Err(UsageError(why).into());
            }
        }
        let archive = Self { directory, offer };
        for part in ["lists/partial", "cache/archives/partial"] {
            let part = archive.directory.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        }
        archive.write("status", status)?;
        archive.write("apt.conf", SETTINGS)?;
        Ok(archive)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let file = self.directory.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// A program of apt's that writes only to the directory.
    fn command(&self, program: &str) -> Command {
        let inside = |name: &str| self.directory.join(name).display().to_string();
        let mut command = Command::new(program);
        command.env("LC_ALL", "C");
        command.arg("-c").arg(self.directory.join("apt.conf"));
        let mut options = vec![
            ("Dir::State", inside("")),
            ("Dir::State::lists", inside("lists")),
            ("Dir::State::status", inside("status")),
            ("Dir::Cache", inside("cache")),
            ("Acquire::Languages", "none".into()),
            // The user that apt would download as cannot see a home directory.
            ("APT::Sandbox::User", "root".into()),
        ];
        if self.offer == Offer::Suites {
            options.extend([
                ("Dir::Etc::sourcelist", inside("sources.list")),
                ("Dir::Etc::sourceparts", "/dev/null".into()),
                ("Dir::Etc::preferences", "/dev/null".into()),
                ("Dir::Etc::preferencesparts", "/dev/null".into()),
                ("APT::Architecture", ARCHITECTURE.into()),
                ("APT::Architectures", ARCHITECTURE.into()),
            ]);
        }
        for (name, value) in options {
            command.arg("-o").arg(format!("{name}={value}"));
        }
        command
    }

    /// The names of packages that start with `prefix`.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let list = process::output(self.command("apt-cache").args(["pkgnames", prefix]))?;
        let mut names: Vec<_> = list.lines().map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    /// The newest version of `package`, `None` where there is none.
    #[must_use]
    pub fn version(&self, package: &str) -> Option<String> {
        self.field(package, "Version")
    }

    /// What the newest version of `package` says as `field`, `None` where it
    /// says nothing.
    #[must_use]
    pub fn field(&self, package: &str, field: &str) -> Option<String> {
        let mut command = self.command("apt-cache");
        let shown = process::output(command.args(["show", "--no-all-versions", package]));
        // Of a package that does not exist it shows nothing, with status 100.
        let text = shown.ok()?;
        let mut lines = text.lines();
        lines
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(": "))
            .map(str::to_owned)
    }

    /// All versions of `package`, in apt's table of them.
    pub fn versions(&self, package: &str) -> Result<String> {
        process::output(self.command("apt-cache").args(["madison", package]))
    }

    /// Downloads `package` and unpacks what it would install to `into`.
    pub fn unpack(&self, package: &str, into: &Path) -> Result<()> {
        let step = Progress::begin(&format!("downloading {package} from Debian"));
        let downloads = tempfile::tempdir_in(&self.directory)?;
        let mut command = self.command("apt-get");
        command
            .args(["download", package])
            .current_dir(downloads.path());
        process::watch(&mut command, LIMIT, |line| step.detail(line))?;
        let file = packages_in(downloads.path())?
            .pop()
            .with_context(|| format!("apt downloaded no {package}"))?;
        extract(&file, into)
    }

    /// Downloads `packages` and all that they need beside what counts as
    /// installed, and returns the files.
    pub fn download(&self, packages: &[String]) -> Result<Vec<PathBuf>> {
        let step = Progress::begin(&format!("downloading {}", packages.join(", ")));
        let mut command = self.command("apt-get");
        command
            .args(["install", "--download-only", "--yes"])
            .args(["--no-install-recommends", "--allow-remove-essential"])
            .args(["--allow-downgrades", "--allow-change-held-packages"])
            .args(packages);
        process::watch(&mut command, LIMIT, |line| step.detail(line))?;
        packages_in(&self.directory.join("cache/archives"))
    }
}

/// The packages in `directory`, by their names.
fn packages_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<_> = fs::read_dir(directory)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "deb"))
        .collect();
    files.sort();
    Ok(files)
}

/// Unpacks what the package in `file` would install to `into`.
pub fn extract(file: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into).with_context(|| format!("cannot make {}", into.display()))?;
    let mut command = Command::new("dpkg-deb");
    process::output(command.arg("--extract").arg(file).arg(into)).map(drop)
}

/// The mirrors in the user's settings that offer packages, of those that fit
/// `filters`. Before the user's apt has fetched its lists it does not know which
/// do.
fn uris(filters: &[&str]) -> Result<String> {
    let mut command = Command::new("apt-get");
    command
        .args(["indextargets", "--format", "$(REPO_URI)"])
        .arg("Created-By: Packages")
        .args(filters);
    process::output(&mut command)
}

/// All of them, Debian's first.
fn mirrors() -> Result<Vec<String>> {
    Ok(distinct(&[
        uris(&["Origin: Debian", "Label: Debian"])?,
        uris(&[])?,
    ]))
}

/// The mirror in the user's settings of the archive of Debian's that has the
/// label `label`.
pub fn mirror(label: &str) -> Result<String> {
    let uris = uris(&["Origin: Debian", &format!("Label: {label}")])?;
    let uri = uris.lines().next().map(str::to_owned);
    uri.ok_or_else(|| UsageError(format!("the apt settings name no mirror of {label}")).into())
}

/// The user's settings of apt that say how to reach mirrors, as a file of
/// settings.
pub fn way_to_the_network() -> Result<String> {
    let settings = process::output(Command::new("apt-config").arg("dump"))?;
    Ok(network_settings(&settings))
}

fn network_settings(settings: &str) -> String {
    let kept = settings.lines().filter(|line| {
        let ways = ["http", "https", "Check-", "Retries", "ForceIPv"];
        let rest = line.strip_prefix("Acquire::");
        rest.is_some_and(|rest| ways.iter().any(|way| rest.starts_with(way)))
    });
    kept.flat_map(|line| [line, "\n"]).collect()
}

/// The lines of `lists` in their order, each once.
fn distinct(lists: &[String]) -> Vec<String> {
    let mut all = Vec::new();
    for line in lists.iter().flat_map(|list| list.lines()) {
        if !line.is_empty() && !all.iter().any(|known| known == line) {
            all.push(line.to_owned());
        }
    }
    all
}

fn sources(mirror: &str, suites: &[&str], keyring: bool) -> String {
    let keys = if keyring {
        format!("[signed-by={KEYRING}] ")
    } else {
        String::new()
    };
    let lines = suites.iter();
    let lines = lines.map(|suite| format!("deb {keys}{mirror} {suite} main\n"));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mirror_is_tried_once_with_debians_own_first() {
        let lists = ["b\nb\n", "a\nb\n\nc\n"].map(str::to_owned);
        assert_eq!(distinct(&lists), ["b", "a", "c"]);
    }

    #[test]
    fn all_suites_are_verified_with_the_installed_keys() {
        let list = sources("http://mirror.example/debian/", &SUITES, true);
        assert_eq!(list.lines().count(), SUITES.len());
        for (line, suite) in list.lines().zip(SUITES) {
            assert_eq!(
                line,
                format!("deb [signed-by={KEYRING}] http://mirror.example/debian/ {suite} main")
            );
        }
        assert!(!sources("http://mirror.example/debian/", &SUITES, false).contains("signed-by"));
    }

    #[test]
    fn only_settings_of_the_network_are_taken_over() {
        let settings = "APT::Architecture \"amd64\";\nAcquire::http::Proxy \"p\";\n\
            Acquire::Check-Date \"false\";\nAcquire::IndexTargets::deb::DEP-11 \"\";\n";
        assert_eq!(
            network_settings(settings),
            "Acquire::http::Proxy \"p\";\nAcquire::Check-Date \"false\";\n"
        );
    }

    #[test]
    fn nothing_of_the_users_apt_is_written() {
        for offer in [Offer::Suites, Offer::System] {
            let archive = Archive {
                directory: "/cache/apt".into(),
                offer,
            };
            let command = process::words(&archive.command("apt-get"));
            for path in command
                .split(['=', ' '])
                .filter(|word| word.starts_with('/'))
            {
                assert!(
                    path.starts_with("/cache/apt") || path == "/dev/null",
                    "{path}"
                );
            }
            for written in ["Dir::State=", "Dir::State::status=", "Dir::Cache="] {
                assert!(command.contains(written), "{written}");
            }
        }
    }
}

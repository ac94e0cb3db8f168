//! Debian packages that the user's own apt does not offer: a newer suite, or
//! another architecture.
//!
//! They come through an apt of our own. Its lists, cache, state and sources
//! are in the cache directory, so that the user's settings stay as they are;
//! only the mirror, the keys and the way to the network are taken from them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::progress::Step;
use crate::{Refusal, paths, process};

/// The suites that are looked at.
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
const LIMIT: Duration = Duration::from_secs(1800);

/// Debian's archive for arm64, with lists that were fetched just now.
pub struct Archive {
    directory: PathBuf,
}

impl Archive {
    /// Fetches the lists of packages from the first mirror in the user's
    /// settings that has the suites.
    pub fn open() -> Result<Self> {
        if paths::program("apt-get").is_none() || paths::program("dpkg-deb").is_none() {
            return Err(Refusal(
                "packages of Debian are needed, and there is no apt to fetch them".into(),
            )
            .into());
        }
        let archive = Self {
            directory: paths::cache().join("apt"),
        };
        for part in ["lists/partial", "cache/archives/partial"] {
            let part = archive.directory.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        }
        archive.write("status", "")?;
        archive.write("apt.conf", SETTINGS)?;

        let step = Step::begin("asking Debian for its list of packages");
        let mut failure = None;
        for mirror in mirrors()? {
            archive.write(
                "sources.list",
                &sources(&mirror, Path::new(KEYRING).is_file()),
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
            None => Err(Refusal(
                "packages of Debian are needed, and the apt settings name no mirror".into(),
            )
            .into()),
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let file = self.directory.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// A program of apt's that uses only what is in the directory.
    fn command(&self, program: &str) -> Command {
        let inside = |name: &str| self.directory.join(name).display().to_string();
        let mut command = Command::new(program);
        command.arg("-c").arg(self.directory.join("apt.conf"));
        for (name, value) in [
            ("Dir::Etc::sourcelist", inside("sources.list")),
            ("Dir::Etc::sourceparts", "/dev/null".into()),
            ("Dir::Etc::preferences", "/dev/null".into()),
            ("Dir::Etc::preferencesparts", "/dev/null".into()),
            ("Dir::State", inside("")),
            ("Dir::State::lists", inside("lists")),
            ("Dir::State::status", inside("status")),
            ("Dir::Cache", inside("cache")),
            ("APT::Architecture", ARCHITECTURE.into()),
            ("APT::Architectures", ARCHITECTURE.into()),
            ("Acquire::Languages", "none".into()),
            // The user that apt would download as cannot see a home directory.
            ("APT::Sandbox::User", "root".into()),
        ] {
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

    /// Downloads `package` and unpacks what it would install to `into`.
    pub fn unpack(&self, package: &str, into: &Path) -> Result<()> {
        let step = Step::begin(&format!("downloading {package} from Debian"));
        fs::create_dir_all(into)?;
        let downloads = tempfile::tempdir_in(&self.directory)?;
        let mut command = self.command("apt-get");
        command
            .args(["download", package])
            .current_dir(downloads.path());
        process::watch(&mut command, LIMIT, |line| step.detail(line))?;
        let file = fs::read_dir(downloads.path())?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|ending| ending == "deb"))
            .with_context(|| format!("apt downloaded no {package}"))?;
        process::output(
            Command::new("dpkg-deb")
                .arg("--extract")
                .arg(file)
                .arg(into),
        )
        .map(drop)
    }
}

/// The mirrors in the user's settings, Debian's first. Before the user's apt
/// has fetched its lists it does not know which they are.
fn mirrors() -> Result<Vec<String>> {
    let ask = |filters: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .args(["indextargets", "--format", "$(REPO_URI)"])
            .arg("Created-By: Packages")
            .args(filters);
        process::output(&mut command)
    };
    Ok(distinct(&[
        ask(&["Origin: Debian", "Label: Debian"])?,
        ask(&[])?,
    ]))
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

fn sources(mirror: &str, keyring: bool) -> String {
    let keys = if keyring {
        format!("[signed-by={KEYRING}] ")
    } else {
        String::new()
    };
    let lines = SUITES.map(|suite| format!("deb {keys}{mirror} {suite} main\n"));
    lines.concat()
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
        let list = sources("http://mirror.example/debian/", true);
        assert_eq!(list.lines().count(), SUITES.len());
        for (line, suite) in list.lines().zip(SUITES) {
            assert_eq!(
                line,
                format!("deb [signed-by={KEYRING}] http://mirror.example/debian/ {suite} main")
            );
        }
        assert!(!sources("http://mirror.example/debian/", false).contains("signed-by"));
    }

    #[test]
    fn nothing_of_the_users_apt_is_written() {
        let archive = Archive {
            directory: "/cache/apt".into(),
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
    }
}

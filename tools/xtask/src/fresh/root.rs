//! Root directories with a fresh Debian, and commands that run in them.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Release, refuse_unless_root};
use crate::progress::Progress;
use crate::setup::{self, Purpose};
use crate::{debian, paths, process, programs};

/// Goes into the names of what is kept: to be raised when it is made otherwise.
const RECIPE: &str = "1";
/// What is there besides Debian's smallest installation.
const PACKAGES: &str = "ca-certificates,git,gcc,libc6-dev";
/// How long one command may take.
pub(crate) const LIMIT: Duration = Duration::from_hours(3);
/// Certificates that a machine trusts besides those of Debian.
const CERTIFICATES: &str = "usr/local/share/ca-certificates";
/// The ordinary user.
pub(crate) const USER: &str = "tester";

/// Mounts what a system needs, and the pairs of directories in its arguments,
/// where no other process sees it, and goes into it.
const ENTER: &str = r#"
set -e
root=$1 user=$2 place=$3 path=$4
shift 4
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do
    mkdir -p "$root$2"
    mount --bind "$1" "$root$2"
    shift 2
done
shift
exec chroot --userspec="$user" "$root" env PATH="$path" sh -c 'cd "$0" && exec "$@"' "$place" "$@"
"#;

/// Where systems and what they share are kept. There is one system at a time, which one
/// process may use.
pub(crate) fn directory() -> PathBuf {
    paths::cache().join("fresh")
}

/// What of this machine goes into every system.
pub(crate) struct Host {
    /// Where systems and what they share are kept.
    pub(crate) directory: PathBuf,
    /// The clone of the project.
    pub(crate) clone: PathBuf,
    /// Rustup's directory and cargo's, where rustup is here.
    pub(crate) rustup: Option<[PathBuf; 2]>,
}

impl Host {
    /// Finds all that, and clones the project as it was last committed.
    pub(crate) fn find() -> Result<Self> {
        refuse_unless_root()?;
        setup::ensure_for(Purpose::Fresh)?;
        let directory = directory();
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let clone = directory.join("clone");
        remove(&clone)?;
        let mut command = programs::command("git");
        command.args(["clone", "--quiet", "--no-local"]);
        process::output(command.arg(paths::root()).arg(&clone))?;
        let rustup = [paths::rustup_home(), paths::cargo_home()];
        let is_there =
            rustup[0].join("toolchains").is_dir() && rustup[1].join("bin/rustup").is_file();
        Ok(Self {
            directory,
            clone,
            rustup: is_there.then_some(rustup),
        })
    }

    /// A directory that systems share, made if it is not there.
    pub(crate) fn shared(&self, name: &str) -> Result<PathBuf> {
        let directory = self.directory.join(format!("shared-{RECIPE}")).join(name);
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(directory)
    }

    /// Removes a directory that systems shared.
    pub(crate) fn forget(&self, name: &str) -> Result<()> {
        remove(&self.shared(name)?)
    }

    /// A copy of the fresh system of `release`, which is installed if there is
    /// none.
    pub(crate) fn system(&self, release: Release) -> Result<System> {
        let base = self.directory.join(format!("{release}-{RECIPE}"));
        if !base.is_dir() {
            self.install(release, &base)?;
        }
        let root = self.directory.join("system");
        remove(&root)?;
        let step = Progress::begin(&format!("copying {release}"));
        copy(&base, &root)?;
        drop(step);
        Ok(System { root })
    }

    fn install(&self, release: Release, base: &Path) -> Result<()> {
        let step = Progress::begin(&format!("installing {release}"));
        let whole = self.directory.join("new");
        remove(&whole)?;
        let [archive, security] = ["Debian", "Debian-Security"].map(debian::mirror);
        let (archive, security) = (archive?, security?);
        let mut command = programs::command("debootstrap");
        command
            .args([
                "--variant=minbase",
                &format!("--include={PACKAGES}"),
                release.suite,
            ])
            .arg(&whole)
            .arg(&archive);
        process::watch(&mut command, LIMIT, |line| step.detail(line))?;
        let suite = release.suite;
        let sources = format!(
            "deb {archive} {suite} main\ndeb {archive} {suite}-updates main\n\
             deb {archive} {suite}-backports main\ndeb {security} {suite}-security main\n"
        );
        fs::write(whole.join("etc/apt/sources.list"), sources)?;
        fs::write(
            whole.join("etc/apt/apt.conf.d/99host"),
            debian::way_to_the_network()?,
        )?;
        for file in ["etc/resolv.conf", "etc/hosts"] {
            fs::copy(Path::new("/").join(file), whole.join(file))?;
        }
        let certificates = Path::new("/").join(CERTIFICATES);
        if certificates.is_dir() {
            remove(&whole.join(CERTIFICATES))?;
            copy(&certificates, &whole.join(CERTIFICATES))?;
        }
        let system = System { root: whole };
        for command in [
            &["update-ca-certificates"][..],
            &["useradd", "--create-home", "--shell", "/bin/bash", USER],
        ] {
            system.run_as_root(command)?;
        }
        fs::rename(&system.root, base)?;
        step.end(&format!("installed {release}"));
        Ok(())
    }
}

/// A root directory.
pub(crate) struct System {
    pub(crate) root: PathBuf,
}

impl System {
    /// The command `words` as `user`, in the directory `place`. `mounts` are
    /// directories of this machine and where they are there. Of the environment
    /// it sees what leads to the network.
    pub(crate) fn command(
        &self,
        user: &str,
        home: &str,
        place: &str,
        mounts: &[(PathBuf, String)],
        words: &[&str],
    ) -> Command {
        let system = if user == "root" {
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        } else {
            "/usr/local/bin:/usr/bin:/bin"
        };
        let path = format!("{home}/.cargo/bin:{system}");
        // What runs there ends with this program, however that ends.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", "unshare"])
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "sh",
                "-c",
                ENTER,
                "sh",
            ])
            .arg(&self.root)
            .args([user, place, &path]);
        for (from, to) in mounts {
            command.arg(from).arg(to);
        }
        command
            .arg("--")
            .args(words)
            .env_clear()
            .envs(env::vars_os().filter(|(name, _)| name == "PATH" || leads_to_the_network(name)))
            .env("HOME", home)
            .env("LC_ALL", "C.UTF-8");
        command
    }

    /// Does `words` as root, in the root directory.
    pub(crate) fn run_as_root(&self, words: &[&str]) -> Result<String> {
        let mut command = self.command("root", "/root", "/", &[], words);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        process::output(&mut command)
    }

    /// The file of this machine that is `path` there.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // The next one removes what is left.
        let _ = remove(&self.root);
    }
}

/// Whether a variable says how to reach the network.
fn leads_to_the_network(name: &OsString) -> bool {
    let name = name.to_string_lossy().to_lowercase();
    name.ends_with("_proxy")
        || name.starts_with("ssl_cert_")
        || name.starts_with("cargo_http_")
        || name.starts_with("cargo_registries_")
}

/// Copies a directory with all that files have besides their bytes.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut command = Command::new("cp");
    command.args(["--archive", "--reflink=auto", "--no-target-directory"]);
    process::output(command.arg(from).arg(to)).map(drop)
}

pub(crate) fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    Ok(())
}

//! The private folder: packages that are unpacked below the cache directory,
//! and not installed.
//!
//! It serves where an installation would remove or downgrade what is installed,
//! and where there is no right to install. `root` holds the files as packages
//! have them, `bin` a launcher for each program in it. A launcher names the
//! libraries that only `root` has, for its program alone: what the user starts
//! otherwise does not see them.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::status::{field, installed, stanza};
use crate::debian::{self, Archive};
use crate::progress::Progress;
use crate::{paths, programs};

/// What dpkg knows of the system.
const SYSTEM_STATUS: &str = "/var/lib/dpkg/status";
/// Where packages have programs.
const PROGRAMS: [&str; 4] = ["usr/bin", "usr/sbin", "bin", "sbin"];
/// Where packages have libraries.
const LIBRARIES: [&str; 2] = ["usr/lib", "lib"];
/// The C library. The program that loads it belongs to it and is the system's,
/// and so the library has to be.
const C_LIBRARY: &str = "libc6";

/// The folder.
#[derive(Clone, Debug)]
pub struct Private {
    directory: PathBuf,
}

impl Private {
    /// That of the distribution which runs here: with others that share the
    /// cache directory its libraries do not fit.
    #[must_use]
    pub fn here() -> Self {
        let about = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let name = format!("{}-{}", distribution(&about), env::consts::ARCH);
        Self {
            directory: paths::cache().join("tools").join(name),
        }
    }

    /// Whether there is anything in it.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.bin().is_dir()
    }

    /// The launchers.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.directory.join("bin")
    }

    /// Those launchers that go before the system's programs, which do not start.
    #[must_use]
    pub fn instead(&self) -> PathBuf {
        self.directory.join("instead")
    }

    fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// The packages that are unpacked, in the format of dpkg.
    fn status(&self) -> PathBuf {
        self.directory.join("status")
    }

    /// The file that an unpacked package would install as `path`.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<PathBuf> {
        let file = inside(&self.root(), Path::new(path));
        file.exists().then_some(file)
    }

    /// The version of `package`, if it is unpacked.
    #[must_use]
    pub fn version(&self, package: &str) -> Option<String> {
        let status = fs::read_to_string(self.status()).ok()?;
        let mut stanzas = status.split("\n\n");
        stanzas
            .find(|stanza| field(stanza, "Package") == Some(package))
            .and_then(|stanza| field(stanza, "Version"))
            .map(str::to_owned)
    }

    /// Removes everything.
    pub(super) fn clear(&self) -> Result<()> {
        if self.directory.exists() {
            fs::remove_dir_all(&self.directory)
                .with_context(|| format!("cannot remove {}", self.directory.display()))?;
        }
        Ok(())
    }

    /// What the user's apt offers, for this folder.
    pub(super) fn archive(&self) -> Result<Archive> {
        let read = |file: &Path| fs::read_to_string(file).unwrap_or_default();
        let system = installed(&read(Path::new(SYSTEM_STATUS)));
        let status = format!("{system}{}", read(&self.status()));
        Archive::of_system(self.directory.join("apt"), &status)
    }

    /// Downloads `packages` with what they need, and unpacks them.
    pub(super) fn install(&self, archive: &Archive, packages: &[String]) -> Result<()> {
        paths::exclusively(&self.directory, "another setup", || {
            let files = archive.download(packages)?;
            let step = Progress::begin(&format!("unpacking {}", packages.join(", ")));
            let mut status = fs::read_to_string(self.status()).unwrap_or_default();
            for file in &files {
                let stanza = stanza(file)?;
                if field(&stanza, "Package") == Some(C_LIBRARY) {
                    bail!("they need a newer {C_LIBRARY} than the one that is installed");
                }
                debian::extract(file, &self.root())?;
                status += &stanza;
            }
            redirect(&self.root(), &self.root())?;
            self.write_launchers()?;
            fs::write(self.status(), status)
                .with_context(|| format!("cannot write {}", self.status().display()))?;
            fs::remove_dir_all(self.directory.join("apt"))?;
            step.end(&format!(
                "unpacked {} into {}",
                packages.join(", "),
                self.directory.display()
            ));
            Ok(())
        })
    }

    /// Puts the launcher of `program` before the system's.
    pub(super) fn prefer(&self, program: &str) -> Result<()> {
        fs::create_dir_all(self.instead())?;
        let file = self.instead().join(program);
        let _ = fs::remove_file(&file);
        symlink(self.bin().join(program), &file)
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// Writes a launcher for each program.
    fn write_launchers(&self) -> Result<()> {
        let libraries = library_directories(&self.root());
        fs::create_dir_all(self.bin())?;
        for place in PROGRAMS {
            let Ok(programs) = fs::read_dir(self.root().join(place)) else {
                continue;
            };
            for program in programs.flatten().map(|entry| entry.path()) {
                let Some(name) = program.file_name().filter(|_| program.is_file()) else {
                    continue;
                };
                let text = self.launcher(&program, &name.to_string_lossy(), &libraries);
                let file = self.bin().join(name);
                fs::write(&file, text)
                    .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o755)))
                    .with_context(|| format!("cannot write {}", file.display()))?;
            }
        }
        Ok(())
    }

    /// A script that starts `program`. Programs that look for their files where
    /// they were built for are given the place.
    fn launcher(&self, program: &Path, name: &str, libraries: &[PathBuf]) -> String {
        let mut lines = vec![
            "#!/bin/sh".to_owned(),
            "# Written by `cargo xtask setup`.".to_owned(),
        ];
        let mut export = |name: &str, value: &str| {
            lines.push(format!("{name}={value}"));
            lines.push(format!("export {name}"));
        };
        if !libraries.is_empty() {
            let libraries: Vec<_> = libraries.iter().map(|path| quoted(path)).collect();
            let value = format!(
                "{}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}",
                libraries.join(":")
            );
            export("LD_LIBRARY_PATH", &value);
        }
        let data = self.root().join("usr/share/bison");
        if name == "bison" && data.is_dir() {
            export("BISON_PKGDATADIR", &quoted(&data));
        }
        let mut modules = libraries.iter().map(|path| path.join("qemu"));
        if name.starts_with("qemu-system-")
            && let Some(modules) = modules.find(|path| path.is_dir())
        {
            export("QEMU_MODULE_DIR", &quoted(&modules));
        }
        if ["bison", "flex"].contains(&name) && programs::find_in_system("m4").is_none() {
            export("M4", &quoted(&self.bin().join("m4")));
        }
        let names = self.root().join("usr/share/misc/pci.ids");
        if name == "lspci" && names.is_file() {
            // It says its version only where it is asked for nothing else.
            lines.push(format!(
                "[ \"$*\" = --version ] || set -- -i {} \"$@\"",
                quoted(&names)
            ));
        }
        lines.push(format!("exec {} \"$@\"\n", quoted(program)));
        lines.join("\n")
    }
}

/// `path` as a word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

/// The absolute `path` below `root`.
fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// What the distribution is called, from its `os-release`.
fn distribution(about: &str) -> String {
    let value = |name: &str| {
        let mut lines = about.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.trim_matches(['"', '\'']))
    };
    let version = value("VERSION_ID").or_else(|| value("VERSION_CODENAME"));
    let name = [value("ID"), version].map(|part| part.unwrap_or("unknown"));
    name.join("-").replace('/', "_")
}

/// The directories below `root` that hold shared libraries, two levels deep.
fn library_directories(root: &Path) -> Vec<PathBuf> {
    fn walk(directory: &Path, depth: u32, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(directory) else {
            return;
        };
        let mut below = Vec::new();
        let mut holds = false;
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && !path.is_symlink() {
                below.push(path);
            } else {
                holds |= name.starts_with("lib") && name.contains(".so");
            }
        }
        if holds {
            found.push(directory.into());
        }
        below.sort();
        for path in below.iter().filter(|_| depth > 0) {
            walk(path, depth - 1, found);
        }
    }
    let mut found = Vec::new();
    for place in LIBRARIES {
        walk(&root.join(place), 2, &mut found);
    }
    found
}

/// Makes what has an absolute path in it, links and scripts for linkers, refer
/// to the files below `root`, where they are there.
fn redirect(root: &Path, directory: &Path) -> Result<()> {
    for path in fs::read_dir(directory)?.flatten().map(|entry| entry.path()) {
        if let Ok(target) = fs::read_link(&path) {
            let private = inside(root, &target);
            if target.is_absolute() && !target.starts_with(root) && private.exists() {
                fs::remove_file(&path)?;
                symlink(private, &path)?;
            }
        } else if path.is_dir() {
            redirect(root, &path)?;
        } else if may_be_linker_script(&path)
            && let Ok(text) = fs::read_to_string(&path)
        {
            let redirected = redirected(&text, root);
            if redirected != text {
                fs::write(&path, redirected)?;
            }
        }
    }
    Ok(())
}

/// A small file with the name of a library.
fn may_be_linker_script(path: &Path) -> bool {
    let ends = |end: &str| path.extension() == Some(OsStr::new(end));
    (ends("so") || ends("a")) && path.metadata().is_ok_and(|file| file.len() < 4096)
}

/// A script for linkers with the files that are below `root` there.
fn redirected(script: &str, root: &Path) -> String {
    let words = script.split_inclusive(char::is_whitespace).map(|word| {
        let name = Path::new(word.trim_end());
        let private = inside(root, name);
        if name.is_absolute() && !name.starts_with(root) && private.is_file() {
            word.replace(word.trim_end(), &private.to_string_lossy())
        } else {
            word.to_owned()
        }
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process;
    use std::process::Command;

    #[test]
    fn the_folder_is_named_after_the_distribution() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\nVERSION_ID=\"12\"\n";
        assert_eq!(distribution(debian), "debian-12");
        assert_eq!(
            distribution("VERSION_CODENAME=forky\nID=debian"),
            "debian-forky"
        );
        assert_eq!(distribution(""), "unknown-unknown");
    }

    /// A folder with one program, one library and links as packages have them.
    fn folder() -> (tempfile::TempDir, Private) {
        let directory = tempfile::tempdir().unwrap();
        let private = Private {
            directory: directory.path().join("it's"),
        };
        let root = private.root();
        for place in ["usr/bin", "usr/lib/x86_64-linux-gnu/own"] {
            fs::create_dir_all(root.join(place)).unwrap();
        }
        let program = root.join("usr/bin/show");
        fs::write(&program, "#!/bin/sh\necho \"$LD_LIBRARY_PATH|$*\"\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(root.join("usr/lib/x86_64-linux-gnu/own/libx.so.1"), "").unwrap();
        (directory, private)
    }

    #[test]
    fn a_launcher_names_the_libraries_for_its_program_alone() {
        let (_directory, private) = folder();
        private.write_launchers().unwrap();
        let libraries = private.root().join("usr/lib/x86_64-linux-gnu/own");
        let mut command = Command::new(private.bin().join("show"));
        command.args(["a b", "c"]).env_remove("LD_LIBRARY_PATH");
        let expected = format!("{}|a b c\n", libraries.display());
        assert_eq!(process::output(&mut command).unwrap(), expected);
        let expected = format!("{}:/x|a b c\n", libraries.display());
        command.env("LD_LIBRARY_PATH", "/x");
        assert_eq!(process::output(&mut command).unwrap(), expected);
    }

    #[test]
    fn absolute_paths_lead_to_what_is_unpacked_and_else_to_the_system() {
        let (_directory, private) = folder();
        let root = private.root();
        let place = |name: &str| root.join("usr/bin").join(name);
        symlink("/usr/bin/show", place("here")).unwrap();
        symlink("/bin/sh", place("there")).unwrap();
        let library = "/usr/lib/x86_64-linux-gnu/own/libx.so.1";
        let script = root.join("usr/lib/libx.so");
        fs::write(&script, format!("GROUP ( {library} /lib/other.so )\n")).unwrap();
        for _ in 0..2 {
            redirect(&root, &root).unwrap();
            assert_eq!(fs::read_link(place("here")).unwrap(), place("show"));
            assert_eq!(fs::read_link(place("there")).unwrap(), Path::new("/bin/sh"));
            assert_eq!(
                fs::read_to_string(&script).unwrap(),
                format!("GROUP ( {}{library} /lib/other.so )\n", root.display())
            );
        }
    }
}

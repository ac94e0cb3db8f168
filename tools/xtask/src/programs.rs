//! The one place that knows where programs of others are: those of the system,
//! and those that were unpacked into the private folder (`setup::private`).

use std::env;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process;
use crate::setup::Private;

/// The program called `name`: the system's, else a private one. A private one
/// goes first only where the system's does not start.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    find_in(&search_path(), name)
}

/// The same among the programs of the system alone.
#[must_use]
pub fn find_in_system(name: &str) -> Option<PathBuf> {
    find_in(&env::var_os("PATH")?, name)
}

/// The program called `name`, if it starts and says its version.
#[must_use]
pub fn working(name: &str) -> Option<PathBuf> {
    let program = find(name)?;
    works(&program).then_some(program)
}

/// Whether `program` starts and says its version.
#[must_use]
pub fn works(program: &Path) -> bool {
    process::succeeds(Command::new(program).arg("--version"))
}

/// The command for the program called `name`. It and its children find what
/// [`find`] finds.
#[must_use]
pub fn command(name: &str) -> Command {
    let path = search_path();
    let mut command = Command::new(find_in(&path, name).unwrap_or_else(|| name.into()));
    command.env("PATH", path);
    command
}

/// The value of `PATH` for children.
#[must_use]
pub fn search_path() -> OsString {
    let private = Private::here();
    let system = env::var_os("PATH").unwrap_or_default();
    if !private.exists() {
        return system;
    }
    let all = [private.instead()].into_iter();
    let all = all.chain(env::split_paths(&system)).chain([private.bin()]);
    // A colon in the name of the cache directory leaves the system's alone.
    env::join_paths(all).unwrap_or(system)
}

fn find_in(path: &OsString, name: &str) -> Option<PathBuf> {
    env::split_paths(path)
        .map(|directory| directory.join(name))
        .find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_cannot_be_run_is_no_program() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second] = ["a", "b"].map(|name| directory.path().join(name));
        for (place, mode) in [(&first, 0o644), (&second, 0o755)] {
            fs::create_dir(place).unwrap();
            fs::write(place.join("x"), "#!/bin/sh\n").unwrap();
            fs::set_permissions(place.join("x"), fs::Permissions::from_mode(mode)).unwrap();
        }
        let path = env::join_paths([&first, &second]).unwrap();
        assert_eq!(find_in(&path, "x"), Some(second.join("x")));
        assert_eq!(find_in(&path, "y"), None);
    }

    #[test]
    fn a_program_that_fails_does_not_work() {
        let directory = tempfile::tempdir().unwrap();
        for (text, expected) in [("exit 0", true), ("exit 127", false)] {
            let file = directory.path().join("x");
            fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
            assert_eq!(works(&file), expected);
        }
    }
}

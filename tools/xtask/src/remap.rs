//! The same image from any folder and any home directory: the compiler puts
//! names of source files into panic messages and debug information, and these
//! prefixes of them are replaced.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::paths;

/// Replaces the part of a path that differs from machine to machine by a name
/// that does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// What the path starts with here.
    pub from: PathBuf,
    /// What it starts with in the image.
    pub to: String,
}

/// The prefixes of a compiler with this `sysroot` and with the source of its
/// core library in `source`, a name of its version being `version`. The last one
/// that a path starts with counts.
#[must_use]
pub fn prefixes(sysroot: &Path, source: Option<&Path>, version: &str) -> Vec<Prefix> {
    let library = format!("/rustc/{version}");
    let mut prefixes = vec![(paths::cargo_home(), "/cargo".into())];
    // The directory of a registry is named after where it was downloaded from.
    let registries = fs::read_dir(paths::cargo_home().join("registry/src"));
    let registries = registries.into_iter().flatten().flatten();
    prefixes.extend(registries.map(|directory| (directory.path(), "/cargo".into())));
    prefixes.extend([
        (paths::root(), "/warmbus".into()),
        (paths::target(), "/warmbus/target".into()),
        // The compiler has this name for its core library where the source is
        // not installed.
        (sysroot.join("lib/rustlib/src/rust"), library.clone()),
    ]);
    // The directory is the one below which `library` is.
    if let Some(parent) = source.and_then(Path::parent) {
        prefixes.push((parent.to_path_buf(), library));
    }
    prefixes
        .into_iter()
        .flat_map(|(from, to)| {
            // Cargo names some paths as they are given, and some as they are.
            let real = from.canonicalize().ok().filter(|real| *real != from);
            let to_of = to.clone();
            let real = real.map(|from| Prefix { from, to: to_of });
            [Some(Prefix { from, to }), real]
        })
        .flatten()
        .collect()
}

/// Has the cargo `command` pass `flags` and `prefixes` to the compiler for `target`,
/// with the flags that are configured already.
pub fn configure(command: &mut Command, target: &str, flags: &[&str], prefixes: &[Prefix]) {
    // These would replace the flags of the configuration.
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        command.env_remove(variable);
    }
    command.args(["--config", &config(target, flags, prefixes)]);
}

/// The argument of `--config` that has cargo pass `flags` and `prefixes` to the
/// compiler for `target`, with the flags that are configured already.
#[must_use]
pub fn config(target: &str, flags: &[&str], prefixes: &[Prefix]) -> String {
    let prefixes = prefixes.iter().map(|prefix| {
        format!(
            "--remap-path-prefix={}={}",
            prefix.from.display(),
            prefix.to
        )
    });
    let flags: Vec<String> = flags
        .iter()
        .map(ToString::to_string)
        .chain(prefixes)
        .collect();
    // Strings of Rust that have no line ends are strings of TOML.
    format!("target.{target}.rustflags={flags:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_prefix_comes_last() {
        let library = Path::new("/usr/src/rustc-1.90/library");
        let prefixes = prefixes(Path::new("/opt/rust"), Some(library), "abc");
        let renamed = |path: &str| {
            let matching = prefixes.iter().rev().find_map(|prefix| {
                let rest = Path::new(path).strip_prefix(&prefix.from).ok()?;
                Some(Path::new(&prefix.to).join(rest))
            });
            matching.map(|path| path.display().to_string())
        };
        for (path, expected) in [
            (
                "/opt/rust/lib/rustlib/src/rust/library/core/src/fmt/mod.rs",
                "/rustc/abc/library/core/src/fmt/mod.rs",
            ),
            (
                "/usr/src/rustc-1.90/library/alloc/src/vec/mod.rs",
                "/rustc/abc/library/alloc/src/vec/mod.rs",
            ),
            (
                &*format!("{}/src/main.rs", paths::root().display()),
                "/warmbus/src/main.rs",
            ),
            (
                &format!("{}/x/out/boards.rs", paths::target().display()),
                "/warmbus/target/x/out/boards.rs",
            ),
            (
                &format!("{}/git/checkouts/a/b.rs", paths::cargo_home().display()),
                "/cargo/git/checkouts/a/b.rs",
            ),
        ] {
            assert_eq!(renamed(path).as_deref(), Some(expected), "{path}");
        }
    }

    #[test]
    fn packages_are_named_without_their_registry() {
        let registries = fs::read_dir(paths::cargo_home().join("registry/src"));
        // This program is built from some.
        let registry = registries.unwrap().flatten().next().unwrap().path();
        let prefixes = prefixes(Path::new("/opt/rust"), None, "abc");
        let prefix = prefixes
            .iter()
            .rfind(|prefix| registry.starts_with(&prefix.from));
        let prefix = prefix.unwrap();
        assert_eq!((&prefix.from, &*prefix.to), (&registry, "/cargo"));
    }

    #[test]
    fn a_prefix_with_quotes_and_spaces_stays_one_flag() {
        let prefix = Prefix {
            from: "/home/a \"b\"/c".into(),
            to: "/warmbus".into(),
        };
        assert_eq!(
            config("some-target", &["-Ca=b"], &[prefix]),
            r#"target.some-target.rustflags=["-Ca=b", "--remap-path-prefix=/home/a \"b\"/c=/warmbus"]"#
        );
    }
}

//! Where things are.

use std::env;
use std::path::{Path, PathBuf};

/// The root of the work tree.
#[must_use]
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap_or(package).to_path_buf()
}

/// Cargo's target directory.
#[must_use]
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The directory of finished images, `target/warmbus`.
#[must_use]
pub fn images() -> PathBuf {
    target().join("warmbus")
}

/// What outlives a work tree: `$XDG_CACHE_HOME/warmbus`, else
/// `~/.cache/warmbus`, else a directory for temporary files.
#[must_use]
pub fn cache() -> PathBuf {
    env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute())
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))
        .unwrap_or_else(env::temp_dir)
        .join("warmbus")
}

/// The first file called `name` in the directories of `PATH`.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

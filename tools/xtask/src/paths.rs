//! Where things are.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fd_lock::RwLock;

use crate::progress::Progress;

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

/// Cargo's home: `$CARGO_HOME`, else `~/.cargo`.
#[must_use]
pub fn cargo_home() -> PathBuf {
    home_of("CARGO_HOME", ".cargo")
}

/// Rustup's home: `$RUSTUP_HOME`, else `~/.rustup`.
#[must_use]
pub fn rustup_home() -> PathBuf {
    home_of("RUSTUP_HOME", ".rustup")
}

/// The directory that `variable` names, else `name` in the user's home.
fn home_of(variable: &str, name: &str) -> PathBuf {
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(name);
    env::var_os(variable).map_or_else(home, |dir| root().join(dir))
}

/// Does `work` while no other process does it in `directory`, which is made.
/// Says that it waits for `what` where it has to.
pub fn exclusively<T>(directory: &Path, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let file = directory.join("lock");
    let opened = File::create(&file);
    let opened = opened.with_context(|| format!("cannot write {}", file.display()))?;
    let mut lock = RwLock::new(opened);
    let waits = lock.try_write().is_err();
    let step = waits.then(|| Progress::begin(&format!("waiting for {what}")));
    let _guard = lock
        .write()
        .with_context(|| format!("cannot lock {}", file.display()))?;
    drop(step);
    work()
}

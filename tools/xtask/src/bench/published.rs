//! The files in `bench/results` that a run of its own replaces.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::DIRECTORY;
use crate::paths;

fn file(name: &str) -> PathBuf {
    paths::root().join(DIRECTORY).join(name)
}

/// What the file `name` has.
pub(super) fn load<T: DeserializeOwned>(name: &str) -> Result<T> {
    let file = file(name);
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is damaged", file.display()))
}

/// Replaces the file `name`. Returns its path.
pub(super) fn replace(name: &str, value: &impl Serialize) -> Result<PathBuf> {
    let file = file(name);
    let text = serde_json::to_string_pretty(value)? + "\n";
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

//! What an installation changes, step by step, so that it can be shown before it
//! is done, and undone.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::variables::{Variables, order_bytes};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Creates a folder of the partition, with backslashes.
    CreateFolder(String),
    /// Writes a file there.
    WriteFile(String, Vec<u8>),
    /// Creates a variable.
    SetVariable(String, Vec<u8>),
    /// Changes the order of `Boot` or `Driver` entries.
    SetOrder(&'static str, Vec<u16>),
    /// Deletes a file of the partition.
    DeleteFile(String),
    /// Deletes a folder of the partition, if it is empty.
    DeleteFolder(String),
    /// Deletes a variable.
    DeleteVariable(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateFolder(path) => write!(f, "create the folder {path}"),
            Self::WriteFile(path, bytes) => write!(f, "write {path}, {} bytes", bytes.len()),
            Self::SetVariable(name, value) => {
                write!(f, "set the variable {name}, {} bytes", value.len())
            }
            Self::SetOrder(kind, numbers) => {
                write!(f, "set {kind}Order to")?;
                numbers
                    .iter()
                    .try_for_each(|number| write!(f, " {number:04X}"))
            }
            Self::DeleteFile(path) => write!(f, "delete {path}"),
            Self::DeleteFolder(path) => write!(f, "delete the folder {path} if it is empty"),
            Self::DeleteVariable(name) => write!(f, "delete the variable {name}"),
        }
    }
}

/// Where the loader finds its files, and the variables where they are needed.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) root: PathBuf,
    /// The list of what was made.
    pub(super) list: &'static str,
    pub(super) variables: Option<Variables>,
}

impl Target {
    /// The file of the partition that is at `path`, with backslashes. Names are
    /// compared without case, as FAT does.
    pub(super) fn file(&self, path: &str) -> PathBuf {
        let mut found = self.root.clone();
        for part in path.split('\\').filter(|part| !part.is_empty()) {
            let is_it = |name: &std::ffi::OsStr| name.to_string_lossy().eq_ignore_ascii_case(part);
            let entries = fs::read_dir(&found).into_iter().flatten().flatten();
            let mut names = entries.map(|entry| entry.file_name());
            let name = names.find(|name| is_it(name));
            found.push(name.unwrap_or_else(|| part.into()));
        }
        found
    }

    /// Whether the partition has the file.
    pub(super) fn has(&self, path: &str) -> bool {
        self.file(path).exists()
    }

    /// The file with the list of what was made.
    pub(super) fn list(&self) -> PathBuf {
        self.file(self.list)
    }

    /// # Errors
    ///
    /// If Warmbus is installed there.
    pub(super) fn is_free(&self) -> Result<()> {
        ensure!(
            !self.has(self.list),
            "Warmbus is installed already: {} exists",
            self.list().display()
        );
        Ok(())
    }

    /// # Errors
    ///
    /// If there is a file at `path`, with backslashes.
    pub(super) fn lacks(&self, path: &str) -> Result<()> {
        ensure!(
            !self.has(path),
            "{} exists, and this command has not made it",
            self.file(path).display()
        );
        Ok(())
    }

    /// Takes a step.
    ///
    /// # Errors
    ///
    /// If it cannot be taken.
    pub(super) fn take(&self, step: &Step) -> Result<()> {
        let variables = || {
            self.variables
                .as_ref()
                .context("no variables of UEFI are known")
        };
        let failed = |path: &Path| format!("cannot change {}", path.display());
        match step {
            Step::CreateFolder(path) => {
                let path = self.file(path);
                fs::create_dir(&path).with_context(|| failed(&path))
            }
            Step::WriteFile(path, bytes) => {
                let path = self.file(path);
                fs::write(&path, bytes).with_context(|| failed(&path))
            }
            Step::SetVariable(name, value) => variables()?.set(name, value),
            Step::SetOrder(kind, numbers) => {
                let name = format!("{kind}Order");
                match numbers[..] {
                    // A variable without a value does not exist.
                    [] => variables()?.delete(&name),
                    _ => variables()?.set(&name, &order_bytes(numbers)),
                }
            }
            Step::DeleteFile(path) => {
                let path = self.file(path);
                fs::remove_file(&path).with_context(|| failed(&path))
            }
            Step::DeleteFolder(path) => {
                // Where something else is in it, it stays.
                let _ = fs::remove_dir(self.file(path));
                Ok(())
            }
            Step::DeleteVariable(name) => variables()?.delete(name),
        }
    }
}

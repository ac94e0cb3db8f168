//! What an installation made, kept on the partition, so that nothing else is
//! removed.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::hex_digits;

/// Value of the key `schema`.
pub(super) const SCHEMA: &str = "warmbus-installed/1";
/// Where it is on an EFI system partition.
pub(super) const PATH: &str = r"\EFI\warmbus\installed.json";

/// What was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// [`SCHEMA`].
    pub(super) schema: String,
    /// The way, as on the command line.
    pub(super) way: String,
    /// The version of this command.
    pub(super) version: String,
    /// Folders, each after the one that it is in.
    pub(super) folders: Vec<String>,
    /// Files.
    pub(super) files: Vec<Made>,
    /// Variables.
    pub(super) variables: Vec<Made>,
}

/// A file or a variable with its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    /// Its path, with backslashes, or its name.
    pub(super) name: String,
    /// SHA-256 of its bytes, in hexadecimal.
    pub(super) sha256: String,
}

impl Made {
    pub(super) fn new(name: &str, bytes: &[u8]) -> Self {
        Self {
            name: name.to_owned(),
            sha256: digest(bytes),
        }
    }

    /// Whether `bytes` are still those that were written.
    pub(super) fn is(&self, bytes: &[u8]) -> bool {
        self.sha256 == digest(bytes)
    }
}

fn digest(bytes: &[u8]) -> String {
    hex_digits(&Sha256::digest(bytes))
}

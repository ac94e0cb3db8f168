//! Variables of UEFI in efivarfs: one file each, with four bytes of attributes
//! before the value (Linux, Documentation/filesystems/efivarfs.rst).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// `EFI_GLOBAL_VARIABLE` (UEFI 2.10, 3.3).
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Non-volatile, boot services, run time (UEFI 2.10, 8.2).
const ATTRIBUTES: [u8; 4] = [7, 0, 0, 0];

/// The folder with the variables.
#[derive(Clone, Debug)]
pub(super) struct Variables(PathBuf);

impl Variables {
    /// Those in `folder`.
    ///
    /// # Errors
    ///
    /// If there is no such folder.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        ensure!(
            folder.is_dir(),
            "there is no {}: the machine was not started by UEFI, or efivarfs is not mounted",
            folder.display()
        );
        Ok(Self(folder.to_path_buf()))
    }

    /// The file of the global variable `name`.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}-{GLOBAL}"))
    }

    /// Its value; `None` where it does not exist.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or has no attributes.
    pub(super) fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path(name);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        ensure!(
            bytes.len() >= ATTRIBUTES.len(),
            "{} has {} bytes and no attributes",
            path.display(),
            bytes.len()
        );
        Ok(Some(bytes[ATTRIBUTES.len()..].to_vec()))
    }

    /// Sets its value with one write, as efivarfs needs it.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(super) fn set(&self, name: &str, value: &[u8]) -> Result<()> {
        let path = self.path(name);
        let bytes = [&ATTRIBUTES[..], value].concat();
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Deletes it.
    ///
    /// # Errors
    ///
    /// If it cannot be deleted.
    pub(super) fn delete(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        fs::remove_file(&path).with_context(|| format!("cannot delete {}", path.display()))
    }

    /// The numbers in `BootOrder` or `DriverOrder`; none where it does not exist.
    ///
    /// # Errors
    ///
    /// If it has an odd number of bytes.
    pub(super) fn order(&self, kind: &str) -> Result<Vec<u16>> {
        let name = format!("{kind}Order");
        let value = self.get(&name)?.unwrap_or_default();
        ensure!(
            value.len().is_multiple_of(2),
            "{name} has {} bytes, which are no 16-bit numbers",
            value.len()
        );
        let numbers = value.chunks_exact(2);
        Ok(numbers
            .map(|number| u16::from_le_bytes([number[0], number[1]]))
            .collect())
    }

    /// The first number for which there is no variable `Boot####` or
    /// `Driver####`.
    ///
    /// # Errors
    ///
    /// If all are in use.
    pub(super) fn free(&self, kind: &str) -> Result<u16> {
        let is_free = |number: &u16| !self.path(&entry(kind, *number)).exists();
        (0..=u16::MAX)
            .find(is_free)
            .with_context(|| format!("there is no number for another {kind} entry"))
    }
}

/// The name of an entry.
pub(super) fn entry(kind: &str, number: u16) -> String {
    format!("{kind}{number:04X}")
}

/// The bytes of an order.
pub(super) fn order_bytes(numbers: &[u16]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect()
}

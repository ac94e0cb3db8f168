//! Secure Boot: the test keys of the package with EDK2, which are enrolled in a
//! flash of it, and what is signed with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::build::{UEFI_APPLICATION, UEFI_DRIVER};
use crate::{UsageError, process, setup};

/// The password of the key, which the package documents.
const PASSWORD: &str = "pass:snakeoil";

/// What of the programs on the volume is signed, where UEFI verifies them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// All of them.
    All,
    /// All but Warmbus.
    AllButWarmbus,
    /// All, and a byte of Warmbus was changed afterwards.
    AllAndWarmbusAltered,
}

/// What it takes to sign.
pub(super) struct Signer {
    /// The flash with the variables, of which one has the certificate.
    pub(super) flash: PathBuf,
    key: PathBuf,
    certificate: PathBuf,
    sbsign: PathBuf,
}

impl Signer {
    /// Finds it, or gets it from Debian.
    pub(super) fn find() -> Result<Self> {
        let missing = || {
            UsageError(
                "EDK2's flash with test keys is missing (package qemu-efi-aarch64 of Debian 12 or later)"
                    .into(),
            )
        };
        let [flash, key, certificate] = setup::edk2_test_keys().ok_or_else(missing)?;
        Ok(Self {
            flash,
            key,
            certificate,
            sbsign: setup::private_program("sbsign", "sbsigntool")?,
        })
    }

    /// Signs the programs on `volume`, where `image` is Warmbus. `directory`
    /// is for what it takes meanwhile.
    pub(super) fn sign(
        &self,
        volume: &Path,
        directory: &Path,
        image: &Path,
        what: Signed,
    ) -> Result<()> {
        let own = [UEFI_APPLICATION, UEFI_DRIVER].map(|name| fs::read(image.with_file_name(name)));
        let own = own.into_iter().flatten().collect::<Vec<_>>();
        let key = directory.join("key.pem");
        let mut command = Command::new("openssl");
        command.args(["rsa", "-passin", PASSWORD]);
        process::output(command.arg("-in").arg(&self.key).arg("-out").arg(&key))
            .context("the key cannot be decrypted")?;
        for program in programs(volume)? {
            let is_own = own.contains(&fs::read(&program)?);
            if is_own && what == Signed::AllButWarmbus {
                continue;
            }
            let mut command = Command::new(&self.sbsign);
            command.arg("--key").arg(&key);
            command.arg("--cert").arg(&self.certificate);
            command.arg("--output").arg(&program).arg(&program);
            process::output(&mut command)
                .with_context(|| format!("{} cannot be signed", program.display()))?;
            if is_own && what == Signed::AllAndWarmbusAltered {
                let mut bytes = fs::read(&program)?;
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(&program, bytes)?;
            }
        }
        Ok(())
    }
}

/// Makes sure that a machine with Secure Boot can be made here.
pub fn ensure_secure_boot() -> Result<()> {
    Signer::find().map(drop)
}

/// The programs of UEFI below `directory`.
fn programs(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in fs::read_dir(directory)?.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            found.extend(programs(&path)?);
        } else if path
            .extension()
            .is_some_and(|end| end.eq_ignore_ascii_case("efi"))
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

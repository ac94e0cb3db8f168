//! Secure Boot: the test keys of the package with EDK2, which are enrolled in a
//! flash of it, and what is signed with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::uefi::{GRUB, KERNEL};
use super::variables::{self, Variable};
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
    /// Warmbus and the kernel with a machine owner key, which only shim knows.
    ByOwner,
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
        let of_owner = owner(directory);
        for program in programs(volume)? {
            let is_own = own.contains(&fs::read(&program)?);
            let (key, certificate) = match what {
                Signed::AllButWarmbus if is_own => continue,
                // As Debian has signed it.
                Signed::ByOwner if program.ends_with(GRUB) => continue,
                Signed::ByOwner if is_own || program.ends_with(KERNEL) => {
                    (&of_owner[0], &of_owner[1])
                }
                _ => (&key, &self.certificate),
            };
            let mut command = Command::new(&self.sbsign);
            command.arg("--key").arg(key);
            command.arg("--cert").arg(certificate);
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

/// Makes a key and a certificate in `directory`, and has shim find the latter in the
/// list of machine owner keys in `flash`, as after `mokutil --import`.
pub(super) fn enroll_owner(directory: &Path, flash: &Path) -> Result<()> {
    /// `EFI_CERT_X509_GUID` (UEFI 2.10, 32.4.1).
    const X509: u128 = 0xa159_c0a5_e494_a74a_87b5_ab15_5c2b_f072;
    /// That of shim.
    const SHIM: [u8; 16] = 0x50ab_5d60_46e0_0043_abb6_3dd8_10dd_8b23_u128.to_be_bytes();
    const LIST_HEADER: usize = 28;

    let [key, certificate] = owner(directory);
    let mut command = Command::new("openssl");
    command.args(["req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes"]);
    command.args(["-days", "3650", "-subj", "/CN=the owner of this machine"]);
    process::output(
        command
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate),
    )
    .context("no key can be made")?;
    let der = directory.join("owner.der");
    let mut command = Command::new("openssl");
    command.args(["x509", "-outform", "der"]);
    process::output(command.arg("-in").arg(&certificate).arg("-out").arg(&der))
        .context("the certificate cannot be converted")?;
    let der = fs::read(&der)?;
    // EFI_SIGNATURE_LIST with one EFI_SIGNATURE_DATA.
    let mut list = Vec::from(X509.to_be_bytes());
    let entry = SHIM.len() + der.len();
    for number in [LIST_HEADER + entry, 0, entry] {
        list.extend(u32::try_from(number)?.to_le_bytes());
    }
    list.extend(SHIM);
    list.extend(der);
    let variable = Variable {
        vendor: SHIM,
        name: "MokList",
        data: &list,
    };
    variables::add(flash, &variable)
}

/// The key of the owner and its certificate, files in `directory`.
fn owner(directory: &Path) -> [PathBuf; 2] {
    ["owner.key", "owner.crt"].map(|name| directory.join(name))
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

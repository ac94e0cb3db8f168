//! What UEFI starts from: its flash and a volume.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Payload;
use crate::{UsageError, setup};

/// The default path of a program on a removable volume (UEFI 3.5.1.1).
const PROGRAM: &str = "EFI/BOOT/BOOTAA64.EFI";

/// The program, the kernel and what belongs to it, as files below `volume`,
/// which is created: the content of an EFI system partition. The options have
/// `parameters` and, where there is a kernel, have it started by its EFI stub,
/// with the command line of the payload and `parameters`.
fn write_volume(
    volume: &Path,
    image: &Path,
    payload: Option<&Payload>,
    parameters: &str,
) -> Result<()> {
    let copy = |from: &Path, name: &str| {
        let to = volume.join(name);
        let made = to.parent().map_or(Ok(()), fs::create_dir_all);
        let copied = made.and_then(|()| fs::copy(from, &to));
        copied.with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
    };
    copy(image, PROGRAM)?;
    let mut options = vec![parameters];
    if let Some(payload) = payload {
        copy(&payload.kernel, "warmbus/Image")?;
        options.push("next=\\warmbus\\Image --");
        if let Some(initrd) = &payload.initrd {
            copy(initrd, "warmbus/initrd")?;
            options.push("initrd=\\warmbus\\initrd");
        }
        // However silent Linux is, its EFI stub prints the line that the start
        // of Linux is seen by.
        options.extend([payload.bootargs.as_str(), "efi=debug", parameters]);
    }
    let file = volume.join("warmbus/options.txt");
    fs::create_dir_all(volume.join("warmbus"))
        .and_then(|()| fs::write(&file, options.join(" ") + "\n"))
        .with_context(|| format!("cannot write {}", file.display()))
}

fn volume(directory: &Path) -> PathBuf {
    directory.join("volume")
}

fn variables(directory: &Path) -> PathBuf {
    directory.join("variables.fd")
}

/// Makes the directory with the volume and a flash that remembers nothing.
pub(super) fn prepare(
    directory: &Path,
    image: &Path,
    payload: Option<&Payload>,
    parameters: &str,
) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let missing = || UsageError("EDK2 for QEMU is missing (package qemu-efi-aarch64)".into());
    let [_, empty] = setup::edk2_flash().ok_or_else(missing)?;
    let file = variables(directory);
    fs::copy(&empty, &file).with_context(|| format!("cannot write {}", file.display()))?;
    write_volume(&volume(directory), image, payload, parameters)
}

/// The arguments for QEMU. The volume is on a disk that is not on PCI, so that
/// the topology is what it is without UEFI.
pub(super) fn arguments(directory: &Path) -> Vec<String> {
    let code = setup::edk2_flash()
        .map(|[code, _]| code)
        .unwrap_or_default();
    let flash = |unit, options, file: &Path| {
        format!(
            "if=pflash,format=raw,unit={unit}{options},file={}",
            file.display()
        )
    };
    vec![
        "-drive".into(),
        flash(0, ",readonly=on", &code),
        "-drive".into(),
        flash(1, "", &variables(directory)),
        "-drive".into(),
        format!(
            "if=none,id=volume,format=raw,readonly=on,file=fat:{}",
            volume(directory).display()
        ),
        "-device".into(),
        "virtio-blk-device,drive=volume,bootindex=0".into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_has_the_program_the_kernel_and_the_options() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let file = directory.path().join(name);
            fs::write(&file, name).unwrap();
            file
        };
        let payload = Payload {
            kernel: file("k"),
            initrd: Some(file("i")),
            bootargs: "a b".into(),
        };
        let volume = directory.path().join("v");
        write_volume(&volume, &file("p"), Some(&payload), "c").unwrap();
        for (name, text) in [
            (PROGRAM, "p"),
            ("warmbus/Image", "k"),
            ("warmbus/initrd", "i"),
            (
                "warmbus/options.txt",
                "c next=\\warmbus\\Image -- initrd=\\warmbus\\initrd a b efi=debug c\n",
            ),
        ] {
            assert_eq!(fs::read_to_string(volume.join(name)).unwrap(), text);
        }
    }
}

//! What UEFI starts from: its flash and a volume.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Payload;
use super::secure_boot::{Signed, Signer, enroll_owner};
use super::uefi_loaders::{
    GRUB_CONFIGURATION, SYSTEMD_BOOT_DRIVERS, SYSTEMD_BOOT_ENTRY, UefiLoader, grub_configuration,
    systemd_boot_entry,
};
use super::uki;
use crate::build::UEFI_DRIVER;
use crate::{UsageError, setup};

/// The default path of a program on a removable volume (UEFI 3.5.1.1).
pub const PROGRAM: &str = "EFI/BOOT/BOOTAA64.EFI";
/// What shim starts there.
const BESIDE_PROGRAM: &str = "EFI/BOOT/grubaa64.efi";
/// Options of Warmbus, the kernel and its initrd, and where Debian has GRUB.
const OPTIONS: &str = "warmbus/options.txt";
pub(super) const KERNEL: &str = "warmbus/linux.efi";
const INITRD: &str = "warmbus/initrd";
pub(super) const GRUB: &str = "EFI/debian/grubaa64.efi";
/// shim, which starts GRUB of its own directory.
const SHIM: &str = "EFI/debian/shimaa64.efi";
const UKI: &str = "EFI/Linux/linux.efi";
/// Where `bootctl install` puts systemd-boot, besides [`PROGRAM`].
const SYSTEMD_BOOT: &str = "EFI/systemd/systemd-bootaa64.efi";
/// What the shell of UEFI runs, which starts where there is no such program.
pub const SCRIPT: &str = "startup.nsh";
/// What systemd-boot does: start [`SYSTEMD_BOOT_ENTRY`] at once.
const SYSTEMD_BOOT_CONFIGURATION: &str = "default linux.conf\ntimeout 0\n";

/// Has the shell load Warmbus as a driver, and start no other one.
pub const LOAD_DRIVER: &str = "load -nc \\warmbus\\warmbus-driver-aa64.efi";

/// How Warmbus is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UefiStart {
    /// By the boot manager, as an application that starts the kernel.
    Application,
    /// By what the shell does before it starts the kernel, these lines, of which
    /// [`LOAD_DRIVER`] may be one.
    Shell(&'static [&'static str]),
    /// As is usual for a boot loader, which starts the kernel.
    Loader(UefiLoader),
    /// Not at all: systemd-boot starts the kernel.
    NotInstalled,
}

/// The content of an EFI system partition, as files.
struct Volume<'a>(&'a Path);

impl Volume<'_> {
    /// Where the file `name` is to be, in a directory that exists.
    fn place(&self, name: &str) -> Result<PathBuf> {
        let to = self.0.join(name);
        let made = to.parent().map_or(Ok(()), fs::create_dir_all);
        made.with_context(|| format!("cannot make the directory of {}", to.display()))?;
        Ok(to)
    }

    fn copy(&self, from: &Path, name: &str) -> Result<()> {
        let to = self.place(name)?;
        let copied = fs::copy(from, &to).map(drop);
        copied.with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let to = self.place(name)?;
        fs::write(&to, text).with_context(|| format!("cannot write {}", to.display()))
    }

    /// GRUB, behind `image` and perhaps shim.
    fn write_grub(&self, loader: UefiLoader, image: &Path) -> Result<()> {
        let grub = match loader {
            UefiLoader::Grub206 => loader,
            _ => UefiLoader::Grub,
        };
        self.copy(&grub.file()?, GRUB)?;
        match loader {
            UefiLoader::ShimFirst => {
                self.copy(&loader.file()?, PROGRAM)?;
                self.copy(image, BESIDE_PROGRAM)
            }
            UefiLoader::Shim => {
                self.copy(image, PROGRAM)?;
                self.copy(&loader.file()?, SHIM)
            }
            _ => self.copy(image, PROGRAM),
        }
    }

    /// systemd-boot, which starts `entry`.
    fn write_systemd_boot(&self, entry: &str) -> Result<()> {
        self.copy(&UefiLoader::SystemdBoot.file()?, PROGRAM)?;
        self.write("loader/loader.conf", SYSTEMD_BOOT_CONFIGURATION)?;
        self.write(SYSTEMD_BOOT_ENTRY, entry)
    }
}

/// The program, the kernel and what belongs to it, as files below `volume`,
/// which is created. The options of Warmbus are `parameters`; where there is a kernel
/// its EFI stub starts it, with the command line of the payload and `parameters`.
fn write_volume(
    volume: &Path,
    (image, how): (&Path, UefiStart),
    payload: Option<&Payload>,
    parameters: &str,
) -> Result<()> {
    let volume = Volume(volume);
    // However silent Linux is, its EFI stub prints the line that the start of
    // Linux is seen by.
    let bootargs = payload.map_or("", |payload| &payload.bootargs);
    let line = format!("{bootargs} efi=debug {parameters}");
    let mut own = line.clone();
    let mut initrd = None;
    if let Some(payload) = payload {
        volume.copy(&payload.kernel, KERNEL)?;
        if let Some(file) = &payload.initrd {
            volume.copy(file, INITRD)?;
            own = format!("initrd={} {line}", for_uefi(INITRD));
            initrd = Some(format!("/{INITRD}"));
        }
    }
    let (kernel, initrd) = (format!("/{KERNEL}"), initrd.as_deref());
    let options = |next: &str| volume.write(OPTIONS, &format!("{parameters}{next}\n"));
    let next = |file: &str| format!(" next={}", for_uefi(file));
    match how {
        UefiStart::Application => {
            volume.copy(image, PROGRAM)?;
            let kernel = payload.map(|_| format!("{} -- {own}", next(KERNEL)));
            options(&kernel.unwrap_or_default())
        }
        UefiStart::Loader(UefiLoader::Uki) => {
            volume.copy(image, PROGRAM)?;
            options(&next(UKI))?;
            let payload = payload.context("a unified kernel image has a kernel")?;
            let stub = UefiLoader::Uki.file()?;
            uki::write(&volume.place(UKI)?, &stub, payload, &line)
        }
        UefiStart::Loader(UefiLoader::SystemdBoot) => {
            let driver = format!("{SYSTEMD_BOOT_DRIVERS}/{UEFI_DRIVER}");
            volume.copy(&image.with_file_name(UEFI_DRIVER), &driver)?;
            options("")?;
            volume.write_systemd_boot(&systemd_boot_entry(&kernel, initrd, &line))
        }
        UefiStart::Loader(loader) => {
            volume.write_grub(loader, image)?;
            let first = if loader == UefiLoader::Shim {
                SHIM
            } else {
                GRUB
            };
            options(&next(first))?;
            let configuration = grub_configuration(&kernel, initrd, &line);
            volume.write(GRUB_CONFIGURATION, &configuration)
        }
        UefiStart::NotInstalled => {
            volume.copy(&UefiLoader::SystemdBoot.file()?, SYSTEMD_BOOT)?;
            options("")?;
            volume.write_systemd_boot(&systemd_boot_entry(&kernel, initrd, &line))
        }
        UefiStart::Shell(lines) => {
            let driver = image.with_file_name(UEFI_DRIVER);
            volume.copy(&driver, &format!("warmbus/{UEFI_DRIVER}"))?;
            options("")?;
            let kernel = format!("{} {own}", for_uefi(KERNEL));
            let lines = ["fs0:"].iter().chain(lines).copied();
            let lines = lines.chain([kernel.as_str()]);
            let lines: Vec<_> = lines.map(|line| format!("{line}\r\n")).collect();
            volume.write(SCRIPT, &lines.concat())
        }
    }
}

/// The name of `file`, a path on the volume, for UEFI.
fn for_uefi(file: &str) -> String {
    format!("\\{}", file.replace('/', "\\"))
}

/// The files of the volume of a machine with its files in `directory`.
#[must_use]
pub fn volume(directory: &Path) -> PathBuf {
    directory.join("volume")
}

fn variables(directory: &Path) -> PathBuf {
    directory.join("variables.fd")
}

/// Makes the directory with the volume and a flash that remembers nothing, or
/// only the keys that the programs are `signed` with.
pub(super) fn prepare(
    directory: &Path,
    start: (&Path, UefiStart),
    signed: Option<Signed>,
    payload: Option<&Payload>,
    parameters: &str,
) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let missing = || UsageError("EDK2 for QEMU is missing (package qemu-efi-aarch64)".into());
    let [_, empty] = setup::edk2_flash().ok_or_else(missing)?;
    let keys = signed.map(|_| Signer::find()).transpose()?;
    let flash = keys.as_ref().map_or(&empty, |keys| &keys.flash);
    let file = variables(directory);
    fs::copy(flash, &file).with_context(|| format!("cannot write {}", file.display()))?;
    let volume = volume(directory);
    write_volume(&volume, start, payload, parameters)?;
    match (keys, signed) {
        (Some(keys), Some(signed)) => {
            if signed == Signed::ByOwner {
                enroll_owner(directory, &file)?;
            }
            keys.sign(&volume, directory, start.0, signed)
        }
        _ => Ok(()),
    }
}

/// The arguments for QEMU. The volume is on a disk that is not on PCI, so that
/// the topology is what it is without UEFI.
///
/// UEFI is that in `code`, or the one that is installed.
pub(super) fn arguments(directory: &Path, code: Option<&Path>) -> Vec<String> {
    let installed = || setup::edk2_flash().map(|[code, _]| code);
    let code = code.map(Path::to_owned).or_else(installed);
    let code = code.unwrap_or_default();
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
        "virtio-blk-device,drive=volume,bootindex=9".into(),
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
        let image = file("p");
        let application = (&*image, UefiStart::Application);
        write_volume(&volume, application, Some(&payload), "c").unwrap();
        for (name, text) in [
            (PROGRAM, "p"),
            ("warmbus/linux.efi", "k"),
            ("warmbus/initrd", "i"),
            (
                "warmbus/options.txt",
                "c next=\\warmbus\\linux.efi -- initrd=\\warmbus\\initrd a b efi=debug c\n",
            ),
        ] {
            assert_eq!(fs::read_to_string(volume.join(name)).unwrap(), text);
        }

        let volume = directory.path().join("d");
        file(UEFI_DRIVER);
        write_volume(
            &volume,
            (&image, UefiStart::Shell(&[LOAD_DRIVER])),
            Some(&payload),
            "c",
        )
        .unwrap();
        for (name, text) in [
            ("warmbus/options.txt", "c\n"),
            (
                SCRIPT,
                "fs0:\r\nload -nc \\warmbus\\warmbus-driver-aa64.efi\r\n\\warmbus\\linux.efi \
                 initrd=\\warmbus\\initrd a b efi=debug c\r\n",
            ),
        ] {
            assert_eq!(fs::read_to_string(volume.join(name)).unwrap(), text);
        }
        assert!(!volume.join(PROGRAM).exists());
    }
}

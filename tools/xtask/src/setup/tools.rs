//! What has to be on a machine, and for what.

use std::path::{Path, PathBuf};

use super::Private;
use crate::{process, programs, toolchain};

/// What a machine is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Building the firmware.
    Build,
    /// Building the firmware and starting it in QEMU.
    Run,
    /// The tests on the host.
    Host,
    /// Building Linux. Not needed for the firmware.
    Linux,
    /// Making and booting disk images.
    Image,
    /// All of that, and all tests.
    Test,
    /// Installing systems for the longest of them.
    Fresh,
}

/// A program or a file that has to be there.
pub(super) struct Tool {
    pub(super) name: &'static str,
    /// The package of Debian that holds it.
    pub(super) package: &'static str,
    purposes: &'static [Purpose],
    what: What,
}

enum What {
    /// A program, by its name.
    Program(&'static str),
    /// Something that has to be looked for.
    Found(fn() -> Option<PathBuf>),
}

impl Tool {
    const fn program(
        name: &'static str,
        package: &'static str,
        program: &'static str,
        purposes: &'static [Purpose],
    ) -> Self {
        Self {
            name,
            package,
            purposes,
            what: What::Program(program),
        }
    }

    const fn found(
        name: &'static str,
        package: &'static str,
        purposes: &'static [Purpose],
        find: fn() -> Option<PathBuf>,
    ) -> Self {
        Self {
            name,
            package,
            purposes,
            what: What::Found(find),
        }
    }

    /// Where it is, if it works.
    pub(super) fn find(&self) -> Option<PathBuf> {
        match self.what {
            What::Program(program) => programs::working(program),
            What::Found(find) => find(),
        }
    }

    /// The program that it is, where the system has one of this name.
    pub(super) fn in_system(&self) -> Option<&'static str> {
        match self.what {
            What::Program(program) => programs::find_in_system(program).map(|_| program),
            What::Found(_) => None,
        }
    }

    pub(super) fn described(&self) -> String {
        format!("{} (package {})", self.name, self.package)
    }
}

use Purpose::{Build, Fresh, Host, Image, Linux, Run};

const TOOLS: [Tool; 18] = [
    Tool::program(
        "QEMU for ARM",
        "qemu-system-arm",
        "qemu-system-aarch64",
        &[Run, Image],
    ),
    Tool::found(
        "QEMU's network boot ROMs",
        "ipxe-qemu",
        &[Run, Image],
        || rom("efi-e1000.rom"),
    ),
    Tool::found(
        "a linker for bare-metal ARM",
        "lld",
        &[Build, Run, Host, Image],
        toolchain::linker,
    ),
    Tool::program(
        "a C compiler for arm64",
        "gcc-aarch64-linux-gnu",
        "aarch64-linux-gnu-gcc",
        &[Linux],
    ),
    Tool::found(
        "a C library for arm64",
        "libc6-dev-arm64-cross",
        &[Linux],
        library,
    ),
    Tool::program("a C compiler", "gcc", "gcc", &[Linux]),
    Tool::program("make", "make", "make", &[Linux]),
    Tool::program("patch", "patch", "patch", &[Linux, Host]),
    Tool::program("flex", "flex", "flex", &[Linux]),
    Tool::program("bison", "bison", "bison", &[Linux]),
    Tool::program("bc", "bc", "bc", &[Linux]),
    Tool::program("perl", "perl", "perl", &[Linux]),
    Tool::program("xz", "xz-utils", "xz", &[Linux]),
    Tool::program("lspci", "pciutils", "lspci", &[Host]),
    Tool::program(
        "the device tree compiler",
        "device-tree-compiler",
        "dtc",
        &[Host],
    ),
    Tool::found("U-Boot for QEMU", "u-boot-qemu", &[Image], u_boot),
    Tool::found("EDK2 for QEMU", "qemu-efi-aarch64", &[], || {
        edk2().and(edk2_flash().map(|[code, _]| code))
    }),
    Tool::program("debootstrap", "debootstrap", "debootstrap", &[Fresh]),
];

/// What is needed for `purpose`.
pub(super) fn needed(purpose: Purpose) -> impl Iterator<Item = &'static Tool> {
    TOOLS.iter().filter(move |tool| {
        let is_named = tool.purposes.contains(&purpose);
        is_named || purpose == Purpose::Test && !tool.purposes.contains(&Fresh)
    })
}

/// What of that is not there, or does not work.
pub(super) fn missing(purpose: Purpose) -> Vec<&'static Tool> {
    needed(purpose)
        .filter(|tool| tool.find().is_none())
        .collect()
}

/// The directories that QEMU takes its ROM files from.
fn rom_directories() -> Vec<PathBuf> {
    let mut command = programs::command("qemu-system-aarch64");
    let listed = process::output(command.args(qemu_data()).args(["-L", "help"]));
    let listed = listed.unwrap_or_default();
    listed.lines().map(PathBuf::from).collect()
}

/// A ROM file, without which QEMU does not start a device.
pub(super) fn rom(name: &str) -> Option<PathBuf> {
    rom_directories()
        .iter()
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// Arguments for QEMU that name all directories with ROM files, where QEMU and
/// these may be in different places: the system and the private folder.
pub(crate) fn qemu_data() -> Vec<String> {
    let private = Private::here();
    if !private.exists() {
        return Vec::new();
    }
    [
        "/usr/share/qemu",
        "/usr/share/seabios",
        "/usr/lib/ipxe/qemu",
    ]
    .into_iter()
    .flat_map(|directory| [private.file(directory), Some(directory.into())])
    .flatten()
    .filter(|directory| directory.is_dir())
    .flat_map(|directory| ["-L".to_owned(), directory.display().to_string()])
    .collect()
}

/// The C library that programs for the test Linux are linked with.
fn library() -> Option<PathBuf> {
    let mut command = programs::command("aarch64-linux-gnu-gcc");
    let said = process::output(command.arg("-print-file-name=libc.a")).ok()?;
    // Of a library that is not there it says the bare name.
    let file = PathBuf::from(said.trim());
    file.is_absolute().then_some(file)
}

/// The file that a package installs as `path`.
fn installed(path: &str) -> Option<PathBuf> {
    let file = Path::new(path);
    if file.is_file() {
        return Some(file.into());
    }
    Private::here().file(path)
}

/// U-Boot as firmware of QEMU's `virt` machine.
#[must_use]
pub fn u_boot() -> Option<PathBuf> {
    installed("/usr/lib/u-boot/qemu_arm64/u-boot.bin")
}

/// EDK2 as firmware of QEMU's `virt` machine.
#[must_use]
pub fn edk2() -> Option<PathBuf> {
    installed("/usr/share/qemu-efi-aarch64/QEMU_EFI.fd")
}

/// The same for a flash: its code, and variables that remember nothing.
#[must_use]
pub fn edk2_flash() -> Option<[PathBuf; 2]> {
    let part = |part| installed(&format!("/usr/share/AAVMF/AAVMF_{part}.fd"));
    Some([part("CODE")?, part("VARS")?])
}

/// The code of EDK2 that can verify what it starts, where that is another one than the
/// usual, as in Debian 13.
#[must_use]
pub fn edk2_secure_code() -> Option<PathBuf> {
    installed("/usr/share/AAVMF/AAVMF_CODE.secboot.fd")
}

/// A flash of EDK2 with its test keys enrolled, the key, and its certificate.
#[must_use]
pub fn edk2_test_keys() -> Option<[PathBuf; 3]> {
    let key = |end| {
        installed(&format!(
            "/usr/share/qemu-efi-aarch64/PkKek-1-snakeoil.{end}"
        ))
    };
    let flash = installed("/usr/share/AAVMF/AAVMF_VARS.snakeoil.fd")?;
    Some([flash, key("key")?, key("pem")?])
}

/// The package that holds the ROM file `name`, which a device of QEMU asks for.
#[must_use]
pub(super) fn package_of_rom(name: &str) -> Option<&'static str> {
    if name.starts_with("vgabios") {
        return Some("seabios");
    }
    let network = name.starts_with("efi-") || name.starts_with("pxe-");
    network.then_some("ipxe-qemu")
}

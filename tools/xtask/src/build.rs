//! Building the firmware.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::linux::hex;
use crate::progress::Progress;
use crate::toolchain::Toolchain;
use crate::{elf_to_image, paths, process, remap};

/// Keeps a load or store and a 64-bit multiply-accumulate apart: the workaround for
/// erratum 835769 of Cortex-A53 (Arm EPM-048406). `rustc` hands the name on to LLVM,
/// which knows it, and warns that it does not know it itself: for every crate, so
/// it is here, where only the builds of images see it. The outliner makes functions
/// after LLVM has looked for such pairs, and would make new ones.
const CORTEX_A53_835769: [&str; 2] = [
    "-Ctarget-feature=+fix-cortex-a53-835769",
    "-Cllvm-args=-enable-machine-outliner=never",
];

/// The files for UEFI, beside the image. systemd-boot loads drivers of this
/// name.
pub const UEFI_APPLICATION: &str = "warmbus.efi";
/// See [`UEFI_APPLICATION`].
pub const UEFI_DRIVER: &str = "warmbus-driver-aa64.efi";

const STEP: &str = "building the firmware";

/// Builds the firmware with `toolchain` and returns the path of the flat
/// image, `target/warmbus/warmbus.img`. Its ELF file is placed beside it, and
/// the two files for UEFI, which are the same bytes but for one number.
pub fn firmware(toolchain: &Toolchain) -> Result<PathBuf> {
    with_progress(toolchain, Progress::begin(STEP))
}

/// Builds the firmware as [`firmware`] does, beside something else that has the
/// terminal.
pub fn firmware_beside_others(toolchain: &Toolchain) -> Result<PathBuf> {
    with_progress(toolchain, Progress::beside_others(STEP))
}

fn with_progress(toolchain: &Toolchain, step: Progress) -> Result<PathBuf> {
    let mut command = toolchain.cargo("build");
    let prefixes = toolchain.prefixes();
    remap::configure(
        &mut command,
        toolchain.target,
        &CORTEX_A53_835769,
        &prefixes,
    );
    command.args([
        "--release",
        "--package",
        "warmbus-firmware",
        "--features",
        "firmware",
    ]);
    process::watch(&mut command, std::time::Duration::from_hours(1), |line| {
        step.detail(line);
    })?;

    let built = Toolchain::target_dir()
        .join(toolchain.target)
        .join("release/warmbus-firmware");
    let elf = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let flat = elf_to_image::convert(&elf)
        .with_context(|| format!("{} cannot be used", built.display()))?;

    let images = paths::images();
    fs::create_dir_all(&images)?;
    let image = images.join("warmbus.img");
    let driver = elf_to_image::uefi_driver(&flat.bytes)?;
    for (name, bytes) in [
        ("warmbus.img", &flat.bytes),
        ("warmbus.elf", &elf),
        (UEFI_APPLICATION, &flat.bytes),
        (UEFI_DRIVER, &driver),
    ] {
        let file = images.join(name);
        fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
    }
    step.end(&format!(
        "{}: {} bytes ({} of memory), built with {toolchain}\nSHA-256 {}",
        image.display(),
        flat.bytes.len(),
        flat.memory,
        hex(&Sha256::digest(&flat.bytes))
    ));
    Ok(image)
}

//! A small hypervisor that QEMU starts in place of a kernel, and that starts what runs
//! above it at EL1: it has configuration space answered by a test, has each access to it
//! take a time, or enters a kernel in the worst state that the boot protocol allows.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::{paths, process};

/// The memory that is its own, address and bytes: where QEMU places a kernel that may be
/// anywhere, and what its Image header asks for.
pub const REGION: [u32; 2] = [0x4020_0000, 0x1_0000];

/// Assembles it in `directory`, to start what is at `guest`. `definitions` are arguments
/// of the preprocessor (`-DX=Y`), which its source describes. Returns the image.
pub fn assemble(directory: &Path, guest: u64, definitions: &[String]) -> Result<PathBuf> {
    let source = paths::root().join("tools/xtask/src/qemu/hypervisor/hypervisor.S");
    let [object, image] = ["o", "img"].map(|kind| directory.join(format!("hypervisor.{kind}")));
    let mut compiler = Command::new("aarch64-linux-gnu-gcc");
    compiler
        .arg(format!("-DGUEST={guest:#x}"))
        .args(definitions)
        .args(["-c", "-o"])
        .args([&object, &source]);
    process::output(&mut compiler)?;
    let mut objcopy = Command::new("aarch64-linux-gnu-objcopy");
    objcopy.args(["-O", "binary"]).args([&object, &image]);
    process::output(&mut objcopy)?;
    Ok(image)
}

/// Says in the device tree of the file `tree` that nobody else is to use its memory.
pub fn reserve(tree: &Path) -> Result<()> {
    let [start, size] = REGION.map(|cell| format!("{cell:#x}"));
    let parent = "/reserved-memory";
    let node = format!("{parent}/hypervisor@{:x}", REGION[0]);
    let put = |options: &[&str], words: &[&str]| {
        let mut command = Command::new("fdtput");
        command.args(options).arg(tree).args(words);
        process::output(&mut command).map(drop)
    };
    put(&["-c"], &[parent])?;
    put(&["-t", "x"], &[parent, "#address-cells", "2"])?;
    put(&["-t", "x"], &[parent, "#size-cells", "2"])?;
    put(&["-t", "x"], &[parent, "ranges"])?;
    put(&["-c"], &[&node])?;
    put(&["-t", "x"], &[&node, "reg", "0", &start, "0", &size])?;
    put(&["-t", "x"], &[&node, "no-map"])
}

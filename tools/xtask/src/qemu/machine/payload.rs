//! The kernel that the firmware starts, as QEMU places it in memory.

use std::path::{Path, PathBuf};

/// Where the payload's kernel is placed: above the firmware, which QEMU puts
/// 2 MiB from the start of memory, and the device tree, which it puts 128 MiB
/// from there, in machines from 512 MiB of memory on.
pub const KERNEL_AT: u64 = 0x5000_0000;
/// Where its initrd is placed, which leaves 64 MiB for the kernel, and with
/// 512 MiB of memory 192 MiB for the initrd.
pub const INITRD_AT: u64 = 0x5400_0000;

/// The kernel that the firmware starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// An arm64 `Image` or `Image.gz`.
    pub kernel: PathBuf,
    /// Its initrd.
    pub initrd: Option<PathBuf>,
    /// Its command line.
    pub bootargs: String,
}

impl Payload {
    /// The arguments for QEMU's `guest-loader`, which writes `/chosen` nodes
    /// as boot loaders do.
    pub(super) fn arguments(&self) -> Vec<String> {
        // A comma ends a value unless it is doubled.
        let value = |text: &str| text.replace(',', ",,");
        let file = |path: &Path| value(&path.to_string_lossy());
        let mut all = vec![format!(
            "guest-loader,addr={KERNEL_AT:#x},kernel={},bootargs={}",
            file(&self.kernel),
            value(&self.bootargs)
        )];
        if let Some(initrd) = &self.initrd {
            all.push(format!(
                "guest-loader,addr={INITRD_AT:#x},initrd={}",
                file(initrd)
            ));
        }
        all
    }
}

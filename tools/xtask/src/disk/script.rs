//! The script that U-Boot runs.

use std::fs;

use anyhow::{Context, Result};
use warmbus_linux::image::ImageHeader;

use crate::{UsageError, process, programs};

const BLOCK: u64 = 2 << 20;

/// What the script depends on.
pub struct Script<'a> {
    /// From here on memory is free; `None` for U-Boot's `kernel_addr_r`.
    pub load_address: Option<u64>,
    /// The image of the firmware.
    pub firmware: &'a [u8],
    /// Its command line.
    pub firmware_parameters: &'a str,
    /// The command line of Linux.
    pub linux_parameters: &'a str,
    /// There is a tree on the disk.
    pub has_tree: bool,
}

impl Script<'_> {
    /// The script as text.
    pub fn text(&self) -> Result<String> {
        for words in [self.firmware_parameters, self.linux_parameters] {
            let printable =
                |letter: char| (' '..='~').contains(&letter) && letter != '\'' && letter != '\\';
            if let Some(letter) = words.chars().find(|letter| !printable(*letter)) {
                return Err(UsageError(format!(
                    "U-Boot cannot pass a command line with {letter:?}: {words}"
                ))
                .into());
            }
        }
        let header = ImageHeader::parse(self.firmware).context("the firmware has no header")?;
        let base = match self.load_address {
            Some(address) => format!("{address:x}"),
            None => "${kernel_addr_r}".into(),
        };
        let mut text = String::from(
            "# U-Boot starts Warmbus, which starts Linux. Without one of the files it goes\n\
             # on to what it would have booted otherwise.\n",
        );
        let mut add = |line: &str| text.extend([line, "\n"]);
        add("setenv wb_from \"${devtype} ${devnum}:${distro_bootpart}\"");
        add("# Firmware, device tree, kernel and initrd, each from a 2 MiB border on.");
        add(&format!("setexpr wb_firmware {base} + 1fffff"));
        add("setexpr wb_firmware ${wb_firmware} \"&\" ffffffffffe00000");
        let slot = header.image_size.next_multiple_of(BLOCK);
        add(&format!("setexpr wb_tree ${{wb_firmware}} + {slot:x}"));
        add(&format!("setexpr wb_kernel ${{wb_tree}} + {BLOCK:x}"));
        // Older releases do not leave a script at `exit` with a status.
        add("setenv wb_ready");
        add("if load ${wb_from} ${wb_firmware} ${prefix}warmbus.img; then");
        add("if load ${wb_from} ${wb_kernel} ${prefix}Image; then");
        add("  setenv wb_kernel_size ${filesize}");
        add("  setexpr wb_initrd ${wb_kernel} + ${filesize}");
        add("  setexpr wb_initrd ${wb_initrd} + 1fffff");
        add("  setexpr wb_initrd ${wb_initrd} \"&\" ffffffffffe00000");
        add("if load ${wb_from} ${wb_initrd} ${prefix}initrd; then");
        add("  setenv wb_initrd_size ${filesize}");
        if self.has_tree {
            add("if load ${wb_from} ${wb_tree} ${prefix}board.dtb; then");
            add("if fdt addr ${wb_tree}; then");
            add("  fdt resize 10000");
        } else {
            add("# The tree that U-Boot itself has, with space for additions.");
            add("if fdt addr ${fdtcontroladdr}; then");
            add("if fdt move ${fdtcontroladdr} ${wb_tree} 180000; then");
        }
        add("  setenv wb_ready 1");
        add("fi; fi; fi; fi; fi");
        add("if test -n \"${wb_ready}\"; then");
        add("# The modules of the \"Multiboot on Arm\" binding.");
        add(&format!("setenv bootargs '{}'", self.firmware_parameters));
        add("fdt chosen");
        add("if fdt get value wb_cells /chosen \"#address-cells\"; then true; else");
        add("  fdt set /chosen \"#address-cells\" \"<2>\"");
        add("  fdt set /chosen \"#size-cells\" \"<2>\"");
        add("fi");
        for (name, kind) in [("kernel", "kernel"), ("initrd", "ramdisk")] {
            add(&format!("setexpr wb_high ${{wb_{name}}} / 100000000"));
            add(&format!("setexpr wb_low ${{wb_{name}}} \"&\" ffffffff"));
            add(&format!("fdt mknode /chosen {name}"));
            let node = format!("/chosen/{name}");
            add(&format!(
                "fdt set {node} compatible \"multiboot,{kind}\" \"multiboot,module\""
            ));
            add(&format!(
                "fdt set {node} reg \"<0x${{wb_high}} 0x${{wb_low}} 0x0 0x${{wb_{name}_size}}>\""
            ));
        }
        add(&format!(
            "fdt set /chosen/kernel bootargs '{}'",
            self.linux_parameters
        ));
        add("booti ${wb_firmware} - ${wb_tree}");
        add("fi");
        Ok(text)
    }
}

/// Adds the header that U-Boot requires before a script.
pub fn pack(text: &str) -> Result<Vec<u8>> {
    let directory = tempfile::tempdir()?;
    let [source, script] = ["boot.cmd", "boot.scr"].map(|name| directory.path().join(name));
    fs::write(&source, text)?;
    let mut command = programs::command("mkimage");
    command
        .args(["-A", "arm64", "-O", "linux", "-T", "script", "-C", "none"])
        .args(["-n", "Warmbus", "-d"])
        .args([&source, &script])
        // The header has the time of its making.
        .env("SOURCE_DATE_EPOCH", "0");
    process::output(&mut command)?;
    Ok(fs::read(&script)?)
}

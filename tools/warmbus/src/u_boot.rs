//! The script with which U-Boot starts Warmbus.

use std::ops::Range;

use anyhow::{Context, Result, bail};
use warmbus_linux::image::ImageHeader;
use warmbus_memory::crc32::checksum;

/// The files that it loads, from the folder that it is in itself.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// The kernel.
    pub kernel: &'a str,
    /// Its initrd.
    pub initrd: &'a str,
    /// The device tree of the board; `None` for the one that U-Boot has.
    pub tree: Option<&'a str>,
}

impl Default for Files<'_> {
    fn default() -> Self {
        Self {
            kernel: "Image",
            initrd: "initrd",
            tree: None,
        }
    }
}

const BLOCK: u64 = 2 << 20;

/// What the script depends on.
#[derive(Clone, Copy, Debug)]
pub struct Script<'a> {
    /// From here on memory is free; `None` for U-Boot's `kernel_addr_r`.
    pub load_address: Option<u64>,
    /// The image of the firmware.
    pub firmware: &'a [u8],
    /// Its command line.
    pub firmware_parameters: &'a str,
    /// The command line of Linux.
    pub linux_parameters: &'a str,
    /// What it loads beside the firmware, `warmbus.img`.
    pub files: Files<'a>,
}

impl Script<'_> {
    /// The script as text.
    ///
    /// # Errors
    ///
    /// If U-Boot cannot pass a command line or load a file of that name, or the
    /// firmware is no image.
    pub fn text(&self) -> Result<String> {
        for words in [self.firmware_parameters, self.linux_parameters] {
            let printable =
                |letter: char| (' '..='~').contains(&letter) && letter != '\'' && letter != '\\';
            if let Some(letter) = words.chars().find(|letter| !printable(*letter)) {
                bail!("U-Boot cannot pass a command line with {letter:?}: {words}");
            }
        }
        let Files {
            kernel,
            initrd,
            tree,
        } = self.files;
        for name in [kernel, initrd].into_iter().chain(tree) {
            let plain = |letter: char| letter.is_ascii_alphanumeric() || "-._+/~@".contains(letter);
            if let Some(letter) = name.chars().find(|letter| !plain(*letter)) {
                bail!("U-Boot cannot load a file whose name has {letter:?}: {name}");
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
        add(&format!(
            "if load ${{wb_from}} ${{wb_kernel}} ${{prefix}}{kernel}; then"
        ));
        add("  setenv wb_kernel_size ${filesize}");
        add("  setexpr wb_initrd ${wb_kernel} + ${filesize}");
        add("  setexpr wb_initrd ${wb_initrd} + 1fffff");
        add("  setexpr wb_initrd ${wb_initrd} \"&\" ffffffffffe00000");
        add(&format!(
            "if load ${{wb_from}} ${{wb_initrd}} ${{prefix}}{initrd}; then"
        ));
        add("  setenv wb_initrd_size ${filesize}");
        if let Some(tree) = tree {
            add(&format!(
                "if load ${{wb_from}} ${{wb_tree}} ${{prefix}}{tree}; then"
            ));
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

/// Adds the header that U-Boot requires before a script: that of its legacy images
/// (U-Boot, `include/image.h`).
#[must_use]
pub fn pack(text: &str) -> Vec<u8> {
    const MAGIC: u32 = 0x2705_1956;
    const LINUX: u8 = 5;
    const ARM64: u8 = 22;
    const SCRIPT: u8 = 6;
    const NOT_PACKED: u8 = 0;
    /// Where the CRC of the header is, which is zero while it is computed.
    const HEADER_CRC: Range<usize> = 4..8;

    // A list of sizes that ends with 0, and what has those sizes.
    let mut data = (text.len() as u32).to_be_bytes().to_vec();
    data.extend([0; 4]);
    data.extend(text.as_bytes());
    let mut header = MAGIC.to_be_bytes().to_vec();
    // The CRC and the time of its making.
    header.extend([0; 8]);
    header.extend((data.len() as u32).to_be_bytes());
    // Neither a load address nor an entry.
    header.extend([0; 8]);
    header.extend(checksum(&data).to_be_bytes());
    header.extend([LINUX, ARM64, SCRIPT, NOT_PACKED]);
    let mut name = [0; 32];
    name[..7].copy_from_slice(b"Warmbus");
    header.extend(name);
    let crc = checksum(&header).to_be_bytes();
    header[HEADER_CRC].copy_from_slice(&crc);
    header.extend(data);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_packed_as_by_mkimage() {
        // SOURCE_DATE_EPOCH=0 mkimage -A arm64 -O linux -T script -C none -n Warmbus
        // of U-Boot 2023.01.
        let mut header = [0; 64];
        header[..40].copy_from_slice(&[
            0x27, 0x05, 0x19, 0x56, 0xd8, 0x3f, 0xc2, 0xb2, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
            0x00, 0x0e, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xad, 0x8d, 0x06, 0x6d,
            0x05, 0x16, 0x06, 0x00, 0x57, 0x61, 0x72, 0x6d, 0x62, 0x75, 0x73, 0x00,
        ]);
        let packed = pack("echo a");
        assert_eq!(packed[..64], header);
        assert_eq!(packed[64..], *b"\0\0\0\x06\0\0\0\0echo a");
    }

    #[test]
    fn a_command_line_that_u_boot_would_change_is_refused() {
        let script = |parameters| Script {
            load_address: None,
            firmware: &[],
            firmware_parameters: "",
            linux_parameters: parameters,
            files: Files::default(),
        };
        for (line, letter) in [
            ("a='b'", "'\\''"),
            ("a\\b", "'\\\\'"),
            ("ä", "'ä'"),
            ("a\nb", "'\\n'"),
        ] {
            let error = script(line).text().unwrap_err().to_string();
            assert!(error.contains(letter), "{error}");
        }
    }
}

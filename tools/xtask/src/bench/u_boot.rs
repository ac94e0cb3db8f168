//! What U-Boot is to do, without a console: the environment in its flash.
//! What is typed comes at another instruction in each run.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use warmbus_memory::crc32::checksum;

/// Bytes of a flash of the machine, and of the environment at its start as U-Boot
/// for QEMU looks for it.
const FLASH: u64 = 64 << 20;
const ENVIRONMENT: usize = 256 << 10;

/// Writes the flash `file` with an environment: `variables`, and what has U-Boot
/// start at once and move nothing.
pub(super) fn write_environment(file: &Path, variables: &[(&str, &str)]) -> Result<()> {
    let own = [
        ("bootdelay", "-2"),
        ("fdt_high", "ffffffffffffffff"),
        ("initrd_high", "ffffffffffffffff"),
    ];
    let mut content = vec![0; 4];
    for (name, value) in own.iter().chain(variables) {
        content.extend(format!("{name}={value}\0").bytes());
    }
    ensure!(content.len() < ENVIRONMENT, "the environment is too long");
    content.resize(ENVIRONMENT, 0);
    let sum = checksum(&content[4..]);
    content[..4].copy_from_slice(&sum.to_le_bytes());
    fs::write(file, content)?;
    fs::File::options().write(true).open(file)?.set_len(FLASH)?;
    Ok(())
}

/// The argument of QEMU for the second flash of the machine.
pub(super) fn flash_drive(file: &Path) -> String {
    let file = file.to_string_lossy().replace(',', ",,");
    format!("if=pflash,unit=1,format=raw,file={file}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_at_the_start_of_a_whole_flash() {
        let file = tempfile::NamedTempFile::new().unwrap();
        write_environment(file.path(), &[("bootcmd", "booti 1 - 2")]).unwrap();
        let flash = fs::read(file.path()).unwrap();
        assert_eq!(flash.len() as u64, FLASH);
        let content = &flash[4..ENVIRONMENT];
        assert!(content.starts_with(b"bootdelay=-2\0"));
        let end = content.windows(2).position(|pair| pair == [0, 0]).unwrap();
        assert!(content[..end].ends_with(b"\0bootcmd=booti 1 - 2"));
        let long = "x".repeat(ENVIRONMENT);
        assert!(write_environment(file.path(), &[("bootargs", &long)]).is_err());
    }
}

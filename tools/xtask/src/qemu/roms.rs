//! The ROM files that devices of a user's topology ask for.

use anyhow::Result;

use super::Machine;
use crate::setup;

/// Makes sure that QEMU finds the ROM file of each device of `machine`. Other
/// faults of the machine are for its start to report.
pub fn ensure(machine: &Machine) -> Result<()> {
    machine.prepare()?;
    let tree = tempfile::NamedTempFile::new()?;
    let mut before = None;
    // QEMU makes all devices before it writes the device tree, and ends at the
    // first whose file is not there.
    while let Err(error) = machine.dump_device_tree(tree.path()) {
        let said = error.to_string();
        let Some(name) = missing(&said).filter(|name| before.as_deref() != Some(*name)) else {
            break;
        };
        setup::ensure_rom(name)?;
        before = Some(name.to_owned());
    }
    Ok(())
}

/// The ROM file that QEMU says it misses.
fn missing(said: &str) -> Option<&str> {
    let (_, name) = said.split_once("failed to find romfile \"")?;
    name.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_not_confused_with_what_else_qemu_says() {
        let device = "qemu-system-aarch64: -device bochs-display: ";
        let said = format!("{device}failed to find romfile \"vgabios-bochs-display.bin\"\n");
        assert_eq!(missing(&said), Some("vgabios-bochs-display.bin"));
        let said = format!("{device}'x' is not a valid device model name");
        assert_eq!(missing(&said), None);
    }
}

//! Entering the firmware in the worst state that the boot protocol allows:
//! `hostile.S`.

use std::fs;
use std::path::Path;

use anyhow::Result;
use xtask::qemu::{INITRD_AT, KERNEL_AT, Machine, Payload, hypervisor};

use super::assemble;
use crate::boot::{LOADED, Lab, image};
use crate::linux::LinuxBoot;
use crate::tree::Tree;

/// Memory of the machine: up to the image, which is the last in it, and what that
/// takes without a file.
const RAM: [u64; 2] = [0x4000_0000, 0x6800_0000];

/// Where the firmware is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// At EL1.
    El1,
    /// At EL2.
    El2,
    /// At EL2 with `HCR_EL2.E2H`, on a processor with `FEAT_VHE`.
    Vhe,
}

/// How the firmware is entered.
#[derive(Clone, Copy, Debug)]
pub struct Hostile {
    /// Where.
    pub level: Level,
    /// What is in each byte of memory and of registers.
    pub junk: u8,
    /// Interrupts and `SError` are not masked.
    pub is_unmasked: bool,
    /// An `SError` is pending, at EL1 and masked.
    pub has_serror: bool,
}

impl Hostile {
    /// Boots `payload` on a processor of the model `cpu` with the devices that
    /// `change` adds.
    pub fn boot(
        self,
        lab: &Lab,
        cpu: &str,
        payload: &Payload,
        change: impl FnOnce(Machine) -> Machine,
    ) -> Result<LinuxBoot> {
        let hypervisor = assemble(lab, &self.definitions(payload)?)?;
        let machine = Machine::kernel(&hypervisor)
            .el2()
            .cpu(cpu)
            .memory(&format!("{}M", (RAM[1] - RAM[0]) >> 20))
            .arguments(["-semihosting-config", "enable=on,target=native"])
            .payload(payload.clone());
        let machine = change(machine);
        let tree = Tree::of(&machine, lab);
        hypervisor::reserve(tree.file())?;
        let machine = machine.own_device_tree(tree.file()).load(image(), LOADED);
        lab.boot_linux(machine)
    }

    /// What `hostile.S` is assembled with.
    fn definitions(self, payload: &Payload) -> Result<Vec<String>> {
        let [start, end] = RAM;
        let junk = u64::from_ne_bytes([self.junk; 8]);
        let end_of = |at: u64, file: &Path| Ok::<_, std::io::Error>(at + fs::metadata(file)?.len());
        let mut kept = vec![KERNEL_AT, end_of(KERNEL_AT, &payload.kernel)?];
        if let Some(initrd) = &payload.initrd {
            kept.extend([INITRD_AT, end_of(INITRD_AT, initrd)?]);
        }
        kept.extend([LOADED, end_of(LOADED, image())?]);
        let kept: Vec<_> = kept.iter().map(|address| format!("{address:#x}")).collect();
        let mut definitions = vec![
            "-DHOSTILE".to_owned(),
            format!("-DRAM_START={start:#x}"),
            format!("-DRAM_END={end:#x}"),
            format!("-DJUNK={junk:#x}"),
            format!("-DKEPT={}", kept.join(",")),
        ];
        let switches = [
            (self.level != Level::El1, "-DAT_EL2"),
            (self.level == Level::Vhe, "-DVHE"),
            (self.is_unmasked, "-DUNMASKED"),
            (self.has_serror, "-DSERROR_AT_ENTRY"),
        ];
        let switches = switches.into_iter().filter(|(on, _)| *on);
        definitions.extend(switches.map(|(_, switch)| switch.to_owned()));
        Ok(definitions)
    }
}

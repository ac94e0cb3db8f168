//! The device tree for a Linux whose machine is described by UEFI and ACPI.
//!
//! It has `/chosen` and no other node, so that Linux reads the ACPI tables
//! (`Documentation/arch/arm64/arm-acpi.rst`), and it names the memory map and
//! the system table as the EFI stub of Linux does
//! (`Documentation/arch/arm/uefi.rst`).

use alloc::vec::Vec;

use warmbus_fdt::{FdtError, FdtWriter};
use warmbus_memory::MemoryRange;
use warmbus_memory::PhysAddr;

/// Whether UEFI starts signed images only (UEFI 2.10, 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecureBoot {
    /// There is no variable that says so.
    Unknown,
    /// It starts any image.
    Disabled,
    /// It starts signed images only.
    Enabled,
}

/// The state of UEFI that Linux needs after boot services were left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UefiState {
    /// The system table.
    pub system_table: PhysAddr,
    /// The last memory map, without what is allocated behind it.
    pub memory_map: MemoryRange,
    /// Bytes of one of its descriptors.
    pub descriptor_size: u32,
    /// The version of the descriptors.
    pub descriptor_version: u32,
    /// Whether the firmware only starts what is signed.
    pub secure_boot: SecureBoot,
    /// A random number that Linux chooses its virtual addresses by.
    pub kaslr_seed: Option<u64>,
}

impl UefiState {
    /// The tree.
    pub fn device_tree(&self) -> Result<Vec<u8>, FdtError> {
        let mut tree = FdtWriter::new();
        tree.begin_node("");
        tree.property_u32("#address-cells", 2);
        tree.property_u32("#size-cells", 2);
        tree.begin_node("chosen");
        tree.property_u64("linux,uefi-system-table", self.system_table.0);
        tree.property_u64("linux,uefi-mmap-start", self.memory_map.start.0);
        tree.property_u32("linux,uefi-mmap-size", self.memory_map.size as u32);
        tree.property_u32("linux,uefi-mmap-desc-size", self.descriptor_size);
        tree.property_u32("linux,uefi-mmap-desc-ver", self.descriptor_version);
        // Only the kernels of some distributions look at it, and those do not
        // believe in UEFI without it.
        tree.property_u32(
            "linux,uefi-secure-boot",
            match self.secure_boot {
                SecureBoot::Unknown => 1,
                SecureBoot::Disabled => 2,
                SecureBoot::Enabled => 3,
            },
        );
        if let Some(seed) = self.kaslr_seed {
            tree.property_u64("kaslr-seed", seed);
        }
        tree.end_node();
        tree.end_node();
        tree.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warmbus_fdt::{RawTree, Token};

    #[test]
    fn the_tree_has_only_chosen_and_the_properties_of_the_efi_stub() {
        let state = UefiState {
            system_table: PhysAddr(0x7_bfff_0018),
            memory_map: MemoryRange::new(PhysAddr(0x7_bf00_0000), 0x1230),
            descriptor_size: 48,
            descriptor_version: 1,
            secure_boot: SecureBoot::Disabled,
            kaslr_seed: Some(5),
        };
        let bytes = state.device_tree().unwrap();
        let tree = RawTree::new(&bytes).unwrap();
        let mut names = Vec::new();
        let mut properties = Vec::new();
        for token in tree.tokens() {
            match token.unwrap().1 {
                Token::Begin { name } => names.push(name),
                Token::Property { name, value } => properties.push((name, value)),
                Token::End => {}
            }
        }
        assert_eq!(names, [&b""[..], b"chosen"]);
        let value = |name: &str| {
            let property = properties
                .iter()
                .find(|(known, _)| *known == name.as_bytes());
            property.unwrap().1
        };
        assert_eq!(
            value("linux,uefi-system-table"),
            0x7_bfff_0018_u64.to_be_bytes()
        );
        assert_eq!(
            value("linux,uefi-mmap-start"),
            0x7_bf00_0000_u64.to_be_bytes()
        );
        assert_eq!(value("linux,uefi-mmap-size"), 0x1230_u32.to_be_bytes());
        assert_eq!(value("linux,uefi-mmap-desc-size"), 48_u32.to_be_bytes());
        assert_eq!(value("linux,uefi-mmap-desc-ver"), 1_u32.to_be_bytes());
        assert_eq!(value("linux,uefi-secure-boot"), 2_u32.to_be_bytes());
        assert_eq!(value("kaslr-seed"), 5_u64.to_be_bytes());
    }
}

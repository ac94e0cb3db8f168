//! Rules of the capabilities in the first 256 bytes.

use super::{ByteRule, Field, Shape, WriteEffect, express, pass, se, st, sw, vo};
use warmbus_pci::registers::capability as ids;

/// The rules of capability `id`; empty where only its header is known.
pub(super) fn table(id: u8) -> &'static [Field] {
    match id {
        ids::POWER_MANAGEMENT => POWER_MANAGEMENT,
        0x02 | 0x0e => AGP,
        0x03 => VITAL_PRODUCT_DATA,
        0x04 => SLOT_IDENTIFICATION,
        ids::MSI => MSI,
        0x06 => COMPACT_PCI_HOT_SWAP,
        ids::PCI_X => PCI_X,
        ids::HYPER_TRANSPORT => HYPER_TRANSPORT,
        ids::VENDOR => VENDOR,
        0x0a => DEBUG_PORT,
        0x0c => STANDARD_HOT_PLUG,
        0x0d => BRIDGE_SUBSYSTEM,
        ids::EXPRESS => express::TABLE,
        0x11 => MSI_X,
        0x12 => SATA,
        0x13 => ADVANCED_FEATURES,
        0x15 => FLATTENING_PORTAL,
        _ => &[],
    }
}

/// PCIe 7.5.2. Power State reads the actual state, which follows late.
const POWER_MANAGEMENT: &[Field] = &[
    st(2, 2),
    vo(4, 2).effect(WriteEffect::PowerState),
    st(6, 1),
    vo(7, 1),
];

/// AGP 3.0 6.1; the command register is the last that both versions share.
const AGP: &[Field] = &[st(2, 6), sw(8, 4)];

/// PCIe 7.9.18. Hardware toggles the flag above the address.
const VITAL_PRODUCT_DATA: &[Field] = &[vo(2, 2), vo(4, 4)];

/// PCI-PCI Bridge 3.2.6.
const SLOT_IDENTIFICATION: &[Field] = &[st(2, 1), sw(3, 1)];

/// PCIe 7.7.1: four shapes, by 64-bit address (bit 7) and per-vector masking
/// (bit 8); bit 9 adds two bytes of message data.
const MSI: &[Field] = &[
    sw(2, 2).effect(WriteEffect::MessageControl),
    sw(4, 4),
    sw(0x08, 2).when(|s| !msi(s, MSI_64)),
    sw(0x0a, 2).when(|s| !msi(s, MSI_64) && msi(s, MSI_EXTENDED_DATA)),
    sw(0x0c, 4).when(|s| !msi(s, MSI_64) && msi(s, MSI_MASKING)),
    vo(0x10, 4).when(|s| !msi(s, MSI_64) && msi(s, MSI_MASKING)),
    sw(0x08, 4).when(|s| msi(s, MSI_64)),
    sw(0x0c, 2).when(|s| msi(s, MSI_64)),
    sw(0x0e, 2).when(|s| msi(s, MSI_64) && msi(s, MSI_EXTENDED_DATA)),
    sw(0x10, 4).when(|s| msi(s, MSI_64) && msi(s, MSI_MASKING)),
    vo(0x14, 4).when(|s| msi(s, MSI_64) && msi(s, MSI_MASKING)),
];

const MSI_64: u32 = 1 << (16 + 7);
const MSI_MASKING: u32 = 1 << (16 + 8);
const MSI_EXTENDED_DATA: u32 = 1 << (16 + 9);

fn msi(shape: &mut dyn Shape, bit: u32) -> bool {
    shape.dword(0) & bit != 0
}

/// Insertion and extraction bits set themselves.
const COMPACT_PCI_HOT_SWAP: &[Field] = &[vo(2, 1)];

/// PCI-X 2.0 7.2 (type 0) and 8.6.2 (bridges). Version bits 13:12 of the
/// command register announce ECC registers.
const PCI_X: &[Field] = &[
    sw(2, 2).when(|s| !is_bridge(s)),
    vo(2, 2).when(is_bridge),
    vo(4, 4),
    vo(8, 0x10).when(|s| !is_bridge(s) && pci_x_has_ecc(s)),
    sw(8, 8).when(is_bridge),
    vo(0x10, 8).when(|s| is_bridge(s) && pci_x_has_ecc(s)),
];

fn is_bridge(shape: &mut dyn Shape) -> bool {
    shape.facts().header_type == 1
}

fn pci_x_has_ecc(shape: &mut dyn Shape) -> bool {
    shape.dword(0) >> (16 + 12) & 3 != 0
}

/// Only the MSI mapping block; link and host blocks hold error status.
const HYPER_TRANSPORT: &[Field] = &[
    sw(2, 2).when(is_msi_mapping),
    // A mapping with a fixed address ends after its flags.
    sw(4, 8).when(|s| is_msi_mapping(s) && s.dword(0) >> 16 & 2 == 0),
];

fn is_msi_mapping(shape: &mut dyn Shape) -> bool {
    shape.dword(0) >> 24 & 0xf8 == 0xa8
}

/// PCIe 7.9.4: only the length is defined.
const VENDOR: &[Field] = &[st(2, 1)];

/// Virtio 1.3, 4.1.4: structures of vendor 1af4 that locate registers in BARs.
///
/// Type 5 is a window into a BAR; reading its data performs the read behind.
pub(super) fn virtio(shape: &mut dyn Shape, paint: &mut dyn FnMut(u16, u16, ByteRule)) {
    const VENDOR_ID: u16 = 0x1af4;

    if shape.facts().vendor_id != VENDOR_ID {
        return;
    }
    let header = shape.dword(0);
    let length = header >> 16 & 0xff;
    let table: &[Field] = match header >> 24 {
        1 | 3 | 4 if length >= 0x10 => &[st(3, 1), st(4, 0x0c)],
        2 if length >= 0x14 => &[st(3, 1), st(4, 0x10)],
        8 if length >= 0x18 => &[st(3, 1), st(4, 0x14)],
        5 if length >= 0x14 => &[st(3, 1), sw(4, 0x0c), se(0x10, 4)],
        _ => &[],
    };
    for field in table {
        field.expand(shape, paint);
    }
}

/// EHCI 1.0, appendix C.
const DEBUG_PORT: &[Field] = &[st(2, 2)];

/// SHPC 1.0 4.4: the data dword is the one that the select byte names.
const STANDARD_HOT_PLUG: &[Field] = &[sw(2, 1), vo(3, 1), se(4, 4)];

/// PCIe 7.9.23. Bytes 2 and 3 are reserved.
const BRIDGE_SUBSYSTEM: &[Field] = &[st(2, 6)];

/// PCIe 7.7.2.
const MSI_X: &[Field] = &[sw(2, 2).effect(WriteEffect::MessageControl), st(4, 8)];

/// AHCI 1.3.1 2.4: an index and data pair, here only where location is inline.
const SATA: &[Field] = &[
    st(2, 2),
    st(4, 4),
    sw(8, 4).when(is_inline),
    se(0x0c, 4).when(is_inline),
];

fn is_inline(shape: &mut dyn Shape) -> bool {
    shape.dword(4) & 0xf == 0xf
}

/// PCIe 7.9.21.
const ADVANCED_FEATURES: &[Field] = &[
    st(2, 2),
    pass(4, 1).effect(WriteEffect::AdvancedFeatures),
    vo(5, 1),
];

/// PCIe 7.8.11: the last dword is the element of a vector that the one before
/// selects; a write to it moves what is below as well.
const FLATTENING_PORTAL: &[Field] = &[
    st(4, 4),
    sw(8, 0x14).effect(WriteEffect::Rerouting),
    sw(0x1c, 4),
    se(0x20, 4).effect(WriteEffect::Rerouting),
];

#[cfg(test)]
mod tests {
    use super::super::{ByteClass, Facts, standard};
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    /// A structure whose dwords are given.
    struct Given {
        dwords: &'static [u32],
        facts: Facts,
    }

    impl Shape for Given {
        fn dword(&mut self, at: u16) -> u32 {
            self.dwords[usize::from(at / 4)]
        }
        fn facts(&self) -> &Facts {
            &self.facts
        }
    }

    fn classes(id: u8, vendor_id: u16, dwords: &'static [u32], len: usize) -> Vec<ByteClass> {
        let mut classes = vec![ByteClass::Unknown; len];
        let mut shape = Given {
            dwords,
            facts: Facts {
                vendor_id,
                header_type: 0,
                port_type: None,
                lanes: 0,
            },
        };
        standard(id, &mut shape, &mut |at, len, cell| {
            for offset in at..at + len {
                if let Some(class) = classes.get_mut(usize::from(offset)) {
                    *class = cell.class;
                }
            }
        });
        classes
    }

    #[test]
    fn the_four_shapes_of_msi_put_pending_bits_where_the_specification_does() {
        for (control, pending) in [
            (0x0000, None),
            (0x0080, None),
            (0x0100, Some(0x10)),
            (0x0180, Some(0x14)),
        ] {
            let dwords: &'static [u32] = match control {
                0x0000 => &[0x0000_0005],
                0x0080 => &[0x0080_0005],
                0x0100 => &[0x0100_0005],
                _ => &[0x0180_0005],
            };
            let classes = classes(ids::MSI, 0x8086, dwords, 0x18);
            let found = classes
                .iter()
                .position(|&class| class == ByteClass::Volatile);
            assert_eq!(found, pending, "control {control:#x}");
        }
    }

    #[test]
    fn extended_message_data_is_named_only_where_it_exists() {
        assert_eq!(
            classes(ids::MSI, 0, &[0x0080_0005], 0x18)[0x0e],
            ByteClass::Unknown
        );
        assert_eq!(
            classes(ids::MSI, 0, &[0x0280_0005], 0x18)[0x0e],
            ByteClass::Software
        );
    }

    #[test]
    fn the_data_window_of_virtio_is_never_touched() {
        let classes = classes(ids::VENDOR, 0x1af4, &[0x0514_0009], 0x14);
        assert_eq!(classes[4], ByteClass::Software);
        assert!(
            classes[0x10..]
                .iter()
                .all(|&class| class == ByteClass::SideEffect)
        );
    }

    #[test]
    fn a_vendor_body_of_anybody_else_is_unknown() {
        let classes = classes(ids::VENDOR, 0x8086, &[0x0514_0009], 0x14);
        assert_eq!(classes[2], ByteClass::Static);
        assert!(
            classes[3..]
                .iter()
                .all(|&class| class == ByteClass::Unknown)
        );
    }
}

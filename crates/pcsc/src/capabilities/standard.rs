//! The capabilities in the first 256 bytes.

use super::{
    Row, Shape, Structure, WriteEffect, constant, express, pass_through, side_effect, software,
    undescribed, variable, volatile,
};
use warmbus_pci::registers::capability as ids;

/// The structure of capability `id`.
pub(super) const fn structure(id: u8) -> Structure {
    match id {
        0x00 => Structure::named("Null"),
        ids::POWER_MANAGEMENT => Structure::of("PM", POWER_MANAGEMENT),
        0x02 => Structure::of("AGP", AGP),
        0x03 => Structure::of("VPD", VITAL_PRODUCT_DATA),
        0x04 => Structure::of("Slot ID", SLOT_IDENTIFICATION),
        ids::MSI => Structure::of("MSI", MSI),
        0x06 => Structure::of("CompactPCI Hot Swap", COMPACT_PCI_HOT_SWAP),
        ids::PCI_X => Structure::of("PCI-X", PCI_X),
        ids::HYPER_TRANSPORT => Structure::of("HyperTransport", HYPER_TRANSPORT),
        ids::VENDOR => Structure::of("Vendor Specific", VENDOR).and(variable::virtio),
        0x0a => Structure::of("Debug Port", DEBUG_PORT),
        0x0b => Structure::named("CompactPCI CRC"),
        0x0c => Structure::of("SHPC", STANDARD_HOT_PLUG),
        0x0d => Structure::of("Bridge Subsystem", BRIDGE_SUBSYSTEM),
        0x0e => Structure::of("AGP3", AGP),
        0x0f => Structure::named("Secure Device"),
        ids::EXPRESS => Structure::of("Express", express::ROWS),
        0x11 => Structure::of("MSI-X", MSI_X),
        0x12 => Structure::of("SATA", SATA),
        0x13 => Structure::of("Advanced Features", ADVANCED_FEATURES),
        ids::ENHANCED_ALLOCATION => Structure::of("Enhanced Allocation", ENHANCED_ALLOCATION)
            .and(variable::enhanced_allocation),
        0x15 => Structure::of("FPB", FLATTENING_PORTAL),
        _ => Structure::named("Unknown Capability"),
    }
}

/// PCIe 7.5.2. Power State reads the actual state, which follows late.
const POWER_MANAGEMENT: &[Row] = &[
    constant(2, 2, "Capabilities"),
    volatile(4, 2, "Control/Status").effect(WriteEffect::PowerState),
    constant(6, 1, "Bridge Extensions"),
    volatile(7, 1, "Data"),
];

/// AGP 3.0 6.1; the command register is the last that both versions share.
const AGP: &[Row] = &[
    constant(2, 2, "Version"),
    constant(4, 4, "Status"),
    software(8, 4, "Command"),
];

/// PCIe 7.9.18. Hardware toggles the flag above the address.
const VITAL_PRODUCT_DATA: &[Row] = &[volatile(2, 2, "Address"), volatile(4, 4, "Data")];

/// PCI-PCI Bridge 3.2.6.
const SLOT_IDENTIFICATION: &[Row] = &[
    constant(2, 1, "Expansion Slot"),
    software(3, 1, "Chassis Number"),
];

/// PCIe 7.7.1: four shapes, by 64-bit address (bit 7) and per-vector masking
/// (bit 8); bit 9 adds two bytes of message data, which are reserved without.
const MSI: &[Row] = &[
    software(0x02, 2, "Message Control").effect(WriteEffect::MessageControl),
    software(0x04, 4, "Message Address"),
    software(0x08, 2, "Message Data").when(|s| !msi(s, MSI_64)),
    software(0x0a, 2, "Extended Message Data")
        .when(|s| !msi(s, MSI_64) && msi(s, MSI_EXTENDED_DATA)),
    software(0x0c, 4, "Mask Bits").when(|s| !msi(s, MSI_64) && msi(s, MSI_MASKING)),
    volatile(0x10, 4, "Pending Bits").when(|s| !msi(s, MSI_64) && msi(s, MSI_MASKING)),
    software(0x08, 4, "Message Upper Address").when(|s| msi(s, MSI_64)),
    software(0x0c, 2, "Message Data").when(|s| msi(s, MSI_64)),
    software(0x0e, 2, "Extended Message Data")
        .when(|s| msi(s, MSI_64) && msi(s, MSI_EXTENDED_DATA)),
    software(0x10, 4, "Mask Bits").when(|s| msi(s, MSI_64) && msi(s, MSI_MASKING)),
    volatile(0x14, 4, "Pending Bits").when(|s| msi(s, MSI_64) && msi(s, MSI_MASKING)),
];

const MSI_64: u32 = 1 << (16 + 7);
const MSI_MASKING: u32 = 1 << (16 + 8);
const MSI_EXTENDED_DATA: u32 = 1 << (16 + 9);

fn msi(shape: &mut Shape<'_>, bit: u32) -> bool {
    shape.dword(0) & bit != 0
}

/// Insertion and extraction bits set themselves.
const COMPACT_PCI_HOT_SWAP: &[Row] = &[volatile(2, 1, "Control/Status")];

/// PCI-X 2.0 7.2 (type 0) and 8.6.2 (bridges). Version bits 13:12 of the
/// command register announce ECC registers.
const PCI_X: &[Row] = &[
    software(0x02, 2, "Command").when(|s| !is_bridge(s)),
    volatile(0x02, 2, "Secondary Status").when(is_bridge),
    volatile(0x04, 4, "Status").when(|s| !is_bridge(s)),
    volatile(0x04, 4, "Bridge Status").when(is_bridge),
    volatile(0x08, 0x10, "ECC")
        .when(|s| !is_bridge(s))
        .reserved_unless(pci_x_has_ecc),
    software(0x08, 4, "Upstream Split Transaction").when(is_bridge),
    software(0x0c, 4, "Downstream Split Transaction").when(is_bridge),
    volatile(0x10, 8, "ECC")
        .when(is_bridge)
        .reserved_unless(pci_x_has_ecc),
];

fn is_bridge(shape: &mut Shape<'_>) -> bool {
    shape.facts().header_type == 1
}

fn pci_x_has_ecc(shape: &mut Shape<'_>) -> bool {
    shape.dword(0) >> (16 + 12) & 3 != 0
}

/// Only the MSI mapping block; link and host blocks hold error status.
const HYPER_TRANSPORT: &[Row] = &[
    software(2, 2, "Command").reserved_unless(is_msi_mapping),
    // A mapping with a fixed address ends after its flags.
    software(4, 8, "MSI Mapping Address")
        .reserved_unless(|s| is_msi_mapping(s) && s.dword(0) >> 16 & 2 == 0),
];

fn is_msi_mapping(shape: &mut Shape<'_>) -> bool {
    shape.dword(0) >> 24 & 0xf8 == 0xa8
}

/// PCIe 7.9.4: only the length is defined.
const VENDOR: &[Row] = &[constant(2, 1, "Length")];

/// EHCI 1.0, appendix C.
const DEBUG_PORT: &[Row] = &[constant(2, 2, "BAR and Offset")];

/// SHPC 1.0 4.4: the data dword is the one that the select byte names.
const STANDARD_HOT_PLUG: &[Row] = &[
    software(2, 1, "DWORD Select"),
    volatile(3, 1, "Pending"),
    side_effect(4, 4, "Data"),
];

/// PCIe 7.9.23.
const BRIDGE_SUBSYSTEM: &[Row] = &[
    constant(2, 2, "Reserved"),
    constant(4, 2, "Subsystem Vendor ID"),
    constant(6, 2, "Subsystem ID"),
];

/// PCIe 7.7.2.
const MSI_X: &[Row] = &[
    software(2, 2, "Message Control").effect(WriteEffect::MessageControl),
    constant(4, 4, "Table Offset"),
    constant(8, 4, "PBA Offset"),
];

/// AHCI 1.3.1 2.4: an index and data pair, here only where location is inline.
const SATA: &[Row] = &[
    constant(2, 2, "Revision"),
    constant(4, 4, "Location"),
    software(8, 4, "Index").when(is_inline),
    side_effect(0x0c, 4, "Data").when(is_inline),
];

fn is_inline(shape: &mut Shape<'_>) -> bool {
    shape.dword(4) & 0xf == 0xf
}

/// PCIe 7.9.21.
const ADVANCED_FEATURES: &[Row] = &[
    constant(2, 1, "Length"),
    constant(3, 1, "Capabilities"),
    pass_through(4, 1, "Control").effect(WriteEffect::AdvancedFeatures),
    volatile(5, 1, "Status"),
];

/// PCIe 7.8.5; the entries follow.
const ENHANCED_ALLOCATION: &[Row] = &[
    constant(2, 2, "Number of Entries"),
    constant(4, 4, "Fixed Bus Numbers").when(is_bridge),
];

/// PCIe 7.8.11: the last dword is the element of a vector that the one before
/// selects; a write to it moves what is below as well.
const FLATTENING_PORTAL: &[Row] = &[
    undescribed(0x02, 2, "Reserved"),
    constant(0x04, 4, "Capabilities"),
    software(0x08, 4, "RID Vector Control 1").effect(WriteEffect::Rerouting),
    software(0x0c, 4, "RID Vector Control 2").effect(WriteEffect::Rerouting),
    software(0x10, 4, "MEM Low Vector Control").effect(WriteEffect::Rerouting),
    software(0x14, 4, "MEM High Vector Control 1").effect(WriteEffect::Rerouting),
    software(0x18, 4, "MEM High Vector Control 2").effect(WriteEffect::Rerouting),
    software(0x1c, 4, "Vector Access Control"),
    side_effect(0x20, 4, "Vector Access Data").effect(WriteEffect::Rerouting),
];

//! Registers of the capabilities in the first 256 bytes.

use super::{Put, Row, Shape, rows};
use warmbus_pci::registers::capability as ids;

/// The short name of capability `id`.
pub(super) const fn name(id: u8) -> &'static str {
    match id {
        0x00 => "Null",
        ids::POWER_MANAGEMENT => "PM",
        0x02 => "AGP",
        0x03 => "VPD",
        0x04 => "Slot ID",
        ids::MSI => "MSI",
        0x06 => "CompactPCI Hot Swap",
        ids::PCI_X => "PCI-X",
        ids::HYPER_TRANSPORT => "HyperTransport",
        ids::VENDOR => "Vendor Specific",
        0x0a => "Debug Port",
        0x0b => "CompactPCI CRC",
        0x0c => "SHPC",
        0x0d => "Bridge Subsystem",
        0x0e => "AGP3",
        0x0f => "Secure Device",
        ids::EXPRESS => "Express",
        0x11 => "MSI-X",
        0x12 => "SATA",
        0x13 => "Advanced Features",
        ids::ENHANCED_ALLOCATION => "Enhanced Allocation",
        0x15 => "FPB",
        _ => "Unknown Capability",
    }
}

/// Calls `put` for the registers of capability `id` after its header.
pub(super) fn registers(id: u8, header: &Shape<'_>, shape: &Shape<'_>, put: &mut Put<'_>) {
    match id {
        ids::MSI => msi(shape, put),
        ids::PCI_X if shape.header_type == 1 => rows(PCI_X_BRIDGE, put),
        ids::VENDOR => vendor(header, shape, put),
        ids::ENHANCED_ALLOCATION => enhanced_allocation(shape, put),
        0x12 if shape.dword(4) & 0xf == 0xf => rows(SATA_INLINE, put),
        id => rows(table(id), put),
    }
}

const fn table(id: u8) -> &'static [Row] {
    match id {
        // PCIe 7.5.2.
        ids::POWER_MANAGEMENT => &[
            (2, 2, "Capabilities"),
            (4, 2, "Control/Status"),
            (6, 1, "Bridge Extensions"),
            (7, 1, "Data"),
        ],
        // AGP 3.0, 6.1.
        0x02 | 0x0e => &[(2, 2, "Version"), (4, 4, "Status"), (8, 4, "Command")],
        // PCIe 7.9.18.
        0x03 => &[(2, 2, "Address"), (4, 4, "Data")],
        // PCI-PCI Bridge 3.2.6.
        0x04 => &[(2, 1, "Expansion Slot"), (3, 1, "Chassis Number")],
        0x06 => &[(2, 1, "Control/Status")],
        // PCI-X 2.0, 7.2.
        ids::PCI_X => &[(2, 2, "Command"), (4, 4, "Status"), (8, 16, "ECC")],
        ids::HYPER_TRANSPORT => &[(2, 2, "Command"), (4, 8, "MSI Mapping Address")],
        // EHCI 1.0, appendix C.
        0x0a => &[(2, 2, "BAR and Offset")],
        // SHPC 1.0, 4.4.
        0x0c => &[(2, 1, "DWORD Select"), (3, 1, "Pending"), (4, 4, "Data")],
        // PCIe 7.9.23.
        0x0d => &[
            (2, 2, "Reserved"),
            (4, 2, "Subsystem Vendor ID"),
            (6, 2, "Subsystem ID"),
        ],
        // PCIe 7.7.2.
        0x11 => &[
            (2, 2, "Message Control"),
            (4, 4, "Table Offset"),
            (8, 4, "PBA Offset"),
        ],
        // AHCI 1.3.1, 2.4.
        0x12 => SATA,
        // PCIe 7.9.21.
        0x13 => &[
            (2, 1, "Length"),
            (3, 1, "Capabilities"),
            (4, 1, "Control"),
            (5, 1, "Status"),
        ],
        // PCIe 7.8.11.
        0x15 => &[
            (2, 2, "Reserved"),
            (4, 4, "Capabilities"),
            (8, 4, "RID Vector Control 1"),
            (0x0c, 4, "RID Vector Control 2"),
            (0x10, 4, "MEM Low Vector Control"),
            (0x14, 4, "MEM High Vector Control 1"),
            (0x18, 4, "MEM High Vector Control 2"),
            (0x1c, 4, "Vector Access Control"),
            (0x20, 4, "Vector Access Data"),
        ],
        _ => &[],
    }
}

const SATA: &[Row] = &[(2, 2, "Revision"), (4, 4, "Location")];

const SATA_INLINE: &[Row] = &[
    (2, 2, "Revision"),
    (4, 4, "Location"),
    (8, 4, "Index"),
    (0x0c, 4, "Data"),
];

/// PCI-X 2.0, 8.6.2.
const PCI_X_BRIDGE: &[Row] = &[
    (2, 2, "Secondary Status"),
    (4, 4, "Bridge Status"),
    (8, 4, "Upstream Split Transaction"),
    (0x0c, 4, "Downstream Split Transaction"),
    (0x10, 8, "ECC"),
];

/// PCIe 7.7.1: Message Control tells the size of the address, and whether
/// there are masks.
fn msi(shape: &Shape<'_>, put: &mut Put<'_>) {
    let control = shape.dword(0) >> 16;
    put(2, 2, "Message Control", None);
    put(4, 4, "Message Address", None);
    let mut at = 8;
    if control & 1 << 7 != 0 {
        put(at, 4, "Message Upper Address", None);
        at += 4;
    }
    put(at, 2, "Message Data", None);
    put(at + 2, 2, "Extended Message Data", None);
    if control & 1 << 8 != 0 {
        put(at + 4, 4, "Mask Bits", None);
        put(at + 8, 4, "Pending Bits", None);
    }
}

/// PCIe 7.9.4; for vendor 1af4 the locators of virtio (Virtio 1.3, 4.1.4).
fn vendor(header: &Shape<'_>, shape: &Shape<'_>, put: &mut Put<'_>) {
    const VIRTIO: u32 = 0x1af4;

    put(2, 1, "Length", None);
    let kind = shape.dword(0) >> 24;
    if header.dword(0) & 0xffff != VIRTIO || !matches!(kind, 1..=5 | 8) {
        return;
    }
    put(3, 1, "Virtio Type", None);
    put(4, 1, "Virtio BAR", None);
    put(5, 1, "Virtio ID", None);
    put(6, 2, "Virtio Padding", None);
    put(8, 4, "Virtio Offset", None);
    put(0x0c, 4, "Virtio Length", None);
    match kind {
        2 => put(0x10, 4, "Virtio Notify Multiplier", None),
        5 => put(0x10, 4, "Virtio Configuration Data", None),
        8 => {
            put(0x10, 4, "Virtio Offset High", None);
            put(0x14, 4, "Virtio Length High", None);
        }
        _ => {}
    }
}

/// PCIe 7.8.5: entries whose first dword tells their length.
fn enhanced_allocation(shape: &Shape<'_>, put: &mut Put<'_>) {
    put(2, 2, "Number of Entries", None);
    let mut at = 4;
    if shape.header_type == 1 {
        put(4, 4, "Fixed Bus Numbers", None);
        at = 8;
    }
    for number in 0..(shape.dword(0) >> 16 & 0x3f) as u16 {
        if shape.start + at >= shape.end {
            return;
        }
        let body = (shape.dword(at) & 7) as u16 * 4;
        put(at, 4, "Entry Type", Some(number));
        put(at + 4, body, "Entry", Some(number));
        at += 4 + body;
    }
}

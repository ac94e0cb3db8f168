//! Registers of the PCI Express capability (PCIe 7.5.3).

use super::Row;

/// All that version 2 of the structure can have. Where the one at hand is
/// shorter, its end cuts the table.
pub(super) const TABLE: &[Row] = &[
    (0x02, 2, "Capabilities"),
    (0x04, 4, "Device Capabilities"),
    (0x08, 2, "Device Control"),
    (0x0a, 2, "Device Status"),
    (0x0c, 4, "Link Capabilities"),
    (0x10, 2, "Link Control"),
    (0x12, 2, "Link Status"),
    (0x14, 4, "Slot Capabilities"),
    (0x18, 2, "Slot Control"),
    (0x1a, 2, "Slot Status"),
    (0x1c, 2, "Root Control"),
    (0x1e, 2, "Root Capabilities"),
    (0x20, 4, "Root Status"),
    (0x24, 4, "Device Capabilities 2"),
    (0x28, 2, "Device Control 2"),
    (0x2a, 2, "Device Status 2"),
    (0x2c, 4, "Link Capabilities 2"),
    (0x30, 2, "Link Control 2"),
    (0x32, 2, "Link Status 2"),
    (0x34, 4, "Slot Capabilities 2"),
    (0x38, 2, "Slot Control 2"),
    (0x3a, 2, "Slot Status 2"),
];

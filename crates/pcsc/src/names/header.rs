//! Registers of the configuration headers (PCIe 7.5.1).

use super::Row;

/// What every header starts with.
pub(super) const COMMON: &[Row] = &[
    (0x00, 2, "Vendor ID"),
    (0x02, 2, "Device ID"),
    (0x04, 2, "Command"),
    (0x06, 2, "Status"),
    (0x08, 1, "Revision ID"),
    (0x09, 3, "Class Code"),
    (0x0c, 1, "Cache Line Size"),
    (0x0d, 1, "Latency Timer"),
    (0x0e, 1, "Header Type"),
    (0x0f, 1, "BIST"),
];

const TYPE0: &[Row] = &[
    (0x10, 4, "BAR 0"),
    (0x14, 4, "BAR 1"),
    (0x18, 4, "BAR 2"),
    (0x1c, 4, "BAR 3"),
    (0x20, 4, "BAR 4"),
    (0x24, 4, "BAR 5"),
    (0x28, 4, "CardBus CIS Pointer"),
    (0x2c, 2, "Subsystem Vendor ID"),
    (0x2e, 2, "Subsystem ID"),
    (0x30, 4, "Expansion ROM BAR"),
    (0x34, 1, "Capabilities Pointer"),
    (0x35, 7, "Reserved"),
    (0x3c, 1, "Interrupt Line"),
    (0x3d, 1, "Interrupt Pin"),
    (0x3e, 1, "Min_Gnt"),
    (0x3f, 1, "Max_Lat"),
];

const TYPE1: &[Row] = &[
    (0x10, 4, "BAR 0"),
    (0x14, 4, "BAR 1"),
    (0x18, 1, "Primary Bus Number"),
    (0x19, 1, "Secondary Bus Number"),
    (0x1a, 1, "Subordinate Bus Number"),
    (0x1b, 1, "Secondary Latency Timer"),
    (0x1c, 1, "I/O Base"),
    (0x1d, 1, "I/O Limit"),
    (0x1e, 2, "Secondary Status"),
    (0x20, 2, "Memory Base"),
    (0x22, 2, "Memory Limit"),
    (0x24, 2, "Prefetchable Memory Base"),
    (0x26, 2, "Prefetchable Memory Limit"),
    (0x28, 4, "Prefetchable Base Upper 32 Bits"),
    (0x2c, 4, "Prefetchable Limit Upper 32 Bits"),
    (0x30, 2, "I/O Base Upper 16 Bits"),
    (0x32, 2, "I/O Limit Upper 16 Bits"),
    (0x34, 1, "Capabilities Pointer"),
    (0x35, 3, "Reserved"),
    (0x38, 4, "Expansion ROM BAR"),
    (0x3c, 1, "Interrupt Line"),
    (0x3d, 1, "Interrupt Pin"),
    (0x3e, 2, "Bridge Control"),
];

/// PC Card Standard, volume 2.
const TYPE2: &[Row] = &[
    (0x10, 4, "CardBus Socket Base"),
    (0x14, 1, "Capabilities Pointer"),
    (0x15, 1, "Reserved"),
    (0x16, 2, "Secondary Status"),
    (0x18, 1, "PCI Bus Number"),
    (0x19, 1, "CardBus Bus Number"),
    (0x1a, 1, "Subordinate Bus Number"),
    (0x1b, 1, "CardBus Latency Timer"),
    (0x1c, 4, "Memory Base 0"),
    (0x20, 4, "Memory Limit 0"),
    (0x24, 4, "Memory Base 1"),
    (0x28, 4, "Memory Limit 1"),
    (0x2c, 4, "I/O Base 0"),
    (0x30, 4, "I/O Limit 0"),
    (0x34, 4, "I/O Base 1"),
    (0x38, 4, "I/O Limit 1"),
    (0x3c, 1, "Interrupt Line"),
    (0x3d, 1, "Interrupt Pin"),
    (0x3e, 2, "Bridge Control"),
    (0x40, 2, "Subsystem Vendor ID"),
    (0x42, 2, "Subsystem ID"),
    (0x44, 4, "Legacy Mode Base Address"),
];

/// What the header of `header_type` has beyond the common part.
pub(super) const fn of(header_type: u8) -> &'static [Row] {
    match header_type {
        0 => TYPE0,
        1 => TYPE1,
        2 => TYPE2,
        _ => &[],
    }
}

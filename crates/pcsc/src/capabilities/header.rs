//! The configuration headers (PCIe 7.5.1).

use super::{InvalidatedBy, Row, Shape, WriteEffect, constant, software, undescribed, volatile};
use warmbus_pci::PortType;
use warmbus_pci::registers::{BIST, INTERRUPT_PIN, ROM_BAR_TYPE0, ROM_BAR_TYPE1};

/// The registers of every header layout.
pub(super) const COMMON: &[Row] = &[
    constant(0x00, 2, "Vendor ID"),
    constant(0x02, 2, "Device ID"),
    software(0x04, 2, "Command"),
    // Interrupt Status makes the low byte of Status volatile; a function
    // without an interrupt pin cannot raise INTx, and its byte is constant.
    volatile(0x06, 1, "Status").when(|s| interrupt_pin(s) != 0),
    constant(0x06, 1, "Status").when(|s| interrupt_pin(s) == 0),
    volatile(0x07, 1, "Status"),
    constant(0x08, 1, "Revision ID"),
    constant(0x09, 3, "Class Code"),
    software(0x0c, 1, "Cache Line Size"),
    software(0x0d, 1, "Latency Timer"),
    constant(0x0e, 1, "Header Type"),
    // Start is cleared by hardware, so that only an incapable BIST is constant.
    constant(BIST, 1, "BIST").when(|s| byte(s, BIST) & 0x80 == 0),
    volatile(BIST, 1, "BIST")
        .effect(WriteEffect::Bist)
        .when(|s| byte(s, BIST) & 0x80 != 0),
];

/// Type 0: endpoints.
const TYPE0: &[Row] = &[
    software(0x10, 4, "BAR 0"),
    software(0x14, 4, "BAR 1"),
    software(0x18, 4, "BAR 2"),
    software(0x1c, 4, "BAR 3"),
    software(0x20, 4, "BAR 4"),
    software(0x24, 4, "BAR 5"),
    constant(0x28, 4, "CardBus CIS Pointer"),
    constant(0x2c, 2, "Subsystem Vendor ID"),
    constant(0x2e, 2, "Subsystem ID"),
    software(ROM_BAR_TYPE0, 1, "Expansion ROM BAR").tag(InvalidatedBy::RomValidation),
    software(0x31, 3, "Expansion ROM BAR"),
    constant(0x34, 1, "Capabilities Pointer"),
    constant(0x35, 7, "Reserved"),
    software(0x3c, 1, "Interrupt Line"),
    constant(0x3d, 1, "Interrupt Pin"),
    constant(0x3e, 1, "Min_Gnt"),
    constant(0x3f, 1, "Max_Lat"),
];

/// Type 1: PCI-PCI bridges, root and switch ports.
const TYPE1: &[Row] = &[
    software(0x10, 4, "BAR 0"),
    software(0x14, 4, "BAR 1"),
    software(0x18, 1, "Primary Bus Number").effect(WriteEffect::BusNumbers),
    software(0x19, 1, "Secondary Bus Number").effect(WriteEffect::BusNumbers),
    software(0x1a, 1, "Subordinate Bus Number").effect(WriteEffect::BusNumbers),
    software(0x1b, 1, "Secondary Latency Timer"),
    software(0x1c, 1, "I/O Base"),
    software(0x1d, 1, "I/O Limit"),
    constant(0x1e, 1, "Secondary Status"),
    volatile(0x1f, 1, "Secondary Status"),
    software(0x20, 2, "Memory Base"),
    software(0x22, 2, "Memory Limit"),
    software(0x24, 2, "Prefetchable Memory Base"),
    software(0x26, 2, "Prefetchable Memory Limit"),
    software(0x28, 4, "Prefetchable Base Upper 32 Bits"),
    software(0x2c, 4, "Prefetchable Limit Upper 32 Bits"),
    software(0x30, 2, "I/O Base Upper 16 Bits"),
    software(0x32, 2, "I/O Limit Upper 16 Bits"),
    constant(0x34, 1, "Capabilities Pointer"),
    constant(0x35, 3, "Reserved"),
    software(ROM_BAR_TYPE1, 1, "Expansion ROM BAR").tag(InvalidatedBy::RomValidation),
    software(0x39, 3, "Expansion ROM BAR"),
    software(0x3c, 1, "Interrupt Line"),
    constant(0x3d, 1, "Interrupt Pin"),
    software(0x3e, 1, "Bridge Control").effect(WriteEffect::BridgeControl),
    // Discard Timer Status sets itself on conventional buses.
    software(0x3f, 1, "Bridge Control")
        .effect(WriteEffect::BridgeControl)
        .when(has_pcie_secondary),
    volatile(0x3f, 1, "Bridge Control").when(|s| !has_pcie_secondary(s)),
];

/// Type 2: `CardBus` bridges (PC Card Standard, volume 2), of which only what
/// is certain is cached.
const TYPE2: &[Row] = &[
    undescribed(0x10, 4, "CardBus Socket Base"),
    constant(0x14, 1, "Capabilities Pointer"),
    undescribed(0x15, 1, "Reserved"),
    undescribed(0x16, 2, "Secondary Status"),
    undescribed(0x18, 1, "PCI Bus Number"),
    undescribed(0x19, 1, "CardBus Bus Number"),
    undescribed(0x1a, 1, "Subordinate Bus Number"),
    undescribed(0x1b, 1, "CardBus Latency Timer"),
    undescribed(0x1c, 4, "Memory Base 0"),
    undescribed(0x20, 4, "Memory Limit 0"),
    undescribed(0x24, 4, "Memory Base 1"),
    undescribed(0x28, 4, "Memory Limit 1"),
    undescribed(0x2c, 4, "I/O Base 0"),
    undescribed(0x30, 4, "I/O Limit 0"),
    undescribed(0x34, 4, "I/O Base 1"),
    undescribed(0x38, 4, "I/O Limit 1"),
    undescribed(0x3c, 1, "Interrupt Line"),
    undescribed(0x3d, 1, "Interrupt Pin"),
    undescribed(0x3e, 2, "Bridge Control"),
    constant(0x40, 2, "Subsystem Vendor ID"),
    constant(0x42, 2, "Subsystem ID"),
    undescribed(0x44, 4, "Legacy Mode Base Address"),
];

/// Every search of the extended list reads this zero again.
pub(super) const NO_EXTENDED_CAPABILITY: &[Row] = &[constant(0, 4, "Extended Capabilities (none)")];

/// What the header of `header_type` has beyond the common part.
pub(super) const fn layout(header_type: u8) -> &'static [Row] {
    match header_type {
        0 => TYPE0,
        1 => TYPE1,
        2 => TYPE2,
        _ => &[],
    }
}

/// The first byte after the header of `header_type`: a `CardBus` header goes
/// on to its subsystem IDs and legacy address.
pub(crate) const fn end(header_type: u8) -> u16 {
    if header_type == 2 { 0x48 } else { 0x40 }
}

fn byte(shape: &mut Shape<'_>, offset: u16) -> u8 {
    (shape.dword(offset & !3) >> (8 * (offset & 3))) as u8
}

/// Interrupt Pin; non-zero where the layout is not known to have one.
fn interrupt_pin(shape: &mut Shape<'_>) -> u8 {
    if shape.facts().header_type > 1 {
        return 1;
    }
    byte(shape, INTERRUPT_PIN)
}

fn has_pcie_secondary(shape: &mut Shape<'_>) -> bool {
    matches!(
        shape.facts().port_type,
        Some(
            PortType::RootPort
                | PortType::UpstreamPort
                | PortType::DownstreamPort
                | PortType::PciToPcieBridge
        )
    )
}

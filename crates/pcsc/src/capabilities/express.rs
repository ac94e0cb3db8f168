//! The PCI Express capability (PCIe 7.5.3).

use super::{InvalidatedBy, Row, Shape, WriteEffect, constant, software, volatile};
use warmbus_pci::PortType;

/// Version 1 ends with the last register that the port type needs; version 2
/// holds the device and link registers of every function, but an endpoint may
/// end where the slot registers would start. Where the structure at hand is
/// shorter, its end cuts the table.
pub(super) const ROWS: &[Row] = &[
    // The Interrupt Message Number follows the number of enabled messages.
    constant(0x02, 2, "Capabilities").tag(InvalidatedBy::Messages),
    // The Captured Slot Power Limit arrives with the link.
    constant(0x04, 4, "Device Capabilities").tag(InvalidatedBy::Link),
    software(0x08, 2, "Device Control").effect(WriteEffect::DeviceControl),
    volatile(0x0a, 2, "Device Status"),
    constant(0x0c, 4, "Link Capabilities")
        .tag(InvalidatedBy::CommonClock)
        .reserved_unless(has_link_registers),
    software(0x10, 2, "Link Control")
        .effect(WriteEffect::LinkControl)
        .reserved_unless(has_link_registers),
    volatile(0x12, 2, "Link Status").reserved_unless(has_link_registers),
    constant(0x14, 4, "Slot Capabilities").reserved_unless(has_slot),
    software(0x18, 2, "Slot Control")
        .effect(WriteEffect::SlotControl)
        .reserved_unless(has_slot),
    volatile(0x1a, 2, "Slot Status").reserved_unless(has_slot),
    software(0x1c, 2, "Root Control").reserved_unless(has_root_registers),
    constant(0x1e, 2, "Root Capabilities").reserved_unless(has_root_registers),
    volatile(0x20, 4, "Root Status").reserved_unless(has_root_registers),
    constant(0x24, 4, "Device Capabilities 2").reserved_unless(is_version_2),
    // Hardware clears LTR Enable of a port whose link goes down.
    software(0x28, 2, "Device Control 2")
        .tag(InvalidatedBy::Link)
        .effect(WriteEffect::DeviceControl2)
        .reserved_unless(is_version_2),
    constant(0x2a, 2, "Device Status 2").reserved_unless(is_version_2),
    constant(0x2c, 4, "Link Capabilities 2").reserved_unless(|s| is_version_2(s) && has_link(s)),
    software(0x30, 2, "Link Control 2").reserved_unless(|s| is_version_2(s) && has_link(s)),
    volatile(0x32, 2, "Link Status 2").reserved_unless(|s| is_version_2(s) && has_link(s)),
    constant(0x34, 4, "Slot Capabilities 2").reserved_unless(|s| is_version_2(s) && has_slot(s)),
    software(0x38, 2, "Slot Control 2").reserved_unless(|s| is_version_2(s) && has_slot(s)),
    volatile(0x3a, 2, "Slot Status 2").reserved_unless(|s| is_version_2(s) && has_slot(s)),
];

fn flags(shape: &mut Shape<'_>) -> u32 {
    shape.dword(0) >> 16
}

fn port_type(shape: &mut Shape<'_>) -> PortType {
    PortType::from_flags(flags(shape) as u16)
}

fn is_version_2(shape: &mut Shape<'_>) -> bool {
    flags(shape) & 0xf >= 2
}

fn has_link(shape: &mut Shape<'_>) -> bool {
    !matches!(
        port_type(shape),
        PortType::RootComplexIntegratedEndpoint | PortType::RootComplexEventCollector
    )
}

fn has_link_registers(shape: &mut Shape<'_>) -> bool {
    is_version_2(shape) || has_link(shape)
}

fn has_slot(shape: &mut Shape<'_>) -> bool {
    flags(shape) & 1 << 8 != 0
        && matches!(
            port_type(shape),
            PortType::RootPort | PortType::DownstreamPort
        )
}

fn has_root_registers(shape: &mut Shape<'_>) -> bool {
    matches!(
        port_type(shape),
        PortType::RootPort | PortType::RootComplexEventCollector
    )
}

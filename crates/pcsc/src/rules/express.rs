//! Rules of the PCI Express capability (PCIe 7.5.3).

use super::{Field, InvalidatedBy, Shape, WriteEffect, st, sw, vo};
use warmbus_pci::PortType;

/// Version 1 ends with the last register that the port type needs; version 2
/// holds the device and link registers of every function, but an endpoint may
/// end where the slot registers would start.
pub(super) const TABLE: &[Field] = &[
    // The Interrupt Message Number follows the number of enabled messages.
    st(0x02, 2).tag(InvalidatedBy::Messages),
    // The Captured Slot Power Limit arrives with the link.
    st(0x04, 4).tag(InvalidatedBy::Link),
    sw(0x08, 2).effect(WriteEffect::DeviceControl),
    vo(0x0a, 2),
    st(0x0c, 4)
        .tag(InvalidatedBy::CommonClock)
        .when(has_link_registers),
    sw(0x10, 2)
        .effect(WriteEffect::LinkControl)
        .when(has_link_registers),
    vo(0x12, 2).when(has_link_registers),
    st(0x14, 4).when(has_slot),
    sw(0x18, 2).effect(WriteEffect::SlotControl).when(has_slot),
    vo(0x1a, 2).when(has_slot),
    sw(0x1c, 2).when(has_root_registers),
    st(0x1e, 2).when(has_root_registers),
    vo(0x20, 4).when(has_root_registers),
    st(0x24, 4).when(is_version_2),
    // Hardware clears LTR Enable of a port whose link goes down.
    sw(0x28, 2)
        .tag(InvalidatedBy::Link)
        .effect(WriteEffect::DeviceControl2)
        .when(is_version_2),
    st(0x2a, 2).when(is_version_2),
    st(0x2c, 4).when(|s| is_version_2(s) && has_link(s)),
    sw(0x30, 2).when(|s| is_version_2(s) && has_link(s)),
    vo(0x32, 2).when(|s| is_version_2(s) && has_link(s)),
    st(0x34, 4).when(|s| is_version_2(s) && has_slot(s)),
    sw(0x38, 2).when(|s| is_version_2(s) && has_slot(s)),
    vo(0x3a, 2).when(|s| is_version_2(s) && has_slot(s)),
];

fn flags(shape: &mut dyn Shape) -> u32 {
    shape.dword(0) >> 16
}

fn port_type(shape: &mut dyn Shape) -> PortType {
    PortType::from_flags(flags(shape) as u16)
}

fn is_version_2(shape: &mut dyn Shape) -> bool {
    flags(shape) & 0xf >= 2
}

fn has_link(shape: &mut dyn Shape) -> bool {
    !matches!(
        port_type(shape),
        PortType::RootComplexIntegratedEndpoint | PortType::RootComplexEventCollector
    )
}

fn has_link_registers(shape: &mut dyn Shape) -> bool {
    is_version_2(shape) || has_link(shape)
}

fn has_slot(shape: &mut dyn Shape) -> bool {
    flags(shape) & 1 << 8 != 0
        && matches!(
            port_type(shape),
            PortType::RootPort | PortType::DownstreamPort
        )
}

fn has_root_registers(shape: &mut dyn Shape) -> bool {
    matches!(
        port_type(shape),
        PortType::RootPort | PortType::RootComplexEventCollector
    )
}

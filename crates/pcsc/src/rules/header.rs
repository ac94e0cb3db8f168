//! Rules of the configuration headers (PCIe 7.5.1).

use super::{Field, InvalidatedBy, WriteEffect, st, sw, vo};
use warmbus_pci::registers::{BIST, INTERRUPT_PIN, ROM_BAR_TYPE0, ROM_BAR_TYPE1};

/// Rules that hold for every header layout.
///
/// Status low byte and BIST are decided by the values below.
const COMMON: &[Field] = &[
    st(0x00, 4),
    sw(0x04, 2),
    // Interrupt Status makes the low byte of Status volatile; a function
    // without an interrupt pin cannot raise INTx, and its byte is constant.
    vo(0x06, 1).when(|shape| interrupt_pin(shape) != 0),
    st(0x06, 1).when(|shape| interrupt_pin(shape) == 0),
    vo(0x07, 1),
    st(0x08, 4),
    sw(0x0c, 2),
    st(0x0e, 1),
    // Start is cleared by hardware, so that only an incapable BIST is constant.
    st(BIST, 1).when(|shape| byte(shape, BIST) & 0x80 == 0),
    vo(BIST, 1)
        .effect(WriteEffect::Bist)
        .when(|shape| byte(shape, BIST) & 0x80 != 0),
];

/// Type 0: endpoints.
const TYPE0: &[Field] = &[
    sw(0x10, 0x18),
    st(0x28, 4),
    st(0x2c, 4),
    sw(ROM_BAR_TYPE0, 1).tag(InvalidatedBy::RomValidation),
    sw(0x31, 3),
    st(0x34, 8),
    sw(0x3c, 1),
    st(0x3d, 3),
];

/// Type 1: PCI-PCI bridges, root and switch ports.
const TYPE1: &[Field] = &[
    sw(0x10, 8),
    sw(0x18, 3).effect(WriteEffect::BusNumbers),
    sw(0x1b, 1),
    sw(0x1c, 2),
    st(0x1e, 1),
    vo(0x1f, 1),
    sw(0x20, 0x14),
    st(0x34, 4),
    sw(ROM_BAR_TYPE1, 1).tag(InvalidatedBy::RomValidation),
    sw(0x39, 3),
    sw(0x3c, 1),
    st(0x3d, 1),
    sw(0x3e, 1).effect(WriteEffect::BridgeControl),
    // Discard Timer Status sets itself on conventional buses.
    sw(0x3f, 1)
        .effect(WriteEffect::BridgeControl)
        .when(has_pcie_secondary),
    vo(0x3f, 1).when(|shape| !has_pcie_secondary(shape)),
];

/// Type 2: `CardBus` bridges, of which only what is certain is kept.
const TYPE2: &[Field] = &[st(0x14, 1), st(0x40, 4)];

/// The rules of header layout `header_type`, common part first.
pub(crate) fn header_fields(header_type: u8) -> [&'static [Field]; 2] {
    let own: &[Field] = match header_type {
        0 => TYPE0,
        1 => TYPE1,
        2 => TYPE2,
        _ => &[],
    };
    [COMMON, own]
}

fn byte(shape: &mut dyn super::Shape, offset: u16) -> u8 {
    (shape.dword(offset & !3) >> (8 * (offset & 3))) as u8
}

/// Interrupt Pin; non-zero where the layout is not known to have one.
fn interrupt_pin(shape: &mut dyn super::Shape) -> u8 {
    if shape.facts().header_type > 1 {
        return 1;
    }
    byte(shape, INTERRUPT_PIN)
}

fn has_pcie_secondary(shape: &mut dyn super::Shape) -> bool {
    use warmbus_pci::PortType;
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

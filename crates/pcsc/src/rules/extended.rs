//! Rules of the extended capabilities, from offset 0x100 on.

use super::{Count, Field, InvalidatedBy, Shape, WriteEffect, pass, se, st, sw, vo};
use warmbus_pci::PortType;
use warmbus_pci::registers::extended as ids;

/// The rules of extended capability `id`; empty where only its header is
/// known or its shape is computed elsewhere.
pub(super) fn table(id: u16) -> &'static [Field] {
    match id {
        0x01 => ADVANCED_ERROR_REPORTING,
        0x03 => SERIAL_NUMBER,
        0x04 => POWER_BUDGETING,
        0x05 => RC_LINK_DECLARATION,
        0x06 => RC_INTERNAL_LINK,
        0x07 => RCEC_ASSOCIATION,
        0x0a => RCRB_HEADER,
        0x0b => VENDOR_SPECIFIC,
        0x0c => CONFIG_ACCESS_CORRELATION,
        0x0d => ACCESS_CONTROL_SERVICES,
        ids::ARI => ARI,
        0x0f => ADDRESS_TRANSLATION,
        ids::SR_IOV => SR_IOV,
        0x12 => MULTICAST,
        0x13 => PAGE_REQUEST,
        0x15 => RESIZABLE_BAR,
        0x16 => DYNAMIC_POWER,
        0x17 => TPH_REQUESTER,
        0x18 => LATENCY_TOLERANCE,
        0x19 => SECONDARY_PCIE,
        0x1a => PROTOCOL_MULTIPLEXING,
        0x1b | 0x1c => CAPABILITY_AND_CONTROL,
        0x1d => DOWNSTREAM_PORT_CONTAINMENT,
        0x1e => L1_SUBSTATES,
        0x1f => PRECISION_TIME,
        0x21 => FRS_QUEUEING,
        0x22 => READINESS_TIME,
        0x24 => VF_RESIZABLE_BAR,
        0x25 => DATA_LINK_FEATURE,
        0x26 => PHYSICAL_16_GT,
        0x27 => LANE_MARGINING,
        0x28 => HIERARCHY_ID,
        0x29 => NATIVE_ENCLOSURE,
        0x2a => PHYSICAL_32_GT,
        0x2b => ALTERNATE_PROTOCOL,
        0x2c => SYSTEM_FIRMWARE_INTERMEDIARY,
        0x2e => DATA_OBJECT_EXCHANGE,
        0x2f => DEVICE_3,
        0x31 => PHYSICAL_64_GT,
        0x32 => FLIT_LOGGING,
        0x33 => FLIT_PERFORMANCE,
        0x34 => FLIT_ERROR_INJECTION,
        0x35 => STREAMLINED_VC,
        0x36 => MMIO_REGISTER_LOCATOR,
        _ => &[],
    }
}

fn reports_to_root(shape: &mut dyn Shape) -> bool {
    matches!(
        shape.facts().port_type,
        Some(PortType::RootPort | PortType::RootComplexEventCollector)
    )
}

/// PCIe 7.8.4. CAP/CTL mixes the First Error Pointer with controls.
const ADVANCED_ERROR_REPORTING: &[Field] = &[
    vo(0x04, 4),
    sw(0x08, 8),
    vo(0x10, 4),
    sw(0x14, 4),
    vo(0x18, 0x14),
    sw(0x2c, 4).when(reports_to_root),
    vo(0x30, 8).when(reports_to_root),
];

/// PCIe 7.9.3.
const SERIAL_NUMBER: &[Field] = &[st(4, 8)];

/// PCIe 7.8.1: Data is the one that the select byte names.
const POWER_BUDGETING: &[Field] = &[sw(4, 1), vo(8, 4), st(0x0c, 4)];

/// PCIe 7.9.8: the element header and one link entry of 16 bytes each.
const RC_LINK_DECLARATION: &[Field] = &[
    st(4, 0x0c),
    st(0x10, 0x10).each(0x10, |s| s.dword(4) as u16 >> 8),
];

/// PCIe 7.9.9.
const RC_INTERNAL_LINK: &[Field] = &[st(4, 4), sw(8, 2), vo(0x0a, 2)];

/// PCIe 7.9.10: version 2 adds the associated bus numbers.
const RCEC_ASSOCIATION: &[Field] = &[st(4, 4), st(8, 4).when(|s| version(s) >= 2)];

/// PCIe 7.9.7.
const RCRB_HEADER: &[Field] = &[st(4, 8), sw(0x0c, 4)];

/// PCIe 7.9.5: the body belongs to the vendor.
const VENDOR_SPECIFIC: &[Field] = &[st(4, 4)];

/// Trusted Configuration Space, obsolete.
const CONFIG_ACCESS_CORRELATION: &[Field] = &[st(4, 4)];

/// PCIe 7.7.11: bit 5 announces an egress control vector of as many bits as
/// the upper byte says, 0 meaning 256.
const ACCESS_CONTROL_SERVICES: &[Field] = &[
    st(4, 2),
    sw(6, 2),
    sw(8, 4).each(4, |s| {
        let capability = s.dword(4);
        let bits = match capability >> 8 & 0xff {
            0 => 256,
            bits => bits as u16,
        };
        if capability & 1 << 5 == 0 {
            0
        } else {
            bits.div_ceil(32)
        }
    }),
];

/// PCIe 7.8.8.
const ARI: &[Field] = &[st(4, 2), sw(6, 2)];

/// PCIe 10.5.1.
const ADDRESS_TRANSLATION: &[Field] = &[st(4, 2), sw(6, 2)];

/// PCIe 9.3.3. With VF migration `InitialVFs` moves on its own.
const SR_IOV: &[Field] = &[
    st(0x04, 4).tag(InvalidatedBy::Messages),
    sw(0x08, 2).effect(WriteEffect::SrIovControl),
    vo(0x0a, 2),
    st(0x0c, 2).when(|s| s.dword(4) & 1 == 0),
    vo(0x0c, 2).when(|s| s.dword(4) & 1 != 0),
    st(0x0e, 2),
    sw(0x10, 2).effect(WriteEffect::NumVfs),
    st(0x12, 1),
    st(0x13, 1),
    st(0x14, 4).tag(InvalidatedBy::VfRouting),
    st(0x18, 4),
    st(0x1c, 4),
    sw(0x20, 4).effect(WriteEffect::VfPageSize),
    sw(0x24, 0x18).tag(InvalidatedBy::VfPageSize),
    st(0x3c, 4),
];

/// PCIe 7.9.11: the overlay BAR exists on ports.
const MULTICAST: &[Field] = &[
    st(4, 2),
    sw(6, 2),
    sw(8, 0x20),
    sw(0x28, 8).when(|s| s.facts().header_type == 1),
];

/// PCIe 10.5.2.
const PAGE_REQUEST: &[Field] = &[sw(4, 2), vo(6, 2), st(8, 4), sw(0x0c, 4)];

/// PCIe 7.8.6: as many pairs as the first control register says.
const RESIZABLE_BAR: &[Field] = &[
    st(4, 4).each(8, resizable_bars),
    sw(8, 4)
        .effect(WriteEffect::ResizableBar)
        .each(8, resizable_bars),
];

/// PCIe 9.3.7.4.
const VF_RESIZABLE_BAR: &[Field] = &[
    st(4, 4).each(8, resizable_bars),
    sw(8, 4)
        .effect(WriteEffect::VfPageSize)
        .each(8, resizable_bars),
];

fn resizable_bars(shape: &mut dyn Shape) -> u16 {
    (shape.dword(8) >> 5 & 7).min(6) as u16
}

/// PCIe 7.9.12: one byte a substate.
const DYNAMIC_POWER: &[Field] = &[
    st(4, 8),
    vo(0x0c, 2),
    sw(0x0e, 2),
    st(0x10, 1).each(1, |s| (s.dword(4) & 0x1f) as u16 + 1),
];

/// PCIe 7.9.13: the steering tags are here where location is 1.
const TPH_REQUESTER: &[Field] = &[
    st(4, 4),
    sw(8, 4),
    sw(0x0c, 2).each(2, |s| {
        let capability = s.dword(4);
        if capability >> 9 & 3 == 1 {
            (capability >> 16 & 0x7ff) as u16 + 1
        } else {
            0
        }
    }),
];

/// PCIe 7.8.2.
const LATENCY_TOLERANCE: &[Field] = &[sw(4, 4)];

/// The lanes of the function's link.
const LANES: Count = |shape| shape.facts().lanes;

/// PCIe 7.7.3: an upstream port captures the presets in training.
const SECONDARY_PCIE: &[Field] = &[
    vo(4, 1),
    sw(5, 3),
    vo(8, 4),
    st(0x0c, 2).tag(InvalidatedBy::Link).each(2, LANES),
];

/// Deprecated.
const PROTOCOL_MULTIPLEXING: &[Field] = &[st(4, 4), sw(8, 4), vo(0x0c, 4)];

/// PASID (PCIe 7.8.9) and LN Requester: capability, then control.
const CAPABILITY_AND_CONTROL: &[Field] = &[st(4, 2), sw(6, 2)];

/// PCIe 7.9.14: bit 5 announces the root port's PIO registers.
const DOWNSTREAM_PORT_CONTAINMENT: &[Field] = &[
    st(4, 2).tag(InvalidatedBy::Messages),
    sw(6, 2).effect(WriteEffect::DpcControl),
    vo(8, 4),
    vo(0x0c, 4).when(has_pio_registers),
    sw(0x10, 0x10).when(has_pio_registers),
];

fn has_pio_registers(shape: &mut dyn Shape) -> bool {
    shape.dword(4) & 1 << 5 != 0
}

/// PCIe 7.8.3: version 2 adds a status register.
const L1_SUBSTATES: &[Field] = &[st(4, 4), sw(8, 8), vo(0x10, 4).when(|s| version(s) >= 2)];

/// PCIe 7.9.15.
const PRECISION_TIME: &[Field] = &[st(4, 4), sw(8, 4)];

/// PCIe 7.8.10: reading the queue is looking at its head.
const FRS_QUEUEING: &[Field] = &[
    st(4, 4).tag(InvalidatedBy::Messages),
    vo(8, 2),
    sw(0x0a, 2),
    se(0x0c, 4),
];

/// PCIe 7.9.16: the times hold once they are marked as valid.
const READINESS_TIME: &[Field] = &[
    st(4, 8).when(|s| s.dword(4) & 1 << 31 != 0),
    vo(4, 8).when(|s| s.dword(4) & 1 << 31 == 0),
];

/// PCIe 7.7.4: the status is the other end's word.
const DATA_LINK_FEATURE: &[Field] = &[st(4, 3), sw(7, 1), vo(8, 4)];

/// PCIe 7.7.5: one byte of equalization a lane.
const PHYSICAL_16_GT: &[Field] = &[
    st(4, 8),
    vo(0x0c, 0x10),
    st(0x20, 1).tag(InvalidatedBy::Link).each(1, LANES),
];

/// PCIe 7.7.7.
const LANE_MARGINING: &[Field] = &[
    st(4, 2),
    vo(6, 2),
    sw(8, 2).tag(InvalidatedBy::Link).each(4, LANES),
    vo(0x0a, 2).each(4, LANES),
];

/// PCIe 7.9.17: written by messages in endpoints.
const HIERARCHY_ID: &[Field] = &[vo(4, 0x20)];

/// PCIe 7.9.19.
const NATIVE_ENCLOSURE: &[Field] = &[st(4, 4), sw(8, 4), vo(0x0c, 4)];

/// PCIe 7.7.6.
const PHYSICAL_32_GT: &[Field] = &[
    st(4, 4),
    sw(8, 4),
    vo(0x0c, 0x14),
    st(0x20, 1).tag(InvalidatedBy::Link).each(1, LANES),
];

/// PCIe 7.9.20: the data is the one that the index names.
const ALTERNATE_PROTOCOL: &[Field] = &[st(4, 4), sw(8, 4), vo(0x0c, 8)];

/// PCIe 7.9.22: reading the data sends a request to the port below.
const SYSTEM_FIRMWARE_INTERMEDIARY: &[Field] = &[
    st(4, 2),
    sw(6, 2).effect(WriteEffect::Rerouting),
    vo(8, 4),
    sw(0x0c, 4),
    se(0x10, 4),
];

/// PCIe 7.9.24: the mailboxes belong to whoever runs the exchange.
const DATA_OBJECT_EXCHANGE: &[Field] = &[
    st(4, 4).tag(InvalidatedBy::Messages),
    pass(8, 4),
    vo(0x0c, 4),
    se(0x10, 8),
];

/// PCIe 7.7.9.
const DEVICE_3: &[Field] = &[st(4, 4), sw(8, 4), vo(0x0c, 4)];

/// PCIe 7.7.8. The place of the lane equalization is told in two ways, so
/// that it is left alone.
const PHYSICAL_64_GT: &[Field] = &[st(4, 4), sw(8, 4), vo(0x0c, 4)];

/// PCIe 7.7.10: the log is a queue.
const FLIT_LOGGING: &[Field] = &[vo(0x04, 8), sw(0x0c, 2), vo(0x0e, 2), vo(0x10, 0x2c)];

/// Counters.
const FLIT_PERFORMANCE: &[Field] = &[st(4, 4), pass(8, 4), vo(0x0c, 4)];

/// PCIe 7.7.12.
const FLIT_ERROR_INJECTION: &[Field] = &[st(4, 4), sw(8, 8), vo(0x10, 4), sw(0x14, 8), vo(0x1c, 8)];

/// PCIe 7.9.26.
const STREAMLINED_VC: &[Field] = &[st(4, 8), sw(0x0c, 2), vo(0x0e, 2)];

/// PCIe 7.9.27: the length is in the first register.
const MMIO_REGISTER_LOCATOR: &[Field] = &[
    st(4, 4),
    st(8, 4).each(4, |s| ((s.dword(4) & 0xfff) as u16 / 4).saturating_sub(2)),
];

/// Capability Version of the header.
fn version(shape: &mut dyn Shape) -> u32 {
    shape.dword(0) >> 16 & 0xf
}

//! Rows of the extended capabilities of links, error containment, readiness,
//! data objects and flits.

use super::extended::version;
use super::{
    Count, InvalidatedBy, Row, Shape, WriteEffect, constant, pass_through, side_effect, software,
    undescribed, volatile,
};

/// The lanes of the function's link.
const LANES: Count = |shape| shape.facts().lanes;

/// PCIe 7.7.3: an upstream port captures the presets in training.
pub(super) const SECONDARY_PCIE: &[Row] = &[
    volatile(4, 1, "Link Control 3"),
    software(5, 3, "Link Control 3"),
    volatile(8, 4, "Lane Error Status"),
    constant(0x0c, 2, "Lane Equalization Control")
        .tag(InvalidatedBy::Link)
        .each(2, LANES),
];

/// Deprecated.
pub(super) const PROTOCOL_MULTIPLEXING: &[Row] = &[
    constant(4, 4, "Capability"),
    software(8, 4, "Control"),
    volatile(0x0c, 4, "Status"),
];

/// PCIe 7.9.14: bit 5 announces the root port's PIO registers.
pub(super) const DOWNSTREAM_PORT_CONTAINMENT: &[Row] = &[
    constant(0x04, 2, "Capability").tag(InvalidatedBy::Messages),
    software(0x06, 2, "Control").effect(WriteEffect::DpcControl),
    volatile(0x08, 2, "Status"),
    volatile(0x0a, 2, "Error Source ID"),
    volatile(0x0c, 4, "RP PIO Status").reserved_unless(has_pio_registers),
    software(0x10, 4, "RP PIO Mask").reserved_unless(has_pio_registers),
    software(0x14, 4, "RP PIO Severity").reserved_unless(has_pio_registers),
    software(0x18, 4, "RP PIO SysError").reserved_unless(has_pio_registers),
    software(0x1c, 4, "RP PIO Exception").reserved_unless(has_pio_registers),
    undescribed(0x20, 16, "RP PIO Header Log"),
    undescribed(0x30, 4, "RP PIO ImpSpec Log"),
];

fn has_pio_registers(shape: &mut Shape<'_>) -> bool {
    shape.dword(4) & 1 << 5 != 0
}

/// PCIe 7.8.3: version 2 adds a status register; version 1 ends before it.
pub(super) const L1_SUBSTATES: &[Row] = &[
    constant(0x04, 4, "Capabilities"),
    software(0x08, 4, "Control 1"),
    software(0x0c, 4, "Control 2"),
    volatile(0x10, 4, "Status").when(|s| version(s) >= 2),
];

/// PCIe 7.9.15.
pub(super) const PRECISION_TIME: &[Row] =
    &[constant(4, 4, "Capability"), software(8, 4, "Control")];

/// PCIe 7.8.10: a read of the queue returns its head.
pub(super) const FRS_QUEUEING: &[Row] = &[
    constant(4, 4, "Capability").tag(InvalidatedBy::Messages),
    volatile(8, 2, "Status"),
    software(0x0a, 2, "Control"),
    side_effect(0x0c, 4, "Message Queue"),
];

/// PCIe 7.9.16: the times hold once they are marked as valid.
pub(super) const READINESS_TIME: &[Row] = &[
    constant(4, 4, "Time Reporting 1").when(are_times_valid),
    constant(8, 4, "Time Reporting 2").when(are_times_valid),
    volatile(4, 4, "Time Reporting 1").when(|s| !are_times_valid(s)),
    volatile(8, 4, "Time Reporting 2").when(|s| !are_times_valid(s)),
];

fn are_times_valid(shape: &mut Shape<'_>) -> bool {
    shape.dword(4) & 1 << 31 != 0
}

/// PCIe 7.7.4: the status is received from the other end of the link.
pub(super) const DATA_LINK_FEATURE: &[Row] = &[
    constant(4, 3, "Capabilities"),
    software(7, 1, "Capabilities"),
    volatile(8, 4, "Status"),
];

/// PCIe 7.7.5: one byte of equalization a lane.
pub(super) const PHYSICAL_16_GT: &[Row] = &[
    constant(0x04, 4, "Capabilities"),
    constant(0x08, 4, "Control"),
    volatile(0x0c, 4, "Status"),
    volatile(0x10, 4, "Local Data Parity Mismatch Status"),
    volatile(0x14, 4, "First Retimer Data Parity Mismatch Status"),
    volatile(0x18, 4, "Second Retimer Data Parity Mismatch Status"),
    undescribed(0x1c, 4, "Reserved"),
    constant(0x20, 1, "Lane Equalization Control")
        .tag(InvalidatedBy::Link)
        .each(1, LANES),
];

/// PCIe 7.7.7.
pub(super) const LANE_MARGINING: &[Row] = &[
    constant(4, 2, "Port Capabilities"),
    volatile(6, 2, "Port Status"),
    software(8, 2, "Lane Control")
        .tag(InvalidatedBy::Link)
        .each(4, LANES),
    volatile(0x0a, 2, "Lane Status").each(4, LANES),
];

/// PCIe 7.9.17: written by messages in endpoints.
pub(super) const HIERARCHY_ID: &[Row] = &[
    volatile(0x04, 4, "Status"),
    volatile(0x08, 16, "Data"),
    volatile(0x18, 4, "GUID 1"),
    volatile(0x1c, 8, "GUID"),
];

/// NPEM (PCIe 7.9.19), Device 3 (7.7.9) and Physical Layer 64 GT/s (7.7.8), of
/// which the position of the lane equalization is described in two ways, so
/// that it is passed through.
pub(super) const CAPABILITIES_CONTROL_STATUS: &[Row] = &[
    constant(4, 4, "Capabilities"),
    software(8, 4, "Control"),
    volatile(0x0c, 4, "Status"),
];

/// PCIe 7.7.6.
pub(super) const PHYSICAL_32_GT: &[Row] = &[
    constant(0x04, 4, "Capabilities"),
    software(0x08, 4, "Control"),
    volatile(0x0c, 4, "Status"),
    volatile(0x10, 4, "Received Modified TS Data 1"),
    volatile(0x14, 4, "Received Modified TS Data 2"),
    volatile(0x18, 4, "Transmitted Modified TS Data 1"),
    volatile(0x1c, 4, "Transmitted Modified TS Data 2"),
    constant(0x20, 1, "Lane Equalization Control")
        .tag(InvalidatedBy::Link)
        .each(1, LANES),
];

/// PCIe 7.9.20: the data is the one that the index names.
pub(super) const ALTERNATE_PROTOCOL: &[Row] = &[
    constant(4, 4, "Capabilities"),
    software(8, 4, "Control"),
    volatile(0x0c, 4, "Data 1"),
    volatile(0x10, 4, "Data 2"),
];

/// PCIe 7.9.22: reading the data sends a request to the port below.
pub(super) const SYSTEM_FIRMWARE_INTERMEDIARY: &[Row] = &[
    constant(4, 2, "Capability"),
    software(6, 2, "Control").effect(WriteEffect::Rerouting),
    volatile(8, 4, "Status"),
    software(0x0c, 4, "CAM Address"),
    side_effect(0x10, 4, "CAM Data"),
];

/// PCIe 7.9.24: the mailboxes belong to the software that runs the exchange.
pub(super) const DATA_OBJECT_EXCHANGE: &[Row] = &[
    constant(0x04, 4, "Capabilities").tag(InvalidatedBy::Messages),
    pass_through(0x08, 4, "Control"),
    volatile(0x0c, 4, "Status"),
    side_effect(0x10, 4, "Write Data Mailbox"),
    side_effect(0x14, 4, "Read Data Mailbox"),
];

/// PCIe 7.7.10: the log is a queue.
pub(super) const FLIT_LOGGING: &[Row] = &[
    volatile(0x04, 8, "Error Log"),
    software(0x0c, 2, "Error Counter Control"),
    volatile(0x0e, 2, "Error Counter Status"),
    volatile(0x10, 0x2c, "FBER Measurement"),
];

/// Counters.
pub(super) const FLIT_PERFORMANCE: &[Row] = &[
    constant(4, 4, "Capability"),
    pass_through(8, 4, "Control"),
    volatile(0x0c, 4, "Status"),
];

/// PCIe 7.7.12.
pub(super) const FLIT_ERROR_INJECTION: &[Row] = &[
    constant(0x04, 4, "Capability"),
    software(0x08, 8, "Flit Control"),
    volatile(0x10, 4, "Flit Status"),
    software(0x14, 8, "Ordered Set Control"),
    volatile(0x1c, 8, "Ordered Set Status"),
];

/// PCIe 7.9.26.
pub(super) const STREAMLINED_VC: &[Row] = &[
    constant(4, 8, "Port Capability"),
    software(0x0c, 2, "Port Control"),
    volatile(0x0e, 2, "Port Status"),
];

/// PCIe 7.9.27: the length is in the first register.
pub(super) const MMIO_REGISTER_LOCATOR: &[Row] = &[
    constant(4, 4, "Capabilities"),
    constant(8, 4, "Locator").each(4, |s| ((s.dword(4) & 0xfff) as u16 / 4).saturating_sub(2)),
];

//! The extended capabilities, from offset 0x100 on: which there are, and the
//! rows of those up to Root Complex Event Collectors, virtualization and
//! address services.

use super::extended_late as late;
use super::{
    InvalidatedBy, Row, Shape, Structure, WriteEffect, constant, dvsec, software, undescribed,
    variable, volatile,
};
use warmbus_pci::PortType;
use warmbus_pci::registers::extended as ids;

/// The structure of extended capability `id`.
pub(super) const fn structure(id: u16) -> Structure {
    match id {
        0x00 => Structure::named("Null"),
        0x01 => Structure::of("AER", ADVANCED_ERROR_REPORTING),
        ids::VIRTUAL_CHANNEL | ids::VIRTUAL_CHANNEL_MFVC => {
            Structure::of("VC", variable::VIRTUAL_CHANNEL).and(variable::virtual_channel)
        }
        0x03 => Structure::of("Serial Number", SERIAL_NUMBER),
        0x04 => Structure::of("Power Budgeting", POWER_BUDGETING),
        0x05 => Structure::of("Root Complex Link", RC_LINK_DECLARATION),
        0x06 => Structure::of("Root Complex Internal Link", RC_INTERNAL_LINK),
        0x07 => Structure::of("RCEC Association", RCEC_ASSOCIATION),
        ids::MULTI_FUNCTION_VC => {
            Structure::of("MFVC", variable::VIRTUAL_CHANNEL).and(variable::multi_function_vc)
        }
        0x0a => Structure::of("RCRB", RCRB_HEADER),
        0x0b => Structure::of("VSEC", VENDOR_SPECIFIC),
        0x0c => Structure::of(
            "Configuration Access Correlation",
            CONFIG_ACCESS_CORRELATION,
        ),
        0x0d => Structure::of("ACS", ACCESS_CONTROL_SERVICES),
        ids::ARI => Structure::of("ARI", CAPABILITY_AND_CONTROL),
        0x0f => Structure::of("ATS", CAPABILITY_AND_CONTROL),
        ids::SR_IOV => Structure::of("SR-IOV", SR_IOV),
        0x11 => Structure::named("MR-IOV"),
        0x12 => Structure::of("Multicast", MULTICAST),
        0x13 => Structure::of("PRI", PAGE_REQUEST),
        ids::RESIZABLE_BAR => Structure::of("Resizable BAR", RESIZABLE_BAR),
        0x16 => Structure::of("DPA", DYNAMIC_POWER),
        0x17 => Structure::of("TPH Requester", TPH_REQUESTER),
        0x18 => Structure::of("LTR", LATENCY_TOLERANCE),
        0x19 => Structure::of("Secondary PCIe", late::SECONDARY_PCIE),
        0x1a => Structure::of("PMUX", late::PROTOCOL_MULTIPLEXING),
        0x1b => Structure::of("PASID", CAPABILITY_AND_CONTROL),
        0x1c => Structure::of("LN Requester", CAPABILITY_AND_CONTROL),
        0x1d => Structure::of("DPC", late::DOWNSTREAM_PORT_CONTAINMENT),
        0x1e => Structure::of("L1SS", late::L1_SUBSTATES),
        0x1f => Structure::of("PTM", late::PRECISION_TIME),
        0x20 => Structure::named("PCIe over M-PHY"),
        0x21 => Structure::of("FRS Queueing", late::FRS_QUEUEING),
        0x22 => Structure::of("Readiness Time", late::READINESS_TIME),
        ids::DVSEC => Structure::of("DVSEC", dvsec::HEADERS).and(dvsec::body),
        0x24 => Structure::of("VF Resizable BAR", VF_RESIZABLE_BAR),
        0x25 => Structure::of("Data Link Feature", late::DATA_LINK_FEATURE),
        0x26 => Structure::of("Physical Layer 16 GT/s", late::PHYSICAL_16_GT),
        0x27 => Structure::of("Lane Margining", late::LANE_MARGINING),
        0x28 => Structure::of("Hierarchy ID", late::HIERARCHY_ID),
        0x29 => Structure::of("NPEM", late::CAPABILITIES_CONTROL_STATUS),
        0x2a => Structure::of("Physical Layer 32 GT/s", late::PHYSICAL_32_GT),
        0x2b => Structure::of("Alternate Protocol", late::ALTERNATE_PROTOCOL),
        0x2c => Structure::of("SFI", late::SYSTEM_FIRMWARE_INTERMEDIARY),
        0x2d => Structure::named("Shadow Functions"),
        0x2e => Structure::of("DOE", late::DATA_OBJECT_EXCHANGE),
        0x2f => Structure::of("Device 3", late::CAPABILITIES_CONTROL_STATUS),
        ids::IDE => Structure::of("IDE", variable::IDE).and(variable::ide),
        0x31 => Structure::of("Physical Layer 64 GT/s", late::CAPABILITIES_CONTROL_STATUS),
        0x32 => Structure::of("Flit Logging", late::FLIT_LOGGING),
        0x33 => Structure::of("Flit Performance", late::FLIT_PERFORMANCE),
        0x34 => Structure::of("Flit Error Injection", late::FLIT_ERROR_INJECTION),
        0x35 => Structure::of("SVC", late::STREAMLINED_VC),
        0x36 => Structure::of("MMIO Register Locator", late::MMIO_REGISTER_LOCATOR),
        _ => Structure::named("Unknown Extended Capability"),
    }
}

fn reports_to_root(shape: &mut Shape<'_>) -> bool {
    matches!(
        shape.facts().port_type,
        Some(PortType::RootPort | PortType::RootComplexEventCollector)
    )
}

/// Capability Version of the header.
pub(super) fn version(shape: &mut Shape<'_>) -> u32 {
    shape.dword(0) >> 16 & 0xf
}

/// PCIe 7.8.4. Capabilities and Control mixes the First Error Pointer with
/// controls.
const ADVANCED_ERROR_REPORTING: &[Row] = &[
    volatile(0x04, 4, "Uncorrectable Error Status"),
    software(0x08, 4, "Uncorrectable Error Mask"),
    software(0x0c, 4, "Uncorrectable Error Severity"),
    volatile(0x10, 4, "Correctable Error Status"),
    software(0x14, 4, "Correctable Error Mask"),
    volatile(0x18, 4, "Capabilities and Control"),
    volatile(0x1c, 16, "Header Log"),
    software(0x2c, 4, "Root Error Command").reserved_unless(reports_to_root),
    volatile(0x30, 4, "Root Error Status").reserved_unless(reports_to_root),
    volatile(0x34, 4, "Error Source Identification").reserved_unless(reports_to_root),
    undescribed(0x38, 16, "TLP Prefix Log"),
];

/// PCIe 7.9.3.
const SERIAL_NUMBER: &[Row] = &[constant(4, 8, "Serial Number")];

/// PCIe 7.8.1: Data is the one that the select byte names. The three bytes
/// behind that byte belong to no register.
const POWER_BUDGETING: &[Row] = &[
    software(4, 1, "Data Select"),
    undescribed(5, 3, "Reserved"),
    volatile(8, 4, "Data"),
    constant(0x0c, 4, "Capability"),
];

/// PCIe 7.9.8: the element header and one link entry of 16 bytes each.
const RC_LINK_DECLARATION: &[Row] = &[
    constant(4, 4, "Element Self Description"),
    constant(8, 8, "Reserved"),
    constant(0x10, 0x10, "Link Entry").each(0x10, |s| s.dword(4) as u16 >> 8),
];

/// PCIe 7.9.9.
const RC_INTERNAL_LINK: &[Row] = &[
    constant(4, 4, "Link Capabilities"),
    software(8, 2, "Link Control"),
    volatile(0x0a, 2, "Link Status"),
];

/// PCIe 7.9.10: version 2 adds the associated bus numbers.
const RCEC_ASSOCIATION: &[Row] = &[
    constant(4, 4, "Association Bitmap"),
    constant(8, 4, "Associated Bus Numbers").reserved_unless(|s| version(s) >= 2),
];

/// PCIe 7.9.7.
const RCRB_HEADER: &[Row] = &[
    constant(4, 2, "Vendor ID"),
    constant(6, 2, "Device ID"),
    constant(8, 4, "Capabilities"),
    software(0x0c, 4, "Control"),
];

/// PCIe 7.9.5: the body belongs to the vendor.
const VENDOR_SPECIFIC: &[Row] = &[constant(4, 4, "Vendor Header")];

/// Trusted Configuration Space, obsolete.
const CONFIG_ACCESS_CORRELATION: &[Row] = &[constant(4, 4, "Device Correlation")];

/// PCIe 7.7.11: bit 5 announces an egress control vector of as many bits as
/// the upper byte says, 0 meaning 256.
const ACCESS_CONTROL_SERVICES: &[Row] = &[
    constant(4, 2, "Capability"),
    software(6, 2, "Control"),
    software(8, 4, "Egress Control Vector").each(4, |s| {
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

/// ARI (PCIe 7.8.8), ATS (10.5.1), PASID (7.8.9) and LN Requester.
const CAPABILITY_AND_CONTROL: &[Row] = &[constant(4, 2, "Capability"), software(6, 2, "Control")];

/// PCIe 9.3.3. With VF migration `InitialVFs` moves on its own.
const SR_IOV: &[Row] = &[
    constant(0x04, 4, "Capabilities").tag(InvalidatedBy::Messages),
    software(0x08, 2, "Control").effect(WriteEffect::SrIovControl),
    volatile(0x0a, 2, "Status"),
    constant(0x0c, 2, "InitialVFs").when(|s| s.dword(4) & 1 == 0),
    volatile(0x0c, 2, "InitialVFs").when(|s| s.dword(4) & 1 != 0),
    constant(0x0e, 2, "TotalVFs"),
    software(0x10, 2, "NumVFs").effect(WriteEffect::NumVfs),
    constant(0x12, 1, "Function Dependency Link"),
    constant(0x13, 1, "Reserved"),
    constant(0x14, 2, "First VF Offset").tag(InvalidatedBy::VfRouting),
    constant(0x16, 2, "VF Stride").tag(InvalidatedBy::VfRouting),
    constant(0x18, 2, "Reserved"),
    constant(0x1a, 2, "VF Device ID"),
    constant(0x1c, 4, "Supported Page Sizes"),
    software(0x20, 4, "System Page Size").effect(WriteEffect::VfPageSize),
    software(0x24, 4, "VF BAR 0").tag(InvalidatedBy::VfPageSize),
    software(0x28, 4, "VF BAR 1").tag(InvalidatedBy::VfPageSize),
    software(0x2c, 4, "VF BAR 2").tag(InvalidatedBy::VfPageSize),
    software(0x30, 4, "VF BAR 3").tag(InvalidatedBy::VfPageSize),
    software(0x34, 4, "VF BAR 4").tag(InvalidatedBy::VfPageSize),
    software(0x38, 4, "VF BAR 5").tag(InvalidatedBy::VfPageSize),
    constant(0x3c, 4, "VF Migration State Array Offset"),
];

/// PCIe 7.9.11: the overlay BAR exists on ports.
const MULTICAST: &[Row] = &[
    constant(0x04, 2, "Capability"),
    software(0x06, 2, "Control"),
    software(0x08, 8, "Base Address"),
    software(0x10, 8, "Receive"),
    software(0x18, 8, "Block All"),
    software(0x20, 8, "Block Untranslated"),
    software(0x28, 8, "Overlay BAR").reserved_unless(|s| s.facts().header_type == 1),
];

/// PCIe 10.5.2.
const PAGE_REQUEST: &[Row] = &[
    software(4, 2, "Control"),
    volatile(6, 2, "Status"),
    constant(8, 4, "Outstanding Page Request Capacity"),
    software(0x0c, 4, "Outstanding Page Request Allocation"),
];

/// PCIe 7.8.6: as many pairs as the first control register says.
const RESIZABLE_BAR: &[Row] = &[
    constant(4, 4, "Capability").each(8, resizable_bars),
    software(8, 4, "Control")
        .effect(WriteEffect::ResizableBar)
        .each(8, resizable_bars),
];

/// PCIe 9.3.7.4.
const VF_RESIZABLE_BAR: &[Row] = &[
    constant(4, 4, "Capability").each(8, resizable_bars),
    software(8, 4, "Control")
        .effect(WriteEffect::VfPageSize)
        .each(8, resizable_bars),
];

fn resizable_bars(shape: &mut Shape<'_>) -> u16 {
    (shape.dword(8) >> 5 & 7).min(6) as u16
}

/// PCIe 7.9.12: one byte a substate.
const DYNAMIC_POWER: &[Row] = &[
    constant(4, 4, "Capability"),
    constant(8, 4, "Latency Indicator"),
    volatile(0x0c, 2, "Status"),
    software(0x0e, 2, "Control"),
    constant(0x10, 1, "Power Allocation").each(1, |s| (s.dword(4) & 0x1f) as u16 + 1),
];

/// PCIe 7.9.13: the steering tags are here where location is 1.
const TPH_REQUESTER: &[Row] = &[
    constant(4, 4, "Capability"),
    software(8, 4, "Control"),
    software(0x0c, 2, "Steering Tag").each(2, |s| {
        let capability = s.dword(4);
        if capability >> 9 & 3 == 1 {
            (capability >> 16 & 0x7ff) as u16 + 1
        } else {
            0
        }
    }),
];

/// PCIe 7.8.2.
const LATENCY_TOLERANCE: &[Row] = &[
    software(4, 2, "Max Snoop Latency"),
    software(6, 2, "Max No-Snoop Latency"),
];

//! Registers of the extended capabilities, from offset 0x100 on.

use super::Row;
use warmbus_pci::registers::extended as ids;

/// The short name of extended capability `id`.
pub(super) const fn name(id: u16) -> &'static str {
    match id {
        0x00 => "Null",
        0x01 => "AER",
        ids::VIRTUAL_CHANNEL | ids::VIRTUAL_CHANNEL_MFVC => "VC",
        0x03 => "Serial Number",
        0x04 => "Power Budgeting",
        0x05 => "Root Complex Link",
        0x06 => "Root Complex Internal Link",
        0x07 => "RCEC Association",
        ids::MULTI_FUNCTION_VC => "MFVC",
        0x0a => "RCRB",
        0x0b => "VSEC",
        0x0c => "Configuration Access Correlation",
        0x0d => "ACS",
        ids::ARI => "ARI",
        0x0f => "ATS",
        ids::SR_IOV => "SR-IOV",
        0x11 => "MR-IOV",
        0x12 => "Multicast",
        0x13 => "PRI",
        0x15 => "Resizable BAR",
        0x16 => "DPA",
        0x17 => "TPH Requester",
        0x18 => "LTR",
        0x19 => "Secondary PCIe",
        0x1a => "PMUX",
        0x1b => "PASID",
        0x1c => "LN Requester",
        0x1d => "DPC",
        0x1e => "L1SS",
        0x1f => "PTM",
        0x20 => "PCIe over M-PHY",
        0x21 => "FRS Queueing",
        0x22 => "Readiness Time",
        ids::DVSEC => "DVSEC",
        0x24 => "VF Resizable BAR",
        0x25 => "Data Link Feature",
        0x26 => "Physical Layer 16 GT/s",
        0x27 => "Lane Margining",
        0x28 => "Hierarchy ID",
        0x29 => "NPEM",
        0x2a => "Physical Layer 32 GT/s",
        0x2b => "Alternate Protocol",
        0x2c => "SFI",
        0x2d => "Shadow Functions",
        0x2e => "DOE",
        0x2f => "Device 3",
        ids::IDE => "IDE",
        0x31 => "Physical Layer 64 GT/s",
        0x32 => "Flit Logging",
        0x33 => "Flit Performance",
        0x34 => "Flit Error Injection",
        0x35 => "SVC",
        0x36 => "MMIO Register Locator",
        _ => "Unknown Extended Capability",
    }
}

/// The registers of `id` that are always at the same place.
pub(super) const fn table(id: u16) -> &'static [Row] {
    match id {
        // PCIe 7.8.4.
        0x01 => &[
            (0x04, 4, "Uncorrectable Error Status"),
            (0x08, 4, "Uncorrectable Error Mask"),
            (0x0c, 4, "Uncorrectable Error Severity"),
            (0x10, 4, "Correctable Error Status"),
            (0x14, 4, "Correctable Error Mask"),
            (0x18, 4, "Capabilities and Control"),
            (0x1c, 16, "Header Log"),
            (0x2c, 4, "Root Error Command"),
            (0x30, 4, "Root Error Status"),
            (0x34, 4, "Error Source Identification"),
            (0x38, 16, "TLP Prefix Log"),
        ],
        // PCIe 7.9.1, 7.9.2; the resources follow.
        ids::VIRTUAL_CHANNEL | ids::VIRTUAL_CHANNEL_MFVC | ids::MULTI_FUNCTION_VC => &[
            (0x04, 4, "Port Capability 1"),
            (0x08, 4, "Port Capability 2"),
            (0x0c, 2, "Port Control"),
            (0x0e, 2, "Port Status"),
        ],
        // PCIe 7.9.3.
        0x03 => &[(4, 8, "Serial Number")],
        // PCIe 7.8.1.
        0x04 => &[
            (4, 1, "Data Select"),
            (5, 3, "Control"),
            (8, 4, "Data"),
            (0x0c, 4, "Capability"),
        ],
        // PCIe 7.9.8; the links follow.
        0x05 => &[(4, 4, "Element Self Description"), (8, 8, "Reserved")],
        // PCIe 7.9.9.
        0x06 => &[
            (4, 4, "Link Capabilities"),
            (8, 2, "Link Control"),
            (0x0a, 2, "Link Status"),
        ],
        // PCIe 7.9.10.
        0x07 => &[
            (4, 4, "Association Bitmap"),
            (8, 4, "Associated Bus Numbers"),
        ],
        // PCIe 7.9.7.
        0x0a => &[
            (4, 2, "Vendor ID"),
            (6, 2, "Device ID"),
            (8, 4, "Capabilities"),
            (0x0c, 4, "Control"),
        ],
        // PCIe 7.9.5.
        0x0b => &[(4, 4, "Vendor Header")],
        0x0c => &[(4, 4, "Device Correlation")],
        // PCIe 7.7.11; the egress vector follows.
        0x0d | ids::ARI | 0x0f | 0x1b | 0x1c => &[(4, 2, "Capability"), (6, 2, "Control")],
        _ => middle(id),
    }
}

/// Those from SR-IOV on.
const fn middle(id: u16) -> &'static [Row] {
    match id {
        // PCIe 9.3.3.
        ids::SR_IOV => &[
            (0x04, 4, "Capabilities"),
            (0x08, 2, "Control"),
            (0x0a, 2, "Status"),
            (0x0c, 2, "InitialVFs"),
            (0x0e, 2, "TotalVFs"),
            (0x10, 2, "NumVFs"),
            (0x12, 1, "Function Dependency Link"),
            (0x13, 1, "Reserved"),
            (0x14, 2, "First VF Offset"),
            (0x16, 2, "VF Stride"),
            (0x18, 2, "Reserved"),
            (0x1a, 2, "VF Device ID"),
            (0x1c, 4, "Supported Page Sizes"),
            (0x20, 4, "System Page Size"),
            (0x24, 4, "VF BAR 0"),
            (0x28, 4, "VF BAR 1"),
            (0x2c, 4, "VF BAR 2"),
            (0x30, 4, "VF BAR 3"),
            (0x34, 4, "VF BAR 4"),
            (0x38, 4, "VF BAR 5"),
            (0x3c, 4, "VF Migration State Array Offset"),
        ],
        // PCIe 7.9.11.
        0x12 => &[
            (0x04, 2, "Capability"),
            (0x06, 2, "Control"),
            (0x08, 8, "Base Address"),
            (0x10, 8, "Receive"),
            (0x18, 8, "Block All"),
            (0x20, 8, "Block Untranslated"),
            (0x28, 8, "Overlay BAR"),
        ],
        // PCIe 10.5.2.
        0x13 => &[
            (4, 2, "Control"),
            (6, 2, "Status"),
            (8, 4, "Outstanding Page Request Capacity"),
            (0x0c, 4, "Outstanding Page Request Allocation"),
        ],
        // PCIe 7.9.12; the substates follow.
        0x16 => &[
            (4, 4, "Capability"),
            (8, 4, "Latency Indicator"),
            (0x0c, 2, "Status"),
            (0x0e, 2, "Control"),
        ],
        // PCIe 7.9.13; the steering tags follow.
        0x17 | 0x1f => &[(4, 4, "Capability"), (8, 4, "Control")],
        // PCIe 7.8.2.
        0x18 => &[(4, 2, "Max Snoop Latency"), (6, 2, "Max No-Snoop Latency")],
        // PCIe 7.7.3; the lanes follow.
        0x19 => &[(4, 4, "Link Control 3"), (8, 4, "Lane Error Status")],
        0x1a => &[(4, 4, "Capability"), (8, 4, "Control"), (0x0c, 4, "Status")],
        // PCIe 7.9.14.
        0x1d => &[
            (0x04, 2, "Capability"),
            (0x06, 2, "Control"),
            (0x08, 2, "Status"),
            (0x0a, 2, "Error Source ID"),
            (0x0c, 4, "RP PIO Status"),
            (0x10, 4, "RP PIO Mask"),
            (0x14, 4, "RP PIO Severity"),
            (0x18, 4, "RP PIO SysError"),
            (0x1c, 4, "RP PIO Exception"),
            (0x20, 16, "RP PIO Header Log"),
            (0x30, 4, "RP PIO ImpSpec Log"),
        ],
        // PCIe 7.8.3.
        0x1e => &[
            (0x04, 4, "Capabilities"),
            (0x08, 4, "Control 1"),
            (0x0c, 4, "Control 2"),
            (0x10, 4, "Status"),
        ],
        _ => late(id),
    }
}

/// Those from FRS Queueing on.
const fn late(id: u16) -> &'static [Row] {
    match id {
        // PCIe 7.8.10.
        0x21 => &[
            (4, 4, "Capability"),
            (8, 2, "Status"),
            (0x0a, 2, "Control"),
            (0x0c, 4, "Message Queue"),
        ],
        // PCIe 7.9.16.
        0x22 => &[(4, 4, "Time Reporting 1"), (8, 4, "Time Reporting 2")],
        // PCIe 7.9.6.
        ids::DVSEC => &[(4, 4, "Header 1"), (8, 2, "Header 2")],
        // PCIe 7.7.4.
        0x25 => &[(4, 4, "Capabilities"), (8, 4, "Status")],
        // PCIe 7.7.5; the lanes follow.
        0x26 => &[
            (0x04, 4, "Capabilities"),
            (0x08, 4, "Control"),
            (0x0c, 4, "Status"),
            (0x10, 4, "Local Data Parity Mismatch Status"),
            (0x14, 4, "First Retimer Data Parity Mismatch Status"),
            (0x18, 4, "Second Retimer Data Parity Mismatch Status"),
            (0x1c, 4, "Reserved"),
        ],
        // PCIe 7.7.7; the lanes follow.
        0x27 => &[(4, 2, "Port Capabilities"), (6, 2, "Port Status")],
        // PCIe 7.9.17.
        0x28 => &[
            (4, 4, "Status"),
            (8, 16, "Data"),
            (0x18, 4, "GUID 1"),
            (0x1c, 8, "GUID"),
        ],
        // PCIe 7.9.19, 7.7.8, 7.7.9.
        0x29 | 0x2f | 0x31 => &[
            (4, 4, "Capabilities"),
            (8, 4, "Control"),
            (0x0c, 4, "Status"),
        ],
        // PCIe 7.7.6; the lanes follow.
        0x2a => &[
            (0x04, 4, "Capabilities"),
            (0x08, 4, "Control"),
            (0x0c, 4, "Status"),
            (0x10, 4, "Received Modified TS Data 1"),
            (0x14, 4, "Received Modified TS Data 2"),
            (0x18, 4, "Transmitted Modified TS Data 1"),
            (0x1c, 4, "Transmitted Modified TS Data 2"),
        ],
        // PCIe 7.9.20.
        0x2b => &[
            (4, 4, "Capabilities"),
            (8, 4, "Control"),
            (0x0c, 4, "Data 1"),
            (0x10, 4, "Data 2"),
        ],
        // PCIe 7.9.22.
        0x2c => &[
            (4, 2, "Capability"),
            (6, 2, "Control"),
            (8, 4, "Status"),
            (0x0c, 4, "CAM Address"),
            (0x10, 4, "CAM Data"),
        ],
        // PCIe 7.9.24.
        0x2e => &[
            (4, 4, "Capabilities"),
            (8, 4, "Control"),
            (0x0c, 4, "Status"),
            (0x10, 4, "Write Data Mailbox"),
            (0x14, 4, "Read Data Mailbox"),
        ],
        // PCIe 7.9.25; the streams follow.
        ids::IDE => &[(4, 4, "Capability"), (8, 4, "Control")],
        // PCIe 7.7.10.
        0x32 => &[
            (0x04, 8, "Error Log"),
            (0x0c, 2, "Error Counter Control"),
            (0x0e, 2, "Error Counter Status"),
            (0x10, 0x2c, "FBER Measurement"),
        ],
        0x33 => &[(4, 4, "Capability"), (8, 4, "Control"), (0x0c, 4, "Status")],
        // PCIe 7.7.12.
        0x34 => &[
            (4, 4, "Capability"),
            (8, 8, "Flit Control"),
            (0x10, 4, "Flit Status"),
            (0x14, 8, "Ordered Set Control"),
            (0x1c, 8, "Ordered Set Status"),
        ],
        // PCIe 7.9.26.
        0x35 => &[
            (4, 8, "Port Capability"),
            (0x0c, 2, "Port Control"),
            (0x0e, 2, "Port Status"),
        ],
        // PCIe 7.9.27; the locators follow.
        0x36 => &[(4, 4, "Capabilities")],
        _ => &[],
    }
}

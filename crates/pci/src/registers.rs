//! Offsets and bits of the registers that code refers to by name.
//!
//! Offsets below 0x40 are from the start of configuration space (PCIe 7.5.1),
//! those inside a capability module from the start of that capability.

/// Vendor ID, Device ID above it.
pub const VENDOR_ID: u16 = 0x00;
/// Command; Status is the upper half of the same dword.
pub const COMMAND: u16 = 0x04;
/// Status.
pub const STATUS: u16 = 0x06;
/// Revision ID, with the class code in the upper 24 bits of the dword.
pub const REVISION: u16 = 0x08;
/// Cache Line Size; Latency Timer, Header Type and BIST share the dword.
pub const CACHE_LINE_SIZE: u16 = 0x0c;
/// BIST.
pub const BIST: u16 = 0x0f;
/// First base address register.
pub const BAR0: u16 = 0x10;
/// Primary, Secondary and Subordinate Bus Number.
pub const BUS_NUMBERS: u16 = 0x18;
/// Secondary Bus Number.
pub const SECONDARY_BUS: u16 = 0x19;
/// Subordinate Bus Number.
pub const SUBORDINATE_BUS: u16 = 0x1a;
/// I/O Base and Limit; Secondary Status is the upper half of the dword.
pub const IO_BASE: u16 = 0x1c;
/// Memory Base and Limit.
pub const MEMORY_BASE: u16 = 0x20;
/// Prefetchable Memory Base and Limit.
pub const PREFETCHABLE_BASE: u16 = 0x24;
/// Prefetchable Base Upper 32 Bits.
pub const PREFETCHABLE_BASE_UPPER: u16 = 0x28;
/// Prefetchable Limit Upper 32 Bits.
pub const PREFETCHABLE_LIMIT_UPPER: u16 = 0x2c;
/// I/O Base and Limit Upper 16 Bits.
pub const IO_UPPER: u16 = 0x30;
/// Expansion ROM base address of a type 0 header.
pub const ROM_BAR_TYPE0: u16 = 0x30;
/// Capabilities Pointer.
pub const CAPABILITIES_POINTER: u16 = 0x34;
/// Capabilities Pointer of a `CardBus` header.
pub const CARDBUS_CAPABILITIES_POINTER: u16 = 0x14;
/// Expansion ROM base address of a type 1 header.
pub const ROM_BAR_TYPE1: u16 = 0x38;
/// Interrupt Line.
pub const INTERRUPT_LINE: u16 = 0x3c;
/// Interrupt Pin.
pub const INTERRUPT_PIN: u16 = 0x3d;
/// Bridge Control.
pub const BRIDGE_CONTROL: u16 = 0x3e;
/// First extended capability.
pub const EXTENDED_CAPABILITIES: u16 = 0x100;

/// Bits of the Command register.
pub mod command {
    /// I/O Space Enable.
    pub const IO: u16 = 1 << 0;
    /// Memory Space Enable.
    pub const MEMORY: u16 = 1 << 1;
    /// Bus Master Enable.
    pub const BUS_MASTER: u16 = 1 << 2;
}

/// Bits of the Status register.
pub mod status {
    /// Immediate Readiness.
    pub const IMMEDIATE_READINESS: u16 = 1 << 0;
    /// Capabilities List.
    pub const CAPABILITIES_LIST: u16 = 1 << 4;
    /// 66 MHz Capable.
    pub const CAPABLE_66_MHZ: u16 = 1 << 5;
    /// Fast Back-to-Back Transactions Capable.
    pub const FAST_BACK_TO_BACK: u16 = 1 << 7;
    /// DEVSEL Timing.
    pub const DEVSEL_TIMING: u16 = 3 << 9;
}

/// Bits of the Header Type register.
pub mod header_type {
    /// Header layout.
    pub const LAYOUT: u8 = 0x7f;
    /// Multi-Function Device.
    pub const MULTI_FUNCTION: u8 = 0x80;
    /// The layout of a `CardBus` bridge.
    pub const CARDBUS: u8 = 2;
}

/// Capability IDs.
pub mod capability {
    /// Power Management.
    pub const POWER_MANAGEMENT: u8 = 0x01;
    /// Message Signalled Interrupts.
    pub const MSI: u8 = 0x05;
    /// PCI-X.
    pub const PCI_X: u8 = 0x07;
    /// `HyperTransport`.
    pub const HYPER_TRANSPORT: u8 = 0x08;
    /// Vendor specific.
    pub const VENDOR: u8 = 0x09;
    /// PCI Express.
    pub const EXPRESS: u8 = 0x10;
    /// Enhanced Allocation.
    pub const ENHANCED_ALLOCATION: u8 = 0x14;
}

/// Extended capability IDs.
pub mod extended {
    /// Virtual Channel.
    pub const VIRTUAL_CHANNEL: u16 = 0x02;
    /// Multi-Function Virtual Channel.
    pub const MULTI_FUNCTION_VC: u16 = 0x08;
    /// Virtual Channel where an MFVC structure exists.
    pub const VIRTUAL_CHANNEL_MFVC: u16 = 0x09;
    /// Alternative Routing-ID Interpretation.
    pub const ARI: u16 = 0x0e;
    /// Single Root I/O Virtualization.
    pub const SR_IOV: u16 = 0x10;
    /// Resizable BAR.
    pub const RESIZABLE_BAR: u16 = 0x15;
    /// Designated Vendor-Specific.
    pub const DVSEC: u16 = 0x23;
    /// Integrity and Data Encryption.
    pub const IDE: u16 = 0x30;
}

/// The PCI Express capability (PCIe 7.5.3).
pub mod express {
    /// Bit of the PCI Express Capabilities register: the port has a slot.
    pub const SLOT_IMPLEMENTED: u16 = 1 << 8;
    /// PCI Express Capabilities.
    pub const FLAGS: u16 = 0x02;
    /// Device Control.
    pub const DEVICE_CONTROL: u16 = 0x08;
    /// Initiate Function Level Reset, in Device Control.
    pub const INITIATE_FLR: u32 = 1 << 15;
    /// Link Capabilities.
    pub const LINK_CAPABILITIES: u16 = 0x0c;
    /// Data Link Layer Link Active Reporting Capable, in Link Capabilities.
    pub const LINK_ACTIVE_REPORTING: u32 = 1 << 20;
    /// Link Control; Link Status is the upper half of the dword.
    pub const LINK_CONTROL: u16 = 0x10;
    /// Link Disable, in Link Control.
    pub const LINK_DISABLE: u32 = 1 << 4;
    /// Retrain Link, in Link Control.
    pub const RETRAIN_LINK: u32 = 1 << 5;
    /// Common Clock Configuration, in Link Control.
    pub const COMMON_CLOCK: u32 = 1 << 6;
    /// Link Training, in Link Status.
    pub const LINK_TRAINING: u16 = 1 << 11;
    /// Slot Clock Configuration, in Link Status.
    pub const SLOT_CLOCK: u16 = 1 << 12;
    /// Data Link Layer Link Active, in Link Status.
    pub const LINK_ACTIVE: u16 = 1 << 13;
    /// Slot Capabilities.
    pub const SLOT_CAPABILITIES: u16 = 0x14;
    /// Hot-Plug Capable, in Slot Capabilities.
    pub const HOT_PLUG_CAPABLE: u32 = 1 << 6;
    /// Slot Control; Slot Status is the upper half of the dword.
    pub const SLOT_CONTROL: u16 = 0x18;
    /// Power Controller Control, in Slot Control: 1 is off.
    pub const POWER_OFF: u32 = 1 << 10;
    /// Presence Detect State, in Slot Status.
    pub const PRESENCE_DETECT: u16 = 1 << 6;
    /// Root Control; Root Capabilities is the upper half of the dword.
    pub const ROOT_CONTROL: u16 = 0x1c;
    /// Configuration RRS Software Visibility Enable, in Root Control.
    pub const RRS_VISIBILITY_ENABLE: u16 = 1 << 4;
    /// Configuration RRS Software Visibility, in Root Capabilities.
    pub const RRS_VISIBILITY: u16 = 1 << 0;
    /// Device Capabilities 2.
    pub const DEVICE_CAPABILITIES_2: u16 = 0x24;
    /// ARI Forwarding Supported, in Device Capabilities 2.
    pub const ARI_FORWARDING_SUPPORTED: u32 = 1 << 5;
    /// Device Control 2.
    pub const DEVICE_CONTROL_2: u16 = 0x28;
    /// ARI Forwarding Enable, in Device Control 2.
    pub const ARI_FORWARDING_ENABLE: u16 = 1 << 5;
}

/// The SR-IOV extended capability (PCIe 9.3.3).
pub mod sr_iov {
    /// SR-IOV Control; Status is the upper half of the dword.
    pub const CONTROL: u16 = 0x08;
    /// VF Enable, in Control.
    pub const VF_ENABLE: u16 = 1 << 0;
    /// ARI Capable Hierarchy, in Control.
    pub const ARI_CAPABLE_HIERARCHY: u16 = 1 << 4;
    /// `InitialVFs`; TotalVFs is the upper half of the dword.
    pub const INITIAL_VFS: u16 = 0x0c;
    /// NumVFs.
    pub const NUM_VFS: u16 = 0x10;
    /// First VF Offset; VF Stride is the upper half of the dword.
    pub const VF_OFFSET: u16 = 0x14;
    /// VF Device ID, in the upper half of the dword.
    pub const VF_DEVICE_ID: u16 = 0x18;
    /// First VF BAR.
    pub const VF_BAR0: u16 = 0x24;
}

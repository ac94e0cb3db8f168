//! What enumeration finds.

use alloc::vec::Vec;

use super::registers::header_type;
use super::{
    Anomaly, AnomalyKind, BusRange, CapabilityLists, ConfigAccess, HostBridge, PciRange, PhysAddr,
    Readiness, Reserve, ResizableBar, Sbdf,
};

/// A capability in the first 256 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Capability ID.
    pub id: u8,
    /// Where it starts, 0x40 to 0xfc.
    pub offset: u8,
}

/// An extended capability, from 0x100 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedCapability {
    /// Extended capability ID.
    pub id: u16,
    /// Capability version, 0 to 15.
    pub version: u8,
    /// Where it starts, 0x100 to 0xffc.
    pub offset: u16,
}

/// Device/Port Type of the PCI Express capability (PCIe 7.5.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortType {
    /// PCI Express endpoint.
    Endpoint,
    /// Legacy PCI Express endpoint.
    LegacyEndpoint,
    /// Root port.
    RootPort,
    /// Upstream port of a switch.
    UpstreamPort,
    /// Downstream port of a switch.
    DownstreamPort,
    /// PCI Express to PCI or PCI-X bridge.
    PcieToPciBridge,
    /// PCI or PCI-X to PCI Express bridge.
    PciToPcieBridge,
    /// Root complex integrated endpoint.
    RootComplexIntegratedEndpoint,
    /// Root complex event collector.
    RootComplexEventCollector,
    /// A value that the specification does not define.
    Reserved(u8),
}

impl PortType {
    /// Decodes the PCI Express Capabilities register (PCIe 7.5.3.2), whose
    /// bits 7:4 hold it.
    #[must_use]
    pub const fn from_flags(flags: u16) -> Self {
        match (flags >> 4) as u8 & 0xf {
            0x0 => Self::Endpoint,
            0x1 => Self::LegacyEndpoint,
            0x4 => Self::RootPort,
            0x5 => Self::UpstreamPort,
            0x6 => Self::DownstreamPort,
            0x7 => Self::PcieToPciBridge,
            0x8 => Self::PciToPcieBridge,
            0x9 => Self::RootComplexIntegratedEndpoint,
            0xa => Self::RootComplexEventCollector,
            other => Self::Reserved(other),
        }
    }

    /// A name as it is used in reports: words with hyphens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::LegacyEndpoint => "legacy-endpoint",
            Self::RootPort => "root-port",
            Self::UpstreamPort => "upstream-port",
            Self::DownstreamPort => "downstream-port",
            Self::PcieToPciBridge => "pcie-to-pci-bridge",
            Self::PciToPcieBridge => "pci-to-pcie-bridge",
            Self::RootComplexIntegratedEndpoint => "root-complex-integrated-endpoint",
            Self::RootComplexEventCollector => "root-complex-event-collector",
            Self::Reserved(_) => "reserved",
        }
    }
}

/// The kind of address space that a BAR requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BarKind {
    /// I/O space.
    Io,
    /// Memory, 32-bit address.
    Memory32,
    /// Memory, 64-bit address: two consecutive registers.
    Memory64,
    /// Expansion ROM.
    Rom,
    /// SR-IOV VF memory, 32-bit address.
    VfMemory32,
    /// SR-IOV VF memory, 64-bit address.
    VfMemory64,
}

impl BarKind {
    /// A name as it is used in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::Memory32 => "mem32",
            Self::Memory64 => "mem64",
            Self::Rom => "rom",
            Self::VfMemory32 => "vf-mem32",
            Self::VfMemory64 => "vf-mem64",
        }
    }
}

/// One implemented base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Which one, as Linux numbers resources: 0 to 5 for the BARs, 6 for the
    /// expansion ROM, 7 to 12 for the VF BARs.
    pub index: u8,
    /// What it requests.
    pub kind: BarKind,
    /// Whether the memory is prefetchable.
    pub prefetchable: bool,
    /// Fixed by Enhanced Allocation: has no writable register.
    pub fixed: bool,
    /// Address on the PCI side, or `None` where it has none and is disabled.
    pub address: Option<u64>,
    /// Bytes, a power of two unless fixed; for a VF BAR the bytes of one VF.
    /// `None` where it is not known, since finding it out takes writes.
    pub size: Option<u64>,
}

/// What a function with a type 1 header has more than others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BridgeInfo {
    /// Bus that the bridge is on.
    pub primary: u8,
    /// Bus directly below it.
    pub secondary: u8,
    /// Highest bus below it.
    pub subordinate: u8,
    /// I/O window, if open.
    pub io: Option<PciRange>,
    /// Memory window, if open.
    pub memory: Option<PciRange>,
    /// Prefetchable memory window, if open.
    pub prefetchable: Option<PciRange>,
    /// Whether the link below the port is up; `None` where the port has none
    /// or does not report it.
    pub link_up: Option<bool>,
    /// Whether devices can come and go below (a hot-plug capable slot).
    pub hot_plug: bool,
    /// Whether ARI forwarding is enabled.
    pub ari_forwarding: bool,
    /// What it asks to be reserved below it.
    pub reserve: Reserve,
}

/// The SR-IOV capability of a physical function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SrIovInfo {
    /// TotalVFs.
    pub total_vfs: u16,
    /// First VF Offset for NumVFs = TotalVFs.
    pub first_vf_offset: u16,
    /// VF Stride for NumVFs = TotalVFs.
    pub vf_stride: u16,
    /// VF Device ID.
    pub vf_device_id: u16,
    /// Highest bus that a VF of this function can be on.
    pub last_bus: u8,
    /// NumVFs with which VFs were found enabled, or with which they were
    /// enabled later to be captured; 0 where they never were.
    pub num_vfs: u16,
    /// Whether VF Enable is set in the end.
    pub vfs_enabled: bool,
    /// What the NumVFs register holds: TotalVFs once enumeration wrote it, for
    /// which First VF Offset and VF Stride were read. `None` where it is not
    /// known, since nothing was written and VF Enable is clear.
    pub num_vfs_register: Option<u16>,
}

/// What makes a function a virtual one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtualInfo {
    /// Index in [`Topology::functions`] of its physical function, which comes
    /// before it.
    pub physical: usize,
    /// Its number, from 1 to NumVFs.
    pub number: u16,
}

/// One function that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Function {
    /// Its address.
    pub sbdf: Sbdf,
    /// Index of its host bridge in [`Topology::hosts`].
    pub host: usize,
    /// Index in [`Topology::functions`] of the bridge above it; `None` on a
    /// root bus. A parent always has a lower index than its children.
    pub parent: Option<usize>,
    /// Vendor ID.
    pub vendor_id: u16,
    /// Device ID.
    pub device_id: u16,
    /// Revision ID.
    pub revision: u8,
    /// Class code: base class, sub-class and interface in 24 bits.
    pub class_code: u32,
    /// Header layout: 0 endpoint, 1 bridge, 2 CardBus, others unknown.
    pub header_type: u8,
    /// Multi-Function bit of the Header Type register.
    pub multi_function: bool,
    /// PCI Express device/port type, if it is a PCI Express function.
    pub port_type: Option<PortType>,
    /// Capabilities in list order.
    pub capabilities: Vec<Capability>,
    /// Extended capabilities in list order.
    pub extended_capabilities: Vec<ExtendedCapability>,
    /// Implemented BARs by index.
    pub bars: Vec<Bar>,
    /// Bus numbers and windows of a bridge.
    pub bridge: Option<BridgeInfo>,
    /// The first BAR that may be made larger, if there is one.
    pub resizable: Option<ResizableBar>,
    /// SR-IOV, if it is a physical function.
    pub sriov: Option<SrIovInfo>,
    /// Which VF of which function it is, if it is a virtual one. Its IDs are
    /// the Vendor ID and the VF Device ID of that function.
    pub virtual_function: Option<VirtualInfo>,
    /// How long it, or a bridge above it, was waited for.
    pub readiness: Readiness,
    /// What is not as it should be.
    pub anomalies: Vec<AnomalyKind>,
}

impl Function {
    /// The function at `sbdf`, from its header and its capability lists: `ids`
    /// is the dword at offset 0, `class` the one at 8, `header` the one at
    /// 0x0c. It is on a root bus of the first host bridge; BARs, bus numbers,
    /// windows and VFs are not filled in.
    #[must_use]
    pub fn from_header(
        sbdf: Sbdf,
        ids: u32,
        class: u32,
        header: u32,
        lists: &CapabilityLists,
    ) -> Self {
        let header = (header >> 16) as u8;
        let layout = header & header_type::LAYOUT;
        Self {
            sbdf,
            host: 0,
            parent: None,
            vendor_id: ids as u16,
            device_id: (ids >> 16) as u16,
            revision: class as u8,
            class_code: class >> 8,
            header_type: layout,
            multi_function: header & header_type::MULTI_FUNCTION != 0,
            port_type: lists.port_type,
            capabilities: lists.capabilities.clone(),
            extended_capabilities: lists.extended_capabilities.clone(),
            bars: Vec::new(),
            bridge: (layout == 1).then(BridgeInfo::default),
            resizable: None,
            sriov: None,
            virtual_function: None,
            readiness: Readiness::default(),
            anomalies: Vec::new(),
        }
    }
}

/// All host bridges and functions of a machine, in the order in which they
/// were found (depth first).
///
/// A value that no later stage writes to: a stage takes it, and returns the
/// next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    pub(crate) hosts: Vec<(HostBridge, BusRange)>,
    pub(crate) functions: Vec<Function>,
    pub(crate) anomalies: Vec<Anomaly>,
    pub(crate) excluded: Vec<Sbdf>,
}

impl Topology {
    /// A topology that is known from elsewhere than
    /// [`enumerate`](super::enumerate()): host bridges, each with the buses in
    /// use below it, and functions, each bridge before what is below it.
    #[must_use]
    pub const fn new(hosts: Vec<(HostBridge, BusRange)>, functions: Vec<Function>) -> Self {
        Self {
            hosts,
            functions,
            anomalies: Vec::new(),
            excluded: Vec::new(),
        }
    }

    /// The host bridges, each with the buses that are in use below it.
    #[must_use]
    pub fn hosts(&self) -> &[(HostBridge, BusRange)] {
        &self.hosts
    }

    /// Physical address of the configuration space of `function`, whether it
    /// is part of the topology or not: see [`HostBridge::config_address`].
    #[must_use]
    pub fn config_address(&self, function: Sbdf) -> Option<PhysAddr> {
        let mut hosts = self.hosts.iter();
        hosts.find_map(|(host, _)| host.config_address(function))
    }

    /// All functions. A bridge comes before what is below it.
    #[must_use]
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// The function at an address.
    #[must_use]
    pub fn function(&self, sbdf: Sbdf) -> Option<&Function> {
        self.functions.iter().find(|function| function.sbdf == sbdf)
    }

    /// The anomalies that belong to none of the [functions](Self::functions);
    /// those that do are with the function.
    #[must_use]
    pub fn anomalies(&self) -> &[Anomaly] {
        &self.anomalies
    }

    /// Functions that are there but are no part of the topology, or whose
    /// resources could not be sized; an anomaly has the reason.
    #[must_use]
    pub fn excluded(&self) -> &[Sbdf] {
        &self.excluded
    }

    /// The topology with `anomalies` added, each to the function that it was
    /// seen at if there is one.
    #[must_use]
    pub fn with_anomalies(mut self, anomalies: impl IntoIterator<Item = Anomaly>) -> Self {
        for anomaly in anomalies {
            self.record(anomaly);
        }
        self
    }

    /// The topology with the accesses added that the machine refused since the
    /// last call, each as an anomaly of the function that it went to.
    #[must_use]
    pub fn with_faults(mut self, config: &mut impl ConfigAccess) -> Self {
        self.record_faults(config);
        self
    }

    pub(crate) fn record(&mut self, anomaly: Anomaly) {
        let known = self
            .functions
            .iter_mut()
            .rfind(|function| function.sbdf == anomaly.function);
        match known {
            Some(function) => function.anomalies.push(anomaly.kind),
            None => self.anomalies.push(anomaly),
        }
    }

    /// As [`Self::with_faults`]. Returns how many there were.
    pub(crate) fn record_faults(&mut self, config: &mut impl ConfigAccess) -> usize {
        let mut count = 0;
        while let Some(fault) = config.take_fault() {
            count += 1;
            let offset = fault.offset;
            let kind = AnomalyKind::ExternalAbort { offset };
            self.record(Anomaly::new(fault.function, kind));
        }
        count
    }
}

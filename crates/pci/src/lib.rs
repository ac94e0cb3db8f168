//! PCI Express: addresses, configuration accesses, headers, enumeration and
//! resources.
//!
//! "PCIe" in comments means the PCI Express Base Specification 6.x, with the
//! section number.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod access;
mod address;
mod anomaly;
mod bus_numbers;
mod capabilities;
mod config_mech;
mod config_space;
mod counting;
mod decode;
mod enumerate;
mod host;
mod lspci;
mod prefetch;
mod range;
pub mod registers;
mod resources;
mod sbdf_map;
mod sriov;
pub mod time;
mod topology;
mod verify;

pub use access::{AccessFault, ConfigAccess, Width};
pub use address::{ConfigOffset, ParseSbdfError, Sbdf};
pub use anomaly::{Affects, Anomaly, AnomalyKind, Decoder, Step};
pub use bus_numbers::{BusNumbers, BusNumbersError};
pub use capabilities::{CapabilityLists, FoundLists, read_capability_lists};
pub use config_mech::{HostBridgeAccess, HostBridgeError, Registers};
pub use config_space::{ConfigSpace, PlainConfig, Probe, VENDOR_NOT_READY};
pub use counting::{AccessCounts, CountingAccess};
pub use enumerate::{ScanPolicy, enumerate};
pub use host::{BusRange, CamLayout, HostBridge, HostWindow, Mechanism, WindowKind};
pub use lspci::{DumpError, DumpProblem, DumpedConfigSpace, HexDump};
pub use prefetch::{
    ConfigRead, PrefetchedAccess, ReadBatches, ReadResult, group_reads_by_root_port,
};
pub use range::PciRange;
pub use resources::{AssignCounts, AssignPolicy, Assigned, assign};
pub use sbdf_map::SbdfMap;
pub use sriov::{
    EnabledVfs, FoundVfs, VfIdentity, VfPolicy, VfRouting, VfScope, enable_vfs, probe_vf_routing,
};
pub use topology::{
    Bar, BarKind, BridgeInfo, Capability, ExtendedCapability, Function, PortType, SrIovInfo,
    Topology, VirtualInfo,
};
pub use verify::{KnownRegisters, verify_assignment};
pub use warmbus_memory::PhysAddr;

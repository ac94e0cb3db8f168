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
mod ahead;
mod by_function;
mod capabilities;
mod check;
mod config_mech;
mod config_space;
mod counted;
mod decode;
mod enumerate;
mod host;
mod recorded;
pub mod registers;
mod resources;
mod sriov;
pub mod time;
mod topology;

pub use access::{AccessFault, ConfigAccess, Width};
pub use address::{ConfigOffset, ParseSbdfError, Sbdf};
pub use ahead::{Answer, ConfigRead, ReadAhead, ReadQueue, by_root_port};
pub use by_function::ByFunction;
pub use capabilities::{CapabilityLists, FoundLists, read_capability_lists};
pub use check::{KnownRegisters, check};
pub use config_mech::{Reach, ReachError, Registers};
pub use config_space::{ConfigSpace, PlainConfig, Probe, VENDOR_NOT_READY};
pub use counted::{AccessCounts, Counted};
pub use enumerate::{ScanPolicy, enumerate};
pub use host::{BusRange, HostBridge, HostWindow, Mechanism, WindowKind, WindowShape};
pub use recorded::{DumpError, DumpProblem, Recorded};
pub use resources::{AssignOutcome, AssignPolicy, assign};
pub use sriov::{EnabledVfs, VfIdentity, VfPolicy, VfRouting, VfScope, ask_vf_routing, enable_vfs};
pub use topology::{
    Anomaly, Bar, BarKind, BridgeInfo, BridgeWindow, Capability, ExtendedCapability, Function,
    PortType, SrIovInfo, Topology, VirtualInfo,
};
pub use warmbus_memory::PhysAddr;

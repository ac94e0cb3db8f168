//! PCI Express: addresses, configuration accesses, headers, enumeration and
//! resources.
//!
//! "PCIe" in comments means the PCI Express Base Specification 6.x, with the
//! section number.

mod access;
mod address;
mod ahead;
mod assign;
pub(crate) mod by_function;
mod check;
mod complete;
mod counted;
mod decode;
mod enumerate;
mod host;
pub mod names;
mod reach;
mod recorded;
pub mod registers;
mod topology;
mod virtual_functions;

pub use access::{AccessFault, ConfigAccess, Width};
pub use address::{ConfigOffset, ParseSbdfError, PhysAddr, Sbdf};
pub use ahead::{Answer, ConfigRead, ReadAhead, ReadQueue, by_root_port};
pub use assign::{AssignOutcome, AssignPolicy, assign};
pub use check::check;
pub use complete::first_gap;
pub use counted::{AccessCounts, Counted};
pub use enumerate::{ScanPolicy, enumerate};
pub use host::{BusRange, HostBridge, HostWindow, Mechanism, WindowKind, WindowShape};
pub use reach::{Reach, ReachError, Registers};
pub use recorded::{DumpError, DumpProblem, Recorded};
pub use topology::{
    Anomaly, Bar, BarKind, BridgeInfo, BridgeWindow, Capability, ExtendedCapability, Function,
    PortType, SrIovInfo, Topology, VirtualInfo,
};
pub use virtual_functions::{EnabledVfs, VfPolicy, VfScope, ask_vf_routing, enable_vfs};

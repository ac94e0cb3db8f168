//! A simulated PCI Express fabric.
//!
//! It is written from the rules of the PCI Express Base Specification and not
//! from what Warmbus expects, so that it can contradict: functions hang in a
//! tree and are found by the bus numbers that the bridges hold at that moment,
//! registers have the writable, RW1C, sticky and hardwired bits of the real
//! ones, and what hardware changes by itself changes here by itself. It can
//! also misbehave in every way that hardware is known to.
//!
//! ```
//! use warmbus_pci::{BusRange, ConfigAccess, ConfigOffset, PortType, Sbdf, Width};
//! use warmbus_pcie_sim::{ExpressModel, Fabric, FunctionModel};
//!
//! let mut fabric = Fabric::new();
//! let host = fabric.add_host(Fabric::host_bridge(0, BusRange { first: 0, last: 255 }));
//! let timer = FunctionModel::endpoint(0x1234, 0x5678, 0x08_0200)
//!     .express(ExpressModel::new(PortType::RootComplexIntegratedEndpoint));
//! fabric.add_root(host, 3, 0, timer);
//! let ids = fabric.read(Sbdf::new(0, 0, 3, 0), ConfigOffset::wrapping(0), Width::Dword);
//! assert_eq!(ids, 0x5678_1234);
//! ```
#![forbid(unsafe_code)]

mod access;
mod allocation;
mod bar;
mod behaviour;
mod capability;
mod clock;
mod cxl;
mod decode;
pub mod devices;
mod express;
mod extended;
mod fabric;
mod fault;
mod link;
mod log;
mod model;
mod portal;
pub mod proptest_config;
pub mod random;
pub mod random_machine;
#[cfg(feature = "proptest")]
pub mod random_topology;
mod route;
mod slot;
mod space;
mod sriov;
mod switchable_allocation;
pub mod topologies;
mod training;
mod vendor;
mod windows;

pub use bar::{BarModel, BarSpace};
pub use capability::{EaEntry, MsiModel};
pub use clock::{MICROSECOND, MILLISECOND, SECOND, SimulatedClock};
pub use decode::Decoded;
pub use express::{ExpressModel, SlotModel};
pub use fabric::{Fabric, HostId, NodeId, RrsHandling};
pub use fault::{Fault, Quirk};
pub use log::{Access, AccessLog, Outcome, ProtocolViolation};
pub use model::{BridgeWindows, FunctionModel};
pub use space::Reset;
pub use sriov::{SrIovModel, VF_ENABLE_TIME, VfLayout};
pub use vendor::VendorAction;
pub use windows::{io_window, memory32_window, memory64_window, prefetchable_window};

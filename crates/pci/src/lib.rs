//! PCI Express for firmware: enumeration, bus numbers, BARs, bridge windows and
//! SR-IOV, in `no_std` without `unsafe`.
//!
//! [`enumerate()`] finds every function below the [host bridges](HostBridge)
//! and numbers the buses, [`assign()`] assigns addresses to BARs and bridge windows.
//! Both work on a [`ConfigSpace`]: [`PlainConfig`] makes one of anything that
//! can read and write configuration space, as [`HostBridgeAccess`] does by ECAM.
//!
//! ```
//! use warmbus_pci::{
//!     AssignPolicy, BusRange, HostBridge, HostWindow, PhysAddr, PlainConfig, ScanPolicy,
//!     WindowKind, assign, enumerate,
//! };
//! # use std::time::Duration;
//! # use warmbus_pci::{ConfigAccess, ConfigOffset, Sbdf, Width, time::Clock};
//! # /// A bridge at 00:01.0 with an NVMe controller below it: registers and writable bits.
//! # struct Fabric([[(u32, u32); 64]; 2]);
//! # impl Fabric {
//! #     fn new() -> Self {
//! #         let (mut bridge, mut nvme) = ([(0, 0); 64], [(0, 0); 64]);
//! #         bridge[0] = (0x000c_1b36, 0);
//! #         bridge[1] = (0, 7);
//! #         bridge[2] = (0x0604_0000, 0);
//! #         bridge[3] = (0x0001_0000, 0);
//! #         bridge[6] = (0, 0x00ff_ffff);
//! #         bridge[8] = (0, 0xfff0_fff0);
//! #         nvme[0] = (0x0010_1b36, 0);
//! #         nvme[1] = (0, 7);
//! #         nvme[2] = (0x0108_0200, 0);
//! #         nvme[4] = (0, 0xffff_c000);
//! #         Self([bridge, nvme])
//! #     }
//! #     fn register(&mut self, function: Sbdf, offset: ConfigOffset) -> Option<&mut (u32, u32)> {
//! #         let secondary = self.0[0][6].0.to_le_bytes()[1];
//! #         let index = match (function.bus(), function.devfn()) {
//! #             (0, 8) => 0,
//! #             (bus, 0) if bus != 0 && bus == secondary => 1,
//! #             _ => return None,
//! #         };
//! #         self.0[index].get_mut(offset.index() / 4)
//! #     }
//! # }
//! # impl ConfigAccess for Fabric {
//! #     fn read(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
//! #         let found = self.register(function, offset).map_or(u32::MAX, |found| found.0);
//! #         found >> (8 * (offset.get() & 3)) & width.ones()
//! #     }
//! #     fn write(&mut self, function: Sbdf, offset: ConfigOffset, width: Width, value: u32) {
//! #         let shift = 8 * (offset.get() & 3);
//! #         if let Some((found, writable)) = self.register(function, offset) {
//! #             let mask = width.ones() << shift & *writable;
//! #             *found = *found & !mask | value << shift & mask;
//! #         }
//! #     }
//! # }
//! # struct NoClock;
//! # impl Clock for NoClock {
//! #     fn now(&mut self) -> Duration { Duration::ZERO }
//! #     fn wait(&mut self, _: Duration) {}
//! # }
//! # let (fabric, mut clock) = (Fabric::new(), NoClock);
//!
//! // From the device tree of the machine, or its ACPI tables.
//! let memory = HostWindow::new(
//!     WindowKind::Memory32,
//!     0x1000_0000,
//!     PhysAddr(0x1000_0000),
//!     0x2eff_0000,
//! );
//! let host = HostBridge::ecam(0, PhysAddr(0x40_1000_0000), BusRange::ALL).with_window(memory);
//!
//! // `fabric` accesses configuration space: here a model, in firmware
//! // `HostBridgeAccess`.
//! let mut config = PlainConfig::new(fabric);
//! let topology = enumerate(&[host], &ScanPolicy::default(), &mut config, &mut clock);
//! let topology = assign(topology, &AssignPolicy::default(), &mut config);
//!
//! let mut text = String::new();
//! for function in topology.functions() {
//!     let (vendor, device) = (function.vendor_id, function.device_id);
//!     text += &format!("{} {vendor:04x}:{device:04x}\n", function.sbdf);
//!     for bar in &function.bars {
//!         let (index, address, size) = (bar.index, bar.address.unwrap(), bar.size.unwrap());
//!         text += &format!("    BAR {index} at {address:#x}, {size:#x} bytes\n");
//!     }
//! }
//! print!("{text}");
//! assert_eq!(
//!     text,
//!     "0000:00:01.0 1b36:000c\n\
//!      0000:01:00.0 1b36:0010\n    BAR 0 at 0x10000000, 0x4000 bytes\n"
//! );
//! ```
//!
//! # What can be relied on
//!
//! - Nothing that a device returns makes a function of this crate panic or run
//!   without end: list walks are bounded, a device that is not ready is waited
//!   for once, up to [`ScanPolicy::not_ready_timeout`].
//! - What violates the specification, or does not fit, is an [`Anomaly`] and no
//!   error: the rest of the machine is usable without it.
//! - Below a host bridge with [`HostBridge::preserve_config`] nothing is
//!   written.
//! - [`verify_assignment()`] checks the result from the registers alone.
//!
//! A stage takes the value of the one before and returns its own:
//! [`Topology`], [`Assigned`], [`EnabledVfs`], [`FoundVfs`].
//!
//! "PCIe" in comments is the PCI Express Base Specification 6.x, with the
//! section number.
#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::missing_errors_doc)]

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
mod range;
pub mod registers;
mod reserve;
mod resources;
mod sbdf_map;
mod sriov;
pub mod time;
mod topology;
mod verify;

pub use access::{AccessFault, AccessWidths, ConfigAccess, ConfigRead, Width};
pub use address::{ConfigOffset, ParseSbdfError, Sbdf};
pub use anomaly::{Affects, Anomaly, AnomalyKind, Decoder, Step};
pub use bus_numbers::{BusNumbers, BusNumbersError};
pub use capabilities::{CapabilityLists, FoundLists, read_capability_lists};
pub use config_mech::{HostBridgeAccess, HostBridgeError, Registers};
pub use config_space::{ConfigSpace, PlainConfig, Probe};
pub use counting::{AccessCounts, CountingAccess};
pub use enumerate::{
    LatePort, LateState, Readiness, ScanPolicy, enumerate, has_empty_ports, late_ports,
};
pub use host::{BusRange, CamLayout, HostBridge, HostWindow, Mechanism, WindowKind};
pub use lspci::{DumpError, DumpProblem, DumpedConfigSpace, HexDump};
pub use range::PciRange;
pub use reserve::Reserve;
pub use resources::{AssignCounts, AssignPolicy, Assigned, ResizableBar, assign};
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

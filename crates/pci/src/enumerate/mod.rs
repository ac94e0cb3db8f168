//! Finds every function below the host bridges and assigns bus numbers.
//!
//! The walk follows the PCI Express and PCI-PCI bridge specifications: it
//! accesses only buses that a bridge forwards, only device 0 below a PCI
//! Express link, and nothing below a link that is down. Bus numbers are
//! assigned depth first. A function that is not ready is retried when all
//! others are done, so that one timeout serves the whole machine. Where spare
//! numbers leave a device without one, everything is numbered again with
//! fewer of them.
//!
//! Below a host bridge that is preserved nothing is written.

mod bridge;
mod device;
mod late;
mod not_ready;
mod slot;

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use super::{Anomaly, AnomalyKind, BusRange, ConfigSpace, HostBridge, PortType, Sbdf, Topology};
use crate::time::Clock;
pub use late::{LatePort, LateState, has_empty_ports, late_ports};
pub use not_ready::Readiness;
use not_ready::{PendingDevice, Waits};

/// What enumeration may decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanPolicy {
    /// Bus numbers that are assigned to a hot-plug capable port beyond the ones
    /// in use, for bridges in what is plugged in later.
    pub spare_buses: u8,
    /// Bus numbers that are assigned to a port beyond the ones in use while the
    /// device below it is not ready and may turn out to be a bridge.
    pub not_ready_spare_buses: u8,
    /// After what time functions that are not ready are excluded, counted once
    /// for the whole scan from its start. PCIe 2.3.1 allows a function one
    /// second after a reset.
    pub not_ready_timeout: Duration,
    /// The same for what is below single ports. Such a port is waited for even
    /// while it is empty.
    pub port_timeouts: Vec<(Sbdf, Duration)>,
}

impl Default for ScanPolicy {
    fn default() -> Self {
        Self {
            spare_buses: 1,
            not_ready_spare_buses: 4,
            not_ready_timeout: Duration::from_secs(1),
            port_timeouts: Vec::new(),
        }
    }
}

/// Enumerates everything below `hosts`.
///
/// The capability lists of every function that answered are known to `config`
/// afterwards. What is wrong is an anomaly in the topology; nothing is an
/// error.
pub fn enumerate<S: ConfigSpace, C: Clock>(
    hosts: &[HostBridge],
    policy: &ScanPolicy,
    config: &mut S,
    clock: &mut C,
) -> Topology {
    let start = clock.now();
    let generous = SpareBuses {
        hot_plug: policy.spare_buses,
        not_ready: policy.not_ready_spare_buses,
    };
    let mut spare = vec![generous; hosts.len()];
    let mut waits = Waits::default();
    let mut again = 0;
    loop {
        let mut scan = Scan {
            config: &mut *config,
            policy,
            topology: Topology::default(),
            pending: Vec::new(),
            next_bus: Vec::new(),
            spare: &spare,
            may_free_numbers: vec![false; hosts.len()],
            host: 0,
            preserve: false,
        };
        scan.scan_hosts(hosts);
        scan.retry_pending(start, clock);
        let (mut topology, may_free_numbers) = scan.finish();
        waits.merge(&mut topology);
        // What exists comes before what may come: with fewer spare numbers
        // there may be one for it.
        let mut is_final = true;
        again += 1;
        for (host, spare) in spare.iter_mut().enumerate() {
            let is_wrong =
                lacks_bus_numbers(&topology, host) || takes_foreign_buses(&topology, host);
            if again <= MAX_AGAIN && may_free_numbers[host] && is_wrong {
                is_final = false;
                *spare = SpareBuses {
                    hot_plug: 0,
                    not_ready: if spare.hot_plug == 0 {
                        0
                    } else {
                        spare.not_ready
                    },
                };
            }
        }
        if is_final {
            return topology;
        }
    }
}

/// How often buses are numbered again: without spare numbers for what may be
/// plugged in, and then without those for what is not ready.
const MAX_AGAIN: u32 = 2;

/// Whether a bus number is missing for something below `host`.
fn lacks_bus_numbers(topology: &Topology, host: usize) -> bool {
    let functions = topology.functions.iter().filter(|f| f.host == host);
    functions
        .flat_map(|function| &function.anomalies)
        .any(|anomaly| {
            matches!(
                anomaly,
                AnomalyKind::NoBusNumberLeft { .. } | AnomalyKind::VfsBeyondLastBus { .. }
            )
        })
}

/// Whether a bridge below `host` was assigned a number that answers for another
/// root complex: below it there is what can only be on a root bus (PCIe 7.5.3.2).
/// Fewer spare numbers may keep clear of it. QEMU does so with `pxb-pcie`, whose
/// bus number its device tree gives to the first host bridge.
fn takes_foreign_buses(topology: &Topology, host: usize) -> bool {
    let functions = topology.functions.iter().filter(|f| f.host == host);
    functions
        .filter(|function| function.parent.is_some())
        .any(|function| {
            matches!(
                function.port_type,
                Some(
                    PortType::RootPort
                        | PortType::RootComplexIntegratedEndpoint
                        | PortType::RootComplexEventCollector
                )
            )
        })
}

/// Bus numbers that a port below a host bridge is assigned beyond those in use.
#[derive(Clone, Copy, Debug)]
struct SpareBuses {
    /// For what may be plugged in.
    hot_plug: u8,
    /// For a device that is not ready.
    not_ready: u8,
}

/// A running enumeration.
struct Scan<'a, S> {
    config: &'a mut S,
    policy: &'a ScanPolicy,
    topology: Topology,
    pending: Vec<PendingDevice>,
    /// For each host the lowest bus number that is not assigned yet.
    next_bus: Vec<u16>,
    /// For each host the numbers that its ports are assigned beyond.
    spare: &'a [SpareBuses],
    /// For each host whether a port was assigned such numbers, or less than a
    /// device needed that was not ready.
    may_free_numbers: Vec<bool>,
    /// The host that is being scanned.
    host: usize,
    /// Whether nothing may be written to it.
    preserve: bool,
}

/// A bus to scan.
#[derive(Clone, Copy, Debug)]
struct Bus {
    number: u8,
    /// Highest bus number that may be assigned below.
    last: u8,
    /// The bridge above; `None` on a root bus.
    parent: Option<usize>,
    /// Whether it is a PCI Express link, which has one device.
    is_link: bool,
}

impl<S: ConfigSpace> Scan<'_, S> {
    fn scan_hosts(&mut self, hosts: &[HostBridge]) {
        for (index, host) in hosts.iter().enumerate() {
            self.host = index;
            self.preserve = host.preserve_config;
            let root = host.buses.first;
            self.topology.hosts.push((host.clone(), host.buses));
            self.next_bus.push(u16::from(root) + 1);
            self.scan_bus(Bus {
                number: root,
                last: host.buses.last,
                parent: None,
                is_link: false,
            });
        }
    }

    /// The topology, and for each host whether numbering it again may free bus
    /// numbers.
    fn finish(mut self) -> (Topology, Vec<bool>) {
        for (host, next) in self.topology.hosts.iter_mut().zip(&self.next_bus) {
            // At most 256, since numbers end with the bus range.
            host.1 = BusRange {
                first: host.1.first,
                last: (next - 1) as u8,
            };
        }
        (self.topology, self.may_free_numbers)
    }

    fn segment(&self) -> u16 {
        self.topology.hosts[self.host].0.segment
    }

    fn record_anomaly(&mut self, function: Sbdf, kind: AnomalyKind) {
        self.topology.anomalies.push(Anomaly::new(function, kind));
    }

    /// Records that there is a function which the topology cannot hold.
    fn exclude(&mut self, function: Sbdf, kind: AnomalyKind) {
        self.topology.excluded.push(function);
        self.record_anomaly(function, kind);
    }

    /// Records the accesses that the machine refused, and returns how many.
    fn record_faults(&mut self) -> usize {
        self.topology.record_faults(self.config)
    }

    /// Scans all devices of a bus, then what is below its bridges.
    fn scan_bus(&mut self, bus: Bus) {
        let first = self.topology.functions.len();
        let devices = if bus.is_link { 0..1 } else { 0..32 };
        for device in devices {
            self.scan_device(bus, device);
        }
        self.scan_bridges(first, bus.last);
    }

    /// Scans what is below the bridges among the functions from `first` on.
    fn scan_bridges(&mut self, first: usize, last_bus: u8) {
        let functions = &self.topology.functions;
        let bridges: Vec<usize> = (first..functions.len())
            .filter(|&index| functions[index].bridge.is_some())
            .collect();
        // VFs are on buses above that of their PF, which no bridge may have.
        let last_vf_bus = functions[first..]
            .iter()
            .filter_map(|function| function.sriov.map(|sriov| sriov.last_bus))
            .max();
        if let Some(last) = last_vf_bus {
            let next = &mut self.next_bus[self.host];
            *next = (*next).max(u16::from(last) + 1);
        }
        if !self.preserve {
            // The first one is assigned new numbers before anything is read below.
            for &index in bridges.iter().skip(1) {
                self.clear_bus_numbers(index);
            }
        }
        for (done, &index) in bridges.iter().enumerate() {
            let bridges_left_on_bus = bridges.len() - done - 1;
            self.scan_bridge(index, last_bus, bridges_left_on_bus);
        }
    }
}

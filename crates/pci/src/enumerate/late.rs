//! Devices that come after the scan: ports that were empty are looked at once
//! more before an operating system takes over.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;

use super::bridge::Link;
use super::{Scan, ScanPolicy};
use crate::{ConfigOffset, ConfigSpace, PortType, Sbdf, Topology, Width};

/// The Vendor ID that a root port returns for a function that is not ready
/// (PCIe 2.3.2).
const NOT_READY: u32 = 0x0001;

/// A port that was empty when it was scanned and may not stay so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatePort {
    /// The port.
    pub port: Sbdf,
    /// What is seen below it.
    pub state: LateState,
}

/// What is seen below a port that was empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LateState {
    /// A device answers.
    Answers,
    /// A device is not ready yet.
    NotReady,
    /// The link is up, and nothing answers: a port that hides Request Retry
    /// Status may have a device that is not ready.
    LinkUp,
    /// The link trains, or a card is in the slot and has no link yet.
    Training,
}

impl fmt::Display for LateState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answers => "a device appeared below the port after the scan",
            Self::NotReady => "a device below the port is not ready",
            Self::LinkUp => "the link of the port is up, and no device answers yet",
            Self::Training => "the link of the port may still come up",
        })
    }
}

/// The ports of `topology` with nothing below them: their indices and the bus
/// that each of them leads to. A port whose device was given up is no such
/// port: it was waited for already.
fn empty_ports(topology: &Topology) -> Vec<(usize, u16, u8)> {
    let functions = topology.functions();
    let parents: BTreeSet<usize> = functions.iter().filter_map(|one| one.parent).collect();
    let ports = functions
        .iter()
        .enumerate()
        .filter_map(|(index, function)| {
            let is_port = matches!(
                function.port_type,
                Some(PortType::RootPort | PortType::DownstreamPort)
            );
            let bridge = function.bridge.filter(|bridge| bridge.secondary != 0)?;
            let (segment, bus) = (function.sbdf.segment(), bridge.secondary);
            let is_below = |one: &Sbdf| (one.segment(), one.bus()) == (segment, bus);
            let is_empty = !parents.contains(&index) && !topology.excluded().iter().any(is_below);
            (is_port && is_empty).then_some((index, segment, bus))
        });
    ports.collect()
}

/// The ports of `topology` that were empty and have a device now, or may have
/// one soon. Nothing is written, and no device becomes part of the topology:
/// it has neither bus numbers nor addresses.
pub fn late_ports<S: ConfigSpace>(topology: &Topology, config: &mut S) -> Vec<LatePort> {
    let mut late = Vec::new();
    for (index, segment, bus) in empty_ports(topology) {
        let function = &topology.functions()[index];
        let policy = ScanPolicy::default();
        let hosts = Vec::new();
        let mut scan = Scan {
            config,
            policy: &policy,
            topology: Topology::new(hosts, alloc::vec![function.clone()]),
            pending: Vec::new(),
            next_bus: Vec::new(),
            spare: &[],
            may_free_numbers: Vec::new(),
            host: 0,
            preserve: true,
        };
        let link = scan.read_link(0);
        let device = Sbdf::new(segment, bus, 0, 0);
        let state = match link {
            Link::Down => None,
            Link::Training => Some(LateState::Training),
            Link::Up | Link::Unknown => {
                let ids = config.read_hardware(device, ConfigOffset::wrapping(0), Width::Dword);
                match ids & 0xffff {
                    NOT_READY => Some(LateState::NotReady),
                    0 | 0xffff => (link == Link::Up).then_some(LateState::LinkUp),
                    _ => Some(LateState::Answers),
                }
            }
        };
        let port = function.sbdf;
        late.extend(state.map(|state| LatePort { port, state }));
    }
    late
}

/// Whether `topology` has a port that [`late_ports`] looks at.
#[must_use]
pub fn has_empty_ports(topology: &Topology) -> bool {
    !empty_ports(topology).is_empty()
}

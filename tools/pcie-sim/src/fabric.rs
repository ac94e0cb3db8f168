//! The fabric: host bridges, functions, and what an access does to them.

use std::collections::VecDeque;
use std::fmt;

use warmbus_pci::{AccessFault, BusRange, HostBridge, HostWindow, PhysAddr, Width, WindowKind};

use crate::clock::{MICROSECOND, SimulatedClock};
use crate::log::AccessLog;
use crate::model::FunctionModel;

/// A host bridge of a fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub(crate) usize);

/// A function of a fabric, wherever its bus numbers put it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(crate) usize);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "function #{}", self.0)
    }
}

/// What the root complex does with a Configuration Request that keeps being
/// answered with RRS and that software is not shown (PCIe 2.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RrsHandling {
    /// It gives up at once: all ones.
    GiveUp,
    /// It repeats the request until it completes, for at most so many
    /// nanoseconds: the processor stands still meanwhile.
    Repeat(u64),
}

#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) bridge: HostBridge,
    pub(crate) roots: Vec<NodeId>,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) model: FunctionModel,
    pub(crate) devfn: u8,
    pub(crate) host: HostId,
    pub(crate) parent: Option<NodeId>,
    pub(crate) children: Vec<NodeId>,
}

/// A simulated machine's PCI Express.
///
/// Functions hang on each other as they are soldered, and are reached by bus
/// numbers only as the registers of the bridges on the way say at that moment.
#[derive(Clone, Debug)]
pub struct Fabric {
    pub(crate) hosts: Vec<Host>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) log: AccessLog,
    pub(crate) clock: SimulatedClock,
    pub(crate) access_time: u64,
    pub(crate) rrs: RrsHandling,
    pub(crate) faults: VecDeque<AccessFault>,
}

impl Default for Fabric {
    fn default() -> Self {
        Self::new()
    }
}

impl Fabric {
    /// A fabric without host bridges, at time 0.
    pub fn new() -> Self {
        Self {
            hosts: Vec::new(),
            nodes: Vec::new(),
            log: AccessLog::default(),
            clock: SimulatedClock::default(),
            access_time: MICROSECOND,
            rrs: RrsHandling::GiveUp,
            faults: VecDeque::new(),
        }
    }

    /// A fabric with one host bridge, of segment 0 and the buses `first` to `last`.
    pub fn with_buses(first: u8, last: u8) -> (Self, HostId) {
        let mut fabric = Self::new();
        let host = fabric.add_host(Self::host_bridge(0, BusRange { first, last }));
        (fabric, host)
    }

    /// A host bridge description with the usual windows: 64 KiB of I/O, about
    /// 750 MiB below 4 GiB, 512 GiB above.
    #[must_use]
    pub fn host_bridge(segment: u16, buses: BusRange) -> HostBridge {
        let offset = u64::from(segment) << 44;
        let ecam = 0x40_1000_0000 + offset + (u64::from(buses.first) << 20);
        let window = |kind, pci_address, cpu_address, size| {
            HostWindow::new(kind, pci_address, PhysAddr(offset + cpu_address), size)
        };
        HostBridge::ecam(segment, PhysAddr(ecam), buses)
            .with_name(format!("/pcie{segment}-{:02x}", buses.first))
            .with_window(window(WindowKind::Io, 0, 0x3eff_0000, 0x1_0000))
            .with_window(window(
                WindowKind::Memory32,
                0x1000_0000,
                0x1000_0000,
                0x2eff_0000,
            ))
            .with_window(window(
                WindowKind::Memory64,
                0x80_0000_0000,
                0x80_0000_0000,
                0x80_0000_0000,
            ))
    }

    /// Adds a host bridge.
    pub fn add_host(&mut self, bridge: HostBridge) -> HostId {
        self.hosts.push(Host {
            bridge,
            roots: Vec::new(),
        });
        HostId(self.hosts.len() - 1)
    }

    /// Adds a function on the root bus of `host`, at `device.function`.
    pub fn add_root(
        &mut self,
        host: HostId,
        device: u8,
        function: u8,
        model: FunctionModel,
    ) -> NodeId {
        let id = self.add_node(host, None, device << 3 | (function & 7), model);
        self.hosts[host.0].roots.push(id);
        id
    }

    /// Adds a function on the bus below `bridge`, at `device.function`.
    pub fn add_below(
        &mut self,
        bridge: NodeId,
        device: u8,
        function: u8,
        model: FunctionModel,
    ) -> NodeId {
        self.add_below_devfn(bridge, device << 3 | (function & 7), model)
    }

    /// Adds a function with an 8-bit number below `bridge`: one of an ARI
    /// device.
    pub fn add_below_devfn(&mut self, bridge: NodeId, devfn: u8, model: FunctionModel) -> NodeId {
        let host = self.nodes[bridge.0].host;
        let id = self.add_node(host, Some(bridge), devfn, model);
        self.nodes[bridge.0].children.push(id);
        id
    }

    /// Wires `node`, which hangs somewhere above, to the bus below `bridge` as
    /// well: a loop, which no machine should have.
    pub fn loop_back(&mut self, bridge: NodeId, node: NodeId) {
        self.nodes[bridge.0].children.push(node);
    }

    fn add_node(
        &mut self,
        host: HostId,
        parent: Option<NodeId>,
        devfn: u8,
        model: FunctionModel,
    ) -> NodeId {
        self.nodes.push(Node {
            model,
            devfn,
            host,
            parent,
            children: Vec::new(),
        });
        NodeId(self.nodes.len() - 1)
    }

    /// Sets the time that one access takes; 1 µs at first.
    pub fn set_access_time(&mut self, nanoseconds: u64) {
        self.access_time = nanoseconds;
    }

    /// Sets what happens to requests that meet RRS; at first all ones.
    pub fn set_rrs_handling(&mut self, handling: RrsHandling) {
        self.rrs = handling;
    }

    /// The descriptions of the host bridges.
    pub fn host_bridges(&self) -> Vec<HostBridge> {
        self.hosts.iter().map(|h| h.bridge.clone()).collect()
    }

    /// A handle to the clock.
    pub fn clock(&self) -> SimulatedClock {
        self.clock.clone()
    }

    /// What was asked so far.
    pub fn log(&self) -> &AccessLog {
        &self.log
    }

    /// The log, to record or to clear.
    pub fn log_mut(&mut self) -> &mut AccessLog {
        &mut self.log
    }

    /// All functions but VFs, in the order in which they were added.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len()).map(NodeId)
    }

    /// The name of a function.
    pub fn name(&self, node: NodeId) -> &str {
        &self.nodes[node.0].model.name
    }

    /// The first function of this name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.nodes().find(|node| self.name(*node) == name)
    }

    /// A register of a function, looked at without an access.
    pub fn peek(&self, node: NodeId, offset: u16, width: Width) -> u32 {
        self.nodes[node.0].model.space.peek(offset, width)
    }

    /// Changes a register of a function as its hardware would.
    pub fn poke(&mut self, node: NodeId, offset: u16, width: Width, value: u32) {
        self.nodes[node.0].model.space.poke(offset, width, value);
    }

    /// Takes the link below `port` down now, permanently.
    pub fn drop_link(&mut self, port: NodeId) {
        let now = self.clock.time();
        self.nodes[port.0].model.link.drops_at = now;
    }

    /// Puts `model` in the place of `node` below `port`, whose link had dropped,
    /// now: the link is up at once and the slot shows that something changed.
    pub fn plug_in(&mut self, port: NodeId, node: NodeId, model: FunctionModel) {
        self.replace(node, model);
        let link = &mut self.nodes[port.0].model.link;
        (link.drops_at, link.drop_seen) = (u64::MAX, false);
        self.nodes[port.0].model.slot_changed();
    }

    /// Puts a card into the slot of `port`, now, whose link does not come up.
    pub fn insert_without_link(&mut self, port: NodeId) {
        let model = &mut self.nodes[port.0].model;
        (model.link.present, model.link.up_from) = (true, u64::MAX);
        model.slot_changed();
    }

    /// Takes away what goes wrong with reads of a function.
    pub fn repair(&mut self, node: NodeId) {
        self.nodes[node.0].model.faults.clear();
    }

    /// How many accesses came to a function itself, VFs aside.
    pub fn accesses(&self, node: NodeId) -> u32 {
        self.nodes[node.0].model.accesses
    }

    /// Whether a function, the bridges above it and all functions on their buses
    /// have neither faults nor quirks, nor registers that a random fabric has
    /// corrupted: then no other function can respond in its place.
    pub fn is_compliant(&self, node: NodeId) -> bool {
        let mut next = Some(node);
        while let Some(node) = next {
            let parent = self.nodes[node.0].parent;
            let spoiled = self.bus_of(node).iter().any(|sibling| {
                let model = &self.nodes[sibling.0].model;
                !model.faults.is_empty() || model.quirks != 0
            });
            if spoiled {
                return false;
            }
            next = parent;
        }
        true
    }

    /// All functions on the bus that a function is on.
    fn bus_of(&self, node: NodeId) -> &[NodeId] {
        let node = &self.nodes[node.0];
        match node.parent {
            Some(parent) => &self.nodes[parent.0].children,
            None => &self.hosts[node.host.0].roots,
        }
    }

    /// Replaces a function by another, as if it had been swapped.
    pub fn replace(&mut self, node: NodeId, model: FunctionModel) {
        self.nodes[node.0].model = model;
    }

    /// All functions of the device that `node` belongs to: what is at the end
    /// of a link, or has the same device number on a bus.
    pub(crate) fn same_device(&self, node: NodeId) -> Vec<NodeId> {
        let siblings = self.bus_of(node);
        let node = &self.nodes[node.0];
        let on_link = self.is_on_link(node);
        let same = |id: &&NodeId| on_link || self.nodes[id.0].devfn >> 3 == node.devfn >> 3;
        siblings.iter().filter(same).copied().collect()
    }
}

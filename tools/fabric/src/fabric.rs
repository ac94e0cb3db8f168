//! The fabric: host bridges, functions, and what an access does to them.

use std::collections::VecDeque;
use std::fmt;

use warmbus::pci::{
    AccessFault, BusRange, ConfigAccess, ConfigOffset, HostBridge, HostWindow, PhysAddr, Sbdf,
    Width, WindowKind,
};

use crate::behaviour::Effect;
use crate::clock::{MICROSECOND, SimulatedClock};
use crate::fault::Failure;
use crate::log::{Access, AccessLog, Outcome, Violation};
use crate::model::FunctionModel;
use crate::route::{Route, Target};
use crate::space::Reset;

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
    clock: SimulatedClock,
    access_time: u64,
    rrs: RrsHandling,
    faults: VecDeque<AccessFault>,
}

impl Default for Fabric {
    fn default() -> Self {
        Self::new()
    }
}

/// Faults that wait to be taken; more are dropped.
const PENDING_FAULTS: usize = 64;

/// The function that an access reached: a VF inside its physical function.
fn model(nodes: &mut [Node], target: Target) -> Option<&mut FunctionModel> {
    let model = &mut nodes[target.node.0].model;
    match target.vf {
        None => Some(model),
        Some(number) => model.vf(number),
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

    /// A host bridge description with the usual windows: 64 KiB of I/O, about
    /// 750 MiB below 4 GiB, 512 GiB above.
    #[must_use]
    pub fn host_bridge(segment: u16, buses: BusRange) -> HostBridge {
        let count = u64::from(buses.last.saturating_sub(buses.first)) + 1;
        let offset = u64::from(segment) << 44;
        let window = |kind, pci_address, cpu_address, size| HostWindow {
            kind,
            prefetchable: false,
            pci_address,
            cpu_address: PhysAddr(cpu_address),
            size,
        };
        HostBridge {
            name: format!("/pcie{segment}-{:02x}", buses.first),
            segment,
            ecam_base: PhysAddr(0x40_1000_0000 + offset + (u64::from(buses.first) << 20)),
            ecam_size: count << 20,
            buses,
            windows: vec![
                window(WindowKind::Io, 0, offset + 0x3eff_0000, 0x1_0000),
                window(
                    WindowKind::Memory32,
                    0x1000_0000,
                    offset + 0x1000_0000,
                    0x2eff_0000,
                ),
                window(
                    WindowKind::Memory64,
                    0x80_0000_0000,
                    offset + 0x80_0000_0000,
                    0x80_0000_0000,
                ),
            ],
            preserve: false,
        }
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

    /// Whether a function, the bridges above it and what shares their buses
    /// have neither faults nor quirks, nor registers that a random fabric has
    /// spoiled: then nothing else can answer in its place.
    pub fn keeps_to_the_rules(&self, node: NodeId) -> bool {
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

    /// Carries out one access; `write` is the value of a write.
    fn access(
        &mut self,
        function: Sbdf,
        offset: ConfigOffset,
        width: Width,
        write: Option<u32>,
    ) -> u32 {
        self.clock.advance(self.access_time);
        if !offset.get().is_multiple_of(width.bytes()) {
            self.log.violate(Violation::Misaligned {
                function,
                offset,
                width,
            });
        }
        let aligned = offset.get() & !(width.bytes() - 1);
        let route = self.route(function, aligned, self.clock.time());
        let (outcome, value) = match route.end {
            Ok(target) => self.complete(function, &route, target, width, write),
            Err(outcome) => {
                self.reject(function, &route, outcome);
                (outcome, width.ones())
            }
        };
        let target = route.end.ok();
        self.log.add(Access {
            time: self.clock.time(),
            function,
            offset,
            width,
            write: write.is_some(),
            value: write.unwrap_or(value),
            outcome,
            node: target.map(|t| t.node),
            vf: target.and_then(|t| t.vf),
        });
        value
    }

    /// An Unsupported Request: the bridges on the way take note of it.
    fn reject(&mut self, function: Sbdf, route: &Route, outcome: Outcome) {
        if outcome == Outcome::NoHost {
            self.log.violate(Violation::OutsideHosts { function });
        }
        for bridge in [route.root_port, route.last_bridge].into_iter().flatten() {
            // Received Master Abort, in Secondary Status.
            let space = &mut self.nodes[bridge.0].model.space;
            let status = space.peek(0x1e, Width::Word);
            space.poke(0x1e, Width::Word, status | 0x2000);
        }
    }

    fn complete(
        &mut self,
        function: Sbdf,
        route: &Route,
        target: Target,
        width: Width,
        write: Option<u32>,
    ) -> (Outcome, u32) {
        let offset = route.offset;
        let ones = width.ones();
        let now = self.clock.time();
        let Some(model) = model(&mut self.nodes, target) else {
            return (Outcome::NoFunction, ones);
        };
        let noise = match model.failure(now, offset) {
            Some(Failure::Gone) => return (Outcome::Gone, ones),
            Some(Failure::Abort) => {
                self.abort(function, offset);
                return (Outcome::Aborted, ones);
            }
            Some(Failure::Value(noise)) => Some(noise & ones),
            None => None,
        };
        if now < model.ready_at {
            let ready_at = model.ready_at;
            if target.vf.is_some() {
                self.log.violate(Violation::EarlyVf { function });
            }
            let vendor = write.is_none() && offset == 0 && width != Width::Byte;
            if let Some(value) = self.not_ready(route, ready_at, vendor) {
                return (Outcome::NotReady, value & ones);
            }
        }
        if let Some(data) = write {
            self.take_write(function, target, offset, width, data);
            (Outcome::Completed, data)
        } else {
            let value = self.take_read(function, target, offset, width);
            (Outcome::Completed, noise.unwrap_or(value))
        }
    }

    /// A request that met RRS: what software reads, or `None` where the root
    /// complex repeated it until the function was ready. `vendor` says that it
    /// is a read of both bytes of Vendor ID.
    fn not_ready(&mut self, route: &Route, ready_at: u64, vendor: bool) -> Option<u32> {
        let port = route.root_port.map(|port| &self.nodes[port.0].model);
        if vendor && port.is_some_and(FunctionModel::shows_rrs) {
            return Some(0xffff_0001);
        }
        let wait = ready_at - self.clock.time();
        match self.rrs {
            RrsHandling::GiveUp => Some(0xffff_ffff),
            RrsHandling::Repeat(limit) => {
                self.clock.advance(wait.min(limit));
                (wait > limit).then_some(0xffff_ffff)
            }
        }
    }

    fn take_read(&mut self, function: Sbdf, target: Target, offset: u16, width: Width) -> u32 {
        let now = self.clock.time();
        let Some(model) = model(&mut self.nodes, target) else {
            return width.ones();
        };
        model.settle(now);
        let (forbidden, live) = model.space.traits(offset, width);
        if live {
            model.refresh(offset & !3, now);
        }
        if forbidden {
            self.log.violate(Violation::ForbiddenRead {
                function,
                offset: ConfigOffset::new(offset),
                width,
            });
        }
        model.space.peek(offset, width)
    }

    fn take_write(&mut self, function: Sbdf, target: Target, offset: u16, width: Width, data: u32) {
        let now = self.clock.time();
        let Some(model) = model(&mut self.nodes, target) else {
            return;
        };
        model.settle(now);
        // Functions learn their bus number from the writes that they take
        // (PCIe 2.2.6.2).
        model.captured_bus = function.bus();
        if model.is_sizing_while_decoding(offset, width, data) {
            self.log.violate(Violation::SizedWhileDecoding {
                function,
                offset: ConfigOffset::new(offset),
            });
        }
        let mut effects = Vec::new();
        let written = model.space.write(offset, width, data);
        if written.live {
            model.written(offset & !3, &written, now, &mut effects);
        }
        for effect in effects {
            self.apply(effect, function, target, now);
        }
    }

    fn abort(&mut self, function: Sbdf, offset: u16) {
        if self.faults.len() < PENDING_FAULTS {
            self.faults.push_back(AccessFault {
                function,
                offset: ConfigOffset::new(offset),
            });
        }
    }

    fn apply(&mut self, effect: Effect, function: Sbdf, target: Target, now: u64) {
        match effect {
            Effect::FunctionReset => {
                if let Some(model) = model(&mut self.nodes, target) {
                    model.reset(Reset::FunctionLevel);
                    model.ready_at = now.saturating_add(model.reset_time);
                }
            }
            Effect::SecondaryReset => self.reset_below(target.node, now),
            Effect::CommonClock(common) => {
                for sibling in self.same_device(target.node) {
                    self.nodes[sibling.0].model.set_latencies(common);
                }
            }
            Effect::AriHierarchy(ari) => {
                for sibling in self.same_device(target.node) {
                    let model = &mut self.nodes[sibling.0].model;
                    if let Some(sriov) = &mut model.sriov {
                        sriov.ari = ari;
                        model.lay_out_vfs();
                    }
                }
            }
            Effect::NumVfsWhileEnabled => {
                self.log.violate(Violation::NumVfsWhileEnabled { function });
            }
        }
    }

    /// A conventional reset of everything below `bridge`.
    fn reset_below(&mut self, bridge: NodeId, now: u64) {
        let from = now.max(self.nodes[bridge.0].model.link.up_from);
        let mut queue = self.nodes[bridge.0].children.clone();
        while let Some(id) = queue.pop() {
            let node = &mut self.nodes[id.0];
            node.model.reset(Reset::Conventional);
            node.model.ready_at = from.saturating_add(node.model.reset_time);
            if node.model.link.present {
                node.model.link.train(from);
            }
            queue.extend_from_slice(&node.children);
        }
    }

    /// All functions of the device that `node` belongs to: what is at the end
    /// of a link, or has the same device number on a bus.
    fn same_device(&self, node: NodeId) -> Vec<NodeId> {
        let siblings = self.bus_of(node);
        let node = &self.nodes[node.0];
        let on_link = self.is_on_link(node);
        let same = |id: &&NodeId| on_link || self.nodes[id.0].devfn >> 3 == node.devfn >> 3;
        siblings.iter().filter(same).copied().collect()
    }
}

impl ConfigAccess for Fabric {
    fn read(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
        self.access(function, offset, width, None)
    }

    fn write(&mut self, function: Sbdf, offset: ConfigOffset, width: Width, value: u32) {
        self.access(function, offset, width, Some(value & width.ones()));
    }

    fn take_fault(&mut self) -> Option<AccessFault> {
        self.faults.pop_front()
    }
}

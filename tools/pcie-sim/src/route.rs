//! How a Configuration Request finds its function (PCIe 7.3).

use std::collections::BTreeMap;

use warmbus_pci::{Sbdf, Width};

use crate::fabric::{Fabric, Host, Node, NodeId};
use crate::fault::Quirk;
use crate::log::{Outcome, ProtocolViolation};
use crate::model::{BridgeKind, FunctionModel};

/// The function that an access reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) node: NodeId,
    pub(crate) vf: Option<u16>,
}

/// The way of an access.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    /// The bridge on the root bus that it went through.
    pub(crate) root_port: Option<NodeId>,
    /// The last bridge that it went through.
    pub(crate) last_bridge: Option<NodeId>,
    /// The register, as it is after the bridges on the way.
    pub(crate) offset: u16,
    /// Where it ended.
    pub(crate) end: Result<Target, Outcome>,
}

impl FunctionModel {
    /// Primary, secondary and subordinate bus number.
    pub(crate) fn bus_numbers(&self) -> [u8; 3] {
        let [primary, secondary, subordinate, _] =
            self.space.peek(0x18, Width::Dword).to_le_bytes();
        [primary, secondary, subordinate]
    }

    /// Whether this bridge takes a Type 1 request for `routing_id`.
    fn forwards(&self, routing_id: u16) -> bool {
        let [_, secondary, subordinate] = self.bus_numbers();
        let bus = (routing_id >> 8) as u8;
        let is_in_range = (secondary..=subordinate).contains(&bus);
        self.bridge.is_some() && (is_in_range || self.portal_forwards(routing_id))
    }
}

impl Fabric {
    /// Whether the function is at the end of a link.
    pub(crate) fn is_on_link(&self, node: &Node) -> bool {
        node.parent
            .is_some_and(|p| self.nodes[p.0].model.bridge == Some(BridgeKind::DownstreamPort))
    }

    fn host_of(&self, function: Sbdf) -> Option<&Host> {
        self.hosts.iter().find(|host| {
            let buses = host.bridge.buses;
            host.bridge.segment == function.segment()
                && (buses.first..=buses.last).contains(&function.bus())
        })
    }

    /// Finds the way of an access to `function`, for register `offset`.
    pub(crate) fn route(&mut self, function: Sbdf, offset: u16, now: u64) -> Route {
        let mut route = Route {
            root_port: None,
            last_bridge: None,
            offset,
            end: Err(Outcome::NoHost),
        };
        let Some(host) = self.host_of(function) else {
            return route;
        };
        let mut this_bus = host.bridge.buses.first;
        // Each round goes one bridge down. There are not as many buses in a
        // tree: what goes round in a loop is never answered.
        for _ in 0..=u8::MAX {
            if this_bus == function.bus() {
                route.end = self.deliver(function, route.last_bridge, route.offset);
                return route;
            }
            let bridge = match self.claimant(function, route.last_bridge) {
                Ok(bridge) => bridge,
                Err(end) => {
                    route.end = end;
                    return route;
                }
            };
            self.nodes[bridge.0].model.settle(now);
            let model = &self.nodes[bridge.0].model;
            let [primary, ..] = model.bus_numbers();
            let secondary = model.bus_below();
            if primary != this_bus {
                self.log.violate(ProtocolViolation::WrongPrimary {
                    bridge,
                    bus: this_bus,
                    primary,
                });
            }
            route.root_port.get_or_insert(bridge);
            route.last_bridge = Some(bridge);
            match self.passes(bridge, route.offset, now) {
                Ok(offset) => route.offset = offset,
                Err(outcome) => {
                    route.end = Err(outcome);
                    return route;
                }
            }
            this_bus = secondary;
        }
        route.end = Err(Outcome::Gone);
        route
    }

    /// The register number of a request for register `offset` as it leaves
    /// `bridge`, if the bridge can pass it on at all.
    fn passes(&self, bridge: NodeId, offset: u16, now: u64) -> Result<u16, Outcome> {
        let model = &self.nodes[bridge.0].model;
        if model.is_gone(now) || model.stopped {
            return Err(Outcome::Gone);
        }
        if model.power_state() != 0 {
            return Err(Outcome::PoweredDown);
        }
        match model.bridge {
            Some(BridgeKind::DownstreamPort) if !model.link_is_up(now) => {
                return Err(Outcome::LinkDown);
            }
            Some(BridgeKind::DownstreamPort) => {}
            // In reset, the bus below is dead.
            _ if model.space.peek(0x3e, Width::Word) & 0x40 != 0 => {
                return Err(Outcome::LinkDown);
            }
            Some(kind) if kind.leads_to_conventional() && offset >= 0x100 => {
                if !model.has(Quirk::RepeatsLowSpace) {
                    return Err(Outcome::NoExtendedSpace);
                }
                return Ok(offset % 0x100);
            }
            _ => {}
        }
        Ok(offset)
    }

    fn children(&self, function: Sbdf, bridge: Option<NodeId>) -> &[NodeId] {
        match bridge {
            Some(bridge) => &self.nodes[bridge.0].children,
            None => self.host_of(function).map_or(&[], |h| &h.roots),
        }
    }

    /// The bridge below `above` that takes a Type 1 request for `function`,
    /// or the VF on another bus than its physical function.
    fn claimant(
        &mut self,
        function: Sbdf,
        above: Option<NodeId>,
    ) -> Result<NodeId, Result<Target, Outcome>> {
        let mut claimants = self
            .children(function, above)
            .iter()
            .filter(|id| self.nodes[id.0].model.forwards(function.routing_id()));
        let (first, second) = (claimants.next().copied(), claimants.next().copied());
        if let (Some(first), Some(second)) = (first, second) {
            self.log.violate(ProtocolViolation::ClaimedTwice {
                bus: function.bus(),
                first,
                second,
            });
        }
        if let Some(first) = first {
            return Ok(first);
        }
        Err(self.vf(function, above).ok_or(Outcome::NoBridge))
    }

    fn vf(&self, function: Sbdf, above: Option<NodeId>) -> Option<Target> {
        self.children(function, above).iter().find_map(|id| {
            let node = &self.nodes[id.0];
            let number = node.model.vf_at(function.routing_id(), node.devfn)?;
            Some(Target {
                node: *id,
                vf: Some(number),
            })
        })
    }

    /// A Type 0 request for register `offset` on the bus below `above`.
    fn deliver(
        &self,
        function: Sbdf,
        above: Option<NodeId>,
        offset: u16,
    ) -> Result<Target, Outcome> {
        let port = above.map(|id| &self.nodes[id.0].model);
        let on_link = port.is_some_and(|p| p.bridge == Some(BridgeKind::DownstreamPort));
        if let Some(port) = port.filter(|_| on_link) {
            let open = port.forwards_ari() || port.has(Quirk::ForwardsEveryDevice);
            if function.device() != 0 && !open {
                return Err(Outcome::DeviceFiltered);
            }
        }
        let target = self
            .children(function, above)
            .iter()
            .find(|id| self.nodes[id.0].answers(function.devfn(), on_link))
            .map(|id| Target {
                node: *id,
                vf: None,
            })
            .or_else(|| self.vf(function, above))
            .ok_or(Outcome::NoFunction)?;
        let model = &self.nodes[target.node.0].model;
        if offset >= 0x100 && model.express.is_none() {
            return Err(Outcome::NoExtendedSpace);
        }
        Ok(target)
    }

    /// The addresses that reach each function by the bus numbers that the
    /// bridges have now, in ascending order. Of a function that answers at
    /// several only its own; VFs are excluded.
    pub fn reachable(&self) -> BTreeMap<Sbdf, NodeId> {
        let mut found = BTreeMap::new();
        // Finding the way lets due changes happen: not to this fabric.
        let mut probe = self.clone();
        let now = self.clock().time();
        for host in &self.hosts {
            let first = host.bridge.buses.first;
            let mut queue: Vec<_> = host.roots.iter().map(|id| (*id, first)).collect();
            while let Some((id, bus)) = queue.pop() {
                let node = &self.nodes[id.0];
                let sbdf = Sbdf::from_devfn(host.bridge.segment, bus, node.devfn);
                if probe.route(sbdf, 0, now).end != Ok(Target { node: id, vf: None }) {
                    continue;
                }
                // In a loop a function is reached again.
                if found.insert(sbdf, id).is_some() {
                    continue;
                }
                let secondary = node.model.bus_below();
                if node.model.bridge.is_some() {
                    queue.extend(node.children.iter().map(|id| (*id, secondary)));
                }
            }
        }
        found
    }
}

impl Node {
    /// Whether the function takes a Type 0 request with this number.
    fn answers(&self, devfn: u8, on_link: bool) -> bool {
        // A function that is not one of an ARI device answers whatever the
        // device number says, since it only learns its own (PCIe 2.2.6.2).
        let any_device = self.model.has(Quirk::EveryDevice) || on_link && self.model.ari.is_none();
        let any_function = self.model.has(Quirk::EveryFunction);
        (any_device || devfn / 8 == self.devfn / 8) && (any_function || devfn % 8 == self.devfn % 8)
    }
}

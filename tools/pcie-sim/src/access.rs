//! What one access does.

use std::collections::BTreeSet;

use warmbus_pci::{AccessFault, ConfigAccess, ConfigOffset, Sbdf, Width};

use crate::behaviour::Effect;
use crate::fabric::{Fabric, Node, NodeId, RrsHandling};
use crate::fault::Failure;
use crate::log::{Access, Outcome, ProtocolViolation};
use crate::model::FunctionModel;
use crate::route::{Route, Target};
use crate::space::Reset;

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
            self.log.violate(ProtocolViolation::Misaligned {
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
            self.log
                .violate(ProtocolViolation::OutsideHosts { function });
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
            if target.vf.is_some() && self.nodes[target.node.0].model.is_early_for_vfs(now) {
                self.log.violate(ProtocolViolation::EarlyVf { function });
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
            self.log.violate(ProtocolViolation::ForbiddenRead {
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
            self.log.violate(ProtocolViolation::SizedWhileDecoding {
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
                self.log
                    .violate(ProtocolViolation::NumVfsWhileEnabled { function });
            }
        }
    }

    /// A conventional reset of everything below `bridge`.
    fn reset_below(&mut self, bridge: NodeId, now: u64) {
        let from = now.max(self.nodes[bridge.0].model.link.up_from);
        let mut queue = self.nodes[bridge.0].children.clone();
        let mut done = BTreeSet::new();
        while let Some(id) = queue.pop() {
            if !done.insert(id) {
                continue;
            }
            let node = &mut self.nodes[id.0];
            node.model.reset(Reset::Conventional);
            node.model.ready_at = from.saturating_add(node.model.reset_time);
            if node.model.link.present {
                node.model.link.train(from);
            }
            queue.extend_from_slice(&node.children);
        }
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

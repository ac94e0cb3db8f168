//! What there is to drop: parts of a function, functions, all behind a bridge.

use alloc::vec::Vec;
use core::ops::RangeInclusive;

use super::block_sr_iov;
use crate::byte_class::{ByteClass, ByteRule, InvalidatedBy};
use crate::config_cache::ConfigCache;
use crate::function_cache::State;
use warmbus_pci::{ConfigAccess, Sbdf};

/// The buses below a bridge: secondary and subordinate.
pub(super) type SubordinateBuses = Option<(u8, u8)>;

impl<A: ConfigAccess> ConfigCache<A> {
    /// A reset of `function`. Invalidates what software wrote and all bytes
    /// that follow from it, and evicts its virtual functions. Nothing is served
    /// before the function has responded again.
    pub(super) fn reset(&mut self, function: Sbdf) {
        // VF Enable is cleared by the reset.
        self.evict_vfs(function);
        self.drop_where(function, |cell| {
            cell.class == ByteClass::Software || cell.tag != InvalidatedBy::None
        });
        if let Some(block) = self.blocks.get_mut(function) {
            block.state = State::Reset;
            block.clear_routing();
            block.cancel_probe();
            block.invalidate_resizable_masks();
        }
    }

    /// A reset of the device of `function`: of all functions on its bus.
    pub(super) fn reset_device(&mut self, function: Sbdf) {
        for function in self.on(function.segment(), function.bus()..=function.bus()) {
            self.reset(function);
        }
    }

    pub(super) fn drop_software(&mut self, function: Sbdf) {
        self.drop_where(function, |cell| cell.class == ByteClass::Software);
    }

    pub(super) fn drop_tagged(&mut self, function: Sbdf, tag: InvalidatedBy) {
        self.drop_where(function, |cell| cell.tag == tag);
    }

    pub(super) fn drop_where(&mut self, function: Sbdf, matches: impl Fn(ByteRule) -> bool) {
        if let Some(block) = self.blocks.get_mut(function) {
            self.statistics.invalidations += block.drop_where(matches);
        }
    }

    pub(super) fn drop_tagged_on(&mut self, segment: u16, bus: u8, tag: InvalidatedBy) {
        for function in self.on(segment, bus..=bus) {
            self.drop_tagged(function, tag);
        }
    }

    /// Forgets what is known of the places of VFs of all physical functions on
    /// a bus.
    pub(super) fn clear_routing_on(&mut self, segment: u16, bus: u8) {
        for function in self.on(segment, bus..=bus) {
            if let Some(block) = self.blocks.get_mut(function) {
                block.clear_routing();
            }
        }
    }

    /// The functions on `buses`.
    fn on(&self, segment: u16, buses: RangeInclusive<u8>) -> Vec<Sbdf> {
        if buses.is_empty() {
            return Vec::new();
        }
        let found = self.blocks.range(on_buses(segment, buses));
        found.map(|(function, _)| function).collect()
    }

    /// The functions on `buses` of the segment of `bridge`, without itself.
    pub(super) fn functions_on(&self, bridge: Sbdf, buses: RangeInclusive<u8>) -> Vec<Sbdf> {
        let mut found = self.on(bridge.segment(), buses);
        found.retain(|&function| function != bridge);
        found
    }

    pub(super) fn evict_buses(&mut self, bridge: Sbdf, buses: RangeInclusive<u8>) {
        for function in self.functions_on(bridge, buses) {
            self.evict(function);
        }
    }

    /// Serves functions on the bus of `function` only after each has responded
    /// again.
    pub(crate) fn require_response_on_bus(&mut self, function: Sbdf) {
        let bus = function.bus();
        for other in self.on(function.segment(), bus..=bus) {
            if let Some(block) = self.blocks.get_mut(other)
                && block.state == State::Ready
            {
                block.state = State::Reset;
            }
        }
    }

    /// Evicts the functions on `bus` that are reachable only with ARI
    /// forwarding: those whose device number is not 0 (PCIe 7.3.1).
    pub(super) fn evict_ari_only_functions(&mut self, bridge: Sbdf, bus: u8) {
        for function in self.functions_on(bridge, bus..=bus) {
            if function.device() != 0 {
                self.evict(function);
            }
        }
    }

    /// Evicts every function that can be behind `bridge` when it decodes single
    /// routing IDs instead of a range of buses. These can be on its own bus
    /// (PCIe 6.26).
    pub(super) fn evict_from_own_bus_on(&mut self, bridge: Sbdf) {
        self.evict_buses(bridge, bridge.bus()..=u8::MAX);
    }

    /// Forgets all that can be behind `function` if it is a bridge: buses are
    /// numbered upwards.
    pub(super) fn evict_all_higher_buses(&mut self, function: Sbdf) {
        if let Some(first) = function.bus().checked_add(1) {
            self.evict_buses(function, first..=u8::MAX);
        }
    }

    pub(crate) fn evict_below(&mut self, bridge: Sbdf, below: SubordinateBuses) {
        if let Some((first, last)) = below {
            self.evict_buses(bridge, first..=last);
        }
    }

    pub(super) fn reset_below(&mut self, bridge: Sbdf, below: SubordinateBuses) {
        if let Some((first, last)) = below {
            for function in self.functions_on(bridge, first..=last) {
                self.reset(function);
            }
        }
    }

    /// Evicts the virtual functions of `physical`, whatever their routing IDs.
    pub(crate) fn evict_vfs(&mut self, physical: Sbdf) {
        if block_sr_iov(self.blocks.get(physical)).is_none() {
            return;
        }
        let found = self.blocks.range(on_buses(physical.segment(), 0..=u8::MAX));
        let vfs = found.filter(|(_, block)| {
            let identity = block.virtual_function();
            identity.is_some_and(|vf| vf.physical == physical)
        });
        let vfs: Vec<Sbdf> = vfs.map(|(function, _)| function).collect();
        for function in vfs {
            self.evict(function);
        }
    }
}

fn on_buses(segment: u16, buses: RangeInclusive<u8>) -> RangeInclusive<Sbdf> {
    let first = Sbdf::from_devfn(segment, *buses.start(), 0);
    let last = Sbdf::from_devfn(segment, *buses.end(), 0xff);
    first..=last
}

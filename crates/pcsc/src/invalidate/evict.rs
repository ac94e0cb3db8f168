//! What there is to drop: parts of a function, functions, all behind a bridge.

use alloc::vec::Vec;
use core::ops::RangeInclusive;

use super::block_sr_iov;
use crate::byte_class::{ByteClass, ByteRule, InvalidatedBy};
use crate::config_cache::ConfigCache;
use crate::function_cache::State;
use warmbus_pci::registers::sr_iov;
use warmbus_pci::{ConfigAccess, Sbdf, VfRouting};

/// The buses below a bridge: secondary and subordinate.
pub(super) type SubordinateBuses = Option<(u8, u8)>;

impl<A: ConfigAccess> ConfigCache<A> {
    /// A reset of `function` alone: what software wrote is gone, and nothing
    /// is served before the function has answered again.
    pub(super) fn reset(&mut self, function: Sbdf) {
        self.drop_software(function);
        if let Some(block) = self.blocks.get_mut(function) {
            block.state = State::Reset;
            block.forget_routing();
        }
    }

    pub(super) fn function_level_reset(&mut self, function: Sbdf) {
        // VF Enable is cleared by the reset.
        self.forget_vfs(function);
        self.reset(function);
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
    pub(super) fn forget_routing_on(&mut self, segment: u16, bus: u8) {
        for function in self.on(segment, bus..=bus) {
            if let Some(block) = self.blocks.get_mut(function) {
                block.forget_routing();
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

    pub(super) fn forget_buses(&mut self, bridge: Sbdf, buses: RangeInclusive<u8>) {
        for function in self.functions_on(bridge, buses) {
            self.forget(function);
        }
    }

    /// Forgets all that can be behind `function` if it is a bridge: buses are
    /// numbered upwards.
    pub(super) fn evict_all_higher_buses(&mut self, function: Sbdf) {
        if let Some(first) = function.bus().checked_add(1) {
            self.forget_buses(function, first..=u8::MAX);
        }
    }

    pub(super) fn evict_below(&mut self, bridge: Sbdf, below: SubordinateBuses) {
        if let Some((first, last)) = below {
            self.forget_buses(bridge, first..=last);
        }
    }

    pub(super) fn reset_below(&mut self, bridge: Sbdf, below: SubordinateBuses) {
        if let Some((first, last)) = below {
            for function in self.functions_on(bridge, first..=last) {
                self.function_level_reset(function);
            }
        }
    }

    /// Forgets the virtual functions of a physical one, by routing ID
    /// (PCIe 9.2.1.2).
    pub(super) fn forget_vfs(&mut self, function: Sbdf) {
        let Some(block) = self.blocks.get(function) else {
            return;
        };
        let Some(base) = block_sr_iov(Some(block)) else {
            return;
        };
        let Some(routing) = block.dword(base + sr_iov::VF_OFFSET) else {
            return;
        };
        let count = block
            .word(base + sr_iov::NUM_VFS)
            .or_else(|| block.word(base + sr_iov::INITIAL_VFS + 2))
            .unwrap_or(0);
        let routing = VfRouting::from_dword(count, routing);
        for vf in routing.addresses(function).filter(|&vf| vf != function) {
            self.forget(vf);
        }
    }
}

fn on_buses(segment: u16, buses: RangeInclusive<u8>) -> RangeInclusive<Sbdf> {
    let first = Sbdf::from_devfn(segment, *buses.start(), 0);
    let last = Sbdf::from_devfn(segment, *buses.end(), 0xff);
    first..=last
}

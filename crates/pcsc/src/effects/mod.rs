//! What a write changes beyond the bytes that it writes.

mod bridge;
mod drops;
mod function;
mod write;

use alloc::vec::Vec;

use super::block::Block;
use super::cached::Cached;
use super::class::{Class, Effect, Tag};
use warmbus_pci::registers::{self, capability, extended};
use warmbus_pci::{ConfigAccess, ConfigOffset, Sbdf, Width};
use write::Write;

impl<A: ConfigAccess> Cached<A> {
    /// Drops what a write to `function` makes stale, in that function and in
    /// others.
    pub(super) fn apply_write(
        &mut self,
        function: Sbdf,
        offset: ConfigOffset,
        width: Width,
        value: u32,
    ) {
        let known = self.blocks.get(function);
        let Some(block) = known.filter(|block| block.is_inferred()) else {
            // What the register is nobody knows yet: a reset, a key to others,
            // the bus numbers of a bridge.
            self.forget(function);
            return self.forget_behind(function);
        };
        let write = Write {
            function,
            offset: offset.get(),
            width,
            value,
        };
        let mut effects: Vec<(Effect, u16)> = Vec::new();
        let mut reaches_unknown = false;
        for byte in offset.get()..offset.get() + width.bytes() {
            let cell = block.cell(ConfigOffset::new(byte));
            reaches_unknown |= cell.class == Class::Unknown;
            let is_new = effects.iter().all(|&(effect, _)| effect != cell.effect);
            if cell.effect != Effect::None && is_new {
                effects.push((cell.effect, byte));
            }
        }
        // What nothing names may unlock or hide anything else.
        if reaches_unknown {
            let is_endpoint = block.header_type() == 0;
            self.forget(function);
            if !is_endpoint {
                self.forget_behind(function);
            }
            return;
        }
        for (effect, at) in effects {
            self.apply_effect(effect, at, write);
        }
        if let Some(block) = self.blocks.get_mut(function) {
            self.statistics.invalidations += block.write(offset, width, value);
        }
    }

    /// Applies the effect of a write that reaches the register at `at`.
    fn apply_effect(&mut self, effect: Effect, at: u16, write: Write) {
        let function = write.function;
        let Some(block) = self.blocks.get(function) else {
            return;
        };
        let below = block.buses_below();
        match effect {
            Effect::None => {}
            Effect::Bist => {
                const START: u32 = 1 << 6;
                if write.sets(registers::BIST, START) {
                    self.reset(function);
                }
            }
            Effect::BusNumbers => self.renumber(write, below),
            Effect::BridgeControl => self.control_bridge(write, below),
            Effect::PowerState => self.change_power(write, below),
            Effect::MessageControl => self.drop_tagged(function, Tag::Messages),
            Effect::AdvancedFeatures => {
                const INITIATE_FLR: u32 = 1;
                if write.sets(at, INITIATE_FLR) {
                    self.function_level_reset(function);
                }
            }
            Effect::DeviceControl => self.control_device(write),
            Effect::LinkControl => self.control_link(write, below),
            Effect::SlotControl => self.control_slot(write, below),
            Effect::DeviceControl2 => self.control_ari(write, below),
            Effect::SrIovControl => self.control_sr_iov(write),
            Effect::NumVfs => self.write_num_vfs(write, at),
            Effect::VfPageSize => self.resize_vf_bars(function),
            Effect::ResizableBar => self.resize_bars(function),
            Effect::DpcControl => self.control_containment(at, write, below),
            Effect::Rerouting => self.forget_below(function, below),
            Effect::Locking => self.drop_software(function),
        }
    }
}

/// A register of the PCI Express capability, which the effect proves.
fn register_of(block: &Block, at: u16) -> u16 {
    block.capability(capability::EXPRESS).unwrap_or(0) + at
}

fn block_sr_iov(block: Option<&Block>) -> Option<u16> {
    block?.extended_capability(extended::SR_IOV)
}

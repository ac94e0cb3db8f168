//! What a write changes beyond the bytes that it writes.

mod bridge;
mod evict;
mod function;
mod write;

use alloc::vec::Vec;

use super::byte_class::{ByteClass, InvalidatedBy, WriteEffect};
use super::config_cache::ConfigCache;
use super::function_cache::FunctionCache;
use warmbus_pci::registers::{self, capability, extended};
use warmbus_pci::{ConfigAccess, ConfigOffset, Sbdf, Width};
use write::Write;

impl<A: ConfigAccess> ConfigCache<A> {
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
            self.evict(function);
            return self.evict_all_higher_buses(function);
        };
        let write = Write {
            function,
            offset: offset.get(),
            width,
            value,
        };
        let mut effects: Vec<(WriteEffect, u16)> = Vec::new();
        let mut reaches_unknown = false;
        for byte in offset.get()..offset.get() + width.bytes() {
            let cell = block.cell(ConfigOffset::wrapping(byte));
            reaches_unknown |= cell.class == ByteClass::Unknown;
            let is_new = effects.iter().all(|&(effect, _)| effect != cell.effect);
            if cell.effect != WriteEffect::None && is_new {
                effects.push((cell.effect, byte));
            }
        }
        // What nothing names may unlock or hide anything else.
        if reaches_unknown {
            let is_endpoint = block.header_type() == 0;
            self.evict(function);
            if !is_endpoint {
                self.evict_all_higher_buses(function);
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
    fn apply_effect(&mut self, effect: WriteEffect, at: u16, write: Write) {
        let function = write.function;
        let Some(block) = self.blocks.get(function) else {
            return;
        };
        let below = block.buses_below();
        match effect {
            WriteEffect::None => {}
            WriteEffect::Bist => {
                const START: u32 = 1 << 6;
                if write.sets(registers::BIST, START) {
                    self.reset(function);
                }
            }
            WriteEffect::BusNumbers => self.renumber(write, below),
            WriteEffect::BridgeControl => self.control_bridge(write, below),
            WriteEffect::PowerState => self.on_pmcsr(write, below),
            WriteEffect::MessageControl => self.drop_tagged(function, InvalidatedBy::Messages),
            WriteEffect::AdvancedFeatures => {
                const INITIATE_FLR: u32 = 1;
                if write.sets(at, INITIATE_FLR) {
                    self.reset(function);
                }
            }
            WriteEffect::DeviceControl => self.control_device(write),
            WriteEffect::LinkControl => self.control_link(write, below),
            WriteEffect::SlotControl => self.control_slot(write, below),
            WriteEffect::DeviceControl2 => self.on_device_control_2(write, below),
            WriteEffect::SrIovControl => self.control_sr_iov(write),
            WriteEffect::NumVfs => self.write_num_vfs(write, at),
            WriteEffect::VfPageSize => self.resize_vf_bars(function),
            WriteEffect::ResizableBar => self.on_resizable_bar(function),
            WriteEffect::DpcControl => self.on_dpc_control(at, write, below),
            WriteEffect::Rerouting => self.evict_from_own_bus_on(function),
            WriteEffect::Locking => {
                self.drop_software(function);
                // Lock and Enable bits decide which other bits are writable.
                if let Some(block) = self.blocks.get_mut(function) {
                    block.clear_masks(0, ConfigOffset::END);
                }
            }
            WriteEffect::CxlControl2 => {
                const INITIATE_CXL_RESET: u32 = 1 << 2;
                if write.sets(at & !3, INITIATE_CXL_RESET) {
                    self.reset_device(function);
                }
            }
        }
    }
}

/// A register of the PCI Express capability, which the effect proves.
fn register_of(block: &FunctionCache, at: u16) -> u16 {
    block.capability(capability::EXPRESS).unwrap_or(0) + at
}

fn block_sr_iov(block: Option<&FunctionCache>) -> Option<u16> {
    block?.extended_capability(extended::SR_IOV)
}

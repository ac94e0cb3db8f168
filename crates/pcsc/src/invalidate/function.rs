//! Writes that change more of their own function.

use super::block_sr_iov;
use super::evict::SubordinateBuses;
use super::write::Write;
use crate::byte_class::InvalidatedBy;
use crate::config_cache::ConfigCache;
use warmbus_pci::registers::{self, capability, sr_iov};
use warmbus_pci::{ConfigAccess, Sbdf};

impl<A: ConfigAccess> ConfigCache<A> {
    /// Power Management Control/Status (PCIe 7.5.2.2).
    pub(super) fn on_pmcsr(&mut self, write: Write, below: SubordinateBuses) {
        const D0: u8 = 0;
        const D3_HOT: u8 = 3;

        let Some(block) = self.blocks.get_mut(write.function) else {
            return;
        };
        let Some(base) = block.capability(capability::POWER_MANAGEMENT) else {
            return;
        };
        let (reached, value) = write.to(base + 4);
        let new = (value & 3) as u8;
        if reached & 3 == 0 || new == block.power_state {
            return;
        }
        let wakes_up = block.power_state == D3_HOT && new == D0;
        block.power_state = new;
        if wakes_up {
            self.reset(write.function);
        } else {
            self.drop_software(write.function);
        }
        if new == D3_HOT {
            self.reset_below(write.function, below);
        }
    }

    /// SR-IOV Control (PCIe 9.3.3.3).
    pub(super) fn control_sr_iov(&mut self, write: Write) {
        let function = write.function;
        let Some(base) = block_sr_iov(self.blocks.get(function)) else {
            return;
        };
        let register = base + sr_iov::CONTROL;
        let old = self
            .blocks
            .get(function)
            .and_then(|block| block.word(register));
        let enable = u32::from(sr_iov::VF_ENABLE);
        if write.may_change(register, old, enable) {
            self.evict_vfs(function);
            // QEMU, for one, clears NumVFs together with VF Enable.
            if !write.sets(register, enable)
                && let Some(block) = self.blocks.get_mut(function)
            {
                self.statistics.invalidations += block.write_num_vfs(None);
                for byte in base + sr_iov::NUM_VFS..base + sr_iov::NUM_VFS + 2 {
                    self.statistics.invalidations += u64::from(block.drop_byte(byte));
                }
            }
        }
        if write.may_change(register, old, u32::from(sr_iov::ARI_CAPABLE_HIERARCHY)) {
            // The bit lives in one physical function and holds for all of
            // the device.
            self.drop_tagged_on(function.segment(), function.bus(), InvalidatedBy::VfRouting);
            self.clear_routing_on(function.segment(), function.bus());
        }
        if write.to(register).0 & enable != 0
            && let Some(block) = self.blocks.get_mut(function)
        {
            block.write_vf_enable(write.sets(register, enable));
        }
    }

    /// NumVFs (PCIe 9.3.3.7): VFs may be elsewhere for another number. The
    /// write reaches the byte at `at` of the register.
    pub(super) fn write_num_vfs(&mut self, write: Write, at: u16) {
        let Some(block) = self.blocks.get_mut(write.function) else {
            return;
        };
        let register = block.sr_iov_register(sr_iov::NUM_VFS).unwrap_or(at);
        let (reached, value) = write.to(register);
        let num_vfs = (reached & 0xffff == 0xffff).then_some(value as u16);
        self.statistics.invalidations += block.write_num_vfs(num_vfs);
    }

    /// System Page Size, or the size of a VF BAR: VF BARs and their masks.
    pub(super) fn resize_vf_bars(&mut self, function: Sbdf) {
        self.drop_tagged(function, InvalidatedBy::VfPageSize);
        let base = block_sr_iov(self.blocks.get(function));
        if let (Some(base), Some(block)) = (base, self.blocks.get_mut(function)) {
            let first = base + sr_iov::VF_BAR0;
            block.clear_masks(first, first + 0x18);
        }
    }

    /// Resizable BAR Control: which BAR does not matter, the others are read
    /// again at little cost.
    pub(super) fn on_resizable_bar(&mut self, function: Sbdf) {
        if let Some(block) = self.blocks.get_mut(function) {
            let bars = registers::BAR0..registers::BAR0 + 0x18;
            block.clear_masks(bars.start, bars.end);
            for byte in bars {
                self.statistics.invalidations += u64::from(block.drop_byte(byte));
            }
        }
    }
}

//! Writes that change what is below a bridge.

use super::evict::SubordinateBuses;
use super::register_of;
use super::write::Write;
use crate::byte_class::InvalidatedBy;
use crate::config_cache::ConfigCache;
use crate::function_cache::FunctionCache;
use warmbus_pci::registers::{self, express};
use warmbus_pci::{ConfigAccess, PortType};

impl<A: ConfigAccess> ConfigCache<A> {
    /// Primary, Secondary and Subordinate Bus Number (PCIe 7.5.1.3.1 to 3).
    pub(super) fn renumber(&mut self, write: Write, below: SubordinateBuses) {
        let (written, value) = write.to(registers::BUS_NUMBERS);
        // As they are, also where they are no range: a part of them may be written.
        let old = self
            .blocks
            .get(write.function)
            .map(FunctionCache::bus_numbers);
        let [old_first, old_last] = old.unwrap_or_default();
        let choose = |old: u8, shift: u32| {
            if written >> shift & 0xff != 0 {
                (value >> shift) as u8
            } else {
                old
            }
        };
        let (first, last) = (choose(old_first, 8), choose(old_last, 16));
        if first == old_first {
            // What stays in the range stays where it is.
            let (lower, upper) = (old_last.min(last), old_last.max(last));
            if let Some(gap) = lower.checked_add(1) {
                self.evict_buses(write.function, gap..=upper);
            }
        } else {
            // Bus 0 is a root bus, which no bridge leads to.
            self.evict_buses(write.function, first.max(1)..=last);
            self.evict_below(write.function, below);
        }
    }

    /// Bridge Control (PCIe 7.5.1.3.13): the secondary bus reset lasts while
    /// its bit is set.
    pub(super) fn control_bridge(&mut self, write: Write, below: SubordinateBuses) {
        const SECONDARY_BUS_RESET: u32 = 1 << 6;

        let old = self
            .blocks
            .get(write.function)
            .and_then(|block| block.word(registers::BRIDGE_CONTROL));
        let was_set = old.is_none_or(|old| u32::from(old) & SECONDARY_BUS_RESET != 0);
        let (reached, value) = write.to(registers::BRIDGE_CONTROL);
        let is_touched = reached & SECONDARY_BUS_RESET != 0;
        if is_touched && (was_set || value & SECONDARY_BUS_RESET != 0) {
            self.reset_below(write.function, below);
            self.drop_tagged(write.function, InvalidatedBy::Link);
        }
    }

    /// Link Control (PCIe 7.5.3.7).
    pub(super) fn control_link(&mut self, write: Write, below: SubordinateBuses) {
        let function = write.function;
        let Some(block) = self.blocks.get(function) else {
            return;
        };
        let register = register_of(block, express::LINK_CONTROL);
        let old = block.word(register);
        if write.may_change(register, old, express::COMMON_CLOCK) {
            // All functions of a device share its link.
            self.drop_tagged_on(
                function.segment(),
                function.bus(),
                InvalidatedBy::CommonClock,
            );
        }
        if write.sets(register, express::RETRAIN_LINK) {
            self.drop_tagged(function, InvalidatedBy::Link);
            if let Some((secondary, _)) = below {
                self.drop_tagged_on(function.segment(), secondary, InvalidatedBy::Link);
            }
        }
        if write.may_change(register, old, express::LINK_DISABLE) {
            self.evict_below(function, below);
            self.drop_tagged(function, InvalidatedBy::Link);
        }
    }

    /// Slot Control (PCIe 7.5.3.10). A command takes its time, and no access
    /// says that it ended, so that the register is not kept any more.
    pub(super) fn control_slot(&mut self, write: Write, below: SubordinateBuses) {
        let Some(block) = self.blocks.get_mut(write.function) else {
            return;
        };
        let register = register_of(block, express::SLOT_CONTROL);
        self.statistics.invalidations += block.mark_uncacheable(register, 2);
        if write.sets(register, express::POWER_OFF) {
            self.evict_below(write.function, below);
            self.drop_tagged(write.function, InvalidatedBy::Link);
        }
    }

    /// Device Control 2 (PCIe 7.5.3.16): ARI forwarding turns device numbers
    /// below into function numbers.
    pub(super) fn on_device_control_2(&mut self, write: Write, below: SubordinateBuses) {
        let Some(block) = self.blocks.get(write.function) else {
            return;
        };
        let register = register_of(block, express::DEVICE_CONTROL_2);
        let ari = u32::from(express::ARI_FORWARDING_ENABLE);
        if write.may_change(register, block.word(register), ari)
            && let Some((secondary, _)) = below
        {
            self.drop_tagged_on(
                write.function.segment(),
                secondary,
                InvalidatedBy::VfRouting,
            );
            self.clear_routing_on(write.function.segment(), secondary);
            self.evict_ari_only_functions(write.function, secondary);
        }
    }

    /// DPC Control (PCIe 7.9.14.3) at `at`, its upper byte included.
    pub(super) fn on_dpc_control(&mut self, at: u16, write: Write, below: SubordinateBuses) {
        const SOFTWARE_TRIGGER: u32 = 1 << 6;
        // The register is the upper half of its dword.
        if write.sets((at & !3) + 2, SOFTWARE_TRIGGER) {
            self.evict_below(write.function, below);
            self.drop_tagged(write.function, InvalidatedBy::Link);
        }
    }

    /// Device Control (PCIe 7.5.3.4): function level reset.
    pub(super) fn control_device(&mut self, write: Write) {
        let Some(block) = self.blocks.get(write.function) else {
            return;
        };
        let register = register_of(block, express::DEVICE_CONTROL);
        // A bridge to PCI has Bridge Configuration Retry there.
        let is_bridge_to_pci = block.port_type() == Some(PortType::PcieToPciBridge);
        if write.sets(register, express::INITIATE_FLR) && !is_bridge_to_pci {
            self.reset(write.function);
        }
    }
}

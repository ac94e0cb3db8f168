//! What a write changes beyond the bytes that it writes.

use alloc::vec::Vec;
use core::ops::RangeInclusive;

use super::block::{Block, State};
use super::cached::Cached;
use super::class::{Cell, Class, Effect, Tag};
use crate::pci::registers::{self, capability, express, extended, sr_iov};
use crate::pci::{ConfigAccess, ConfigOffset, PortType, Sbdf, Width};

/// One write, seen by register.
#[derive(Clone, Copy)]
struct Write {
    function: Sbdf,
    offset: u16,
    width: Width,
    value: u32,
}

impl Write {
    /// The bits of the register that starts at `register` which are written,
    /// and their new values.
    fn to(&self, register: u16) -> (u32, u32) {
        let ones = u64::from(self.width.ones());
        let value = u64::from(self.value) & ones;
        let shifted = |bits: u64| {
            if self.offset >= register {
                bits.checked_shl(8 * u32::from(self.offset - register))
            } else {
                bits.checked_shr(8 * u32::from(register - self.offset))
            }
            .unwrap_or(0) as u32
        };
        (shifted(ones), shifted(value))
    }

    /// Whether the write sets any of `bits` of the register at `register`.
    fn sets(&self, register: u16, bits: u32) -> bool {
        self.to(register).1 & bits != 0
    }

    /// Whether the write may change any of `bits` of the register at
    /// `register`, of which `old` is the value if it is known.
    fn may_change(&self, register: u16, old: Option<u16>, bits: u32) -> bool {
        let (written, value) = self.to(register);
        let reached = written & bits;
        match old {
            Some(old) => (u32::from(old) ^ value) & reached != 0,
            None => reached != 0,
        }
    }
}

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
        let Some(block) = self.blocks.get(&function) else {
            return;
        };
        let is_inferred = block.header_type() != registers::header_type::LAYOUT;
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
        if is_inferred && reaches_unknown {
            return self.forget(function);
        }
        for (effect, at) in effects {
            self.apply_effect(effect, at, write);
        }
        if let Some(block) = self.blocks.get_mut(&function) {
            self.statistics.invalidations += block.write(offset, width, value);
        }
    }

    fn apply_effect(&mut self, effect: Effect, at: u16, write: Write) {
        let function = write.function;
        let Some(block) = self.blocks.get(&function) else {
            return;
        };
        let below = block.buses_below();
        match effect {
            Effect::None => {}
            Effect::Bist => {
                if write.sets(registers::BIST, 0x40) {
                    self.reset(function);
                }
            }
            Effect::BusNumbers => {
                let (written, value) = write.to(registers::BUS_NUMBERS);
                let (old_first, old_last) = below.unwrap_or((0, 0));
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
                        self.forget_buses(function, gap..=upper);
                    }
                } else {
                    self.forget_buses(function, first..=last);
                    self.forget_below(function, below);
                }
            }
            Effect::BridgeControl => {
                const SECONDARY_BUS_RESET: u32 = 1 << 6;
                let old = block.word(registers::BRIDGE_CONTROL);
                // The reset lasts while the bit is set.
                let was_set = old.is_none_or(|old| u32::from(old) & SECONDARY_BUS_RESET != 0);
                let (reached, _) = write.to(registers::BRIDGE_CONTROL);
                let ends = was_set && reached & SECONDARY_BUS_RESET != 0;
                if ends || write.sets(registers::BRIDGE_CONTROL, SECONDARY_BUS_RESET) {
                    self.reset_below(function, below);
                    self.drop_tagged(function, Tag::Link);
                }
            }
            Effect::PowerState => self.change_power(write, below),
            Effect::MessageControl => self.drop_tagged(function, Tag::Messages),
            Effect::AdvancedFeatures => {
                if write.sets(at, 1) {
                    self.function_level_reset(function);
                }
            }
            Effect::DeviceControl => {
                let register = register_of(block, express::DEVICE_CONTROL);
                // A bridge to PCI has Bridge Configuration Retry there.
                let is_bridge_to_pci = port_type(block) == Some(PortType::PcieToPciBridge);
                if write.sets(register, express::INITIATE_FLR) && !is_bridge_to_pci {
                    self.function_level_reset(function);
                }
            }
            Effect::LinkControl => self.control_link(write, below),
            Effect::SlotControl => {
                let register = register_of(block, express::SLOT_CONTROL);
                let powers_off = write.sets(register, express::POWER_OFF);
                // A command takes its time, and no access tells its end.
                if let Some(block) = self.blocks.get_mut(&function) {
                    block.retire(register, 2);
                }
                if powers_off {
                    self.forget_below(function, below);
                    self.drop_tagged(function, Tag::Link);
                }
            }
            Effect::DeviceControl2 => {
                let register = register_of(block, express::DEVICE_CONTROL_2);
                let ari = u32::from(express::ARI_FORWARDING_ENABLE);
                if write.may_change(register, block.word(register), ari)
                    && let Some((secondary, _)) = below
                {
                    self.drop_tagged_on(function.segment(), secondary, Tag::VfRouting);
                }
            }
            Effect::SrIovControl => self.control_sr_iov(write),
            Effect::NumVfs => self.drop_tagged(function, Tag::VfRouting),
            Effect::VfPageSize => {
                self.drop_tagged(function, Tag::VfPageSize);
                let base = block_sr_iov(self.blocks.get(&function));
                if let (Some(base), Some(block)) = (base, self.blocks.get_mut(&function)) {
                    let first = base + sr_iov::VF_BAR0;
                    block.forget_masks(first, first + 0x18);
                }
            }
            Effect::ResizableBar => {
                if let Some(block) = self.blocks.get_mut(&function) {
                    block.forget_masks(registers::BAR0, registers::BAR0 + 0x18);
                    for byte in registers::BAR0..registers::BAR0 + 0x18 {
                        self.statistics.invalidations += u64::from(block.drop_byte(byte));
                    }
                }
            }
            Effect::DpcControl => {
                const SOFTWARE_TRIGGER: u32 = 1 << 6;
                if write.sets(at & !3, SOFTWARE_TRIGGER << 16) {
                    self.forget_below(function, below);
                    self.drop_tagged(function, Tag::Link);
                }
            }
            Effect::Rerouting => self.forget_below(function, below),
            Effect::Locking => self.drop_software(function),
        }
    }

    /// Power Management Control/Status (PCIe 7.5.2.2).
    fn change_power(&mut self, write: Write, below: Option<(u8, u8)>) {
        const D0: u8 = 0;
        const D3_HOT: u8 = 3;

        let Some(block) = self.blocks.get_mut(&write.function) else {
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

    /// Link Control (PCIe 7.5.3.7).
    fn control_link(&mut self, write: Write, below: Option<(u8, u8)>) {
        let function = write.function;
        let Some(block) = self.blocks.get(&function) else {
            return;
        };
        let register = register_of(block, express::LINK_CONTROL);
        let old = block.word(register);
        if write.may_change(register, old, express::COMMON_CLOCK) {
            // All functions of a device share its link.
            self.drop_tagged_on(function.segment(), function.bus(), Tag::CommonClock);
        }
        if write.sets(register, express::RETRAIN_LINK) {
            self.drop_tagged(function, Tag::Link);
            if let Some((secondary, _)) = below {
                self.drop_tagged_on(function.segment(), secondary, Tag::Link);
            }
        }
        if write.may_change(register, old, express::LINK_DISABLE) {
            self.forget_below(function, below);
            self.drop_tagged(function, Tag::Link);
        }
    }

    /// SR-IOV Control (PCIe 9.3.3.3).
    fn control_sr_iov(&mut self, write: Write) {
        let function = write.function;
        let Some(base) = block_sr_iov(self.blocks.get(&function)) else {
            return;
        };
        let register = base + sr_iov::CONTROL;
        let old = self
            .blocks
            .get(&function)
            .and_then(|block| block.word(register));
        if write.may_change(register, old, u32::from(sr_iov::VF_ENABLE)) {
            self.forget_vfs(function);
        }
        if write.may_change(register, old, u32::from(sr_iov::ARI_CAPABLE_HIERARCHY)) {
            // The bit lives in one physical function and holds for all of
            // the device.
            self.drop_tagged_on(function.segment(), function.bus(), Tag::VfRouting);
        }
    }

    /// A reset of `function` alone: what software wrote is gone, and nothing
    /// is served before the function has answered again.
    pub(super) fn reset(&mut self, function: Sbdf) {
        self.drop_software(function);
        if let Some(block) = self.blocks.get_mut(&function) {
            block.state = State::Reset;
        }
    }

    fn function_level_reset(&mut self, function: Sbdf) {
        // VF Enable is cleared by the reset.
        self.forget_vfs(function);
        self.reset(function);
    }

    fn drop_software(&mut self, function: Sbdf) {
        self.drop_where(function, |cell| cell.class == Class::Software);
    }

    fn drop_tagged(&mut self, function: Sbdf, tag: Tag) {
        self.drop_where(function, |cell| cell.tag == tag);
    }

    fn drop_where(&mut self, function: Sbdf, matches: impl Fn(Cell) -> bool) {
        if let Some(block) = self.blocks.get_mut(&function) {
            self.statistics.invalidations += block.drop_where(matches);
        }
    }

    fn drop_tagged_on(&mut self, segment: u16, bus: u8, tag: Tag) {
        for (_, block) in self.blocks.range_mut(on_buses(segment, bus..=bus)) {
            self.statistics.invalidations += block.drop_where(|cell| cell.tag == tag);
        }
    }

    /// The functions on `buses` of the segment of `bridge`, without itself.
    fn functions_on(&self, bridge: Sbdf, buses: RangeInclusive<u8>) -> Vec<Sbdf> {
        if buses.is_empty() {
            return Vec::new();
        }
        self.blocks
            .range(on_buses(bridge.segment(), buses))
            .map(|(&function, _)| function)
            .filter(|&function| function != bridge)
            .collect()
    }

    fn forget_buses(&mut self, bridge: Sbdf, buses: RangeInclusive<u8>) {
        for function in self.functions_on(bridge, buses) {
            self.forget(function);
        }
    }

    fn forget_below(&mut self, bridge: Sbdf, below: Option<(u8, u8)>) {
        if let Some((first, last)) = below {
            self.forget_buses(bridge, first..=last);
        }
    }

    fn reset_below(&mut self, bridge: Sbdf, below: Option<(u8, u8)>) {
        if let Some((first, last)) = below {
            for function in self.functions_on(bridge, first..=last) {
                self.function_level_reset(function);
            }
        }
    }

    /// Forgets the virtual functions of a physical one, by routing ID
    /// (PCIe 9.2.1.2).
    fn forget_vfs(&mut self, function: Sbdf) {
        let Some(block) = self.blocks.get(&function) else {
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
        let (offset, stride) = (routing as u16, (routing >> 16) as u16);
        for n in 0..count {
            let rid = n
                .checked_mul(stride)
                .and_then(|distance| distance.checked_add(offset))
                .and_then(|distance| distance.checked_add(function.routing_id()));
            let Some(rid) = rid.filter(|&rid| rid != function.routing_id()) else {
                break;
            };
            self.forget(Sbdf::from_routing_id(function.segment(), rid));
        }
    }
}

fn on_buses(segment: u16, buses: RangeInclusive<u8>) -> RangeInclusive<Sbdf> {
    let first = Sbdf::from_devfn(segment, *buses.start(), 0);
    let last = Sbdf::from_devfn(segment, *buses.end(), 0xff);
    first..=last
}

/// A register of the PCI Express capability, which the effect proves.
fn register_of(block: &Block, at: u16) -> u16 {
    block.capability(capability::EXPRESS).unwrap_or(0) + at
}

fn port_type(block: &Block) -> Option<PortType> {
    let flags = block.word(block.capability(capability::EXPRESS)? + 2)?;
    Some(PortType::from_bits((flags >> 4) as u8))
}

fn block_sr_iov(block: Option<&Block>) -> Option<u16> {
    block?.extended_capability(extended::SR_IOV)
}

//! The bytes of a function: reading, storing and invalidating them.

use alloc::vec::Vec;

use super::{ConfigOffset, FunctionCache, Width};
use crate::byte_class::{ByteRule, InvalidatedBy};
use crate::constant_bits::ConstantBits;
use warmbus_pci::registers;

impl FunctionCache {
    /// The cached dword at `offset`, if all four bytes are cached.
    pub fn dword(&self, offset: u16) -> Option<u32> {
        self.lookup(ConfigOffset::wrapping(offset), Width::Dword)
    }

    /// The cached word at `offset`, if both bytes are cached.
    pub fn word(&self, offset: u16) -> Option<u16> {
        self.lookup(ConfigOffset::wrapping(offset), Width::Word)
            .map(|value| value as u16)
    }

    /// Whether all bytes of an access may be cached.
    pub(crate) fn is_all_cacheable(&self, offset: ConfigOffset, width: Width) -> bool {
        let bytes = bytes(offset, width);
        self.cacheable.all(bytes.start, bytes.end)
    }

    /// The value of an access whose bytes are all cached.
    pub(crate) fn lookup(&self, offset: ConfigOffset, width: Width) -> Option<u32> {
        let bytes = bytes(offset, width);
        if !self.cached.all(bytes.start, bytes.end) {
            return None;
        }
        let data = self
            .data
            .get(usize::from(bytes.start)..usize::from(bytes.end))?;
        Some(
            data.iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u32::from(*byte)),
        )
    }

    /// Keeps the cacheable bytes of a value that the hardware returned, and
    /// learns from it if it answers a probe.
    pub(crate) fn fill(&mut self, offset: ConfigOffset, width: Width, value: u32) {
        let moves = |rule: ByteRule| rule.tag == InvalidatedBy::RomValidation;
        let none_moves = self.map.all(offset, width, |rule| !moves(rule));
        if self.lists.header_type == 1 {
            for (byte, value) in bytes(offset, width).zip(value.to_le_bytes()) {
                self.track_bus_numbers(byte, value);
            }
        }
        let is_all_cacheable = self.is_all_cacheable(offset, width);
        if none_moves && is_all_cacheable {
            self.set_all(offset, width, value);
        } else {
            for (byte, value) in bytes(offset, width).zip(value.to_le_bytes()) {
                let moves_on_its_own = !none_moves
                    && value & 0xfe != 0
                    && moves(self.map.cell(ConfigOffset::wrapping(byte)));
                if self.cacheable.get(byte) && !moves_on_its_own {
                    self.set_byte(byte, value);
                }
            }
        }
        if width == Width::Dword {
            self.learn_mask(offset.get(), value);
            // Of what is cached as a whole nobody asks for single bits.
            if !is_all_cacheable {
                self.learn_constant_bits(offset.get(), value);
            }
            self.learn_routing(offset.get(), value);
        }
    }

    fn learn_constant_bits(&mut self, offset: u16, value: u32) {
        let express = self.capability(registers::capability::EXPRESS);
        if let Some(found) = ConstantBits::of(offset, value, express) {
            self.fixed.retain(|known| known.offset != found.offset);
            self.fixed.push(found);
        }
    }

    /// Secondary and Subordinate Bus Number of a bridge, as last read or written.
    pub(crate) const fn bus_numbers(&self) -> [u8; 2] {
        self.buses
    }

    /// The buses below a bridge, as last read or written; `None` where none
    /// are known to be.
    pub(crate) fn buses_below(&self) -> Option<(u8, u8)> {
        let [secondary, subordinate] = self.buses;
        (secondary != 0 && secondary <= subordinate).then_some((secondary, subordinate))
    }

    pub(super) fn track_bus_numbers(&mut self, byte: u16, value: u8) {
        if self.lists.header_type == 1 {
            match byte {
                registers::SECONDARY_BUS => self.buses[0] = value,
                registers::SUBORDINATE_BUS => self.buses[1] = value,
                _ => {}
            }
        }
    }

    /// Keeps all bytes of an access.
    fn set_all(&mut self, offset: ConfigOffset, width: Width, value: u32) {
        let bytes = bytes(offset, width);
        let place = usize::from(bytes.start)..usize::from(bytes.end);
        if let Some(kept) = self.data.get_mut(place) {
            for (kept, byte) in kept.iter_mut().zip(value.to_le_bytes()) {
                *kept = byte;
            }
            self.cached.set_range(bytes.start, bytes.end);
        }
    }

    pub(crate) fn set_byte(&mut self, byte: u16, value: u8) {
        if let Some(slot) = self.data.get_mut(usize::from(byte)) {
            *slot = value;
            self.cached.set(byte, true);
        }
    }

    /// Drops one byte. Returns whether it was cached.
    pub(crate) fn drop_byte(&mut self, byte: u16) -> bool {
        let was_cached = self.cached.get(byte);
        if was_cached {
            if let Some(vf) = &mut self.virtual_function {
                vf.dropped(byte);
            }
            self.cached.set(byte, false);
            self.data[usize::from(byte)] = 0;
        }
        was_cached
    }

    /// Drops every byte whose cell `matches`. Returns how many were cached.
    pub(crate) fn drop_where(&mut self, matches: impl Fn(ByteRule) -> bool) -> u64 {
        let mut dropped = 0;
        let doomed: Vec<(u16, u16)> = self
            .map
            .runs(self.size())
            .filter(|&(_, _, cell)| matches(cell))
            .map(|(start, end, _)| (start, end))
            .collect();
        for (start, end) in doomed {
            for byte in start..end {
                dropped += u64::from(self.drop_byte(byte));
            }
        }
        dropped
    }

    /// Marks `len` bytes from `start` as uncacheable. Returns how many were
    /// cached.
    pub(crate) fn mark_uncacheable(&mut self, start: u16, len: u16) -> u64 {
        let mut dropped = 0;
        for byte in start..start.saturating_add(len) {
            dropped += u64::from(self.drop_byte(byte));
            self.cacheable.set(byte, false);
        }
        dropped
    }
}

/// The offsets of the bytes of an access.
fn bytes(offset: ConfigOffset, width: Width) -> core::ops::Range<u16> {
    let start = offset.get();
    start..start + width.bytes()
}

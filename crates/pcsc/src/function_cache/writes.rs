//! What a function holds after a write: the bits of its registers that are
//! writable, learned from read-backs or fixed by the specification.

use super::{ConfigOffset, FunctionCache, Probe, Width};
use crate::masks::{Register, WriteMask};
use warmbus_pci::registers::{self, ROM_BAR_TYPE0, ROM_BAR_TYPE1};

impl FunctionCache {
    /// Whether a read of ones at `offset` only answers written ones.
    pub(crate) fn is_pending_probe(&self, offset: ConfigOffset) -> bool {
        self.probe
            .is_some_and(|probe| probe.offset == offset.dword().get() && probe.written == u32::MAX)
    }

    /// Forgets what is known of the writable bits of the dwords in a range.
    pub(crate) fn clear_masks(&mut self, start: u16, end: u16) {
        self.masks
            .retain(|mask| !(start..end).contains(&mask.offset));
    }

    /// Discards a probe that waits for its read-back: after a reset the
    /// register no longer holds what was written.
    pub(crate) fn cancel_probe(&mut self) {
        self.probe = None;
    }

    /// Invalidates the writable bits of BARs whose size depends on a register
    /// that a reset changes: Resizable BAR Control or System Page Size.
    pub(crate) fn invalidate_resizable_masks(&mut self) {
        if self
            .extended_capability(registers::extended::RESIZABLE_BAR)
            .is_some()
        {
            self.clear_masks(registers::BAR0, registers::BAR0 + 0x18);
        }
        if let Some(first) = self.sr_iov_register(registers::sr_iov::VF_BAR0) {
            self.clear_masks(first, first + 0x18);
        }
    }

    /// Drops the bytes of a write, or keeps what they hold after it where the
    /// writable bits are known. Returns how many cached bytes were dropped.
    pub(crate) fn write(&mut self, offset: ConfigOffset, width: Width, value: u32) -> u64 {
        let dword = offset.dword().get();
        let shift = 8 * u32::from(offset.get() & 3);
        let written = value << shift;
        let reached = width.ones() << shift;
        let mask = self.mask(dword);
        let mut dropped = 0;
        for (lane, byte) in (0u32..).step_by(8).zip(dword..dword + 4) {
            if reached >> lane & 0xff == 0 {
                continue;
            }
            let new = (written >> lane) as u8;
            self.track_bus_numbers(byte, new);
            if !self.cached.get(byte) {
                continue;
            }
            let old = self.data[usize::from(byte)];
            let writable = (mask.writable >> lane) as u8;
            let fixed = (mask.fixed >> lane) as u8;
            if (old ^ new) & !(writable | fixed) == 0 && mask.writable | mask.fixed != 0 {
                self.set_byte(byte, old & !writable | new & writable);
            } else {
                dropped += u64::from(self.drop_byte(byte));
            }
        }
        self.probe = self
            .register(dword)
            .filter(|register| register.is_probe(written, reached))
            .map(|register| Probe {
                offset: dword,
                written: written & reached,
                register,
            });
        dropped
    }

    pub(super) fn learn_mask(&mut self, offset: u16, value: u32) {
        let Some(probe) = self.probe.take_if(|probe| probe.offset == offset) else {
            return;
        };
        self.clear_masks(offset, offset + 4);
        if let Some(mask) = probe.register.learn_mask(offset, probe.written, value) {
            self.masks.push(mask);
        }
    }

    /// What is known of the bits of the dword at `offset`: learned, or fixed
    /// by the specification.
    fn mask(&self, offset: u16) -> WriteMask {
        self.masks
            .iter()
            .find(|mask| mask.offset == offset)
            .copied()
            .unwrap_or_else(|| WriteMask {
                offset,
                writable: self.writable_by_specification(offset),
                fixed: 0,
            })
    }

    /// Bits that a function must implement as writable because of what it is
    /// seen to have.
    pub(super) fn writable_by_specification(&self, offset: u16) -> u32 {
        use registers::{command, express};

        if offset == registers::COMMAND {
            // A function that has a BAR or window of a space implements the
            // enable bit of that space (PCIe 7.5.1.1.3).
            return self.masks.iter().fold(0, |bits, mask| {
                bits | match self.enable_bit_proved_by(mask) {
                    Some(Space::Io) => u32::from(command::IO),
                    Some(Space::Memory) => u32::from(command::MEMORY),
                    None => 0,
                }
            });
        }
        if self.sr_iov_register(registers::sr_iov::CONTROL) == Some(offset) {
            // PCIe 9.3.3.3.1; of a function without VFs nothing is known.
            let vfs = self.sr_iov_register(registers::sr_iov::INITIAL_VFS);
            let total = vfs.and_then(|vfs| self.word(vfs + 2)).unwrap_or(0);
            return if total > 0 {
                u32::from(registers::sr_iov::VF_ENABLE)
            } else {
                0
            };
        }
        let Some(base) = self.capability(registers::capability::EXPRESS) else {
            return 0;
        };
        if offset == base + express::DEVICE_CONTROL_2 {
            // PCIe 7.5.3.15 and 7.5.3.16.
            let capabilities = self.dword(base + express::DEVICE_CAPABILITIES_2);
            if capabilities.is_some_and(|bits| bits & express::ARI_FORWARDING_SUPPORTED != 0) {
                return u32::from(express::ARI_FORWARDING_ENABLE);
            }
        } else if offset == base + express::ROOT_CONTROL {
            // PCIe 7.5.3.12 and 7.5.3.13.
            let capabilities = self.word(base + express::ROOT_CONTROL + 2);
            if capabilities.is_some_and(|bits| bits & express::RRS_VISIBILITY != 0) {
                return u32::from(express::RRS_VISIBILITY_ENABLE);
            }
        }
        0
    }

    /// The space whose enable bit the register behind `mask` proves.
    fn enable_bit_proved_by(&self, mask: &WriteMask) -> Option<Space> {
        if mask.writable == 0 {
            return None;
        }
        match self.register(mask.offset)? {
            Register::Bar if self.in_sr_iov(mask.offset) => None,
            Register::Bar => {
                let is_io = self.data.get(usize::from(mask.offset))? & 1 != 0;
                Some(if is_io { Space::Io } else { Space::Memory })
            }
            Register::Rom => Some(Space::Memory),
            Register::BarUpper => None,
            Register::Bridge(..) => match mask.offset {
                registers::IO_BASE => Some(Space::Io),
                registers::MEMORY_BASE => Some(Space::Memory),
                _ => None,
            },
        }
    }

    /// What the dword at `offset` is, if its writable bits can be learned.
    fn register(&self, offset: u16) -> Option<Register> {
        let (bars, rom) = match self.lists.header_type {
            0 => (registers::BAR0..registers::BAR0 + 0x18, ROM_BAR_TYPE0),
            1 => (registers::BAR0..registers::BAR0 + 0x08, ROM_BAR_TYPE1),
            _ => return None,
        };
        if offset == rom {
            return Some(Register::Rom);
        }
        if bars.contains(&offset) {
            return self.bar(bars.start, offset);
        }
        if let Some(base) = self.extended_capability(registers::extended::SR_IOV)
            && self.in_sr_iov(offset)
        {
            return self.bar(base + registers::sr_iov::VF_BAR0, offset);
        }
        (self.lists.header_type == 1).then(|| Register::of_bridge(offset))?
    }

    fn in_sr_iov(&self, offset: u16) -> bool {
        self.extended_capability(registers::extended::SR_IOV)
            .map(|base| base + registers::sr_iov::VF_BAR0)
            .is_some_and(|first| (first..first + 0x18).contains(&offset))
    }

    /// Whether the BAR at `offset`, one of those from `first` on, is a lower
    /// or an upper half. That is not known while one before it is not cached.
    fn bar(&self, first: u16, offset: u16) -> Option<Register> {
        let mut at = first;
        while at < offset {
            let low = self.lookup(ConfigOffset::wrapping(at), Width::Byte)?;
            let is_64_bit = low & 7 == 4;
            if is_64_bit && at + 4 == offset {
                return Some(Register::BarUpper);
            }
            at += if is_64_bit { 8 } else { 4 };
        }
        Some(Register::Bar)
    }
}

/// The address spaces with an enable bit in the Command register.
enum Space {
    Io,
    Memory,
}

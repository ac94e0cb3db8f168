//! The registers of one function: what each bit does when it is written and
//! when the function is reset.

use warmbus_pci::{ConfigOffset, Width};

/// How one aligned dword behaves. A set bit in a mask says that the bit
/// behaves so; a bit in no mask is read-only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Register {
    /// What a read returns now.
    pub(crate) value: u32,
    /// What the bits are after a reset.
    pub(crate) reset: u32,
    /// RW bits.
    pub(crate) writable: u32,
    /// RW1C bits.
    pub(crate) clearable: u32,
    /// Bits that a conventional reset and an FLR leave alone (PCIe 7.4,
    /// "sticky").
    pub(crate) sticky: u32,
    /// Bits that an FLR leaves alone in addition (PCIe 6.6.2).
    pub(crate) survives_flr: u32,
    /// Bytes, one bit each, that must not be read.
    pub(crate) forbidden: u8,
    /// A write here does more than change the value, or the value changes by
    /// itself: the function has to be asked.
    pub(crate) live: bool,
}

/// The kinds of reset that registers distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// Conventional reset: hot reset, secondary bus reset, link down.
    Conventional,
    /// Function Level Reset, or the internal reset on D3hot to D0.
    FunctionLevel,
}

/// What a write changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// The bits that the write covered.
    pub(crate) lanes: u32,
    /// The dword as it was written, in place; bits outside `lanes` are 0.
    pub(crate) data: u32,
    /// The dword before.
    pub(crate) old: u32,
    /// The dword after.
    pub(crate) new: u32,
    /// Whether the register is live.
    pub(crate) live: bool,
}

const LOW: usize = 64;

/// 4096 bytes of registers. The first 256 bytes are stored in place; beyond
/// them only the dwords that something put there.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    low: Box<[Register; LOW]>,
    high: Vec<(u16, Register)>,
}

/// The dword that holds `offset`, and the bits of it that an access of `width`
/// covers: index, shift and mask in place.
const fn lanes(offset: u16, width: Width) -> (u16, u32, u32) {
    let offset = (offset % ConfigOffset::END) & !(width.bytes() - 1);
    let shift = (offset as u32 % 4) * 8;
    (offset / 4, shift, width.ones() << shift)
}

impl Space {
    pub(crate) fn new() -> Self {
        Self {
            low: Box::new([Register::default(); LOW]),
            high: Vec::new(),
        }
    }

    fn get(&self, index: u16) -> Option<&Register> {
        if let Some(register) = self.low.get(usize::from(index)) {
            return Some(register);
        }
        let at = self.high.binary_search_by_key(&index, |(i, _)| *i).ok()?;
        self.high.get(at).map(|(_, register)| register)
    }

    /// The register that holds `offset`, made if there was none.
    pub(crate) fn register(&mut self, offset: u16) -> &mut Register {
        let index = (offset % ConfigOffset::END) / 4;
        if usize::from(index) < LOW {
            return &mut self.low[usize::from(index)];
        }
        let at = match self.high.binary_search_by_key(&index, |(i, _)| *i) {
            Ok(at) => at,
            Err(at) => {
                self.high.insert(at, (index, Register::default()));
                at
            }
        };
        &mut self.high[at].1
    }

    /// The current value, without any effect.
    pub(crate) fn peek(&self, offset: u16, width: Width) -> u32 {
        let (index, shift, mask) = lanes(offset, width);
        self.get(index).map_or(0, |r| (r.value & mask) >> shift)
    }

    /// Whether the bytes of an access touch a forbidden byte, and whether the
    /// register is live.
    pub(crate) fn traits(&self, offset: u16, width: Width) -> (bool, bool) {
        let (index, shift, _) = lanes(offset, width);
        let bytes = ((1_u8 << width.bytes()) - 1) << (shift / 8);
        self.get(index)
            .map_or((false, false), |r| (r.forbidden & bytes != 0, r.live))
    }

    /// Sets the power-on value of a register.
    pub(crate) fn set(&mut self, offset: u16, width: Width, value: u32) {
        self.edit(offset, width, value, |register| {
            [Some(&mut register.value), Some(&mut register.reset)]
        });
    }

    /// Sets the current value only, as hardware does.
    pub(crate) fn poke(&mut self, offset: u16, width: Width, value: u32) {
        self.edit(offset, width, value, |register| {
            [Some(&mut register.value), None]
        });
    }

    /// Sets which bits are RW.
    pub(crate) fn writable(&mut self, offset: u16, width: Width, mask: u32) {
        self.edit(offset, width, mask, |r| [Some(&mut r.writable), None]);
    }

    /// Sets which bits are RW1C.
    pub(crate) fn clearable(&mut self, offset: u16, width: Width, mask: u32) {
        self.edit(offset, width, mask, |r| [Some(&mut r.clearable), None]);
    }

    /// Sets which bits are sticky.
    pub(crate) fn sticky(&mut self, offset: u16, width: Width, mask: u32) {
        self.edit(offset, width, mask, |r| [Some(&mut r.sticky), None]);
    }

    /// Sets which bits an FLR leaves alone.
    pub(crate) fn survives_flr(&mut self, offset: u16, width: Width, mask: u32) {
        self.edit(offset, width, mask, |r| [Some(&mut r.survives_flr), None]);
    }

    /// Marks `length` bytes from `offset` as not to be read.
    pub(crate) fn forbid(&mut self, offset: u16, length: u16) {
        for byte in offset..offset.saturating_add(length).min(ConfigOffset::END) {
            self.register(byte).forbidden |= 1 << (byte % 4);
        }
    }

    /// Marks the register at `offset` as live.
    pub(crate) fn live(&mut self, offset: u16) {
        self.register(offset).live = true;
    }

    fn edit<F>(&mut self, offset: u16, width: Width, value: u32, fields: F)
    where
        F: FnOnce(&mut Register) -> [Option<&mut u32>; 2],
    {
        let (index, shift, mask) = lanes(offset, width);
        let value = (value << shift) & mask;
        for field in fields(self.register(index * 4)).into_iter().flatten() {
            *field = (*field & !mask) | value;
        }
    }

    /// Writes as a Configuration Write with these byte enables does.
    pub(crate) fn write(&mut self, offset: u16, width: Width, value: u32) -> Written {
        let (index, shift, mask) = lanes(offset, width);
        let data = (value << shift) & mask;
        if self.get(index).is_none() {
            return Written {
                lanes: mask,
                data,
                old: 0,
                new: 0,
                live: false,
            };
        }
        let register = self.register(index * 4);
        let old = register.value;
        let writable = register.writable & mask;
        register.value = (old & !writable) | (data & writable);
        register.value &= !(data & register.clearable);
        Written {
            lanes: mask,
            data,
            old,
            new: register.value,
            live: register.live,
        }
    }

    /// Puts all registers back as `reset` does.
    pub(crate) fn reset(&mut self, reset: Reset) {
        let high = self.high.iter_mut().map(|(_, register)| register);
        for register in self.low.iter_mut().chain(high) {
            let mut keep = register.sticky;
            if reset == Reset::FunctionLevel {
                keep |= register.survives_flr;
            }
            register.value = (register.value & keep) | (register.reset & !keep);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_changes_writable_bits_and_clears_rw1c_bits_in_its_lanes_only() {
        let mut space = Space::new();
        space.set(4, Width::Dword, 0xf910_0000);
        space.writable(4, Width::Word, 0x0547);
        space.clearable(6, Width::Word, 0xf900);
        space.write(4, Width::Word, 0xffff);
        assert_eq!(space.peek(4, Width::Dword), 0xf910_0547);
        space.write(7, Width::Byte, 0x80);
        assert_eq!(space.peek(4, Width::Dword), 0x7910_0547);
        space.write(4, Width::Dword, 0x0100_0000);
        assert_eq!(space.peek(4, Width::Dword), 0x7810_0000);
    }

    #[test]
    fn an_empty_extended_dword_reads_zero_and_swallows_writes() {
        let mut space = Space::new();
        space.write(0x400, Width::Dword, 0xffff_ffff);
        assert_eq!(space.peek(0x400, Width::Dword), 0);
        assert!(space.high.is_empty());
    }

    #[test]
    fn a_function_level_reset_keeps_more_than_a_conventional_one() {
        let mut space = Space::new();
        for offset in [0x40, 0x44, 0x48] {
            space.writable(offset, Width::Dword, 0xff);
        }
        space.sticky(0x44, Width::Dword, 0xff);
        space.survives_flr(0x48, Width::Dword, 0xff);
        for offset in [0x40, 0x44, 0x48] {
            space.write(offset, Width::Byte, 0x5a);
        }
        space.reset(Reset::FunctionLevel);
        let now = |space: &Space| [0x40, 0x44, 0x48].map(|o| space.peek(o, Width::Dword));
        assert_eq!(now(&space), [0, 0x5a, 0x5a]);
        space.reset(Reset::Conventional);
        assert_eq!(now(&space), [0, 0x5a, 0]);
    }
}

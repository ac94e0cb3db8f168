//! Reads addresses out of BARs and window registers.

use super::registers::{
    BAR0, IO_BASE, MEMORY_BASE, PREFETCHABLE_BASE, PREFETCHABLE_BASE_UPPER,
    PREFETCHABLE_LIMIT_UPPER, ROM_BAR_TYPE0, ROM_BAR_TYPE1,
};
use super::{Bar, BarKind, PciRange};

/// Granularity of an I/O window of a bridge in bytes (PCIe 7.5.1.3.6).
pub(super) const IO_GRANULE: u64 = 0x1000;
/// Granularity of a memory window of a bridge in bytes (PCIe 7.5.1.3.8).
pub(super) const MEMORY_GRANULE: u64 = 0x10_0000;

/// Number of BARs of a header layout.
pub(super) const fn bar_count(header_type: u8) -> u8 {
    match header_type {
        0 => 6,
        1 => 2,
        _ => 0,
    }
}

/// Offset of the expansion ROM BAR of a header layout.
pub(super) const fn rom_register(header_type: u8) -> Option<u16> {
    match header_type {
        0 => Some(ROM_BAR_TYPE0),
        1 => Some(ROM_BAR_TYPE1),
        _ => None,
    }
}

/// What the type bits of a BAR value encode (PCIe 7.5.1.2.1): its kind, and
/// whether it is prefetchable. `None` for the reserved memory types.
pub(super) const fn bar_type(value: u32) -> Option<(BarKind, bool)> {
    if value & 1 != 0 {
        return Some((BarKind::Io, false));
    }
    let prefetchable = value & 8 != 0;
    match value >> 1 & 3 {
        // Type 1 was memory below 1 MiB and is reserved now; such a BAR still
        // decodes 32 bits.
        0 | 1 => Some((BarKind::Memory32, prefetchable)),
        2 => Some((BarKind::Memory64, prefetchable)),
        _ => None,
    }
}

/// The bits of a BAR value that are address.
pub(super) const fn address_bits(kind: BarKind, value: u32) -> u32 {
    match kind {
        BarKind::Io => value & !0x3,
        BarKind::Rom => value & !0x7ff,
        _ => value & !0xf,
    }
}

/// The walk over the BAR registers of a function: a 64-bit BAR has two.
#[derive(Clone, Copy, Debug)]
pub(super) struct BarWalk {
    count: u8,
    next: u8,
}

impl BarWalk {
    /// The walk over `count` registers.
    pub(super) const fn new(count: u8) -> Self {
        Self { count, next: 0 }
    }

    /// The number of the register of the next BAR.
    pub(super) const fn next(&mut self) -> Option<u8> {
        if self.next == self.count {
            return None;
        }
        self.next += 1;
        Some(self.next - 1)
    }

    /// Skips the upper half of the BAR that was returned last. Returns `false`
    /// where that is in the last register and so has none.
    pub(super) const fn skip_upper_half(&mut self) -> bool {
        self.next().is_some()
    }
}

/// The BARs of a function as its registers hold them, sizes unknown; a register
/// that is 0 is taken as not implemented.
pub(super) fn read_bars(
    header_type: u8,
    read: &mut dyn FnMut(u16) -> u32,
    found: &mut dyn FnMut(Bar),
) {
    let mut walk = BarWalk::new(bar_count(header_type));
    while let Some(index) = walk.next() {
        let register = BAR0 + 4 * u16::from(index);
        let value = read(register);
        let Some((kind, prefetchable)) =
            bar_type(value).filter(|_| value != 0 && value != u32::MAX)
        else {
            continue;
        };
        let mut address = u64::from(address_bits(kind, value));
        if kind == BarKind::Memory64 && walk.skip_upper_half() {
            address |= u64::from(read(register + 4)) << 32;
        }
        found(Bar {
            index,
            kind,
            prefetchable,
            fixed: false,
            address: Some(address),
            size: None,
        });
    }
    if let Some(register) = rom_register(header_type) {
        let value = read(register);
        if value != 0 && value != u32::MAX {
            found(Bar {
                index: 6,
                kind: BarKind::Rom,
                prefetchable: false,
                fixed: false,
                address: Some(u64::from(address_bits(BarKind::Rom, value))),
                size: None,
            });
        }
    }
}

/// The windows of a bridge: I/O, memory, prefetchable memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Windows {
    pub(super) io: Option<PciRange>,
    pub(super) memory: Option<PciRange>,
    pub(super) prefetchable: Option<PciRange>,
}

/// The windows that the registers of a bridge describe (PCIe 7.5.1.3). I/O is
/// decoded with 16 bits. A window whose base is above its limit is closed, and
/// so is one of which all registers are 0, which is not implemented.
pub(super) fn read_windows(read: &mut dyn FnMut(u16) -> u32) -> Windows {
    let io = read(IO_BASE) & 0xffff;
    let memory = read(MEMORY_BASE);
    let prefetchable = read(PREFETCHABLE_BASE);
    let mut prefetchable_base = u64::from(prefetchable << 16 & 0xfff0_0000);
    let mut prefetchable_limit = u64::from(prefetchable & 0xfff0_0000) | 0xf_ffff;
    if prefetchable & 1 != 0 {
        prefetchable_base |= u64::from(read(PREFETCHABLE_BASE_UPPER)) << 32;
        prefetchable_limit |= u64::from(read(PREFETCHABLE_LIMIT_UPPER)) << 32;
    }
    Windows {
        io: (io != 0)
            .then(|| PciRange::new(u64::from(io << 8 & 0xf000), u64::from(io & 0xf000) | 0xfff))
            .flatten(),
        memory: (memory != 0)
            .then(|| {
                PciRange::new(
                    u64::from(memory << 16 & 0xfff0_0000),
                    u64::from(memory & 0xfff0_0000) | 0xf_ffff,
                )
            })
            .flatten(),
        prefetchable: (prefetchable & 0xfff0_fff0 != 0 || prefetchable_base > 0xffff_ffff)
            .then(|| PciRange::new(prefetchable_base, prefetchable_limit))
            .flatten(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn registers(values: &'static [(u16, u32)]) -> impl FnMut(u16) -> u32 {
        move |offset| {
            values
                .iter()
                .find(|(at, _)| *at == offset)
                .map_or(0, |&(_, value)| value)
        }
    }

    #[test]
    fn a_64_bit_prefetchable_window_joins_its_upper_registers() {
        let mut read = registers(&[
            (PREFETCHABLE_BASE, 0x0011_0001),
            (PREFETCHABLE_BASE_UPPER, 0x80),
            (PREFETCHABLE_LIMIT_UPPER, 0x80),
        ]);
        let found = read_windows(&mut read).prefetchable.unwrap();
        assert_eq!(
            (found.base(), found.limit()),
            (0x80_0000_0000, 0x80_001f_ffff)
        );
    }

    #[test]
    fn a_window_with_its_base_above_its_limit_is_closed() {
        let mut read = registers(&[(IO_BASE, 0x00f0), (MEMORY_BASE, 0x0000_fff0)]);
        assert_eq!(read_windows(&mut read), Windows::default());
    }

    #[test]
    fn a_64_bit_bar_takes_two_registers() {
        let mut bars = Vec::new();
        let mut read = registers(&[(0x10, 0x1000_000c), (0x14, 0x80), (0x18, 0xc001)]);
        read_bars(0, &mut read, &mut |bar| bars.push(bar));
        assert_eq!(bars.len(), 2);
        assert_eq!(bars[0].address, Some(0x80_1000_0000));
        assert!(bars[0].prefetchable);
        assert_eq!((bars[1].index, bars[1].kind), (2, BarKind::Io));
        assert_eq!(bars[1].address, Some(0xc000));
    }
}

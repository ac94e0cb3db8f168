//! Registers of which the writable bits are known.
//!
//! Sizing a BAR and moving a window are the writes that firmware and Linux
//! make most. With the writable bits known, the value after such a write
//! follows from the written one and needs no read from the hardware.

use warmbus_pci::registers::{
    BUS_NUMBERS, IO_BASE, IO_UPPER, MEMORY_BASE, PREFETCHABLE_BASE, PREFETCHABLE_BASE_UPPER,
    PREFETCHABLE_LIMIT_UPPER,
};

/// What is known about the bits of one dword.
///
/// A bit in neither mask is not known, and a write that changes it drops the
/// byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteMask {
    /// Offset of the dword.
    pub offset: u16,
    /// Bits that keep what software writes.
    pub writable: u32,
    /// Bits that ignore what software writes.
    pub fixed: u32,
}

/// What a dword is, as far as its mask can be learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    /// A memory or I/O base address register, or the lower half of one.
    Bar,
    /// The upper half of a 64-bit base address register.
    BarUpper,
    /// An expansion ROM base address register.
    Rom,
    /// A register of a bridge in which each of these groups of bits is
    /// implemented as a whole or not at all; the others ignore writes, except
    /// those of the second mask, which are not known.
    Bridge(u32, u32),
}

impl Register {
    /// The register at the dword `offset` of a type 1 header, without the BARs.
    pub(super) const fn of_bridge(offset: u16) -> Option<Self> {
        match offset {
            // The latency timer shares the dword.
            BUS_NUMBERS => Some(Self::Bridge(0x00ff_ffff, 0xff00_0000)),
            // Secondary Status shares the dword.
            IO_BASE => Some(Self::Bridge(0x0000_f0f0, 0xffff_0000)),
            MEMORY_BASE | PREFETCHABLE_BASE => Some(Self::Bridge(0xfff0_fff0, 0)),
            PREFETCHABLE_BASE_UPPER | PREFETCHABLE_LIMIT_UPPER | IO_UPPER => {
                Some(Self::Bridge(0xffff_ffff, 0))
            }
            _ => None,
        }
    }

    /// Whether `written`, of which the bits `mask` reached the register, was a
    /// value after which a read shows the writable bits.
    pub(super) const fn is_probe(self, written: u32, mask: u32) -> bool {
        match self {
            Self::Bar | Self::BarUpper => written & mask == u32::MAX,
            Self::Rom => written & mask >= 0xffff_f800,
            Self::Bridge(group, _) => written & mask & group != 0,
        }
    }

    /// Writable and fixed bits of the dword at `offset`, learned from the
    /// value `read` back after the probe `written`; `None` where the value
    /// does not follow the rules of such a register.
    pub(super) fn learn_mask(self, offset: u16, written: u32, read: u32) -> Option<WriteMask> {
        let (writable, fixed) = match self {
            // Bit 1 of an I/O BAR is reserved, so that ones there are no BAR.
            Self::Bar if read & 3 == 3 => return None,
            Self::Bar => {
                let kind = if read & 1 == 0 { 0xf } else { 3 };
                let writable = read & !kind;
                let is_io = kind == 3;
                (
                    is_address_mask(writable, is_io).then_some(writable)?,
                    !writable,
                )
            }
            Self::BarUpper => (is_address_mask(read, false).then_some(read)?, !read),
            // An enable bit that is set although 0 was written.
            Self::Rom if read & !written & 1 != 0 => return None,
            Self::Rom => {
                let address = read & 0xffff_f800;
                is_address_mask(address, false).then_some(())?;
                let enable = u32::from(address != 0);
                (address | enable, !(address | enable))
            }
            Self::Bridge(group, unknown) => {
                let probed = written & group;
                if read & group == probed {
                    (group, !group & !unknown)
                } else if read & group == 0 {
                    (0, !unknown)
                } else {
                    return None;
                }
            }
        };
        Some(WriteMask {
            offset,
            writable,
            fixed,
        })
    }
}

/// Whether `mask` is zero or one run of ones that ends at the top, or for I/O
/// where 16-bit decoders end.
fn is_address_mask(mask: u32, is_io: bool) -> bool {
    let filled = if is_io && mask >> 16 == 0 && mask != 0 {
        mask | 0xffff_0000
    } else {
        mask
    };
    filled.leading_ones() + filled.trailing_zeros() == 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_teaches_its_address_bits() {
        let mask = Register::Bar
            .learn_mask(0x10, u32::MAX, 0xffff_c004)
            .unwrap();
        assert_eq!(mask.writable, 0xffff_c000);
        assert_eq!(mask.fixed, 0x0000_3fff);
    }

    #[test]
    fn a_bar_that_is_not_implemented_ignores_writes() {
        let mask = Register::Bar.learn_mask(0x10, u32::MAX, 0).unwrap();
        assert_eq!((mask.writable, mask.fixed), (0, u32::MAX));
    }

    #[test]
    fn an_io_bar_may_decode_16_bits_only() {
        let mask = Register::Bar
            .learn_mask(0x10, u32::MAX, 0x0000_ffe1)
            .unwrap();
        assert_eq!(mask.writable, 0xffe0);
    }

    #[test]
    fn an_impossible_bar_mask_teaches_nothing() {
        assert_eq!(Register::Bar.learn_mask(0x10, u32::MAX, 0xf0f0_0000), None);
        assert_eq!(
            Register::BarUpper.learn_mask(0x14, u32::MAX, 0x0000_ffff),
            None
        );
    }

    #[test]
    fn a_rom_teaches_its_enable_bit_too() {
        let mask = Register::Rom
            .learn_mask(0x30, 0xffff_f800, 0xfffc_0000)
            .unwrap();
        assert_eq!(mask.writable, 0xfffc_0001);
    }

    #[test]
    fn a_rom_that_cannot_be_disabled_teaches_nothing() {
        let found = Register::Rom.learn_mask(0x30, 0xffff_f800, 0xfffc_0001);
        assert_eq!(found, None);
        // With 1 written nothing is known of it.
        let found = Register::Rom.learn_mask(0x30, 0xffff_ffff, 0xfffc_0001);
        assert!(found.is_some());
    }

    #[test]
    fn a_window_is_implemented_as_a_whole_or_not_at_all() {
        let register = Register::of_bridge(PREFETCHABLE_BASE).unwrap();
        let there = register
            .learn_mask(PREFETCHABLE_BASE, 0x0000_fff0, 0x0001_fff1)
            .unwrap();
        assert_eq!(there.writable, 0xfff0_fff0);
        let missing = register
            .learn_mask(PREFETCHABLE_BASE, 0x0000_fff0, 0)
            .unwrap();
        assert_eq!((missing.writable, missing.fixed), (0, u32::MAX));
        assert_eq!(
            register.learn_mask(PREFETCHABLE_BASE, 0x0000_fff0, 0xe000_e000),
            None
        );
    }

    #[test]
    fn secondary_status_stays_unknown_beside_the_io_window() {
        let register = Register::of_bridge(IO_BASE).unwrap();
        let mask = register.learn_mask(IO_BASE, 0x00f0, 0x2000_01f1).unwrap();
        assert_eq!((mask.writable | mask.fixed) >> 16, 0);
    }
}

//! Bits that are constant in registers that are not.
//!
//! A status register is never cached, since most of its bits change on their
//! own. Some of its bits never do: who asks for those only need not read it.

use warmbus_pci::registers::{COMMAND, express, status};

/// Bits of a dword that never change, whatever happens, beside others that do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConstantBits {
    /// Offset of the dword.
    pub offset: u16,
    /// The bits.
    pub bits: u32,
    /// Their value; 0 in all others.
    pub value: u32,
}

impl ConstantBits {
    /// What of `value`, read from the dword at `offset`, is constant.
    /// `express` is where the PCI Express capability is.
    pub(super) fn of(offset: u16, value: u32, express: Option<u16>) -> Option<Self> {
        let bits = Self::bits_of(offset, express)?;
        Some(Self {
            offset,
            bits,
            value: value & bits,
        })
    }

    /// The bits of the dword at `offset` that are constant although the dword
    /// is not, if it has any (PCIe 7.5.1.1.4 and 7.5.3.8).
    pub(super) fn bits_of(offset: u16, express: Option<u16>) -> Option<u32> {
        const STATUS: u16 = status::IMMEDIATE_READINESS
            | status::CAPABILITIES_LIST
            | status::CAPABLE_66_MHZ
            | status::FAST_BACK_TO_BACK
            | status::DEVSEL_TIMING;

        if offset == COMMAND {
            return Some(u32::from(STATUS) << 16);
        }
        let link = express.map(|base| base + express::LINK_CONTROL);
        (link == Some(offset)).then_some(u32::from(express::SLOT_CLOCK) << 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_never_changes_is_taken() {
        let found = ConstantBits::of(COMMAND, 0xffff_ffff, None).unwrap();
        assert_eq!(found.value, 0x06b1_0000);
        let found = ConstantBits::of(0x50, 0xffff_ffff, Some(0x40)).unwrap();
        assert_eq!(found.value, 0x1000_0000);
        assert_eq!(ConstantBits::of(0x50, 0xffff_ffff, Some(0x48)), None);
        assert_eq!(ConstantBits::of(0x50, 0xffff_ffff, None), None);
    }
}

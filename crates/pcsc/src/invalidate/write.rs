//! A write as the registers see it.

use warmbus_pci::{Sbdf, Width};

/// One write, seen by register.
#[derive(Clone, Copy)]
pub(super) struct Write {
    pub(super) function: Sbdf,
    pub(super) offset: u16,
    pub(super) width: Width,
    pub(super) value: u32,
}

impl Write {
    /// The bits of the register that starts at `register` which are written,
    /// and their new values.
    pub(super) fn to(&self, register: u16) -> (u32, u32) {
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
    pub(super) fn sets(&self, register: u16, bits: u32) -> bool {
        self.to(register).1 & bits != 0
    }

    /// Whether the write may change any of `bits` of the register at
    /// `register`, of which `old` is the value if it is known.
    pub(super) fn may_change(&self, register: u16, old: Option<u16>, bits: u32) -> bool {
        let (written, value) = self.to(register);
        let reached = written & bits;
        match old {
            Some(old) => (u32::from(old) ^ value) & reached != 0,
            None => reached != 0,
        }
    }
}

//! The registers of a serial port, 1, 2 or 4 bytes wide.

use warmbus_machine::{UartLayout, UartRegisters};
use warmbus_pci::Width;

use crate::arch::serror;
use crate::mmio;

/// The two registers that are used.
///
/// A port may be without a clock or power, or belong to somebody else, and answer
/// an access with an abort. It is not accessed again then, and accepts all there
/// is to send.
pub(super) struct Registers {
    transmit: usize,
    status: usize,
    width: Width,
    /// What the status register has while the port accepts a byte.
    ready: u32,
    has_failed: bool,
}

impl Registers {
    /// Registers that are `width` bytes wide.
    ///
    /// # Safety
    ///
    /// Those that `layout` names from `base` on, which is aligned to `width`,
    /// must be mapped as device memory, and nothing else may use them.
    pub(super) const unsafe fn new(base: usize, layout: UartLayout, width: u8) -> Self {
        Self {
            transmit: base + layout.transmit as usize,
            status: base + layout.status as usize,
            width: match width {
                1 => Width::Byte,
                2 => Width::Word,
                _ => Width::Dword,
            },
            ready: layout.ready,
            has_failed: false,
        }
    }

    /// Whether the port works as far as is known, once all accesses are complete.
    pub(super) fn work(&mut self) -> bool {
        serror::synchronise();
        self.has_failed |= serror::take_pending().is_some();
        !self.has_failed
    }
}

impl UartRegisters for Registers {
    fn status(&mut self) -> u32 {
        if self.has_failed {
            return self.ready;
        }
        // SAFETY: by the contract of `new`.
        let status = unsafe { mmio::read_register(self.status, self.width) };
        status.unwrap_or_else(|| {
            self.has_failed = true;
            self.ready
        })
    }

    fn transmit(&mut self, byte: u8) {
        if self.has_failed {
            return;
        }
        // SAFETY: by the contract of `new`.
        let outcome = unsafe { mmio::write_register(self.transmit, self.width, byte.into()) };
        self.has_failed = outcome.is_none();
    }
}

//! Arm PL011 (Arm DDI 0183).

use core::ptr::NonNull;

use arm_pl011_uart::{PL011Registers, Uart};
use safe_mmio::UniqueMmioPointer;

/// A PL011.
pub(super) struct Pl011(Uart<'static>);

impl Pl011 {
    /// # Safety
    ///
    /// The registers at `base`, which is aligned to 4, must be mapped as device
    /// memory, and nothing else may use them.
    pub(super) unsafe fn new(base: NonNull<u8>) -> Self {
        // SAFETY: by the contract of this function.
        let registers = unsafe { UniqueMmioPointer::new(base.cast::<PL011Registers>()) };
        Self(Uart::new(registers))
    }

    /// Whether the port accepts a byte.
    pub(super) fn is_ready(&self) -> bool {
        !self.0.is_tx_fifo_full()
    }

    /// Sends a byte.
    pub(super) fn send(&mut self, byte: u8) {
        self.0.write_word(byte);
    }
}

//! The registers of a serial port, 1, 2 or 4 bytes wide.

use core::ptr::NonNull;

use safe_mmio::UniqueMmioPointer;
use safe_mmio::fields::{ReadOnly, WriteOnly};
use warmbus_machine::{UartLayout, UartRegisters};

/// The two registers that are used.
pub(super) enum Registers {
    Bytes(Pair<u8>),
    Halfwords(Pair<u16>),
    Words(Pair<u32>),
}

/// Registers that are `T` wide.
pub(super) struct Pair<T: 'static> {
    transmit: UniqueMmioPointer<'static, WriteOnly<T>>,
    status: UniqueMmioPointer<'static, ReadOnly<T>>,
}

impl<T> Pair<T> {
    /// # Safety
    ///
    /// As [`Registers::new`].
    unsafe fn new(base: NonNull<u8>, layout: UartLayout) -> Self {
        // SAFETY: by the contract of this function; the registers differ.
        unsafe {
            Self {
                transmit: UniqueMmioPointer::new(base.add(layout.transmit as usize).cast()),
                status: UniqueMmioPointer::new(base.add(layout.status as usize).cast()),
            }
        }
    }
}

impl Registers {
    /// Registers that are `width` bytes wide.
    ///
    /// # Safety
    ///
    /// Those that `layout` names from `base` on, which is aligned to `width`,
    /// must be mapped as device memory, and nothing else may use them.
    pub(super) unsafe fn new(base: NonNull<u8>, layout: UartLayout, width: u8) -> Self {
        // SAFETY: by the contract of this function.
        unsafe {
            match width {
                1 => Self::Bytes(Pair::new(base, layout)),
                2 => Self::Halfwords(Pair::new(base, layout)),
                _ => Self::Words(Pair::new(base, layout)),
            }
        }
    }
}

impl UartRegisters for Registers {
    fn status(&mut self) -> u32 {
        match self {
            Self::Bytes(port) => port.status.read().into(),
            Self::Halfwords(port) => port.status.read().into(),
            Self::Words(port) => port.status.read(),
        }
    }

    fn transmit(&mut self, byte: u8) {
        match self {
            Self::Bytes(port) => port.transmit.write(byte),
            Self::Halfwords(port) => port.transmit.write(byte.into()),
            Self::Words(port) => port.transmit.write(byte.into()),
        }
    }
}

//! 16550 and compatible ports, with registers 1, 2 or 4 bytes wide.

use core::ptr::NonNull;

use safe_mmio::UniqueMmioPointer;
use safe_mmio::fields::{ReadOnly, WriteOnly};

/// Number of the Line Status Register (16550 data sheet).
const LSR: usize = 5;
/// "Transmitter holding register empty" in it.
const LSR_THRE: u8 = 1 << 5;

/// A 16550.
pub(super) enum Ns16550 {
    Bytes(Port<u8>),
    Halfwords(Port<u16>),
    Words(Port<u32>),
}

/// The two registers that are used, `T` wide.
pub(super) struct Port<T: 'static> {
    transmit: UniqueMmioPointer<'static, WriteOnly<T>>,
    status: UniqueMmioPointer<'static, ReadOnly<T>>,
}

impl<T> Port<T> {
    /// # Safety
    ///
    /// As [`Ns16550::new`].
    unsafe fn new(base: NonNull<u8>, shift: u8) -> Self {
        // SAFETY: by the contract of this function; the registers differ.
        unsafe {
            Self {
                transmit: UniqueMmioPointer::new(base.cast()),
                status: UniqueMmioPointer::new(base.add(LSR << shift).cast()),
            }
        }
    }
}

impl Ns16550 {
    /// A port whose registers are `width` bytes wide and `1 << shift` bytes
    /// apart.
    ///
    /// # Safety
    ///
    /// The registers at `base`, which is aligned to `width`, must be mapped as
    /// device memory, and nothing else may use them.
    pub(super) unsafe fn new(base: NonNull<u8>, width: u8, shift: u8) -> Self {
        // SAFETY: by the contract of this function.
        unsafe {
            match width {
                1 => Self::Bytes(Port::new(base, shift)),
                2 => Self::Halfwords(Port::new(base, shift)),
                _ => Self::Words(Port::new(base, shift)),
            }
        }
    }

    /// Whether the port accepts a byte.
    pub(super) fn is_ready(&mut self) -> bool {
        let status = match self {
            Self::Bytes(port) => port.status.read(),
            Self::Halfwords(port) => port.status.read() as u8,
            Self::Words(port) => port.status.read() as u8,
        };
        status & LSR_THRE != 0
    }

    /// Sends a byte.
    pub(super) fn send(&mut self, byte: u8) {
        match self {
            Self::Bytes(port) => port.transmit.write(byte),
            Self::Halfwords(port) => port.transmit.write(byte.into()),
            Self::Words(port) => port.transmit.write(byte.into()),
        }
    }
}

//! Base address registers.

/// The address space that a BAR asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarSpace {
    /// I/O space with all 32 bits.
    Io,
    /// I/O space, upper 16 bits hardwired to 0 (PCI 3.0, 6.2.5.1).
    Io16,
    /// Memory space, 32-bit address.
    Memory32,
    /// Memory space, 64-bit address in two registers.
    Memory64,
}

/// One base address register (PCIe 7.5.1.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarModel {
    /// What it asks for.
    pub space: BarSpace,
    /// The Prefetchable bit.
    pub prefetchable: bool,
    /// Bytes, rounded up to a power of two that the register can express.
    pub size: u64,
}

impl BarModel {
    /// A BAR of `size` bytes in `space`.
    #[must_use]
    pub const fn new(space: BarSpace, size: u64) -> Self {
        Self {
            space,
            prefetchable: false,
            size,
        }
    }

    /// A 32-bit memory BAR.
    #[must_use]
    pub const fn memory32(size: u64) -> Self {
        Self::new(BarSpace::Memory32, size)
    }

    /// A 64-bit memory BAR, which takes two registers.
    #[must_use]
    pub const fn memory64(size: u64) -> Self {
        Self::new(BarSpace::Memory64, size)
    }

    /// An I/O BAR.
    #[must_use]
    pub const fn io(size: u64) -> Self {
        Self::new(BarSpace::Io, size)
    }

    /// The same, with the Prefetchable bit.
    #[must_use]
    pub const fn prefetchable(mut self) -> Self {
        self.prefetchable = true;
        self
    }

    /// Bytes that the register really decodes: a power of two within what the
    /// kind of register can say.
    #[must_use]
    pub fn decoded_size(self) -> u64 {
        let (least, most) = match self.space {
            BarSpace::Io => (4, 1 << 31),
            BarSpace::Io16 => (4, 1 << 15),
            BarSpace::Memory32 => (16, 1 << 31),
            BarSpace::Memory64 => (16, 1 << 63),
        };
        self.size.clamp(least, most).next_power_of_two()
    }

    /// The hardwired low bits, and the writable bits of both registers.
    pub(crate) fn registers(self, size: u64) -> (u32, u64) {
        let mask = !(size - 1);
        let flags = if self.prefetchable { 8 } else { 0 };
        match self.space {
            BarSpace::Io => (1, mask & 0xffff_fffc),
            BarSpace::Io16 => (1, mask & 0xfffc),
            BarSpace::Memory32 => (flags, mask & 0xffff_fff0),
            BarSpace::Memory64 => (flags | 4, mask & !0xf),
        }
    }
}

//! How configuration space is reached.

use super::{ConfigOffset, Sbdf};

/// Width of one configuration access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Width {
    /// One byte.
    Byte,
    /// Two bytes, at an even offset.
    Word,
    /// Four bytes, at an offset that is a multiple of four.
    Dword,
}

impl Width {
    /// Number of bytes: 1, 2 or 4.
    #[must_use]
    pub const fn bytes(self) -> u16 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
        }
    }

    /// The bits of a value of this width, which is also what a read without a
    /// completion returns: all ones (PCIe 2.3.2).
    #[must_use]
    pub const fn ones(self) -> u32 {
        match self {
            Self::Byte => 0xff,
            Self::Word => 0xffff,
            Self::Dword => 0xffff_ffff,
        }
    }
}

/// One read of configuration space that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigRead {
    /// The function.
    pub function: Sbdf,
    /// Where in its space, naturally aligned.
    pub offset: ConfigOffset,
    /// How many bytes.
    pub width: Width,
}

/// The widths of the accesses that a host bridge performs as they are made.
///
/// Every host bridge has to perform all of them (PCIe 7.2.2). Some perform only
/// dwords and return wrong values for the others; Linux has them in a table of
/// exceptions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessWidths {
    /// Bytes, words and dwords.
    #[default]
    All,
    /// Reads of dwords, writes of any width.
    DwordReads,
    /// Dwords only.
    ///
    /// A narrower write cannot be replaced by a read and a write of the dword
    /// around it: bits that a 1 clears are 1 in the value that was read, so
    /// that the write would clear them (RW1C, as all of Status beside
    /// Command). Writing 0 to the other bytes instead would change registers
    /// that are read-write (as I/O Base beside Secondary Status). Which of
    /// the two is right depends on the register, and a device may define its
    /// own. [`HostBridgeAccess`](super::HostBridgeAccess) refuses such a write.
    Dwords,
}

impl AccessWidths {
    /// The narrowest read that returns what the registers hold.
    #[must_use]
    pub const fn narrowest_read(self) -> Width {
        match self {
            Self::All => Width::Byte,
            Self::DwordReads | Self::Dwords => Width::Dword,
        }
    }

    /// The narrowest write that changes nothing else.
    #[must_use]
    pub const fn narrowest_write(self) -> Width {
        match self {
            Self::All | Self::DwordReads => Width::Byte,
            Self::Dwords => Width::Dword,
        }
    }
}

/// A configuration access that the machine itself refused, for example with a
/// synchronous external abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessFault {
    /// The function that was accessed.
    pub function: Sbdf,
    /// The offset that was accessed.
    pub offset: ConfigOffset,
}

/// Access to the configuration space of the functions of one machine.
///
/// Accesses are naturally aligned: an implementation may ignore the low bits
/// of an offset that is not. A read that nothing answers returns all ones of
/// its width, as the hardware does; it is never an error.
pub trait ConfigAccess {
    /// Reads `width` bytes at `offset` of `function`.
    fn read(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32;

    /// Writes the low `width` bytes of `value` at `offset` of `function`.
    fn write(&mut self, function: Sbdf, offset: ConfigOffset, width: Width, value: u32);

    /// The narrowest read that reaches `function` as it is made. A narrower
    /// [`Self::read`] reads all bytes of that width around it.
    fn narrowest_read(&self, _function: Sbdf) -> Width {
        Width::Byte
    }

    /// Takes the oldest access fault that was not taken yet. Where no access
    /// can fault there is none.
    fn take_fault(&mut self) -> Option<AccessFault> {
        None
    }
}

impl<A: ConfigAccess + ?Sized> ConfigAccess for &mut A {
    fn read(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
        (**self).read(function, offset, width)
    }

    fn write(&mut self, function: Sbdf, offset: ConfigOffset, width: Width, value: u32) {
        (**self).write(function, offset, width, value);
    }

    fn narrowest_read(&self, function: Sbdf) -> Width {
        (**self).narrowest_read(function)
    }

    fn take_fault(&mut self) -> Option<AccessFault> {
        (**self).take_fault()
    }
}

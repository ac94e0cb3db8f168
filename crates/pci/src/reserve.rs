//! What a bridge of QEMU asks to be reserved for devices that are plugged in
//! later: a vendor-specific capability of vendor 1b36, type 1.
//!
//! Linux does not read it: firmware is to honour it.

/// Vendor ID of the bridges that have it.
pub(crate) const VENDOR_ID: u16 = 0x1b36;

/// What a bridge asks for; `None` where it has no wish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reserve {
    /// Buses beyond the one directly below it.
    pub buses: Option<u8>,
    /// Bytes of I/O space.
    pub io: Option<u64>,
    /// Bytes of memory that is not prefetchable.
    pub memory: Option<u64>,
    /// Bytes of prefetchable memory, wherever it is.
    pub prefetchable: Option<u64>,
}

impl Reserve {
    /// Decodes the capability from its dwords, which `dword` reads by their
    /// offset in it; `None` where it is another one.
    pub(crate) fn read(mut dword: impl FnMut(u16) -> u32) -> Option<Self> {
        const LENGTH: u8 = 32;
        const TYPE: u8 = 1;
        let [_, _, length, kind] = dword(0).to_le_bytes();
        if (length, kind) != (LENGTH, TYPE) {
            return None;
        }
        // All ones stand for no wish.
        let mut narrow = |at| Some(dword(at)).filter(|&value| value != u32::MAX);
        let (buses, memory, prefetchable_32) = (narrow(4), narrow(16), narrow(20));
        let mut wide = |at| {
            let value = u64::from(dword(at)) | u64::from(dword(at + 4)) << 32;
            Some(value).filter(|&value| value != u64::MAX)
        };
        let (io, prefetchable_64) = (wide(8), wide(24));
        Some(Self {
            buses: buses.and_then(|buses| u8::try_from(buses).ok()),
            io,
            memory: memory.map(u64::from),
            prefetchable: prefetchable_64.or(prefetchable_32.map(u64::from)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: u32 = u32::MAX;

    fn read(dwords: [u32; 8]) -> Option<Reserve> {
        Reserve::read(|at| dwords[usize::from(at / 4)])
    }

    #[test]
    fn each_wish_is_read_and_none_that_is_not_there() {
        let found = read([
            0x0120_4009,
            4,
            0x2000,
            0,
            0x0400_0000,
            0x0800_0000,
            NONE,
            NONE,
        ]);
        let expected = Reserve {
            buses: Some(4),
            io: Some(0x2000),
            memory: Some(64 << 20),
            prefetchable: Some(128 << 20),
        };
        assert_eq!(found, Some(expected));
        let found = read([0x0120_0009, 256, NONE, NONE, NONE, NONE, 0, 8]);
        let expected = Reserve {
            prefetchable: Some(32 << 30),
            ..Reserve::default()
        };
        assert_eq!(found, Some(expected));
        for other in [0x0220_4009, 0x0110_4009, NONE] {
            assert_eq!(read([other, 4, 0, 0, 0, 0, 0, 0]), None, "{other:x}");
        }
    }
}

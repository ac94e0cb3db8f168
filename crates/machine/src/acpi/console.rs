//! The console that the SPCR names (Microsoft, Serial Port Console Redirection
//! Table).

use crate::early_devices::{Console, ConsoleKind};
use warmbus_memory::PhysAddr;
use warmbus_memory::bytes::le_u64;

/// Interface type, and the address of the registers in a Generic Address
/// Structure (ACPI 5.2.3.2).
const INTERFACE: usize = 36;
const ADDRESS_SPACE: usize = 40;
const REGISTER_WIDTH: usize = 41;
const ACCESS_SIZE: usize = 43;
const ADDRESS: usize = 44;

/// Bytes of registers: a page, which is what is mapped.
const SIZE: u64 = 4096;

/// The console, if it is one that is known.
pub(super) fn console(spcr: &[u8]) -> Option<Console> {
    const SYSTEM_MEMORY: u8 = 0;

    let byte = |offset| spcr.get(offset).copied();
    if byte(ADDRESS_SPACE)? != SYSTEM_MEMORY {
        return None;
    }
    // Debug Port Table 2, table 3.
    let kind = match byte(INTERFACE)? {
        0x00 | 0x01 | 0x12 => ConsoleKind::Ns16550,
        0x03 | 0x0d | 0x0e => ConsoleKind::Pl011,
        _ => return None,
    };
    let (register_shift, access_width) = match kind {
        ConsoleKind::Pl011 | ConsoleKind::Imx | ConsoleKind::Lpuart | ConsoleKind::Meson => (2, 4),
        // Registers are as far apart as an access is wide.
        ConsoleKind::Ns16550 => match (byte(ACCESS_SIZE)?, byte(REGISTER_WIDTH)?) {
            (1, _) | (0, 0..=8) => (0, 1),
            (2, _) | (0, 9..=16) => (1, 2),
            (3, _) | (0, 17..=32) => (2, 4),
            _ => return None,
        },
    };
    let base = le_u64(spcr, ADDRESS)?;
    let usable = base != 0
        && base.is_multiple_of(u64::from(access_width))
        && base.checked_add(SIZE).is_some();
    usable.then(|| Console {
        path: "acpi SPCR".into(),
        kind,
        base: PhysAddr(base),
        size: SIZE,
        register_shift,
        access_width,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spcr(interface: u8, width: u8, access: u8, base: u64) -> [u8; 80] {
        let mut table = [0; 80];
        table[INTERFACE] = interface;
        table[REGISTER_WIDTH] = width;
        table[ACCESS_SIZE] = access;
        table[ADDRESS..ADDRESS + 8].copy_from_slice(&base.to_le_bytes());
        table
    }

    #[test]
    fn a_16550_has_registers_as_far_apart_as_an_access_is_wide() {
        for (width, access, expected) in [
            (8, 1, Some((0, 1))),
            (32, 3, Some((2, 4))),
            (32, 0, Some((2, 4))),
            (0, 0, Some((0, 1))),
            (16, 2, Some((1, 2))),
            (64, 4, None),
        ] {
            let found = console(&spcr(0x12, width, access, 0x1000_0000));
            let shape = found.map(|port| (port.register_shift, port.access_width));
            assert_eq!(shape, expected, "{width} bits, access {access}");
        }
    }

    #[test]
    fn ports_that_are_not_known_or_nowhere_are_none() {
        assert!(console(&spcr(0x03, 32, 3, 0x900_0000)).is_some());
        assert_eq!(console(&spcr(0x03, 32, 3, 0)), None);
        assert_eq!(console(&spcr(0x03, 32, 3, u64::MAX - 3)), None);
        assert_eq!(console(&spcr(0x03, 32, 3, 0x900_0002)), None);
        assert_eq!(console(&spcr(0x0f, 32, 3, 0x900_0000)), None);
        let mut port = spcr(0, 8, 1, 0x3f8);
        port[ADDRESS_SPACE] = 1;
        assert_eq!(console(&port), None);
        assert_eq!(console(&port[..46]), None);
    }
}

//! The root buses that the DSDT and the SSDTs name.
//!
//! AML is a program, and this is no interpreter of it: it finds `Device`
//! objects with a constant `_BBN`, and the constant `_SEG` beside it (ACPI
//! 6.5.5, 6.5.6; encoding in 20.2), as nearly all firmware encodes them. A root
//! bus with a computed number is not found, and only Linux enumerates the
//! functions below it. A root bus that does not exist costs 32 reads of absent
//! functions.

use alloc::vec::Vec;

use super::tables::{HEADER_SIZE, Tables};
use warmbus_memory::bytes::{le_u16, le_u32};
use warmbus_memory::search::Finder;

/// A bus below a host bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RootBus {
    pub(super) segment: u16,
    pub(super) bus: u8,
}

/// More root buses than any machine has.
const MAX_ROOTS: usize = 1024;

/// All root buses that tables with AML name.
pub(super) fn root_buses(tables: &Tables<'_>) -> Vec<RootBus> {
    let mut roots = Vec::new();
    for signature in [*b"DSDT", *b"SSDT"] {
        for table in tables.all(signature) {
            find(&table[HEADER_SIZE..], &mut roots);
        }
    }
    roots
}

fn find(code: &[u8], roots: &mut Vec<RootBus>) {
    const DEVICE: [u8; 2] = [0x5b, 0x82];

    let device = Finder::new(&DEVICE);
    for at in device.find_in(code) {
        if roots.len() == MAX_ROOTS {
            return;
        }
        let Some(body) = package(&code[at + DEVICE.len()..]) else {
            continue;
        };
        // A device inside this one has names of its own.
        let end = device.find_in(body).next().unwrap_or(body.len());
        let own = &body[..end];
        let bus = constant(own, *b"_BBN").and_then(|bus| u8::try_from(bus).ok());
        let segment = constant(own, *b"_SEG").unwrap_or(0);
        if let (Some(bus), Ok(segment)) = (bus, u16::try_from(segment)) {
            roots.push(RootBus { segment, bus });
        }
    }
}

/// What a `PkgLength` (ACPI 20.2.4) at the start of `code` embraces.
fn package(code: &[u8]) -> Option<&[u8]> {
    let lead = code.first()?;
    let more = usize::from(lead >> 6);
    let length = if more == 0 {
        usize::from(lead & 0x3f)
    } else {
        let high = code.get(1..=more)?.iter().rev();
        let high = high.fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        high << 4 | usize::from(lead & 0xf)
    };
    code.get(1 + more..length)
}

/// The number that `name` stands for: a `Name` with a constant, or a `Method`
/// that does nothing but return one.
fn constant(code: &[u8], name: [u8; 4]) -> Option<u32> {
    const NAME: u8 = 0x08;
    const METHOD: u8 = 0x14;
    const RETURN: u8 = 0xa4;

    Finder::new(&name).find_in(code).find_map(|at| {
        let after = code.get(at + name.len()..)?;
        if at >= 1 && code[at - 1] == NAME {
            return number(after);
        }
        // A short method: its operation, one byte of length, its name, flags.
        if at >= 2 && code[at - 2] == METHOD && after.get(1) == Some(&RETURN) {
            return number(after.get(2..)?);
        }
        None
    })
}

/// A constant (ACPI 20.2.3).
fn number(code: &[u8]) -> Option<u32> {
    match code.first()? {
        0x00 => Some(0),
        0x01 => Some(1),
        0x0a => code.get(1).copied().map(u32::from),
        0x0b => le_u16(code, 1).map(u32::from),
        0x0c => le_u32(code, 1),
        _ => None,
    }
}

//! What can be read of AML without executing it (ACPI 6.5, 20.2).
//!
//! AML is a program, and this is no interpreter of it. It finds `Device`
//! objects, the names directly below them that stand for a constant, and
//! resource descriptors, as nearly all firmware encodes them. Anything else is
//! a [`Value::Computed`].

use alloc::vec::Vec;

use warmbus_memory::bytes::{le_u16, le_u32, le_u64};
use warmbus_memory::search::Finder;

/// `DeviceOp`.
const DEVICE: [u8; 2] = [0x5b, 0x82];

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// There is no such name.
    Absent,
    /// A constant, or a method that returns one and does nothing else.
    Constant(u64),
    /// Something that only an interpreter finds out.
    Computed,
}

impl Value {
    /// The number, or `default` where there is no such name.
    pub(super) const fn or(self, default: u64) -> Option<u64> {
        match self {
            Self::Absent => Some(default),
            Self::Constant(number) => Some(number),
            Self::Computed => None,
        }
    }
}

/// The code of a `Device` object without that of the devices inside it.
#[derive(Debug)]
pub(super) struct Device<'a> {
    parts: Vec<&'a [u8]>,
}

/// Visits every `Device` object in `code`, in its order. The work is proportional to the
/// bytes of `code`, however its objects are nested.
pub(super) fn devices<'a>(code: &'a [u8], visit: &mut dyn FnMut(&Device<'a>)) {
    static FINDER: Finder<'_> = Finder::new(&DEVICE);

    // What is outside of all devices is none.
    let (_, mut bodies) = split(code, &FINDER);
    bodies.reverse();
    while let Some(body) = bodies.pop() {
        let (device, inside) = split(body, &FINDER);
        bodies.extend(inside.into_iter().rev());
        visit(&device);
    }
}

/// The code of `body` outside of the devices directly inside it, and the code
/// of each of these.
fn split<'a>(body: &'a [u8], finder: &Finder<'_>) -> (Device<'a>, Vec<&'a [u8]>) {
    let (mut parts, mut inside) = (Vec::new(), Vec::new());
    // Where the current part starts, and up to where there is no device.
    let (mut part, mut done) = (0, 0);
    while let Some(found) = finder.find_in(&body[done..]).next() {
        let start = done + found;
        let inner = start + DEVICE.len();
        done = match package(&body[inner..]) {
            // The same two bytes may be part of a number or of data.
            Some((content, end)) if starts_with_name(content) => {
                parts.push(&body[part..start]);
                inside.push(content);
                part = inner + end;
                part
            }
            _ => inner,
        };
    }
    parts.push(&body[part..]);
    (Device { parts }, inside)
}

impl<'a> Device<'a> {
    /// Whether `needle` is in the code of the device.
    pub(super) fn contains(&self, needle: &Finder<'_>) -> bool {
        let mut parts = self.parts.iter();
        parts.any(|part| needle.find_in(part).next().is_some())
    }

    /// What the object with the four characters `name` stands for.
    pub(super) fn value(&self, name: &Finder<'_>) -> Value {
        let mut value = Value::Absent;
        for part in &self.parts {
            for at in name.find_in(part) {
                match (value, definition(part, at)) {
                    (_, Value::Absent) => {}
                    (Value::Absent, found) => value = found,
                    (known, found) if known == found => {}
                    // Which of two definitions counts is decided by code.
                    _ => value = Value::Computed,
                }
            }
        }
        value
    }

    /// The bytes from each occurrence of `needle` on.
    pub(super) fn occurrences(&self, needle: &Finder<'_>) -> Vec<&'a [u8]> {
        let mut found = Vec::new();
        for part in &self.parts {
            found.extend(needle.find_in(part).map(|at| &part[at..]));
        }
        found
    }
}

/// What the name at `at` is defined as; [`Value::Absent`] where it is only
/// mentioned.
fn definition(code: &[u8], at: usize) -> Value {
    const NAME: u8 = 0x08;
    const METHOD: u8 = 0x14;
    const RETURN: u8 = 0xa4;
    const NAME_SIZE: usize = 4;

    let before = &code[..at];
    let after = code.get(at + NAME_SIZE..).unwrap_or_default();
    if before.last() == Some(&NAME) {
        return number(after).map_or(Value::Computed, Value::Constant);
    }
    // The operation and one to four bytes of length, then flags.
    let is_method = (1..=4).any(|length| {
        let Some(start) = at.checked_sub(length + 1) else {
            return false;
        };
        let bytes_of_length = usize::from(code[start + 1] >> 6) + 1;
        code[start] == METHOD && bytes_of_length == length && package(&code[start + 1..]).is_some()
    });
    if !is_method {
        return Value::Absent;
    }
    match after {
        [_, RETURN, returned @ ..] => number(returned).map_or(Value::Computed, Value::Constant),
        _ => Value::Computed,
    }
}

/// What the `PkgLength` (20.2.4) at the start of `code` embraces, and where
/// that ends, counted from the length.
fn package(code: &[u8]) -> Option<(&[u8], usize)> {
    let lead = *code.first()?;
    let more = usize::from(lead >> 6);
    let end = if more == 0 {
        usize::from(lead & 0x3f)
    } else if lead & 0x30 == 0 {
        let high = code.get(1..=more)?.iter().rev();
        let high = high.fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        high << 4 | usize::from(lead & 0xf)
    } else {
        return None;
    };
    Some((code.get(1 + more..end)?, end))
}

/// Whether code starts with a `NameString` (20.2.2).
fn starts_with_name(code: &[u8]) -> bool {
    let is_start = |byte: &u8| matches!(byte, b'A'..=b'Z' | b'_' | b'\\' | b'^' | b'.' | b'/');
    code.first().is_some_and(is_start)
}

/// A constant (20.2.3).
fn number(code: &[u8]) -> Option<u64> {
    match code.first()? {
        0x00 => Some(0),
        0x01 => Some(1),
        0x0a => code.get(1).copied().map(u64::from),
        0x0b => le_u16(code, 1).map(u64::from),
        0x0c => le_u32(code, 1).map(u64::from),
        0x0e => le_u64(code, 1),
        0xff => Some(u64::MAX),
        _ => None,
    }
}

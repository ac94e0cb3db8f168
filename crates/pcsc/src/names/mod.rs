//! Names of configuration registers, for people.
//!
//! The names are those of the specifications, in the short forms that `lspci`
//! and Linux use for structures. Which bytes may be cached is decided
//! elsewhere; nothing but text depends on these tables.

mod express;
mod extended;
mod header;
mod standard;
mod variable;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::registers::capability;
use warmbus_pci::{Capability, ConfigOffset, ExtendedCapability};

/// A register of one function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// Offset in configuration space.
    pub offset: u16,
    /// Bytes.
    pub len: u16,
    /// The structure that it is in, for example `MSI-X`; empty for the header.
    pub structure: &'static str,
    /// Its name in the structure.
    pub name: &'static str,
    /// Which one of several with the same name, counted from 0.
    pub number: Option<u16>,
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.structure.is_empty() {
            write!(f, "{} ", self.structure)?;
        }
        f.write_str(self.name)?;
        self.number.map_or(Ok(()), |number| write!(f, " {number}"))
    }
}

/// What is known about a function when its registers are named.
#[derive(Clone, Copy, Debug)]
pub struct Layout<'a> {
    /// Header layout: 0 endpoint, 1 bridge, 2 CardBus; others have the common
    /// part only.
    pub header_type: u8,
    /// The capabilities.
    pub capabilities: &'a [Capability],
    /// The extended capabilities.
    pub extended_capabilities: &'a [ExtendedCapability],
    /// The configuration space, on which the shape of some structures depends.
    /// What is not known is 0.
    pub bytes: &'a [u8],
}

/// The names of all registers of one function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegisterMap {
    /// Ascending, without overlaps.
    registers: Vec<Register>,
    /// Start, end and name of each structure, ascending.
    structures: Vec<(u16, u16, &'static str)>,
}

impl RegisterMap {
    /// Names the registers of a function.
    ///
    /// A structure ends where the next one starts, whatever it says about its
    /// length.
    #[must_use]
    pub fn new(layout: &Layout<'_>) -> Self {
        let mut map = Self::default();
        let header = Shape::new(layout, 0, 0x40);
        // A CardBus header goes on to its subsystem IDs.
        let header_end = if layout.header_type == 2 { 0x48 } else { 0x40 };
        map.add("", 0, header_end, &mut |put| {
            rows(header::COMMON, put);
            rows(header::of(layout.header_type), put);
        });
        let mut starts: Vec<u16> = layout
            .capabilities
            .iter()
            .map(|found| u16::from(found.offset))
            .chain(layout.extended_capabilities.iter().map(|c| c.offset))
            .collect();
        starts.sort_unstable();
        let end_of = |start: u16| {
            let next = starts.iter().copied().find(|&other| other > start);
            let limit = if start < ConfigOffset::CONVENTIONAL_END {
                ConfigOffset::CONVENTIONAL_END
            } else {
                ConfigOffset::END
            };
            next.map_or(limit, |next| next.min(limit))
        };
        for found in layout.capabilities {
            let start = u16::from(found.offset);
            let shape = Shape::new(layout, start, end_of(start));
            map.add(standard::name(found.id), start, shape.end, &mut |put| {
                put(0, 2, "Header", None);
                match found.id {
                    capability::EXPRESS => rows(express::TABLE, put),
                    id => standard::registers(id, &header, &shape, put),
                }
            });
        }
        for found in layout.extended_capabilities {
            let shape = Shape::new(layout, found.offset, end_of(found.offset));
            map.add(
                extended::name(found.id),
                found.offset,
                shape.end,
                &mut |put| {
                    put(0, 4, "Header", None);
                    rows(extended::table(found.id), put);
                    variable::registers(found.id, &shape, put);
                },
            );
        }
        if layout.extended_capabilities.is_empty() && layout.header_type <= 2 {
            map.add("", 0x100, 0x104, &mut |put| {
                put(0, 4, "Extended Capabilities (none)", None);
            });
        }
        map.registers.sort_by_key(|found| found.offset);
        map.structures.sort_by_key(|&(start, end, _)| (start, end));
        map
    }

    /// Adds what `fill` names of the structure from `start` to `end`. Of two
    /// names for a byte the first one stays.
    fn add(
        &mut self,
        structure: &'static str,
        start: u16,
        end: u16,
        fill: &mut dyn FnMut(&mut Put<'_>),
    ) {
        self.structures.push((start, end, structure));
        let registers = &mut self.registers;
        let before = registers.len();
        fill(&mut |at, len, name, number| {
            let Some(offset) = start.checked_add(at).filter(|&first| first < end) else {
                return;
            };
            let len = len.min(end - offset);
            let is_free = registers[before..].iter().all(|other: &Register| {
                offset + len <= other.offset || other.offset + other.len <= offset
            });
            if is_free && len > 0 {
                registers.push(Register {
                    offset,
                    len,
                    structure,
                    name,
                    number,
                });
            }
        });
    }

    /// The register that holds the byte at `offset`.
    #[must_use]
    pub fn at(&self, offset: u16) -> Option<&Register> {
        let after = self
            .registers
            .partition_point(|found| found.offset <= offset);
        let found = self.registers.get(after.checked_sub(1)?)?;
        (offset - found.offset < found.len).then_some(found)
    }

    /// All registers, ascending by offset.
    pub fn iter(&self) -> impl Iterator<Item = &Register> {
        self.registers.iter()
    }

    /// The registers that `len` bytes from `offset` on touch, in words:
    /// `Express Link Control, Link Status`. Bytes without a name are told by
    /// their place.
    #[must_use]
    pub fn describe(&self, offset: u16, len: u16) -> String {
        let mut text = String::new();
        let mut structure = None;
        let mut at = offset;
        let end = offset.saturating_add(len);
        while at < end {
            if !text.is_empty() {
                text += ", ";
            }
            match self.at(at) {
                Some(found) => {
                    let mut named = *found;
                    if structure == Some(found.structure) {
                        named.structure = "";
                    }
                    text += &named.to_string();
                    structure = Some(found.structure);
                    at = found.offset + found.len;
                }
                None => {
                    text += &self.place(at);
                    let next = self.registers.iter().map(|found| found.offset);
                    at = next.filter(|&next| next > at).min().unwrap_or(end);
                }
            }
        }
        text
    }

    /// Where a byte without a name is.
    fn place(&self, offset: u16) -> String {
        let inside = self
            .structures
            .iter()
            .rev()
            .find(|(start, end, name)| (*start..*end).contains(&offset) && !name.is_empty());
        match inside {
            Some((start, _, name)) => format!("{name} +{:#x}", offset - start),
            None => format!("offset {offset:#x}"),
        }
    }
}

/// Takes a register: its place in the structure, its bytes, its name, and
/// which of several it is.
type Put<'a> = dyn FnMut(u16, u16, &'static str, Option<u16>) + 'a;

/// Place in the structure, bytes, name.
type Row = (u16, u16, &'static str);

fn rows(table: &[Row], put: &mut Put<'_>) {
    for &(at, len, name) in table {
        put(at, len, name, None);
    }
}

/// Puts `table` `count` times, `stride` bytes apart from `first` on.
fn each(first: u16, stride: u16, count: u16, table: &[Row], put: &mut Put<'_>) {
    for number in 0..count {
        let Some(start) = number
            .checked_mul(stride)
            .and_then(|distance| distance.checked_add(first))
            .filter(|&start| start < ConfigOffset::END)
        else {
            return;
        };
        for &(at, len, name) in table {
            put(start + at, len, name, Some(number));
        }
    }
}

/// The bytes of one structure, on which its shape depends.
struct Shape<'a> {
    bytes: &'a [u8],
    header_type: u8,
    lanes: u16,
    start: u16,
    end: u16,
}

impl<'a> Shape<'a> {
    fn new(layout: &Layout<'a>, start: u16, end: u16) -> Self {
        let mut shape = Self {
            bytes: layout.bytes,
            header_type: layout.header_type,
            lanes: 0,
            start,
            end,
        };
        let express = layout
            .capabilities
            .iter()
            .find(|found| found.id == capability::EXPRESS);
        if let Some(found) = express {
            let link = u16::from(found.offset) + super::registers::express::LINK_CAPABILITIES;
            shape.lanes = (shape.absolute(link) >> 4 & 0x3f) as u16;
        }
        shape
    }

    /// The dword at `at` bytes from the start; 0 where it is not known.
    fn dword(&self, at: u16) -> u32 {
        match self.start.checked_add(at) {
            Some(offset) if offset < self.end => self.absolute(offset),
            _ => 0,
        }
    }

    fn absolute(&self, offset: u16) -> u32 {
        let offset = usize::from(offset);
        self.bytes
            .get(offset..offset + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u32::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// A function with MSI at 0x50 and the extended capability `id` at 0x100.
    fn map(msi_control: u16, id: u16, body: &[(usize, u32)]) -> RegisterMap {
        let mut bytes = vec![0; 4096];
        bytes[0x50] = 5;
        bytes[0x52..0x54].copy_from_slice(&msi_control.to_le_bytes());
        for (at, value) in body {
            bytes[0x100 + at..0x104 + at].copy_from_slice(&value.to_le_bytes());
        }
        RegisterMap::new(&Layout {
            header_type: 0,
            capabilities: &[Capability {
                id: 5,
                offset: 0x50,
            }],
            extended_capabilities: &[ExtendedCapability {
                id,
                version: 1,
                offset: 0x100,
            }],
            bytes: &bytes,
        })
    }

    #[test]
    fn an_access_is_named_by_every_register_that_it_touches() {
        let map = map(0x80, 0x01, &[]);
        assert_eq!(map.describe(0x00, 4), "Vendor ID, Device ID");
        assert_eq!(map.describe(0x06, 2), "Status");
        assert_eq!(map.describe(0x50, 4), "MSI Header, Message Control");
        assert_eq!(map.describe(0x118, 4), "AER Capabilities and Control");
        assert_eq!(map.describe(0x48, 4), "offset 0x48");
        assert_eq!(map.describe(0x1f0, 4), "AER +0xf0");
    }

    #[test]
    fn message_data_moves_with_the_size_of_the_address() {
        let name = |control| map(control, 1, &[]).at(0x58).unwrap().to_string();
        assert_eq!(name(0x00), "MSI Message Data");
        assert_eq!(name(0x80), "MSI Message Upper Address");
        assert_eq!(
            map(0x180, 1, &[]).at(0x64).unwrap().name,
            "Pending Bits",
            "64-bit with masking"
        );
    }

    #[test]
    fn a_register_that_repeats_has_a_number_and_a_made_up_count_ends_at_the_structure() {
        let two = map(0, 0x15, &[(8, 2 << 5)]);
        assert_eq!(
            two.at(0x110).unwrap().to_string(),
            "Resizable BAR Control 1"
        );
        assert_eq!(two.at(0x114), None);
        let endless = map(0, 0x02, &[(4, 7), (8, 0xff00_0000), (0x10, u32::MAX)]);
        assert!(endless.iter().all(|found| found.offset + found.len <= 4096));
    }

    #[test]
    fn no_byte_has_two_names() {
        for id in 0..=0x40 {
            let map = map(0x180, id, &[(4, u32::MAX), (8, u32::MAX)]);
            let registers: Vec<_> = map.iter().collect();
            for pair in registers.windows(2) {
                assert!(
                    pair[0].offset + pair[0].len <= pair[1].offset,
                    "{id:#x}: {} and {}",
                    pair[0],
                    pair[1]
                );
            }
        }
    }
}

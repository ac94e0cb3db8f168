//! Names of configuration registers, for people.
//!
//! The names are those of the specifications, in the short forms that `lspci`
//! and Linux use for structures. They are a view of the table of capabilities,
//! from which the cache has its rules as well.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::capabilities::{self, Facts, Ranges, Shape};
use warmbus_pci::registers::{self, capability};
use warmbus_pci::{Capability, ExtendedCapability, PortType};

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
        let facts = layout.facts();
        let mut add = |start, end, describe: &Describe<'_>| {
            let mut read = |offset| layout.dword(offset);
            let found = describe(&mut Shape::new(start, end, &facts, &mut read));
            map.add(start, end, &found);
        };
        let header_end = capabilities::header_end(layout.header_type);
        add(0, header_end, &|shape| capabilities::header(shape));
        for found in layout.capabilities {
            let start = u16::from(found.offset);
            add(start, layout.end_of(start), &|shape| {
                capabilities::standard(found.id, shape)
            });
        }
        for found in layout.extended_capabilities {
            add(found.offset, layout.end_of(found.offset), &|shape| {
                capabilities::extended(found.id, shape)
            });
        }
        if layout.extended_capabilities.is_empty() && layout.header_type <= 2 {
            let first = registers::EXTENDED_CAPABILITIES;
            add(first, first + 4, &|shape| {
                capabilities::no_extended_capability(shape)
            });
        }
        map.registers.sort_by_key(|found| found.offset);
        map.structures.sort_by_key(|&(start, end, _)| (start, end));
        map
    }

    /// Adds the registers of a structure. Adjacent ranges of one name are one
    /// register, the bytes of which behave differently.
    fn add(&mut self, start: u16, end: u16, found: &Ranges) {
        let structure = found.structure;
        self.structures.push((start, end, structure));
        let before = self.registers.len();
        for range in &found.ranges {
            let offset = start + range.at;
            match self.registers[before..].last_mut() {
                Some(last)
                    if (last.name, last.number) == (range.name, range.number)
                        && last.offset + last.len == offset =>
                {
                    last.len += range.len;
                }
                _ => self.registers.push(Register {
                    offset,
                    len: range.len,
                    structure,
                    name: range.name,
                    number: range.number,
                }),
            }
        }
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
    /// `Express Link Control, Link Status`. Bytes without a name are found by
    /// their offset.
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

/// Describes the structure of a shape.
type Describe<'a> = dyn Fn(&mut Shape<'_>) -> Ranges + 'a;

impl Layout<'_> {
    fn facts(&self) -> Facts {
        let express = self
            .capabilities
            .iter()
            .find(|found| found.id == capability::EXPRESS);
        let port_type = express.map(|found| {
            let flags = self.dword(u16::from(found.offset)) >> 16;
            PortType::from_flags(flags as u16)
        });
        let facts = Facts {
            vendor_id: self.dword(registers::VENDOR_ID) as u16,
            header_type: self.header_type,
            port_type,
            lanes: 0,
        };
        facts.with_lanes(
            self.capabilities,
            |start| self.end_of(start),
            |offset| self.dword(offset),
        )
    }

    fn end_of(&self, start: u16) -> u16 {
        capabilities::structure_end(start, self.capabilities, self.extended_capabilities)
    }

    /// The dword at `offset`; 0 where it is not known.
    fn dword(&self, offset: u16) -> u32 {
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

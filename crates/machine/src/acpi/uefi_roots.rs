//! Host bridges that UEFI has a protocol for (UEFI 2.10, 14.2,
//! `EFI_PCI_ROOT_BRIDGE_IO_PROTOCOL`).

use alloc::format;
use alloc::vec::Vec;

use super::roots::{Excluded, RootBridge, RootBuses};
use warmbus_memory::bytes::{le_u16, le_u64};
use warmbus_pci::BusRange;

/// The first byte of a QWORD Address Space Descriptor and of an End Tag
/// (ACPI 6.4.3.5.1, 6.4.2.9).
const QWORD: u8 = 0x8a;
const END: u8 = 0x79;
/// Bytes of the first three fields, which the length does not count.
const PREFIX: usize = 3;
/// Bytes of a whole descriptor, with the prefix.
const QWORD_SIZE: usize = 46;
/// Resource Type: bus numbers.
const BUS_NUMBERS: u8 = 2;
/// More descriptors than a root bridge has resources.
const MAX_DESCRIPTORS: usize = 64;

/// A root bridge, as its protocol describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UefiRootBridge {
    /// The segment; ACPI has 16 bits for it.
    pub segment: u32,
    /// The buses that UEFI has given it; `None` before it has.
    pub buses: Option<BusRange>,
}

impl UefiRootBridge {
    /// Bytes from the start of the descriptors that `Configuration()` returns
    /// to the end of them; `byte` reads one of them. `None` where they have no
    /// end.
    pub fn descriptors_size(mut byte: impl FnMut(usize) -> u8) -> Option<usize> {
        let mut offset = 0;
        for _ in 0..MAX_DESCRIPTORS {
            match byte(offset) {
                END => return Some(offset),
                QWORD => {
                    let length = u16::from_le_bytes([byte(offset + 1), byte(offset + 2)]);
                    offset += PREFIX + usize::from(length);
                }
                _ => return None,
            }
        }
        None
    }

    /// The root bridge of `segment` whose resources are `descriptors`.
    #[must_use]
    pub fn new(segment: u32, descriptors: &[u8]) -> Self {
        let mut rest = descriptors;
        let mut buses = None;
        while let (Some(&QWORD), Some(length)) = (rest.first(), le_u16(rest, 1)) {
            let size = PREFIX + usize::from(length);
            let Some(descriptor) = rest.get(..size.max(QWORD_SIZE)) else {
                break;
            };
            if descriptor[3] == BUS_NUMBERS {
                buses = buses.or_else(|| bus_range(descriptor));
            }
            rest = rest.get(size..).unwrap_or_default();
        }
        Self { segment, buses }
    }
}

/// Address Range Minimum and Address Length of a descriptor of bus numbers.
fn bus_range(descriptor: &[u8]) -> Option<BusRange> {
    let (first, count) = (le_u64(descriptor, 14)?, le_u64(descriptor, 38)?);
    let last = first.checked_add(count.checked_sub(1)?)?;
    Some(BusRange {
        first: u8::try_from(first).ok()?,
        last: u8::try_from(last).ok()?,
    })
}

/// The host bridges of `roots` that have buses, in the order of these, and
/// those that cannot be used.
pub(super) fn root_bridges(roots: &[UefiRootBridge]) -> (Vec<RootBridge>, Vec<Excluded>) {
    let (mut usable, mut excluded) = (Vec::new(), Vec::new());
    for root in roots {
        let why = match (u16::try_from(root.segment), root.buses) {
            (Ok(segment), Some(buses)) => {
                usable.push(RootBridge {
                    segment,
                    buses: RootBuses::Known(buses),
                    ecam: None,
                });
                continue;
            }
            (Ok(_), None) => "UEFI has given it no bus numbers",
            (Err(_), _) => "a segment has 16 bits",
        };
        excluded.push(Excluded {
            bus: None,
            reason: format!(
                "a root bridge of segment {:#x} is excluded: {why}",
                root.segment
            ),
        });
    }
    usable.sort_by_key(|root| (root.segment, root.buses.first()));
    (usable, excluded)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A descriptor of `kind` with `length` from `minimum` on.
    fn descriptor(kind: u8, minimum: u64, length: u64) -> Vec<u8> {
        let mut bytes = alloc::vec![QWORD, 43, 0, kind, 0, 0];
        for field in [64, minimum, minimum + length - 1, 0, length] {
            bytes.extend(u64::to_le_bytes(field));
        }
        bytes
    }

    fn parse(descriptors: &[Vec<u8>]) -> Option<BusRange> {
        let mut bytes = descriptors.concat();
        bytes.extend([END, 0]);
        let size = UefiRootBridge::descriptors_size(|at| bytes.get(at).copied().unwrap_or(0));
        assert_eq!(size, Some(bytes.len() - 2));
        UefiRootBridge::new(0, &bytes[..bytes.len() - 2]).buses
    }

    #[test]
    fn the_buses_are_those_of_the_descriptor_of_bus_numbers() {
        let memory = descriptor(0, 0x1000_0000, 0x2eff_0000);
        let buses = BusRange {
            first: 0x40,
            last: 0x7f,
        };
        let found = parse(&[
            memory.clone(),
            descriptor(1, 0, 0x1_0000),
            descriptor(2, 0x40, 0x40),
        ]);
        assert_eq!(found, Some(buses));
        assert_eq!(parse(&[memory]), None);
        assert_eq!(parse(&[]), None);
    }

    #[test]
    fn buses_that_are_none_are_none() {
        for (first, count) in [(0x100, 1), (0xff, 2), (u64::MAX, 1)] {
            let mut bytes = descriptor(2, 0, 1);
            bytes[14..22].copy_from_slice(&first.to_le_bytes());
            bytes[38..46].copy_from_slice(&u64::to_le_bytes(count));
            assert_eq!(UefiRootBridge::new(0, &bytes).buses, None, "{first:#x}");
        }
        let mut bytes = descriptor(2, 0, 1);
        bytes[38..46].copy_from_slice(&[0; 8]);
        assert_eq!(UefiRootBridge::new(0, &bytes).buses, None);
    }

    #[test]
    fn descriptors_without_an_end_have_no_size() {
        assert_eq!(UefiRootBridge::descriptors_size(|_| 0), None);
        assert_eq!(UefiRootBridge::descriptors_size(|_| QWORD), None);
        let endless = descriptor(0, 0, 1).repeat(100);
        let byte = |at: usize| endless.get(at).copied().unwrap_or(0);
        assert_eq!(UefiRootBridge::descriptors_size(byte), None);
    }

    #[test]
    fn cut_descriptors_are_ignored() {
        let whole = descriptor(2, 0x10, 0x10);
        for size in 0..whole.len() {
            assert_eq!(UefiRootBridge::new(0, &whole[..size]).buses, None, "{size}");
        }
        let mut short = whole;
        short[1] = 0;
        assert!(UefiRootBridge::new(0, &short).buses.is_some());
    }

    #[test]
    fn a_root_bridge_without_buses_or_with_a_large_segment_is_excluded_with_its_reason() {
        let buses = Some(BusRange { first: 0, last: 3 });
        let root = |segment, buses| UefiRootBridge { segment, buses };
        let roots = [
            root(1, buses),
            root(0x1_0000, buses),
            root(0, None),
            root(0, buses),
        ];
        let (usable, excluded) = root_bridges(&roots);
        let segments: Vec<_> = usable.iter().map(|root| root.segment).collect();
        assert_eq!(segments, [0, 1]);
        let reasons: Vec<_> = excluded.iter().map(|root| root.reason.as_str()).collect();
        assert_eq!(
            reasons,
            [
                "a root bridge of segment 0x10000 is excluded: a segment has 16 bits",
                "a root bridge of segment 0x0 is excluded: UEFI has given it no bus numbers",
            ]
        );
    }
}

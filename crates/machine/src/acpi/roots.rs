//! Host bridge devices of the DSDT and the SSDTs: `PNP0A08` and `PNP0A03`, in
//! `_HID` or `_CID`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::aml::{Device, Value, devices};
use super::tables::{HEADER_SIZE, Tables};
use warmbus_memory::bytes::le_u16;
use warmbus_memory::search::Finder;
use warmbus_pci::BusRange;

/// More host bridges than any machine has.
const MAX_ROOTS: usize = 1024;

/// A host bridge device that is present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RootBridge {
    pub(super) segment: u16,
    pub(super) buses: RootBuses,
    /// The address of bus 0 of its ECAM, where a `_CBA` names it.
    pub(super) ecam: Option<u64>,
}

/// The buses of a host bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RootBuses {
    /// Those of its `_CRS`.
    Known(BusRange),
    /// From its `_BBN` on.
    From(u8),
}

impl RootBuses {
    pub(super) const fn first(self) -> u8 {
        match self {
            Self::Known(buses) => buses.first,
            Self::From(first) => first,
        }
    }
}

/// A host bridge device that cannot be used.
#[derive(Debug)]
pub(super) struct Excluded {
    /// Its segment and first bus, where they are known.
    pub(super) bus: Option<(u16, u8)>,
    /// The reason, as a sentence.
    pub(super) reason: String,
}

/// The host bridges that are present, in the order of their buses, and those
/// that cannot be used: their segment, bus or presence is computed by AML.
pub(super) fn root_bridges(tables: &Tables<'_>) -> (Vec<RootBridge>, Vec<Excluded>) {
    let (mut roots, mut excluded) = (Vec::new(), Vec::new());
    for signature in [*b"DSDT", *b"SSDT"] {
        for table in tables.all(signature) {
            devices(&table[HEADER_SIZE..], &mut |device| {
                if roots.len() + excluded.len() < MAX_ROOTS && is_host_bridge(device) {
                    match root_bridge(device) {
                        Ok(root) => roots.extend(root),
                        Err(device) => excluded.push(device),
                    }
                }
            });
        }
    }
    roots.sort_by_key(|root| (root.segment, root.buses.first()));
    (roots, excluded)
}

fn is_host_bridge(device: &Device<'_>) -> bool {
    // As compressed EISA IDs (ACPI 19.3.4), and as text.
    static NUMBERS: [Finder<'_>; 2] = [
        Finder::new(&[0x0c, 0x41, 0xd0, 0x0a, 0x08]),
        Finder::new(&[0x0c, 0x41, 0xd0, 0x0a, 0x03]),
    ];
    static TEXTS: [Finder<'_>; 2] = [Finder::new(b"\x0dPNP0A08\0"), Finder::new(b"\x0dPNP0A03\0")];
    let mut ids = NUMBERS.iter().chain(&TEXTS);
    ids.any(|id| device.contains(id))
}

/// The host bridge of a device; `None` where it is not present.
fn root_bridge(device: &Device<'_>) -> Result<Option<RootBridge>, Excluded> {
    /// Bits of `_STA` (ACPI 6.3.7): present, functioning. Linux looks at the
    /// children of a device that has one of them.
    const USABLE: u64 = 1 | 1 << 3;
    static STA: Finder<'_> = Finder::new(b"_STA");
    static SEG: Finder<'_> = Finder::new(b"_SEG");
    static BBN: Finder<'_> = Finder::new(b"_BBN");
    static CBA: Finder<'_> = Finder::new(b"_CBA");

    let segment = device.value(&SEG).or(0);
    let bus = device.value(&BBN).or(0);
    let buses = match (bus_range(device), bus.map(u8::try_from)) {
        (Some(buses), _) => Some(RootBuses::Known(buses)),
        (None, Some(Ok(first))) => Some(RootBuses::From(first)),
        (None, _) => None,
    };
    let segment = segment.and_then(|segment| u16::try_from(segment).ok());
    let bus = segment.zip(buses.map(RootBuses::first));
    let computed = |what: &str| {
        let name = match (segment, bus) {
            (_, Some((segment, bus))) => format!("acpi {segment:04x}:{bus:02x}"),
            (Some(segment), None) => format!("a host bridge of segment {segment:04x}"),
            (None, None) => String::from("a host bridge of the DSDT or an SSDT"),
        };
        let reason = format!("{name} is excluded: its {what} is computed by AML");
        Err(Excluded { bus, reason })
    };
    match device.value(&STA).or(USABLE) {
        Some(status) if status & USABLE == 0 => return Ok(None),
        Some(_) => {}
        // Its clocks may be stopped, and an access would never complete.
        None => return computed("_STA"),
    }
    let Some(segment) = segment else {
        return computed("_SEG");
    };
    let Some(buses) = buses else {
        return computed("_BBN");
    };
    let ecam = match device.value(&CBA) {
        Value::Absent => None,
        Value::Constant(base) => Some(base),
        Value::Computed => return computed("_CBA"),
    };
    Ok(Some(RootBridge {
        segment,
        buses,
        ecam,
    }))
}

/// The buses in the `_CRS` of a device: those of its only Word Address Space
/// Descriptor for bus numbers (ACPI 6.4.3.5.3), if that is consistent.
fn bus_range(device: &Device<'_>) -> Option<BusRange> {
    // Tag, length without names, resource type.
    static DESCRIPTOR: Finder<'_> = Finder::new(&[0x88, 0x0d, 0x00, 0x02]);

    let mut found = Vec::new();
    for bytes in device.occurrences(&DESCRIPTOR) {
        let word = |at| le_u16(bytes, at);
        let (granularity, first, last) = (word(6)?, word(8)?, word(10)?);
        let (translation, length) = (word(12)?, word(14)?);
        let is_plain = granularity == 0 && translation == 0;
        // Where these do not fit together, code fills them in.
        let is_consistent = last.checked_sub(first)?.checked_add(1)? == length;
        let (first, last) = (u8::try_from(first).ok()?, u8::try_from(last).ok()?);
        if !is_plain || !is_consistent {
            return None;
        }
        found.push(BusRange { first, last });
    }
    match found[..] {
        [buses] => Some(buses),
        _ => None,
    }
}

//! Checks a finished assignment, from the registers alone.
//!
//! Bus numbers, windows and BAR addresses are decoded again from what the
//! registers hold, as the OS will decode them. Only the sizes of BARs, which no
//! register holds, and the parents are taken from the topology.

use alloc::vec::Vec;

use super::decode::{Windows, address_bits, bar_type, read_windows, rom_register};
use super::registers::{BAR0, BUS_NUMBERS, IO_BASE, VENDOR_ID, extended, sr_iov};
use super::{
    Anomaly, AnomalyKind, Bar, BarKind, BusNumbers, ConfigOffset, Decoder, Function, PciRange,
    Sbdf, Topology, Width, WindowKind,
};

/// Something that decodes addresses.
#[derive(Clone, Copy, Debug)]
struct DecodedRange {
    /// Index of the function in the topology.
    function: usize,
    is_io: bool,
    /// Whether reads may be merged and repeated.
    may_prefetch: bool,
    range: PciRange,
    decoder: Decoder,
}

/// The buses below a bridge.
#[derive(Clone, Copy, Debug)]
struct ForwardedBuses {
    /// Index of the bridge in the topology.
    function: usize,
    numbers: BusNumbers,
}

/// Checks that bus numbers nest, that every BAR and window lies inside the
/// window above it, and that no two on a bus overlap, buses and addresses.
/// Returns what is wrong.
///
/// Memory that is not prefetchable has to be in windows that are not, unless
/// the host bridge is preserved: a loader may know that no bridge above merges
/// reads (PCIe 7.5.1.2.1).
///
/// Everything that the check reads must be known, as it is after a capture;
/// what is not is not checked.
pub fn verify_assignment<K: KnownRegisters>(topology: &Topology, known: &K) -> Vec<Anomaly> {
    let mut checker = Checker {
        topology,
        found: Vec::new(),
    };
    let mut claims = Vec::new();
    let mut buses = Vec::new();
    let mut decoded: Vec<Option<Windows>> = Vec::new();
    for (index, function) in topology.functions.iter().enumerate() {
        let registers = RegistersOf {
            known,
            function: function.sbdf,
        };
        if registers.dword(VENDOR_ID).is_none() {
            decoded.push(None);
            continue;
        }
        if function.bridge.is_some() {
            let numbers = buses_of(&registers).filter(|numbers| numbers.secondary != 0);
            if let Some(numbers) = numbers {
                checker.check_buses(function, numbers);
                // Numbers that were refused are an anomaly already.
                let is_refused =
                    |anomaly: &AnomalyKind| matches!(anomaly, AnomalyKind::InvalidBusNumbers(_));
                if !function.anomalies.iter().any(is_refused) {
                    let function = index;
                    buses.push(ForwardedBuses { function, numbers });
                }
            }
        }
        decoded.push(function.bridge.map(|_| windows_of(&registers)));
        for bar in &function.bars {
            if let Some(claim) = claim_of(index, function, bar, &registers) {
                claims.push(claim);
            }
        }
        if let Some(open) = decoded[index] {
            let spaces = [
                (open.io, true, false),
                (open.memory, false, false),
                (open.prefetchable, false, true),
            ];
            claims.extend(
                spaces
                    .into_iter()
                    .filter_map(|(window, is_io, may_prefetch)| {
                        Some(DecodedRange {
                            function: index,
                            is_io,
                            may_prefetch,
                            range: window?,
                            decoder: Decoder::Window,
                        })
                    }),
            );
        }
    }
    for claim in &claims {
        checker.check_nesting(claim, &decoded);
    }
    checker.check_overlaps(claims);
    checker.check_shared_buses(buses);
    checker.found
}

struct Checker<'a> {
    topology: &'a Topology,
    found: Vec<Anomaly>,
}

impl Checker<'_> {
    fn fail(&mut self, function: Sbdf, kind: AnomalyKind) {
        self.found.push(Anomaly::new(function, kind));
    }

    fn check_buses(&mut self, function: &Function, found: BusNumbers) {
        let last = match function.parent {
            Some(parent) => {
                let bridge = self.topology.functions[parent].bridge;
                bridge.map_or(0xff, |bridge| bridge.subordinate)
            }
            None => self.topology.hosts[function.host].0.buses.last,
        };
        if let Err(error) = found.validate(function.sbdf.bus(), last) {
            self.fail(function.sbdf, AnomalyKind::BusesNotNested(error));
        }
    }

    /// Two bridges on one bus must not forward to the same bus.
    fn check_shared_buses(&mut self, mut buses: Vec<ForwardedBuses>) {
        let bus_of = |one: &ForwardedBuses| {
            let function = &self.topology.functions[one.function];
            (function.host, function.sbdf.bus())
        };
        buses.sort_by_key(|one| (bus_of(one), one.numbers.secondary));
        let mut shared = Vec::new();
        let mut highest: Option<ForwardedBuses> = None;
        for one in buses {
            match highest {
                Some(before) if bus_of(&before) == bus_of(&one) => {
                    if one.numbers.secondary <= before.numbers.subordinate {
                        shared.push((before, one));
                    }
                    if one.numbers.subordinate > before.numbers.subordinate {
                        highest = Some(one);
                    }
                }
                _ => highest = Some(one),
            }
        }
        for (before, one) in shared {
            let functions = &self.topology.functions;
            let kind = AnomalyKind::BusesOverlap {
                secondary: one.numbers.secondary,
                subordinate: one.numbers.subordinate,
                other: functions[before.function].sbdf,
                other_secondary: before.numbers.secondary,
                other_subordinate: before.numbers.subordinate,
            };
            let sbdf = functions[one.function].sbdf;
            self.fail(sbdf, kind);
        }
    }

    fn check_nesting(&mut self, claim: &DecodedRange, decoded: &[Option<Windows>]) {
        let function = &self.topology.functions[claim.function];
        let host = &self.topology.hosts[function.host].0;
        // The ranges that are forwarded to the function, each with whether it
        // is prefetchable.
        let above: Vec<(PciRange, bool)> = match function.parent {
            Some(parent) => {
                let Some(above) = decoded[parent] else {
                    return;
                };
                let windows = if claim.is_io {
                    [(above.io, false), (None, false)]
                } else {
                    [(above.memory, false), (above.prefetchable, true)]
                };
                let open = windows.into_iter();
                open.filter_map(|(range, prefetchable)| Some((range?, prefetchable)))
                    .collect()
            }
            // Only AML code, which is not run, describes what a host bridge of
            // an ACPI machine forwards.
            None if host.preserve_config && host.windows.is_empty() => return,
            None => {
                let windows = host.windows.iter();
                windows
                    .filter(|window| (window.kind == WindowKind::Io) == claim.is_io)
                    .filter_map(|window| Some((window.pci_range()?, window.prefetchable)))
                    .collect()
            }
        };
        let holds = |(window, _): &&(PciRange, bool)| window.contains(claim.range);
        let (base, limit) = (claim.range.base(), claim.range.limit());
        let by = claim.decoder;
        if !above.iter().any(|window| holds(&window)) {
            let kind = AnomalyKind::NotForwarded {
                decoder: by,
                base,
                limit,
            };
            self.fail(function.sbdf, kind);
        } else if !claim.may_prefetch
            && !host.preserve_config
            && above
                .iter()
                .filter(holds)
                .all(|(_, prefetchable)| *prefetchable)
        {
            let kind = AnomalyKind::OnlyPrefetchable {
                decoder: by,
                base,
                limit,
            };
            self.fail(function.sbdf, kind);
        }
    }

    /// On one bus no two ranges of a space may overlap.
    fn check_overlaps(&mut self, mut claims: Vec<DecodedRange>) {
        let bus = |claim: &DecodedRange| {
            let function = &self.topology.functions[claim.function];
            (function.host, function.sbdf.bus(), claim.is_io)
        };
        claims.sort_by_key(|claim| {
            let (host, bus, is_io) = bus(claim);
            let space = (host as u64) << 9 | u64::from(bus) << 1 | u64::from(is_io);
            (space, claim.range.base())
        });
        let mut overlaps = Vec::new();
        let mut highest: Option<DecodedRange> = None;
        for claim in claims {
            match highest {
                Some(before) if bus(&before) == bus(&claim) => {
                    if claim.range.base() <= before.range.limit() {
                        overlaps.push((before, claim));
                    }
                    if claim.range.limit() > before.range.limit() {
                        highest = Some(claim);
                    }
                }
                _ => highest = Some(claim),
            }
        }
        for (before, claim) in overlaps {
            let functions = &self.topology.functions;
            let kind = AnomalyKind::Overlap {
                decoder: claim.decoder,
                base: claim.range.base(),
                limit: claim.range.limit(),
                other: functions[before.function].sbdf,
                other_decoder: before.decoder,
                other_base: before.range.base(),
                other_limit: before.range.limit(),
            };
            let sbdf = functions[claim.function].sbdf;
            self.fail(sbdf, kind);
        }
    }
}

/// Registers whose values are known without an access to the function, or by
/// one that changes nothing. Closures of the same shape are `KnownRegisters`.
pub trait KnownRegisters {
    /// The value of the `width` bytes at `offset` of `function`; `None` where it
    /// is not known.
    fn known(&self, function: Sbdf, offset: ConfigOffset, width: Width) -> Option<u32>;
}

impl<F: Fn(Sbdf, ConfigOffset, Width) -> Option<u32>> KnownRegisters for F {
    fn known(&self, function: Sbdf, offset: ConfigOffset, width: Width) -> Option<u32> {
        self(function, offset, width)
    }
}

/// The registers of one function, as far as their values are known.
struct RegistersOf<'a, K> {
    known: &'a K,
    function: Sbdf,
}

impl<K: KnownRegisters> RegistersOf<'_, K> {
    fn byte(&self, offset: u16) -> Option<u8> {
        let value = self.value(offset, Width::Byte)?;
        Some(value as u8)
    }

    fn word(&self, offset: u16) -> Option<u16> {
        let value = self.value(offset, Width::Word)?;
        Some(value as u16)
    }

    fn dword(&self, offset: u16) -> Option<u32> {
        self.value(offset, Width::Dword)
    }

    fn value(&self, offset: u16, width: Width) -> Option<u32> {
        let offset = ConfigOffset::wrapping(offset);
        self.known.known(self.function, offset, width)
    }
}

fn buses_of<K: KnownRegisters>(registers: &RegistersOf<'_, K>) -> Option<BusNumbers> {
    let [primary, secondary] = registers.word(BUS_NUMBERS)?.to_le_bytes();
    let subordinate = registers.byte(BUS_NUMBERS + 2)?;
    Some(BusNumbers {
        primary,
        secondary,
        subordinate,
    })
}

fn windows_of<K: KnownRegisters>(registers: &RegistersOf<'_, K>) -> Windows {
    read_windows(&mut |offset| match offset {
        // Secondary Status beside it is never cached.
        IO_BASE => registers.word(offset).map_or(0, u32::from),
        _ => registers.dword(offset).unwrap_or(0),
    })
}

/// What a BAR decodes: the address in its register and the size that is known.
fn claim_of<K: KnownRegisters>(
    index: usize,
    function: &Function,
    bar: &Bar,
    registers: &RegistersOf<'_, K>,
) -> Option<DecodedRange> {
    bar.address?;
    let size = bar.size?;
    let is_io = bar.kind == BarKind::Io;
    let is_vf = bar.index > 6;
    let total = if is_vf {
        size.checked_mul(u64::from(function.sriov?.total_vfs))?
    } else {
        size
    };
    // A fixed range is where it is, whatever it is below.
    let mut may_prefetch = bar.fixed || bar.kind == BarKind::Rom;
    let base = if bar.fixed {
        bar.address?
    } else {
        let register = match bar.index {
            0..6 => BAR0 + 4 * u16::from(bar.index),
            6 => rom_register(function.header_type)?,
            vf => {
                let mut capabilities = function.extended_capabilities.iter();
                let base = capabilities.find(|one| one.id == extended::SR_IOV)?.offset;
                base + sr_iov::VF_BAR0 + 4 * u16::from(vf - 7)
            }
        };
        let low = registers.dword(register)?;
        let kind = match bar.kind {
            BarKind::Rom => BarKind::Rom,
            _ => {
                let (kind, prefetchable) = bar_type(low)?;
                may_prefetch |= prefetchable;
                kind
            }
        };
        let high = if kind == BarKind::Memory64 {
            registers.dword(register + 4)?
        } else {
            0
        };
        u64::from(high) << 32 | u64::from(address_bits(kind, low))
    };
    Some(DecodedRange {
        function: index,
        is_io,
        may_prefetch,
        range: PciRange::from_size(base, total)?,
        decoder: if is_vf { Decoder::VfBars } else { Decoder::Bar },
    })
}

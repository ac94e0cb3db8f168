//! Checks a finished assignment, from the registers alone.
//!
//! Bus numbers, windows and BAR addresses are decoded again from what the
//! registers hold, as the OS will decode them. Only the sizes of BARs, which no
//! register holds, and the parents are taken from the topology.

use alloc::vec::Vec;

use super::decode::{Windows, address_bits, bar_type, read_windows, rom_register};
use super::registers::{BAR0, BUS_NUMBERS, IO_BASE, VENDOR_ID, extended, sr_iov};
use super::{
    Anomaly, AnomalyKind, Bar, BarKind, BusNumbers, ConfigOffset, Decoder, Function, HostWindow,
    PciRange, Sbdf, Topology, Width, WindowKind,
};

/// Something that decodes addresses.
#[derive(Clone, Copy, Debug)]
struct DecodedRange {
    /// Index of the function in the topology.
    function: usize,
    is_io: bool,
    range: PciRange,
    decoder: Decoder,
}

/// Checks that bus numbers nest, that every BAR and window lies inside the
/// window above it, and that no two on a bus overlap. Returns what is wrong.
///
/// Everything that the check reads must be known, as it is after a capture;
/// what is not is not checked.
pub fn verify_assignment<K: KnownRegisters>(topology: &Topology, known: &K) -> Vec<Anomaly> {
    let mut checker = Checker {
        topology,
        found: Vec::new(),
    };
    let mut claims = Vec::new();
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
            checker.check_buses(function, &registers);
        }
        decoded.push(function.bridge.map(|_| windows_of(&registers)));
        for bar in &function.bars {
            if let Some(claim) = claim_of(index, function, bar, &registers) {
                claims.push(claim);
            }
        }
        if let Some(open) = decoded[index] {
            let spaces = [
                (open.io, true),
                (open.memory, false),
                (open.prefetchable, false),
            ];
            claims.extend(spaces.into_iter().filter_map(|(window, is_io)| {
                Some(DecodedRange {
                    function: index,
                    is_io,
                    range: window?,
                    decoder: Decoder::Window,
                })
            }));
        }
    }
    for claim in &claims {
        checker.check_nesting(claim, &decoded);
    }
    checker.check_overlaps(claims);
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

    fn check_buses<K: KnownRegisters>(
        &mut self,
        function: &Function,
        registers: &RegistersOf<'_, K>,
    ) {
        let Some(found) = buses_of(registers) else {
            return;
        };
        if found.secondary == 0 {
            return;
        }
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

    fn check_nesting(&mut self, claim: &DecodedRange, decoded: &[Option<Windows>]) {
        let function = &self.topology.functions[claim.function];
        let is_inside = |window: PciRange| window.contains(claim.range);
        let fits = match function.parent {
            Some(parent) => decoded[parent].is_none_or(|above| {
                let windows = if claim.is_io {
                    [above.io, None]
                } else {
                    [above.memory, above.prefetchable]
                };
                windows.into_iter().flatten().any(is_inside)
            }),
            None => {
                let host = &self.topology.hosts[function.host].0;
                // Only AML code, which is not run, describes what a host bridge of
                // an ACPI machine forwards.
                let unknown = host.preserve_config && host.windows.is_empty();
                unknown
                    || host
                        .windows
                        .iter()
                        .filter(|window| (window.kind == WindowKind::Io) == claim.is_io)
                        .filter_map(HostWindow::pci_range)
                        .any(is_inside)
            }
        };
        if !fits {
            let kind = AnomalyKind::NotForwarded {
                decoder: claim.decoder,
                base: claim.range.base(),
                limit: claim.range.limit(),
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
            _ => bar_type(low)?.0,
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
        range: PciRange::from_size(base, total)?,
        decoder: if is_vf { Decoder::VfBars } else { Decoder::Bar },
    })
}

//! Checks a finished assignment, from the registers alone.
//!
//! Nothing of the plan is used: bus numbers, windows and BAR addresses are
//! decoded again from what the registers hold, as whoever comes next will
//! decode them. Only the sizes of BARs, which no register holds, and the
//! parents are taken from the topology.

use alloc::format;
use alloc::vec::Vec;

use super::decode::{Windows, address_bits, bar_type, rom_register, windows};
use super::registers::{BAR0, BUS_NUMBERS, IO_BASE, extended, sr_iov};
use super::{Anomaly, Bar, BarKind, BridgeWindow, Function, Sbdf, Topology, WindowKind};
use crate::order::{pair, sort_by_number};
use crate::pcsc::{Block, Cached};

/// Something that decodes addresses.
#[derive(Clone, Copy, Debug)]
struct Claim {
    /// Index of the function in the topology.
    function: usize,
    is_io: bool,
    range: BridgeWindow,
    /// The window that it must be inside of, or one of several.
    name: &'static str,
}

/// Checks that bus numbers nest, that every BAR and window lies inside the
/// window above it, and that no two on a bus overlap. Returns what is wrong.
///
/// Everything that the check reads must be cached, as it is after a capture;
/// what is not is left out.
pub fn check<A: super::ConfigAccess>(topology: &Topology, config: &Cached<A>) -> Vec<Anomaly> {
    let mut checker = Checker {
        topology,
        found: Vec::new(),
    };
    let mut claims = Vec::new();
    let mut decoded: Vec<Option<Windows>> = Vec::new();
    for (index, function) in topology.functions.iter().enumerate() {
        let Some(block) = config.block(function.sbdf) else {
            decoded.push(None);
            continue;
        };
        if function.bridge.is_some() {
            checker.check_buses(function, block);
        }
        decoded.push(function.bridge.map(|_| windows_of(block)));
        for bar in &function.bars {
            if let Some(claim) = claim_of(index, function, bar, block) {
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
                Some(Claim {
                    function: index,
                    is_io,
                    range: window?,
                    name: "window",
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
    fn fail(&mut self, function: Sbdf, text: alloc::string::String) {
        self.found.push(Anomaly { function, text });
    }

    fn check_buses(&mut self, function: &Function, block: &Block) {
        let Some([primary, secondary, subordinate]) = buses_of(block) else {
            return;
        };
        if secondary == 0 {
            return;
        }
        let (above_first, above_last) = match function.parent {
            Some(parent) => {
                let bridge = self.topology.functions[parent].bridge;
                bridge.map_or((0, 0xff), |bridge| (bridge.secondary, bridge.subordinate))
            }
            None => {
                let buses = self.topology.hosts[function.host].0.buses;
                (buses.first, buses.last)
            }
        };
        let nests = primary == function.sbdf.bus()
            && secondary > above_first
            && secondary <= subordinate
            && subordinate <= above_last;
        if !nests {
            let text = format!(
                "buses {primary:02x}/{secondary:02x}/{subordinate:02x} do not nest in {above_first:02x} to {above_last:02x}"
            );
            self.fail(function.sbdf, text);
        }
    }

    fn check_nesting(&mut self, claim: &Claim, decoded: &[Option<Windows>]) {
        let function = &self.topology.functions[claim.function];
        let is_inside = |window: BridgeWindow| {
            window.base <= claim.range.base && claim.range.limit <= window.limit
        };
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
                // ACPI does not tell what a host bridge forwards, unless its
                // code is run.
                let unknown = host.preserve && host.windows.is_empty();
                unknown
                    || host
                        .windows
                        .iter()
                        .filter(|window| (window.kind == WindowKind::Io) == claim.is_io)
                        .any(|window| {
                            is_inside(BridgeWindow {
                                base: window.pci_address,
                                limit: window.pci_address.saturating_add(window.size - 1),
                            })
                        })
            }
        };
        if !fits {
            let text = format!(
                "{} {:#x} to {:#x} is outside of what the bridge above forwards",
                claim.name, claim.range.base, claim.range.limit
            );
            self.fail(function.sbdf, text);
        }
    }

    /// On one bus no two ranges of a space may overlap.
    fn check_overlaps(&mut self, mut claims: Vec<Claim>) {
        let bus = |claim: &Claim| {
            let function = &self.topology.functions[claim.function];
            (function.host, function.sbdf.bus(), claim.is_io)
        };
        sort_by_number(&mut claims, |claim| {
            let (host, bus, is_io) = bus(claim);
            let space = (host as u64) << 9 | u64::from(bus) << 1 | u64::from(is_io);
            pair(space, claim.range.base)
        });
        let mut overlaps = Vec::new();
        let mut highest: Option<Claim> = None;
        for claim in claims {
            match highest {
                Some(before) if bus(&before) == bus(&claim) => {
                    if claim.range.base <= before.range.limit {
                        overlaps.push((before, claim));
                    }
                    if claim.range.limit > before.range.limit {
                        highest = Some(claim);
                    }
                }
                _ => highest = Some(claim),
            }
        }
        for (before, claim) in overlaps {
            let functions = &self.topology.functions;
            let text = format!(
                "{} {:#x} to {:#x} overlaps {} {:#x} to {:#x} of {}",
                claim.name,
                claim.range.base,
                claim.range.limit,
                before.name,
                before.range.base,
                before.range.limit,
                functions[before.function].sbdf
            );
            let sbdf = functions[claim.function].sbdf;
            self.fail(sbdf, text);
        }
    }
}

fn buses_of(block: &Block) -> Option<[u8; 3]> {
    let [primary, secondary] = block.word(BUS_NUMBERS)?.to_le_bytes();
    let subordinate = block.data().get(usize::from(BUS_NUMBERS) + 2)?;
    Some([primary, secondary, *subordinate])
}

fn windows_of(block: &Block) -> Windows {
    windows(&mut |offset| match offset {
        // Secondary Status beside it is never cached.
        IO_BASE => block.word(offset).map_or(0, u32::from),
        _ => block.dword(offset).unwrap_or(0),
    })
}

/// What a BAR claims: the address in its register and the size that is known.
fn claim_of(index: usize, function: &Function, bar: &Bar, block: &Block) -> Option<Claim> {
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
                let base = block.extended_capability(extended::SR_IOV)?;
                base + sr_iov::VF_BAR0 + 4 * u16::from(vf - 7)
            }
        };
        let low = block.dword(register)?;
        let kind = match bar.kind {
            BarKind::Rom => BarKind::Rom,
            _ => bar_type(low)?.0,
        };
        let high = if kind == BarKind::Memory64 {
            block.dword(register + 4)?
        } else {
            0
        };
        u64::from(high) << 32 | u64::from(address_bits(kind, low))
    };
    Some(Claim {
        function: index,
        is_io,
        range: BridgeWindow {
            base,
            limit: base.checked_add(total.checked_sub(1)?)?,
        },
        name: if is_vf { "VF BARs" } else { "BAR" },
    })
}

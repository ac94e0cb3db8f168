//! Counting the accesses of a trace by kind of function.
//!
//! A trace has all that is needed to recognise a function: the program that
//! made it has read class code, header type and capability lists.

use std::collections::BTreeMap;
use std::ops::Range;

use warmbus_pci::registers::{self, extended, sr_iov};
use warmbus_pci::{Function, Sbdf};

use super::counts::{BootCount, Stage};
use super::kind::Kind;
use crate::hierarchy::Hierarchy;
use crate::input::{Capture, Space};
use crate::trace::{Access, Kind as AccessKind};

const SPACE: usize = 4096;
const SECONDARY_BUS: usize = registers::SECONDARY_BUS as usize;
/// Bus Master Enable in the Command register.
const BUS_MASTER: u64 = 1 << 2;
/// `TotalVFs` in the SR-IOV capability, above `InitialVFs` (PCIe 9.3.3.6).
const TOTAL_VFS: u16 = sr_iov::INITIAL_VFS + 2;

/// What a trace shows of one function.
#[derive(Debug)]
struct Seen {
    bytes: Vec<u8>,
    known: Vec<bool>,
    accesses: u64,
    /// Bus Master Enable was set, which is what drivers do (PCIe 7.5.1.1.3).
    driver: bool,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            bytes: vec![0; SPACE],
            known: vec![false; SPACE],
            accesses: 0,
            driver: false,
        }
    }
}

impl Seen {
    fn note(&mut self, access: &Access) {
        let is_write = access.kind == AccessKind::Write;
        if is_write && access.offset == registers::COMMAND && access.value & BUS_MASTER != 0 {
            self.driver = true;
        }
        let is_bus_number = usize::from(access.offset) & !3 == SECONDARY_BUS & !3;
        if is_write && !is_bus_number {
            return;
        }
        let bytes = access.value.to_le_bytes();
        for (at, byte) in (usize::from(access.offset)..SPACE)
            .zip(bytes)
            .take(access.size.into())
        {
            self.bytes[at] = byte;
            self.known[at] = true;
        }
    }

    fn is_present(&self) -> bool {
        let vendor = u16::from_le_bytes([self.bytes[0], self.bytes[1]]);
        self.known[0] && !matches!(vendor, 0 | 1 | 0xffff)
    }
}

/// The accesses number `part` of `all` by the kind of their function. Those to
/// absent functions count for the bridge above their bus, or else for the host
/// bridge. `all` shows what the functions are: who made `part` may know it
/// already.
#[must_use]
pub fn by_kind(all: &[Access], part: Range<usize>, stage: Stage, topology: &str) -> Vec<BootCount> {
    let mut seen: BTreeMap<(u8, u8), Seen> = BTreeMap::new();
    for (number, access) in all.iter().enumerate() {
        let function = seen.entry((access.bus, access.devfn)).or_default();
        function.accesses += u64::from(part.contains(&number));
        if !access.is_absent_probe() {
            function.note(access);
        }
    }
    let (mut present, absent): (BTreeMap<_, _>, BTreeMap<_, _>) =
        seen.into_iter().partition(|(_, seen)| seen.is_present());
    for ((bus, _), lost) in absent {
        let is_above = |(_, seen): &(&(u8, u8), &Seen)| {
            let is_bridge = seen.bytes[0x0e] & 0x7f == 1;
            is_bridge && bus != 0 && seen.bytes[SECONDARY_BUS] == bus
        };
        let above = present.iter().find(is_above).map(|(place, _)| *place);
        if let Some(owner) = present.get_mut(&above.unwrap_or((0, 0))) {
            owner.accesses += lost.accesses;
        }
    }
    let spaces = present.iter().map(|(&place, seen)| {
        let space = Space {
            bytes: seen.bytes.clone(),
            known: seen.known.clone(),
            extension: None,
        };
        (address(place), space)
    });
    let capture = Capture {
        file: topology.to_owned(),
        kind: crate::input::Kind::Dump,
        report: None,
        spaces: spaces.collect(),
        handover: None,
        problems: Vec::new(),
    };
    let hierarchy = Hierarchy::new(&capture);
    let mut counts: BTreeMap<(Kind, bool), BootCount> = BTreeMap::new();
    for (&place, seen) in &present {
        let Some(function) = hierarchy.topology().function(address(place)) else {
            continue;
        };
        let kind = Kind::of(function);
        let driver = seen.driver || function.header_type != 0;
        let count = counts.entry((kind, driver)).or_insert_with(|| BootCount {
            stage,
            topology: topology.to_owned(),
            kind,
            driver,
            functions: 0,
            total_vfs: 0,
            least: u64::MAX,
            most: 0,
            all: 0,
        });
        count.functions += 1;
        count.total_vfs += total_vfs(function, &seen.bytes);
        count.least = count.least.min(seen.accesses);
        count.most = count.most.max(seen.accesses);
        count.all += seen.accesses;
    }
    counts.into_values().collect()
}

const fn address((bus, devfn): (u8, u8)) -> Sbdf {
    Sbdf::from_routing_id(0, (bus as u16) << 8 | devfn as u16)
}

/// `TotalVFs` of `function`, whose configuration space is `bytes`.
fn total_vfs(function: &Function, bytes: &[u8]) -> u64 {
    let mut capabilities = function.extended_capabilities.iter();
    let found = capabilities.find(|capability| capability.id == extended::SR_IOV);
    let at = found.map(|capability| usize::from(capability.offset + TOTAL_VFS));
    let field = at.and_then(|at| bytes.get(at..at + 2));
    field.map_or(0, |field| {
        u64::from(u16::from_le_bytes([field[0], field[1]]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(kind: AccessKind, bus: u8, offset: u16, value: u64) -> Access {
        Access {
            kind,
            bus,
            devfn: 0,
            offset,
            size: 4,
            value,
        }
    }

    #[test]
    fn accesses_count_for_their_function_and_absent_ones_for_the_bridge_above() {
        let read = |bus, offset, value| access(AccessKind::Read, bus, offset, value);
        let all = [
            // A bridge without capabilities on bus 0, with bus 1 below it.
            read(0, 0, 0x0001_1b36),
            read(0, 8, 0x0604_0000),
            read(0, 0x0c, 0x0001_0000),
            access(AccessKind::Write, 0, 0x18, 0x0001_0100),
            read(1, 0, 0xffff_ffff),
            // A write of ones is no value of a register.
            access(AccessKind::Write, 0, 0x10, 0xffff_ffff),
        ];
        let rows = by_kind(&all, 0..6, Stage::LinuxStock, "one");
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(
            (rows[0].kind, rows[0].functions, rows[0].all),
            (Kind::Bridge, 1, 6)
        );
        // The rest only shows what the function is.
        let rows = by_kind(&all, 4..5, Stage::LinuxStock, "one");
        assert_eq!((rows[0].kind, rows[0].all), (Kind::Bridge, 1));
    }
}

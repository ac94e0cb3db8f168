//! Which addresses the functions decode, by the registers they hold now.

use warmbus_pci::{Width, WindowKind};

use crate::bar::BarSpace;
use crate::fabric::{Fabric, NodeId};
use crate::model::FunctionModel;

impl FunctionModel {
    /// Whether a write of `data` puts all ones into a BAR that decodes.
    pub(crate) fn is_sizing_while_decoding(&self, offset: u16, width: Width, data: u32) -> bool {
        let bars = if self.bridge.is_some() { 2 } else { 6 };
        let command = self.space.peek(4, Width::Word);
        if width != Width::Dword || offset < 0x10 || data & 0xffff_f800 != 0xffff_f800 {
            return false;
        }
        if offset == self.rom_offset() {
            return self.rom != 0 && data & 1 != 0 && command & 2 != 0;
        }
        let index = usize::from((offset - 0x10) / 4);
        if index >= bars {
            return false;
        }
        let slot = |i: usize| self.bars.get(i).copied().flatten();
        let below = index
            .checked_sub(1)
            .and_then(slot)
            .filter(|b| b.space == BarSpace::Memory64);
        match slot(index).or(below).map(|b| b.space) {
            Some(BarSpace::Io | BarSpace::Io16) => command & 1 != 0,
            Some(_) => command & 2 != 0,
            None => false,
        }
    }
}

/// A range of addresses that a function takes for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The function.
    pub node: NodeId,
    /// Which BAR, as Linux numbers resources: 0 to 5, 6 for the ROM, 7 to 12
    /// for VF BARs.
    pub index: u8,
    /// I/O space, not memory.
    pub io: bool,
    /// First address.
    pub base: u64,
    /// Bytes; of a VF BAR those of all VFs.
    pub size: u64,
}

/// A range that something on a bus takes: a BAR, or a bridge for what is
/// below it.
#[derive(Clone, Debug)]
struct Claim {
    io: bool,
    base: u64,
    last: u64,
    what: String,
}

impl Claim {
    fn within(&self, outer: &Claim) -> bool {
        self.io == outer.io && outer.base <= self.base && self.last <= outer.last
    }
}

impl Fabric {
    /// Everything that functions decode now: BARs and Enhanced Allocation
    /// entries whose space is enabled in COMMAND, enabled ROMs, and VF BARs
    /// that hold an address.
    pub fn decoded(&self) -> Vec<Decoded> {
        self.nodes()
            .flat_map(|node| self.decoded_by(node))
            .collect()
    }

    fn decoded_by(&self, node: NodeId) -> Vec<Decoded> {
        let model = &self.nodes[node.0].model;
        let command = model.space.peek(4, Width::Word);
        let mut found = Vec::new();
        if model.power_state() != 0 {
            return found;
        }
        let address = |at: u16, space: BarSpace| {
            let low = model.space.peek(at, Width::Dword);
            match space {
                BarSpace::Io | BarSpace::Io16 => u64::from(low & !3),
                BarSpace::Memory32 => u64::from(low & !0xf),
                BarSpace::Memory64 => {
                    let high = model.space.peek(at + 4, Width::Dword);
                    u64::from(high) << 32 | u64::from(low & !0xf)
                }
            }
        };
        for (index, bar) in (0..).zip(model.bars) {
            let Some(bar) = bar else { continue };
            let io = matches!(bar.space, BarSpace::Io | BarSpace::Io16);
            if command & if io { 1 } else { 2 } != 0 {
                let base = address(0x10 + u16::from(index) * 4, bar.space);
                let size = bar.decoded_size();
                found.push(Decoded {
                    node,
                    index,
                    io,
                    base,
                    size,
                });
            }
        }
        let rom = model.space.peek(model.rom_offset(), Width::Dword);
        if model.rom != 0 && rom & 1 != 0 && command & 2 != 0 {
            let (base, size) = (u64::from(rom & 0xffff_f800), model.rom);
            found.push(Decoded {
                node,
                index: 6,
                io: false,
                base,
                size,
            });
        }
        for allocation in model.allocations() {
            // Command switches these ranges as it does BARs (PCIe 7.8.5.1).
            if command & if allocation.io { 1 } else { 2 } != 0 {
                found.push(Decoded {
                    node,
                    index: allocation.index,
                    io: allocation.io,
                    base: allocation.base,
                    size: allocation.size,
                });
            }
        }
        for (index, at, bar, size) in model.vf_bars() {
            let base = address(at, bar.space);
            if base != 0 {
                found.push(Decoded {
                    node,
                    index: 7 + index,
                    io: false,
                    base,
                    size,
                });
            }
        }
        found
    }

    /// The windows of a bridge that are open and enabled in COMMAND.
    fn windows(&self, bridge: NodeId) -> Vec<Claim> {
        let node = &self.nodes[bridge.0].model;
        let word = |at| u64::from(node.space.peek(at, Width::Word));
        let byte = |at| u64::from(node.space.peek(at, Width::Byte));
        let dword = |at| u64::from(node.space.peek(at, Width::Dword));
        let command = word(4);
        let mut windows = Vec::new();
        let mut add = |io: bool, base: u64, last: u64, what: &str| {
            if base <= last && command & if io { 1 } else { 2 } != 0 {
                let what = format!("the {what} window of {bridge} {}", node.name);
                windows.push(Claim {
                    io,
                    base,
                    last,
                    what,
                });
            }
        };
        if node.windows.io_bits > 0 {
            let base = (byte(0x1c) & 0xf0) << 8 | word(0x30) << 16;
            let last = (byte(0x1d) & 0xf0) << 8 | word(0x32) << 16 | 0xfff;
            add(true, base, last, "I/O");
        }
        let (base, last) = (
            (word(0x20) & 0xfff0) << 16,
            (word(0x22) & 0xfff0) << 16 | 0xf_ffff,
        );
        add(false, base, last, "memory");
        if node.windows.prefetchable_bits > 0 {
            let base = dword(0x28) << 32 | (word(0x24) & 0xfff0) << 16;
            let last = dword(0x2c) << 32 | (word(0x26) & 0xfff0) << 16 | 0xf_ffff;
            add(false, base, last, "prefetchable");
        }
        windows
    }

    /// What is wrong with the addresses that functions decode now: each
    /// sentence names a range that no window of the bridge or host bridge
    /// above lets through, or two ranges on one bus that overlap. Empty when
    /// every address of every range reaches its function and nothing else.
    pub fn misrouted(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for host in &self.hosts {
            let windows = &host.bridge.windows;
            let outer: Vec<_> = windows
                .iter()
                .map(|w| Claim {
                    io: w.kind == WindowKind::Io,
                    base: w.pci_address,
                    last: w.pci_address.saturating_add(w.size - 1),
                    what: host.bridge.name.clone(),
                })
                .collect();
            self.check_bus(&host.roots, &outer, &host.bridge.name, &mut wrong);
        }
        for (bridge, node) in self.nodes().zip(&self.nodes) {
            if node.model.bridge.is_some() {
                let name = format!("{bridge} {}", node.model.name);
                self.check_bus(&node.children, &self.windows(bridge), &name, &mut wrong);
            }
        }
        wrong
    }

    fn check_bus(&self, bus: &[NodeId], outer: &[Claim], above: &str, wrong: &mut Vec<String>) {
        let mut claims = Vec::new();
        for node in bus {
            let name = self.name(*node);
            claims.extend(self.decoded_by(*node).into_iter().map(|d| Claim {
                io: d.io,
                base: d.base,
                last: d.base.saturating_add(d.size - 1),
                what: format!("BAR {} of {node} {name}", d.index),
            }));
            if self.nodes[node.0].model.bridge.is_some() {
                claims.extend(self.windows(*node));
            }
        }
        claims.sort_by_key(|c| (c.io, c.base, c.last));
        for claim in &claims {
            if !outer.iter().any(|o| claim.within(o)) {
                wrong.push(format!(
                    "{} at {:#x}-{:#x} is in no window of {above}",
                    claim.what, claim.base, claim.last
                ));
            }
        }
        // Sorted by base, an overlap is always one with the furthest end so far.
        let mut furthest: Option<&Claim> = None;
        for claim in &claims {
            if let Some(other) = furthest.filter(|f| f.io == claim.io && claim.base <= f.last) {
                wrong.push(format!(
                    "{} at {:#x}-{:#x} overlaps {} at {:#x}-{:#x}",
                    claim.what, claim.base, claim.last, other.what, other.base, other.last
                ));
            }
            if furthest.is_none_or(|f| f.io != claim.io || claim.last > f.last) {
                furthest = Some(claim);
            }
        }
    }
}

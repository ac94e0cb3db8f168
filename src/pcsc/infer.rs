//! Finds out which bytes of a function may be cached, by walking its
//! capability lists against the rules.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::class::{Canvas, Cell, Class};
use super::rules::{self, Facts, Shape};
use crate::pci::registers::{self, capability, express, header_type};
use crate::pci::{
    Capability, ConfigAccess, ConfigOffset, ExtendedCapability, PortType, Sbdf, Width,
};

/// What the walk of one function found.
pub(super) struct Inference {
    /// Class of every byte.
    pub(super) canvas: Canvas,
    /// Every dword that was read, to be kept as far as it may be.
    pub(super) seen: Vec<(u16, u32)>,
    pub(super) header_type: u8,
    pub(super) capabilities: Vec<Capability>,
    pub(super) extended_capabilities: Vec<ExtendedCapability>,
    /// What is wrong with the lists, as sentences.
    pub(super) anomalies: Vec<String>,
    /// The function stopped answering during the walk.
    pub(super) vanished: bool,
}

/// Walks `function`, which has answered with `vendor_id`.
///
/// Reads each dword once, and only dwords that hold no byte with a side
/// effect: those of the header, the first dword of each capability, and the
/// registers that decide the shape of a structure.
pub(super) fn infer<A: ConfigAccess>(
    access: &mut A,
    function: Sbdf,
    vendor_id: u16,
    is_virtual: bool,
    known: impl Fn(u16) -> Option<u32>,
) -> Inference {
    let mut walk = Walk {
        access,
        function,
        is_virtual,
        known,
        out: Inference {
            canvas: Canvas::new(ConfigOffset::CONVENTIONAL_END),
            seen: Vec::new(),
            header_type: 0,
            capabilities: Vec::new(),
            extended_capabilities: Vec::new(),
            anomalies: Vec::new(),
            vanished: false,
        },
    };
    walk.run(vendor_id);
    walk.out
}

struct Walk<'a, A, K> {
    access: &'a mut A,
    function: Sbdf,
    is_virtual: bool,
    known: K,
    out: Inference,
}

impl<A: ConfigAccess, K: Fn(u16) -> Option<u32>> Walk<'_, A, K> {
    fn run(&mut self, vendor_id: u16) {
        let layout = (self.dword(registers::CACHE_LINE_SIZE) >> 16) as u8;
        self.out.header_type = layout & header_type::LAYOUT;
        let status = (self.dword(registers::COMMAND) >> 16) as u16;
        if status & registers::status::CAPABILITIES_LIST != 0 {
            self.walk_capabilities();
        }
        let express = self.express();
        let mut facts = Facts {
            vendor_id,
            header_type: self.out.header_type,
            port_type: None,
            lanes: 0,
        };
        let mut size = ConfigOffset::CONVENTIONAL_END;
        if let Some(express) = express {
            let flags = self.dword(express) >> 16;
            let port_type = PortType::from_flags(flags as u16);
            facts.port_type = Some(port_type);
            size = self.walk_extended_capabilities();
            let has_link = !matches!(
                port_type,
                PortType::RootComplexIntegratedEndpoint | PortType::RootComplexEventCollector
            );
            let link = express + express::LINK_CAPABILITIES;
            if has_link && link < self.clip(express) {
                facts.lanes = (self.dword(link) >> 4 & 0x3f) as u16;
            }
        }
        if !self.out.vanished {
            self.classify(facts, size);
        }
    }

    /// The dword at `offset`; read from the function the first time only.
    fn dword(&mut self, offset: u16) -> u32 {
        let offset = offset & !3;
        if let Some(&(_, value)) = self.out.seen.iter().find(|(at, _)| *at == offset) {
            return value;
        }
        if let Some(value) = (self.known)(offset) {
            return value;
        }
        if self.out.vanished {
            return u32::MAX;
        }
        let value = self
            .access
            .read(self.function, ConfigOffset::new(offset), Width::Dword);
        // Ones may be a register's value or no answer at all.
        if value == u32::MAX && !super::answers(self.access, self.function, self.is_virtual) {
            self.out.vanished = true;
        }
        self.out.seen.push((offset, value));
        value
    }

    fn express(&self) -> Option<u16> {
        self.out
            .capabilities
            .iter()
            .find(|found| found.id == capability::EXPRESS)
            .map(|found| u16::from(found.offset))
    }

    fn anomaly(&mut self, text: String) {
        self.out.anomalies.push(text);
    }

    /// The capability list (PCIe 7.5.1.1.11): at most one structure a dword
    /// from 0x40 on, so that a mark a dword ends every cycle.
    fn walk_capabilities(&mut self) {
        let (pointer, first) = match self.out.header_type {
            0 | 1 => (registers::CAPABILITIES_POINTER, 0x40),
            2 => (registers::CARDBUS_CAPABILITIES_POINTER, 0x40),
            _ => return,
        };
        let mut visited = [false; 64];
        let mut from = pointer;
        // The lower two bits are reserved and to be masked.
        let mut at = (self.dword(pointer) >> (8 * (pointer & 3))) as u8 & !3;
        while at != 0 {
            if at < first {
                let text =
                    format!("capability pointer at {from:02x} leads into the header, to {at:02x}");
                return self.anomaly(text);
            }
            if core::mem::replace(&mut visited[usize::from(at / 4)], true) {
                let text = format!("capability list leads from {from:02x} back to {at:02x}");
                return self.anomaly(text);
            }
            let header = self.dword(u16::from(at));
            if header == u32::MAX {
                let text = format!("capability at {at:02x} reads all ones");
                return self.anomaly(text);
            }
            self.out.capabilities.push(Capability {
                id: header as u8,
                offset: at,
            });
            from = u16::from(at) + 1;
            at = (header >> 8) as u8 & !3;
        }
    }

    /// The extended list (PCIe 7.6.3). Returns the size of the configuration
    /// space: 256 bytes where the extended part cannot be reached.
    fn walk_extended_capabilities(&mut self) -> u16 {
        let mut visited = [0u64; 16];
        let mut from = 0;
        let mut at = registers::EXTENDED_CAPABILITIES;
        while at != 0 {
            if at < registers::EXTENDED_CAPABILITIES {
                let text = format!(
                    "extended capability at {from:03x} leads out of the extended space, to {at:03x}"
                );
                self.anomaly(text);
                break;
            }
            let (word, bit) = (usize::from(at / 256), at / 4 % 64);
            if visited[word] >> bit & 1 != 0 {
                let text =
                    format!("extended capability list leads from {from:03x} back to {at:03x}");
                self.anomaly(text);
                break;
            }
            visited[word] |= 1 << bit;
            let header = self.dword(at);
            if header == u32::MAX {
                if at == registers::EXTENDED_CAPABILITIES {
                    return ConfigOffset::CONVENTIONAL_END;
                }
                let text = format!("extended capability at {at:03x} reads all ones");
                self.anomaly(text);
                break;
            }
            if header == 0 && at == registers::EXTENDED_CAPABILITIES {
                break;
            }
            self.out.extended_capabilities.push(ExtendedCapability {
                id: header as u16,
                version: (header >> 16 & 0xf) as u8,
                offset: at,
            });
            from = at;
            at = (header >> 20) as u16 & !3;
        }
        ConfigOffset::END
    }

    /// Where the structure at `start` ends at the latest: at the next one in
    /// address order or at the end of its space.
    fn clip(&self, start: u16) -> u16 {
        let standard = self.out.capabilities.iter().map(|c| u16::from(c.offset));
        let extended = self.out.extended_capabilities.iter().map(|c| c.offset);
        let end = if start < ConfigOffset::CONVENTIONAL_END {
            ConfigOffset::CONVENTIONAL_END
        } else {
            ConfigOffset::END
        };
        standard
            .chain(extended)
            .filter(|&other| other > start)
            .fold(end, u16::min)
    }

    fn classify(&mut self, facts: Facts, size: u16) {
        let mut canvas = Canvas::new(size);
        let mut paint_from = |walk: &mut Self, start: u16, end: u16, rule: &RuleFn| {
            let mut structure = Structure {
                walk,
                start,
                end,
                facts,
            };
            rule(&mut structure, &mut |at, len, cell| {
                let first = start.saturating_add(at).min(end);
                let last = first.saturating_add(len).min(end);
                canvas.paint(first, last, cell);
            });
        };
        // A CardBus header goes on to its subsystem IDs.
        let header_end = if facts.header_type == 2 { 0x44 } else { 0x40 };
        paint_from(self, 0, header_end, &|shape, paint| {
            for field in rules::header_fields(facts.header_type)
                .into_iter()
                .flatten()
            {
                field.expand(shape, paint);
            }
        });
        for found in self.out.capabilities.clone() {
            let start = u16::from(found.offset);
            let end = self.clip(start);
            paint_from(self, start, end, &|shape, paint| {
                rules::standard(found.id, shape, paint);
            });
        }
        for found in self.out.extended_capabilities.clone() {
            let end = self.clip(found.offset);
            paint_from(self, found.offset, end, &|shape, paint| {
                rules::extended(found.id, shape, paint);
            });
        }
        if size == ConfigOffset::END && self.out.extended_capabilities.is_empty() {
            // Every search of the extended list reads this zero again.
            let first = registers::EXTENDED_CAPABILITIES;
            canvas.paint(first, first + 4, Cell::of(Class::Static));
        }
        self.out.canvas = canvas;
    }
}

type RuleFn<'a> = dyn Fn(&mut dyn Shape, &mut dyn FnMut(u16, u16, Cell)) + 'a;

/// One structure as the rules see it.
struct Structure<'w, 'a, A, K> {
    walk: &'w mut Walk<'a, A, K>,
    start: u16,
    end: u16,
    facts: Facts,
}

impl<A: ConfigAccess, K: Fn(u16) -> Option<u32>> Shape for Structure<'_, '_, A, K> {
    fn dword(&mut self, at: u16) -> u32 {
        let offset = self.start.saturating_add(at);
        // Bytes beyond the structure belong to somebody else: no rule may
        // have them read.
        if offset.saturating_add(4) > self.end {
            return 0;
        }
        self.walk.dword(offset)
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }
}

//! Finds out which bytes of a function may be cached, by walking its
//! capability lists against the rules.

use alloc::vec::Vec;

use super::byte_class::{ByteClass, ByteRule, ByteRuleMap};
use super::rules::{self, Facts, Shape};
use warmbus_pci::registers::{self, capability, express};
use warmbus_pci::{
    AnomalyKind, CapabilityLists, ConfigAccess, ConfigOffset, PortType, Sbdf, Width,
    read_capability_lists,
};

/// What the walk of one function found.
pub(super) struct Inference {
    /// Class of every byte.
    pub(super) canvas: ByteRuleMap,
    /// Every dword that was read, to be kept as far as it may be.
    pub(super) seen: Vec<(u16, u32)>,
    /// Where the capabilities are.
    pub(super) lists: CapabilityLists,
    /// What is wrong with the lists.
    pub(super) anomalies: Vec<AnomalyKind>,
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
            canvas: ByteRuleMap::new(ConfigOffset::CONVENTIONAL_END),
            seen: Vec::new(),
            lists: CapabilityLists::default(),
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
        let found = read_capability_lists(&mut |offset| self.dword(offset));
        self.out.lists = found.lists;
        self.out.anomalies = found.anomalies;
        let mut facts = Facts {
            vendor_id,
            header_type: self.out.lists.header_type,
            port_type: self.out.lists.port_type,
            lanes: 0,
        };
        let has_link = !matches!(
            facts.port_type,
            None | Some(
                PortType::RootComplexIntegratedEndpoint | PortType::RootComplexEventCollector
            )
        );
        if let Some(express) = self.out.lists.capability(capability::EXPRESS)
            && has_link
        {
            let link = express + express::LINK_CAPABILITIES;
            if link < self.clip(express) {
                facts.lanes = (self.dword(link) >> 4 & 0x3f) as u16;
            }
        }
        if !self.out.vanished {
            self.classify(facts, self.out.lists.size);
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
            .read(self.function, ConfigOffset::wrapping(offset), Width::Dword);
        // Ones may be a register's value or no answer at all.
        if value == u32::MAX && !super::answers(self.access, self.function, self.is_virtual) {
            self.out.vanished = true;
        }
        self.out.seen.push((offset, value));
        value
    }

    /// Where the structure at `start` ends at the latest: at the next one in
    /// address order or at the end of its space.
    fn clip(&self, start: u16) -> u16 {
        let standard = self
            .out
            .lists
            .capabilities
            .iter()
            .map(|c| u16::from(c.offset));
        let extended = self
            .out
            .lists
            .extended_capabilities
            .iter()
            .map(|c| c.offset);
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
        let mut canvas = ByteRuleMap::new(size);
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
        for found in self.out.lists.capabilities.clone() {
            let start = u16::from(found.offset);
            let end = self.clip(start);
            paint_from(self, start, end, &|shape, paint| {
                rules::standard(found.id, shape, paint);
            });
        }
        for found in self.out.lists.extended_capabilities.clone() {
            let end = self.clip(found.offset);
            paint_from(self, found.offset, end, &|shape, paint| {
                rules::extended(found.id, shape, paint);
            });
        }
        if size == ConfigOffset::END && self.out.lists.extended_capabilities.is_empty() {
            // Every search of the extended list reads this zero again.
            let first = registers::EXTENDED_CAPABILITIES;
            canvas.paint(first, first + 4, ByteRule::of(ByteClass::Static));
        }
        self.out.canvas = canvas;
    }
}

type RuleFn<'a> = dyn Fn(&mut dyn Shape, &mut dyn FnMut(u16, u16, ByteRule)) + 'a;

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

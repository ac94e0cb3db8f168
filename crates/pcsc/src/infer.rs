//! Finds out which bytes of a function may be cached, by walking its
//! capability lists against the capability table.

use alloc::vec::Vec;

use super::byte_class::ByteRuleMap;
use super::capabilities::{self, Facts, Ranges, Shape};
use warmbus_pci::registers;
use warmbus_pci::{
    AnomalyKind, CapabilityLists, ConfigAccess, ConfigOffset, Sbdf, Width, read_capability_lists,
};

/// What the walk of one function found.
pub(super) struct Inference {
    /// Class of every byte.
    pub(super) rule_map: ByteRuleMap,
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
            rule_map: ByteRuleMap::new(ConfigOffset::CONVENTIONAL_END),
            seen: Vec::with_capacity(SEEN),
            lists: CapabilityLists::default(),
            anomalies: Vec::new(),
            vanished: false,
        },
    };
    walk.run(vendor_id);
    walk.out
}

/// Registers of a function with some capabilities.
const SEEN: usize = 32;

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
        let facts = Facts {
            vendor_id,
            header_type: self.out.lists.header_type,
            port_type: self.out.lists.port_type,
            lanes: 0,
        };
        let lists = self.out.lists.clone();
        let facts = facts.with_lanes(
            &lists.capabilities,
            |start| end_of(&lists, start),
            |offset| self.dword(offset),
        );
        if !self.out.vanished {
            self.classify(facts, &lists);
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

    fn classify(&mut self, facts: Facts, lists: &CapabilityLists) {
        let mut rule_map = ByteRuleMap::new(lists.size);
        let mut add = |start: u16, end: u16, describe: &Describe<'_>| {
            let mut read = |offset| self.dword(offset);
            let found = describe(&mut Shape::new(start, end, &facts, &mut read));
            for range in found.ranges {
                let first = start + range.at;
                rule_map.set_range(first, first + range.len, range.rule);
            }
        };
        let header_end = capabilities::header_end(facts.header_type);
        add(0, header_end, &|shape| capabilities::header(shape));
        for found in &lists.capabilities {
            let start = u16::from(found.offset);
            add(start, end_of(lists, start), &|shape| {
                capabilities::standard(found.id, shape)
            });
        }
        for found in &lists.extended_capabilities {
            add(found.offset, end_of(lists, found.offset), &|shape| {
                capabilities::extended(found.id, shape)
            });
        }
        if lists.size == ConfigOffset::END && lists.extended_capabilities.is_empty() {
            let first = registers::EXTENDED_CAPABILITIES;
            add(first, first + 4, &|shape| {
                capabilities::no_extended_capability(shape)
            });
        }
        self.out.rule_map = rule_map;
    }
}

/// Describes the structure of a shape.
type Describe<'a> = dyn Fn(&mut Shape<'_>) -> Ranges + 'a;

fn end_of(lists: &CapabilityLists, start: u16) -> u16 {
    capabilities::structure_end(start, &lists.capabilities, &lists.extended_capabilities)
}

//! The cache of one function.

mod content;
mod view;
mod writes;

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::bitmap::Bitmap;
use crate::byte_class::{ByteClass, ByteRule, ByteRuleMap, ClassMap};
use crate::constant_bits::ConstantBits;
use crate::masks::{Register, WriteMask};
use crate::virtual_function::{self, Routing, VirtualFunction};
use warmbus_pci::registers;
use warmbus_pci::{CapabilityLists, ConfigOffset, VfIdentity, Width};

/// Whether what is cached of a function may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The function answered from hardware since its last reset.
    Ready,
    /// The function was reset: nothing is served or kept until it answers.
    Reset,
    /// A virtual function whose VF Enable is clear: the block has what it
    /// holds right after it is enabled, and nobody answers now.
    Disabled,
}

/// A write to a masked register whose read-back is still to come.
#[derive(Clone, Copy, Debug)]
struct Probe {
    offset: u16,
    written: u32,
    register: Register,
}

/// Configuration space of one function as far as it is cached.
#[derive(Clone, Debug)]
pub struct FunctionCache {
    /// Bytes of the space, of which `data` and the bitmaps hold those up to the
    /// last that may be cached.
    size: u16,
    data: Vec<u8>,
    cacheable: Bitmap,
    cached: Bitmap,
    map: ClassMap,
    masks: Vec<WriteMask>,
    fixed: Vec<ConstantBits>,
    probe: Option<Probe>,
    lists: CapabilityLists,
    pub(crate) state: State,
    /// Last Power State that software wrote.
    pub(crate) power_state: u8,
    /// Last known Secondary and Subordinate Bus Number of a bridge.
    buses: [u8; 2],
    /// What makes it a virtual function, if it is one.
    pub(crate) virtual_function: Option<VirtualFunction>,
    /// Where the VFs of a physical function are.
    pub(crate) routing: Option<Box<Routing>>,
}

impl FunctionCache {
    /// A block that knows only what holds for every header.
    pub(crate) fn new() -> Self {
        let mut block = Self {
            size: 0,
            data: Vec::new(),
            cacheable: Bitmap::new(0),
            cached: Bitmap::new(0),
            map: ClassMap::default(),
            masks: Vec::new(),
            fixed: Vec::new(),
            probe: None,
            lists: CapabilityLists {
                header_type: registers::header_type::LAYOUT,
                ..CapabilityLists::default()
            },
            state: State::Ready,
            power_state: 0,
            buses: [0; 2],
            virtual_function: None,
            routing: None,
        };
        block.set_classes(ConfigOffset::CONVENTIONAL_END, ClassMap::of_any_header());
        block
    }

    /// A block of a virtual function that knows only what the specification
    /// fixes.
    pub(crate) fn of_virtual_function(identity: VfIdentity) -> Self {
        let mut block = Self::new();
        let mut rule_map = ByteRuleMap::new(ConfigOffset::CONVENTIONAL_END);
        rule_map.set_range(4, 6, ByteRule::of(ByteClass::Software));
        rule_map.set_range(8, 0x0c, ByteRule::of(ByteClass::Static));
        for (start, values) in virtual_function::FIXED {
            let end = start + values.len() as u16;
            rule_map.set_range(*start, end, ByteRule::of(ByteClass::Static));
        }
        block.classify(&rule_map);
        for (start, values) in virtual_function::FIXED {
            for (byte, &value) in (*start..).zip(*values) {
                block.set_byte(byte, value);
            }
        }
        block.virtual_function = Some(VirtualFunction::new(identity));
        block
    }

    /// Takes `rule_map` as the classes of the whole space. What is cached
    /// and still cacheable stays.
    pub(crate) fn classify(&mut self, rule_map: &ByteRuleMap) {
        self.set_classes(rule_map.size(), rule_map.compress());
    }

    /// The same, for a space of `size` bytes.
    fn set_classes(&mut self, size: u16, map: ClassMap) {
        let cacheable_runs = || {
            let runs = map.runs(size);
            runs.filter(|(_, _, cell)| cell.class.is_cacheable())
        };
        let last = cacheable_runs().last();
        let kept = last.map_or(0, |(_, end, _)| usize::from(end).next_multiple_of(8));
        let mut cacheable = Bitmap::new(kept as u16);
        // Most of a space is one run that nothing names.
        for (start, end, _) in cacheable_runs() {
            cacheable.set_range(start, end);
        }
        let mut cached = cacheable.clone();
        cached.intersect(&self.cached);
        self.size = size;
        self.data.resize(kept, 0);
        self.data.shrink_to_fit();
        self.cacheable = cacheable;
        self.cached = cached;
        self.map = map;
    }

    /// Takes over what a walk found.
    pub(crate) fn set_lists(&mut self, lists: CapabilityLists) {
        self.lists = lists;
    }

    /// Whether the cache may read all bytes of an access without being asked.
    pub(crate) fn is_readable(&self, offset: ConfigOffset, width: Width) -> bool {
        self.map.all(offset, width, |rule| rule.class.is_readable())
    }

    pub(crate) fn cell(&self, offset: ConfigOffset) -> ByteRule {
        self.map.cell(offset)
    }
}

//! The cache of one function.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::bitmap::Bitmap;
use super::byte_class::{ByteClass, ByteRule, ByteRuleMap, ClassMap, InvalidatedBy};
use super::constant_bits::ConstantBits;
use super::masks::{Register, WriteMask};
use super::virtual_function::{self, Routing, VirtualFunction};
use warmbus_pci::registers::{self, ROM_BAR_TYPE0, ROM_BAR_TYPE1, capability, express};
use warmbus_pci::{
    Capability, CapabilityLists, ConfigOffset, ExtendedCapability, PortType, VfIdentity, VfRouting,
    Width,
};

/// Whether what is cached of a function may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The function answered from hardware since its last reset.
    Ready,
    /// The function was reset: nothing is served or kept until it answers.
    Reset,
    /// A virtual function whose VF Enable is clear: the block tells what it
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
    pub(super) state: State,
    /// Last Power State that software wrote.
    pub(super) power_state: u8,
    /// Last known Secondary and Subordinate Bus Number of a bridge.
    buses: [u8; 2],
    /// What makes it a virtual function, if it is one.
    pub(super) virtual_function: Option<VirtualFunction>,
    /// Where the VFs of a physical function are.
    pub(super) routing: Option<Box<Routing>>,
}

impl FunctionCache {
    /// A block that knows only what holds for every header.
    pub(super) fn new() -> Self {
        let mut canvas = ByteRuleMap::new(ConfigOffset::CONVENTIONAL_END);
        canvas.paint(0x00, 0x0f, ByteRule::of(ByteClass::Static));
        // COMMAND, Cache Line Size and Latency Timer; STATUS changes by itself.
        canvas.paint(0x04, 0x06, ByteRule::of(ByteClass::Software));
        canvas.paint(0x06, 0x08, ByteRule::UNKNOWN);
        canvas.paint(0x0c, 0x0e, ByteRule::of(ByteClass::Software));
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
        block.classify(&canvas);
        block
    }

    /// A block of a virtual function that knows only what the specification
    /// fixes.
    pub(super) fn of_virtual_function(identity: VfIdentity) -> Self {
        let mut block = Self::new();
        let mut canvas = ByteRuleMap::new(ConfigOffset::CONVENTIONAL_END);
        canvas.paint(4, 6, ByteRule::of(ByteClass::Software));
        canvas.paint(8, 0x0c, ByteRule::of(ByteClass::Static));
        for (start, values) in virtual_function::FIXED {
            let end = start + values.len() as u16;
            canvas.paint(*start, end, ByteRule::of(ByteClass::Static));
        }
        block.classify(&canvas);
        for (start, values) in virtual_function::FIXED {
            for (byte, &value) in (*start..).zip(*values) {
                block.put(byte, value);
            }
        }
        block.virtual_function = Some(VirtualFunction::new(identity));
        block
    }

    /// Takes what is on `canvas` as the classes of the whole space. What is cached
    /// and still cacheable stays.
    pub(super) fn classify(&mut self, canvas: &ByteRuleMap) {
        let size = canvas.size();
        let map = canvas.pack();
        let cacheable_runs = || {
            let runs = map.runs(size);
            runs.filter(|(_, _, cell)| cell.class.is_cacheable())
        };
        let last = cacheable_runs().last();
        let kept = last.map_or(0, |(_, end, _)| usize::from(end).next_multiple_of(8));
        let mut cacheable = Bitmap::new(kept as u16);
        let mut cached = Bitmap::new(kept as u16);
        // Most of a space is one run that nothing names.
        for (start, end, _) in cacheable_runs() {
            for offset in start..end {
                cacheable.set(offset, true);
                cached.set(offset, self.cached.get(offset));
            }
        }
        self.size = size;
        self.data.resize(kept, 0);
        self.data.shrink_to_fit();
        self.cacheable = cacheable;
        self.cached = cached;
        self.map = map;
    }

    /// Takes over what a walk found.
    pub(super) fn set_lists(&mut self, lists: CapabilityLists) {
        self.lists = lists;
    }

    /// Where the capabilities are.
    pub fn lists(&self) -> &CapabilityLists {
        &self.lists
    }

    /// Bytes of configuration space that the block covers: 256, or 4096 for a
    /// function whose extended space can be reached.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// The bytes of configuration space up to the last that may be cached, a
    /// multiple of 8; those that are not cached are 0.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Whether the byte at `offset` may be cached.
    pub fn is_cacheable(&self, offset: ConfigOffset) -> bool {
        self.cacheable.get(offset.get())
    }

    /// Whether the byte at `offset` is cached now.
    pub fn is_cached(&self, offset: ConfigOffset) -> bool {
        self.cached.get(offset.get())
    }

    /// How the byte at `offset` behaves.
    pub fn class(&self, offset: ConfigOffset) -> ByteClass {
        self.cell(offset).class
    }

    /// Number of bytes that may be cached.
    pub fn cacheable_bytes(&self) -> u16 {
        self.cacheable.count()
    }

    /// Number of bytes that are cached now.
    pub fn cached_bytes(&self) -> u16 {
        self.cached.count()
    }

    /// The dwords with a byte that may be cached, in order.
    pub fn cacheable_dwords(&self) -> impl Iterator<Item = ConfigOffset> {
        self.cacheable.dwords().map(ConfigOffset::wrapping)
    }

    /// One bit for each byte of [`Self::data`], set where it may be cached: bit
    /// n is bit n % 8 of byte n / 8.
    pub fn cacheable_bitmap(&self) -> &[u8] {
        self.cacheable.as_bytes()
    }

    /// One bit for each byte that is cached now, ordered as
    /// [`Self::cacheable_bitmap`].
    pub fn cached_bitmap(&self) -> &[u8] {
        self.cached.as_bytes()
    }

    /// Whether the capability lists were walked, so that it is known what a
    /// write does.
    pub(super) fn is_inferred(&self) -> bool {
        self.lists.header_type != registers::header_type::LAYOUT
    }

    /// Header layout: 0 endpoint, 1 bridge, 2 `CardBus`, 0x7f not known yet.
    pub fn header_type(&self) -> u8 {
        self.lists.header_type
    }

    /// The capabilities in the order of the list.
    pub fn capabilities(&self) -> &[Capability] {
        &self.lists.capabilities
    }

    /// The extended capabilities in the order of the list.
    pub fn extended_capabilities(&self) -> &[ExtendedCapability] {
        &self.lists.extended_capabilities
    }

    /// Which virtual function it is, if it is one.
    pub fn virtual_function(&self) -> Option<VfIdentity> {
        self.virtual_function.as_ref().map(|vf| vf.identity)
    }

    /// Whether it is a virtual function that does not exist now: the block
    /// holds what it holds right after VF Enable was set.
    pub fn is_disabled(&self) -> bool {
        self.state == State::Disabled
    }

    /// The ranges of bytes that follow from the specification and were not
    /// read: first offset and number of bytes, ascending.
    pub fn synthesised(&self) -> Vec<(u16, u16)> {
        self.virtual_function
            .as_ref()
            .map_or_else(Vec::new, VirtualFunction::synthesised)
    }

    /// What was read of First VF Offset and VF Stride of a physical function,
    /// ascending by NumVFs.
    pub fn vf_routing(&self) -> impl Iterator<Item = VfRouting> {
        self.routing.iter().flat_map(|routing| routing.known())
    }

    /// Offset of the first capability `id`.
    pub fn capability(&self, id: u8) -> Option<u16> {
        self.lists.capability(id)
    }

    /// What the PCI Express capability says that the function is, where it has
    /// one and its flags are cached.
    pub fn port_type(&self) -> Option<PortType> {
        let flags = self.word(self.capability(capability::EXPRESS)? + express::FLAGS)?;
        Some(PortType::from_flags(flags))
    }

    /// Offset of the first extended capability `id`.
    pub fn extended_capability(&self, id: u16) -> Option<u16> {
        self.lists.extended_capability(id)
    }

    /// The dwords of which the writable bits are known, in no order.
    pub fn write_masks(&self) -> &[WriteMask] {
        &self.masks
    }

    /// Bits that are for good in dwords that are not cached as a whole, in no
    /// order.
    pub fn constant_bits(&self) -> &[ConstantBits] {
        &self.fixed
    }

    /// Bits of the Command register that are known to be writable.
    pub fn writable_command_bits(&self) -> u16 {
        self.writable_by_specification(registers::COMMAND) as u16
    }

    /// Whether the dword at `offset` has bits that are for good and not known
    /// yet.
    pub(super) fn misses_constant_bits(&self, offset: u16) -> bool {
        let express = self.capability(registers::capability::EXPRESS);
        ConstantBits::bits_of(offset, express).is_some()
            && self.fixed.iter().all(|known| known.offset != offset)
    }

    /// The cached dword at `offset`, if all four bytes are cached.
    pub fn dword(&self, offset: u16) -> Option<u32> {
        self.lookup(ConfigOffset::wrapping(offset), Width::Dword)
    }

    /// The cached word at `offset`, if both bytes are cached.
    pub fn word(&self, offset: u16) -> Option<u16> {
        self.lookup(ConfigOffset::wrapping(offset), Width::Word)
            .map(|value| value as u16)
    }

    pub(super) fn cell(&self, offset: ConfigOffset) -> ByteRule {
        self.map.cell(offset)
    }

    /// Whether all bytes of an access may be cached.
    pub(super) fn is_all_cacheable(&self, offset: ConfigOffset, width: Width) -> bool {
        bytes(offset, width).all(|byte| self.cacheable.get(byte))
    }

    /// The value of an access whose bytes are all cached.
    pub(super) fn lookup(&self, offset: ConfigOffset, width: Width) -> Option<u32> {
        let mut value = 0;
        for (shift, byte) in (0u32..).step_by(8).zip(bytes(offset, width)) {
            if !self.cached.get(byte) {
                return None;
            }
            value |= u32::from(*self.data.get(usize::from(byte))?) << shift;
        }
        Some(value)
    }

    /// Keeps the cacheable bytes of a value that the hardware returned, and
    /// learns from it if it answers a probe.
    pub(super) fn store(&mut self, offset: ConfigOffset, width: Width, value: u32) {
        for (shift, byte) in (0u32..).step_by(8).zip(bytes(offset, width)) {
            let value = (value >> shift) as u8;
            self.track_bus_numbers(byte, value);
            let moves_on_its_own = value & 0xfe != 0
                && self.map.cell(ConfigOffset::wrapping(byte)).tag == InvalidatedBy::RomValidation;
            if self.cacheable.get(byte) && !moves_on_its_own {
                self.put(byte, value);
            }
        }
        if width == Width::Dword {
            self.learn(offset.get(), value);
            let express = self.capability(registers::capability::EXPRESS);
            if let Some(found) = ConstantBits::of(offset.get(), value, express) {
                self.fixed.retain(|known| known.offset != found.offset);
                self.fixed.push(found);
            }
            self.learn_routing(offset.get(), value);
        }
    }

    /// Whether a read of ones at `offset` only answers written ones.
    pub(super) fn is_pending_probe(&self, offset: ConfigOffset) -> bool {
        self.probe
            .is_some_and(|probe| probe.offset == offset.dword().get() && probe.written == u32::MAX)
    }

    /// Secondary and Subordinate Bus Number of a bridge, as last read or written.
    pub(super) const fn bus_numbers(&self) -> [u8; 2] {
        self.buses
    }

    /// The buses below a bridge, as last read or written; `None` where none
    /// are known to be.
    pub(super) fn buses_below(&self) -> Option<(u8, u8)> {
        let [secondary, subordinate] = self.buses;
        (secondary != 0 && secondary <= subordinate).then_some((secondary, subordinate))
    }

    fn track_bus_numbers(&mut self, byte: u16, value: u8) {
        if self.lists.header_type == 1 {
            match byte {
                registers::SECONDARY_BUS => self.buses[0] = value,
                registers::SUBORDINATE_BUS => self.buses[1] = value,
                _ => {}
            }
        }
    }

    pub(super) fn put(&mut self, byte: u16, value: u8) {
        if let Some(slot) = self.data.get_mut(usize::from(byte)) {
            *slot = value;
            self.cached.set(byte, true);
        }
    }

    /// Drops one byte. Returns whether it was cached.
    pub(super) fn drop_byte(&mut self, byte: u16) -> bool {
        let was_cached = self.cached.get(byte);
        if was_cached {
            if let Some(vf) = &mut self.virtual_function {
                vf.dropped(byte);
            }
            self.cached.set(byte, false);
            self.data[usize::from(byte)] = 0;
        }
        was_cached
    }

    /// Drops every byte whose cell `matches`. Returns how many were cached.
    pub(super) fn drop_where(&mut self, matches: impl Fn(ByteRule) -> bool) -> u64 {
        let mut dropped = 0;
        let doomed: Vec<(u16, u16)> = self
            .map
            .runs(self.size())
            .filter(|&(_, _, cell)| matches(cell))
            .map(|(start, end, _)| (start, end))
            .collect();
        for (start, end) in doomed {
            for byte in start..end {
                dropped += u64::from(self.drop_byte(byte));
            }
        }
        dropped
    }

    /// Marks `len` bytes from `start` as uncacheable. Returns how many were
    /// cached.
    pub(super) fn retire(&mut self, start: u16, len: u16) -> u64 {
        let mut dropped = 0;
        for byte in start..start.saturating_add(len) {
            dropped += u64::from(self.drop_byte(byte));
            self.cacheable.set(byte, false);
        }
        dropped
    }

    /// Forgets what is known of the writable bits of the dwords in a range.
    pub(super) fn forget_masks(&mut self, start: u16, end: u16) {
        self.masks
            .retain(|mask| !(start..end).contains(&mask.offset));
    }

    /// Discards a probe that waits for its read-back: after a reset the
    /// register no longer holds what was written.
    pub(super) fn cancel_probe(&mut self) {
        self.probe = None;
    }

    /// Invalidates the writable bits of BARs whose size depends on a register
    /// that a reset changes: Resizable BAR Control or System Page Size.
    pub(super) fn invalidate_resizable_masks(&mut self) {
        if self
            .extended_capability(registers::extended::RESIZABLE_BAR)
            .is_some()
        {
            self.forget_masks(registers::BAR0, registers::BAR0 + 0x18);
        }
        if let Some(first) = self.sr_iov_register(registers::sr_iov::VF_BAR0) {
            self.forget_masks(first, first + 0x18);
        }
    }

    /// Drops the bytes of a write, or keeps what they hold after it where the
    /// writable bits are known. Returns how many cached bytes were dropped.
    pub(super) fn write(&mut self, offset: ConfigOffset, width: Width, value: u32) -> u64 {
        let dword = offset.dword().get();
        let shift = 8 * u32::from(offset.get() & 3);
        let written = value << shift;
        let reached = width.ones() << shift;
        let mask = self.mask(dword);
        let mut dropped = 0;
        for (lane, byte) in (0u32..).step_by(8).zip(dword..dword + 4) {
            if reached >> lane & 0xff == 0 {
                continue;
            }
            let new = (written >> lane) as u8;
            self.track_bus_numbers(byte, new);
            if !self.cached.get(byte) {
                continue;
            }
            let old = self.data[usize::from(byte)];
            let writable = (mask.writable >> lane) as u8;
            let fixed = (mask.fixed >> lane) as u8;
            if (old ^ new) & !(writable | fixed) == 0 && mask.writable | mask.fixed != 0 {
                self.put(byte, old & !writable | new & writable);
            } else {
                dropped += u64::from(self.drop_byte(byte));
            }
        }
        self.probe = self
            .register(dword)
            .filter(|register| register.is_probe(written, reached))
            .map(|register| Probe {
                offset: dword,
                written: written & reached,
                register,
            });
        dropped
    }

    fn learn(&mut self, offset: u16, value: u32) {
        let Some(probe) = self.probe.take_if(|probe| probe.offset == offset) else {
            return;
        };
        self.forget_masks(offset, offset + 4);
        if let Some(mask) = probe.register.learn(offset, probe.written, value) {
            self.masks.push(mask);
        }
    }

    /// What is known of the bits of the dword at `offset`: learned, or fixed
    /// by the specification.
    fn mask(&self, offset: u16) -> WriteMask {
        self.masks
            .iter()
            .find(|mask| mask.offset == offset)
            .copied()
            .unwrap_or_else(|| WriteMask {
                offset,
                writable: self.writable_by_specification(offset),
                fixed: 0,
            })
    }

    /// Bits that a function must implement as writable because of what it is
    /// seen to have.
    fn writable_by_specification(&self, offset: u16) -> u32 {
        use registers::{command, express};

        if offset == registers::COMMAND {
            // A function that has a BAR or window of a space implements the
            // enable bit of that space (PCIe 7.5.1.1.3).
            return self.masks.iter().fold(0, |bits, mask| {
                bits | match self.enable_bit_proved_by(mask) {
                    Some(Space::Io) => u32::from(command::IO),
                    Some(Space::Memory) => u32::from(command::MEMORY),
                    None => 0,
                }
            });
        }
        if self.sr_iov_register(registers::sr_iov::CONTROL) == Some(offset) {
            // PCIe 9.3.3.3.1; of a function without VFs nothing is known.
            let vfs = self.sr_iov_register(registers::sr_iov::INITIAL_VFS);
            let total = vfs.and_then(|vfs| self.word(vfs + 2)).unwrap_or(0);
            return if total > 0 {
                u32::from(registers::sr_iov::VF_ENABLE)
            } else {
                0
            };
        }
        let Some(base) = self.capability(registers::capability::EXPRESS) else {
            return 0;
        };
        if offset == base + express::DEVICE_CONTROL_2 {
            // PCIe 7.5.3.15 and 7.5.3.16.
            let capabilities = self.dword(base + express::DEVICE_CAPABILITIES_2);
            if capabilities.is_some_and(|bits| bits & express::ARI_FORWARDING_SUPPORTED != 0) {
                return u32::from(express::ARI_FORWARDING_ENABLE);
            }
        } else if offset == base + express::ROOT_CONTROL {
            // PCIe 7.5.3.12 and 7.5.3.13.
            let capabilities = self.word(base + express::ROOT_CONTROL + 2);
            if capabilities.is_some_and(|bits| bits & express::RRS_VISIBILITY != 0) {
                return u32::from(express::RRS_VISIBILITY_ENABLE);
            }
        }
        0
    }

    /// The space whose enable bit the register behind `mask` proves.
    fn enable_bit_proved_by(&self, mask: &WriteMask) -> Option<Space> {
        if mask.writable == 0 {
            return None;
        }
        match self.register(mask.offset)? {
            Register::Bar if self.in_sr_iov(mask.offset) => None,
            Register::Bar => {
                let is_io = self.data.get(usize::from(mask.offset))? & 1 != 0;
                Some(if is_io { Space::Io } else { Space::Memory })
            }
            Register::Rom => Some(Space::Memory),
            Register::BarUpper => None,
            Register::Bridge(..) => match mask.offset {
                registers::IO_BASE => Some(Space::Io),
                registers::MEMORY_BASE => Some(Space::Memory),
                _ => None,
            },
        }
    }

    /// What the dword at `offset` is, if its writable bits can be learned.
    fn register(&self, offset: u16) -> Option<Register> {
        let (bars, rom) = match self.lists.header_type {
            0 => (registers::BAR0..registers::BAR0 + 0x18, ROM_BAR_TYPE0),
            1 => (registers::BAR0..registers::BAR0 + 0x08, ROM_BAR_TYPE1),
            _ => return None,
        };
        if offset == rom {
            return Some(Register::Rom);
        }
        if bars.contains(&offset) {
            return self.bar(bars.start, offset);
        }
        if let Some(base) = self.extended_capability(registers::extended::SR_IOV)
            && self.in_sr_iov(offset)
        {
            return self.bar(base + registers::sr_iov::VF_BAR0, offset);
        }
        (self.lists.header_type == 1).then(|| Register::of_bridge(offset))?
    }

    fn in_sr_iov(&self, offset: u16) -> bool {
        self.extended_capability(registers::extended::SR_IOV)
            .map(|base| base + registers::sr_iov::VF_BAR0)
            .is_some_and(|first| (first..first + 0x18).contains(&offset))
    }

    /// Whether the BAR at `offset`, one of those from `first` on, is a lower
    /// or an upper half. That is not known while one before it is not cached.
    fn bar(&self, first: u16, offset: u16) -> Option<Register> {
        let mut at = first;
        while at < offset {
            let low = self.lookup(ConfigOffset::wrapping(at), Width::Byte)?;
            let is_64_bit = low & 7 == 4;
            if is_64_bit && at + 4 == offset {
                return Some(Register::BarUpper);
            }
            at += if is_64_bit { 8 } else { 4 };
        }
        Some(Register::Bar)
    }
}

/// The address spaces with an enable bit in the Command register.
enum Space {
    Io,
    Memory,
}

/// The offsets of the bytes of an access.
fn bytes(offset: ConfigOffset, width: Width) -> impl Iterator<Item = u16> {
    let start = offset.get();
    start..start + width.bytes()
}

//! Which configuration bytes may be cached: one table a structure.
//!
//! A rule names a range of bytes, its [`ByteClass`], and where a structure has
//! several shapes the condition under which the range exists. What no rule
//! names is passed through. The walker and the cache read these tables; no
//! rule lives anywhere else.

mod dvsec;
mod express;
mod extended;
mod header;
mod standard;
mod variable;

use super::byte_class::{ByteClass, ByteRule, InvalidatedBy, WriteEffect};
use warmbus_pci::PortType;

pub(super) use header::header_fields;

/// What a structure's shape can depend on.
pub(super) trait Shape {
    /// The dword at `at` bytes from the start of the structure. It is read
    /// from the function the first time only.
    fn dword(&mut self, at: u16) -> u32;
    /// What is known about the function as a whole.
    fn facts(&self) -> &Facts;
}

/// What is known about a function when its structures are classified.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// Vendor ID.
    pub(super) vendor_id: u16,
    /// Header layout.
    pub(super) header_type: u8,
    /// Device/port type, if there is a PCI Express capability.
    pub(super) port_type: Option<PortType>,
    /// Maximum Link Width in lanes; 0 without a link.
    pub(super) lanes: u16,
}

/// A condition on the shape of a structure.
type Condition = fn(&mut dyn Shape) -> bool;
/// A number that the shape of a structure decides.
type Count = fn(&mut dyn Shape) -> u16;

/// One rule: a range of bytes and how they behave.
#[derive(Clone, Copy)]
pub(super) struct Field {
    at: u16,
    len: u16,
    cell: ByteRule,
    when: Option<Condition>,
    each: Option<(u16, Count)>,
}

impl Field {
    const fn new(at: u16, len: u16, class: ByteClass) -> Self {
        Self {
            at,
            len,
            cell: ByteRule::of(class),
            when: None,
            each: None,
        }
    }

    const fn tag(mut self, tag: InvalidatedBy) -> Self {
        self.cell.tag = tag;
        self
    }

    const fn effect(mut self, effect: WriteEffect) -> Self {
        self.cell.effect = effect;
        self
    }

    /// The range exists only where `condition` holds.
    const fn when(mut self, condition: Condition) -> Self {
        self.when = Some(condition);
        self
    }

    /// The range repeats every `stride` bytes, `count` times.
    const fn each(mut self, stride: u16, count: Count) -> Self {
        self.each = Some((stride, count));
        self
    }

    /// Calls `paint` with every range (start, length) and its cell.
    pub(super) fn expand(&self, shape: &mut dyn Shape, paint: &mut dyn FnMut(u16, u16, ByteRule)) {
        if self.when.is_some_and(|condition| !condition(shape)) {
            return;
        }
        let (stride, count) = match self.each {
            Some((stride, count)) => (stride, count(shape)),
            None => (0, 1),
        };
        for n in 0..count {
            // A count that a device made up may lead out of the space; the
            // painter clips, so that saturating is enough.
            let at = self.at.saturating_add(n.saturating_mul(stride));
            paint(at, self.len, self.cell);
        }
    }
}

/// Static bytes.
const fn st(at: u16, len: u16) -> Field {
    Field::new(at, len, ByteClass::Static)
}

/// Software-owned bytes.
const fn sw(at: u16, len: u16) -> Field {
    Field::new(at, len, ByteClass::Software)
}

/// Volatile bytes.
const fn vo(at: u16, len: u16) -> Field {
    Field::new(at, len, ByteClass::Volatile)
}

/// Bytes whose read has an effect.
const fn se(at: u16, len: u16) -> Field {
    Field::new(at, len, ByteClass::SideEffect)
}

/// Named bytes that are passed through.
const fn pass(at: u16, len: u16) -> Field {
    Field::new(at, len, ByteClass::Pass)
}

/// Calls `paint` for every range of the capability `id`, its two header bytes
/// included.
pub(super) fn standard(id: u8, shape: &mut dyn Shape, paint: &mut dyn FnMut(u16, u16, ByteRule)) {
    paint(0, 2, ByteRule::of(ByteClass::Static));
    for field in standard::table(id) {
        field.expand(shape, paint);
    }
    match id {
        warmbus_pci::registers::capability::ENHANCED_ALLOCATION => {
            variable::enhanced_allocation(shape, paint);
        }
        warmbus_pci::registers::capability::VENDOR => standard::virtio(shape, paint),
        _ => {}
    }
}

/// Calls `paint` for every range of the extended capability `id`, its four
/// header bytes included.
pub(super) fn extended(id: u16, shape: &mut dyn Shape, paint: &mut dyn FnMut(u16, u16, ByteRule)) {
    use warmbus_pci::registers::extended as ids;

    paint(0, 4, ByteRule::of(ByteClass::Static));
    for field in extended::table(id) {
        field.expand(shape, paint);
    }
    match id {
        ids::VIRTUAL_CHANNEL | ids::VIRTUAL_CHANNEL_MFVC | ids::MULTI_FUNCTION_VC => {
            variable::virtual_channel(id, shape, paint);
        }
        ids::DVSEC => dvsec::dvsec(shape, paint),
        ids::IDE => variable::ide(shape, paint),
        _ => {}
    }
}

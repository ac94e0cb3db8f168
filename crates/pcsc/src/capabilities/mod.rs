//! What is known of the registers of configuration space: one table a
//! structure.
//!
//! A [`Row`] describes a range of bytes: the name of the register, how the
//! bytes behave ([`ByteClass`]), which event makes a cached byte stale
//! ([`InvalidatedBy`]), what a write does ([`WriteEffect`]), and the condition
//! under which the range exists. Two views are derived from the rows and hold
//! nothing of their own: the rules of the cache ([`crate::infer`]) and the
//! names of registers ([`crate::names`]).
//!
//! # Adding a capability
//!
//! 1. Add an arm to `structure` in `standard.rs` or `extended.rs` that gives
//!    the short name of the structure, as `lspci` and Linux write it, and its
//!    rows.
//! 2. Write the rows next to it, with the section of the specification, from
//!    behind the header (2 bytes, or 4 of an extended capability). Begin each
//!    with the class of its bytes: [`constant`], [`software`], [`volatile`],
//!    [`side_effect`], [`pass_through`] or [`undescribed`]. Then add
//!    [`Row::tag`], [`Row::effect`], [`Row::when`], [`Row::reserved_unless`]
//!    and [`Row::each`] as needed. A register whose bytes behave differently
//!    takes several rows of one name, in ascending order.
//! 3. Only where the position of a register depends on the content of others,
//!    write a function in `variable.rs` that emits the rows.
//!
//! Nothing else is edited: the cache, `warmbus inspect` and `warmbus diff` read
//! the rows, and the tests of this module check them.

mod dvsec;
mod express;
mod extended;
mod extended_late;
mod header;
mod shape;
mod standard;
#[cfg(test)]
mod tests;
mod variable;

use alloc::vec::Vec;

use crate::byte_class::{ByteClass, ByteRule, InvalidatedBy, WriteEffect};

pub(crate) use header::end as header_end;
pub(crate) use shape::{Facts, Shape, structure_end};

/// A condition on the shape of a structure.
type Condition = fn(&mut Shape<'_>) -> bool;
/// A number that the shape of a structure decides.
type Count = fn(&mut Shape<'_>) -> u16;
/// Receives the ranges of a structure.
type Emit<'a> = dyn FnMut(Range) + 'a;

/// One row: a range of bytes of a register, from the start of the structure.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    at: u16,
    len: u16,
    rule: ByteRule,
    when: Option<Condition>,
    reserved_unless: Option<Condition>,
    each: Option<(u16, Count)>,
}

impl Row {
    const fn new(at: u16, len: u16, name: &'static str, class: ByteClass) -> Self {
        Self {
            name,
            at,
            len,
            rule: ByteRule::of(class),
            when: None,
            reserved_unless: None,
            each: None,
        }
    }

    /// The event that makes the bytes stale.
    const fn tag(mut self, tag: InvalidatedBy) -> Self {
        self.rule.tag = tag;
        self
    }

    /// What a write to the bytes does.
    const fn effect(mut self, effect: WriteEffect) -> Self {
        self.rule.effect = effect;
        self
    }

    /// The range exists only where `condition` holds. Elsewhere its bytes may
    /// be another register or no part of the structure.
    const fn when(mut self, condition: Condition) -> Self {
        self.when = Some(condition);
        self
    }

    /// The function implements the register only where `condition` holds.
    /// Elsewhere the range is reserved: it has its name, but no rule.
    const fn reserved_unless(mut self, condition: Condition) -> Self {
        self.reserved_unless = Some(condition);
        self
    }

    /// The range repeats every `stride` bytes, `count` times.
    const fn each(mut self, stride: u16, count: Count) -> Self {
        self.each = Some((stride, count));
        self
    }

    /// Emits every range of the row in a structure of `shape`.
    fn expand(&self, shape: &mut Shape<'_>, emit: &mut Emit<'_>) {
        if self.when.is_some_and(|condition| !condition(shape)) {
            return;
        }
        let is_reserved = self
            .reserved_unless
            .is_some_and(|condition| !condition(shape));
        let mut range = Range {
            at: self.at,
            len: self.len,
            name: self.name,
            number: None,
            rule: if is_reserved {
                ByteRule::UNKNOWN
            } else {
                self.rule
            },
        };
        let Some((stride, count)) = self.each else {
            emit(range);
            return;
        };
        for number in 0..count(shape) {
            // A count that a device made up may lead out of the structure,
            // which ends the row.
            let at = self.at.saturating_add(number.saturating_mul(stride));
            if !shape.holds(at) {
                return;
            }
            range.at = at;
            range.number = Some(number);
            emit(range);
        }
    }
}

fn expand(rows: &[Row], shape: &mut Shape<'_>, emit: &mut Emit<'_>) {
    for row in rows {
        row.expand(shape, emit);
    }
}

/// Bytes that are constant.
const fn constant(at: u16, len: u16, name: &'static str) -> Row {
    Row::new(at, len, name, ByteClass::Static)
}

/// Bytes that only software changes.
const fn software(at: u16, len: u16, name: &'static str) -> Row {
    Row::new(at, len, name, ByteClass::Software)
}

/// Bytes that change on their own.
const fn volatile(at: u16, len: u16, name: &'static str) -> Row {
    Row::new(at, len, name, ByteClass::Volatile)
}

/// Bytes whose read has an effect.
const fn side_effect(at: u16, len: u16, name: &'static str) -> Row {
    Row::new(at, len, name, ByteClass::SideEffect)
}

/// Bytes that are passed through.
const fn pass_through(at: u16, len: u16, name: &'static str) -> Row {
    Row::new(at, len, name, ByteClass::PassThrough)
}

/// Bytes that have a name, but whose behaviour is not described: the cache
/// handles them as bytes of no register.
const fn undescribed(at: u16, len: u16, name: &'static str) -> Row {
    Row::new(at, len, name, ByteClass::Unknown)
}

/// One kind of structure.
#[derive(Clone, Copy)]
struct Structure {
    /// Its short name; empty for the header.
    name: &'static str,
    /// The registers whose position is fixed.
    rows: &'static [Row],
    /// Emits those whose position is computed.
    computed: Option<fn(&mut Shape<'_>, &mut Emit<'_>)>,
}

impl Structure {
    /// A structure of which only the header is described.
    const fn named(name: &'static str) -> Self {
        Self::of(name, &[])
    }

    const fn of(name: &'static str, rows: &'static [Row]) -> Self {
        Self {
            name,
            rows,
            computed: None,
        }
    }

    const fn and(mut self, computed: fn(&mut Shape<'_>, &mut Emit<'_>)) -> Self {
        self.computed = Some(computed);
        self
    }
}

/// A range of bytes of one register in a structure at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// Offset from the start of the structure.
    pub(crate) at: u16,
    /// Bytes.
    pub(crate) len: u16,
    /// Name of the register in the structure.
    pub(crate) name: &'static str,
    /// Which one of several with the same name, counted from 0.
    pub(crate) number: Option<u16>,
    /// How the bytes behave.
    pub(crate) rule: ByteRule,
}

/// The ranges of one structure, without overlaps and within the structure.
pub(crate) struct Ranges {
    /// Short name of the structure; empty for the header.
    pub(crate) structure: &'static str,
    /// In the order of the table.
    pub(crate) ranges: Vec<Range>,
}

/// The configuration header (PCIe 7.5.1).
pub(crate) fn header(shape: &mut Shape<'_>) -> Ranges {
    let layout = header::layout(shape.facts().header_type);
    collect("", shape, |shape, emit| {
        expand(header::COMMON, shape, emit);
        expand(layout, shape, emit);
    })
}

/// The start of an extended space without capabilities (PCIe 7.6.3).
pub(crate) fn no_extended_capability(shape: &mut Shape<'_>) -> Ranges {
    collect("", shape, |shape, emit| {
        expand(header::NO_EXTENDED_CAPABILITY, shape, emit);
    })
}

/// The capability `id`, its two header bytes included.
pub(crate) fn standard(id: u8, shape: &mut Shape<'_>) -> Ranges {
    structure(standard::structure(id), &constant(0, 2, "Header"), shape)
}

/// The extended capability `id`, its four header bytes included.
pub(crate) fn extended(id: u16, shape: &mut Shape<'_>) -> Ranges {
    structure(extended::structure(id), &constant(0, 4, "Header"), shape)
}

fn structure(found: Structure, header: &Row, shape: &mut Shape<'_>) -> Ranges {
    collect(found.name, shape, |shape, emit| {
        header.expand(shape, emit);
        expand(found.rows, shape, emit);
        if let Some(computed) = found.computed {
            computed(shape, emit);
        }
    })
}

/// Collects what `fill` emits, cut at the end of the structure.
///
/// A structure may place a table over other registers of its own, which no
/// specification allows. Such a table is not believed: the first register of a
/// byte stays, and a range that overlaps it is dropped.
fn collect(
    name: &'static str,
    shape: &mut Shape<'_>,
    fill: impl FnOnce(&mut Shape<'_>, &mut Emit<'_>),
) -> Ranges {
    let len = shape.len();
    // Few structures have more.
    let mut ranges: Vec<Range> = Vec::with_capacity(24);
    let mut highest = 0;
    fill(shape, &mut |mut range| {
        range.len = range.len.min(len.saturating_sub(range.at));
        let end = range.at + range.len;
        let overlaps = |other: &Range| range.at < other.at + other.len && other.at < end;
        // Most rows ascend, and need no search.
        if range.len > 0 && (range.at >= highest || !ranges.iter().any(overlaps)) {
            highest = end.max(highest);
            ranges.push(range);
        }
    });
    Ranges {
        structure: name,
        ranges,
    }
}

//! Structures whose layout is computed from their own registers.

use super::{
    ByteRule, Emit, Range, Row, Shape, WriteEffect, constant, expand, side_effect, software,
    volatile,
};

/// The row `row`, moved by `start` bytes, as number `number` of its kind.
fn emit_numbered(row: &Row, start: u16, number: u16, emit: &mut Emit<'_>) {
    emit(Range {
        at: start.saturating_add(row.at),
        len: row.len,
        name: row.name,
        number: Some(number),
        rule: row.rule,
    });
}

/// Virtio 1.3, 4.1.4: structures of vendor 1af4 that locate registers in BARs.
///
/// Type 5 is a window into a BAR; reading its data performs the read behind.
pub(super) fn virtio(shape: &mut Shape<'_>, emit: &mut Emit<'_>) {
    const VENDOR_ID: u16 = 0x1af4;
    const WINDOW: u32 = 5;

    let header = shape.dword(0);
    let kind = header >> 24;
    let (last, min_length): (&[Row], u32) = match kind {
        1 | 3 | 4 => (&[], 0x10),
        2 => (&[constant(0x10, 4, "Virtio Notify Multiplier")], 0x14),
        WINDOW => (&[side_effect(0x10, 4, "Virtio Configuration Data")], 0x14),
        8 => (
            &[
                constant(0x10, 4, "Virtio Offset High"),
                constant(0x14, 4, "Virtio Length High"),
            ],
            0x18,
        ),
        _ => return,
    };
    if shape.facts().vendor_id != VENDOR_ID {
        return;
    }
    let first = if kind == WINDOW {
        VIRTIO_WINDOW
    } else {
        VIRTIO_LOCATOR
    };
    // A structure shorter than its type needs is not one of virtio's.
    let is_whole = header >> 16 & 0xff >= min_length;
    for rows in [VIRTIO_TYPE, first, last] {
        expand(rows, shape, &mut |mut range| {
            if !is_whole {
                range.rule = ByteRule::UNKNOWN;
            }
            emit(range);
        });
    }
}

const VIRTIO_TYPE: &[Row] = &[constant(3, 1, "Virtio Type")];

const VIRTIO_LOCATOR: &[Row] = &[
    constant(4, 1, "Virtio BAR"),
    constant(5, 1, "Virtio ID"),
    constant(6, 2, "Virtio Padding"),
    constant(8, 4, "Virtio Offset"),
    constant(0x0c, 4, "Virtio Length"),
];

const VIRTIO_WINDOW: &[Row] = &[
    software(4, 1, "Virtio BAR"),
    software(5, 1, "Virtio ID"),
    software(6, 2, "Virtio Padding"),
    software(8, 4, "Virtio Offset"),
    software(0x0c, 4, "Virtio Length"),
];

/// The entries of Enhanced Allocation (PCIe 7.8.5): one to eight dwords; a base
/// or offset is a constant unless the entry is writable.
pub(super) fn enhanced_allocation(shape: &mut Shape<'_>, emit: &mut Emit<'_>) {
    const WRITABLE: u32 = 1 << 30;

    let entries = (shape.dword(0) >> 16 & 0x3f) as u16;
    let mut at: u16 = if shape.facts().header_type == 1 { 8 } else { 4 };
    for number in 0..entries {
        if !shape.holds(at) {
            break;
        }
        let header = shape.dword(at);
        let body = (header as u16 & 7) * 4;
        let fields = if header & WRITABLE == 0 {
            constant(4, body, "Entry")
        } else {
            software(4, body, "Entry")
        };
        for row in [
            constant(0, 3, "Entry Type"),
            software(3, 1, "Entry Type").effect(WriteEffect::Locking),
            fields.effect(WriteEffect::Locking),
        ] {
            emit_numbered(&row, at, number, emit);
        }
        at += 4 + body;
    }
}

/// The port registers of Virtual Channel structures (PCIe 7.9.1, 7.9.2).
pub(super) const VIRTUAL_CHANNEL: &[Row] = &[
    constant(0x04, 4, "Port Capability 1"),
    constant(0x08, 4, "Port Capability 2"),
    software(0x0c, 2, "Port Control"),
    volatile(0x0e, 2, "Port Status"),
];

/// The registers of each resource.
const RESOURCE: &[Row] = &[
    constant(0, 4, "Resource Capability"),
    software(4, 4, "Resource Control"),
    volatile(8, 2, "Resource Reserved"),
    volatile(10, 2, "Resource Status"),
];

/// Virtual Channel: port arbitration entries are 1, 2, 4 or 8 bits.
pub(super) fn virtual_channel(shape: &mut Shape<'_>, emit: &mut Emit<'_>) {
    let entry_bits = 1 << (shape.dword(4) >> 10 & 3);
    resources(entry_bits, shape, emit);
}

/// Multi-Function Virtual Channel: the tables of its resources arbitrate
/// functions with 8 bits (PCIe 7.9.2.8).
pub(super) fn multi_function_vc(shape: &mut Shape<'_>, emit: &mut Emit<'_>) {
    resources(8, shape, emit);
}

/// Resources by the extended VC count, then arbitration tables at offsets that
/// count in 16 bytes, as long as the widest scheme that is announced.
fn resources(entry_bits: u16, shape: &mut Shape<'_>, emit: &mut Emit<'_>) {
    let count = (shape.dword(4) & 7) as u16 + 1;
    let start_of = |number: u16| 0x10 + number * 0x0c;
    for number in 0..count {
        for row in RESOURCE {
            emit_numbered(row, start_of(number), number, emit);
        }
    }
    for number in 0..count {
        let resource = shape.dword(start_of(number));
        let table = (resource >> 24) as u16 * 16;
        if table != 0 {
            let phases = widest_phases(resource, &[(1, 32), (2, 64), (3, 128), (4, 128), (5, 256)]);
            let row = software(0, phases * entry_bits / 8, "Port Arbitration Table");
            emit_numbered(&row, table, number, emit);
        }
    }
    let capability_2 = shape.dword(8);
    let table = (capability_2 >> 24) as u16 * 16;
    if table != 0 {
        // Entries of 4 bits.
        let phases = widest_phases(capability_2, &[(1, 32), (2, 64), (3, 128)]);
        software(table, phases / 2, "VC Arbitration Table").expand(shape, emit);
    }
}

/// The largest number of phases among the arbitration schemes that the bits
/// of a capability register announce.
fn widest_phases(capability: u32, schemes: &[(u32, u16)]) -> u16 {
    schemes
        .iter()
        .filter(|(bit, _)| capability & 1 << bit != 0)
        .map(|&(_, phases)| phases)
        .max()
        .unwrap_or(0)
}

/// The fixed registers of Integrity and Data Encryption (PCIe 7.9.25).
pub(super) const IDE: &[Row] = &[
    constant(4, 4, "Capability"),
    software(8, 4, "Control").effect(WriteEffect::Locking),
];

/// The streams of IDE: link stream blocks, then selective stream blocks that
/// each contain the number of address associations that follow.
pub(super) fn ide(shape: &mut Shape<'_>, emit: &mut Emit<'_>) {
    const LINK_STREAMS: u32 = 1 << 0;
    const SELECTIVE_STREAMS: u32 = 1 << 1;

    let capability = shape.dword(4);
    let mut at: u16 = 0x0c;
    if capability & LINK_STREAMS != 0 {
        for number in 0..=(capability >> 13 & 7) as u16 {
            for row in [
                software(0, 4, "Link Stream Control").effect(WriteEffect::Locking),
                volatile(4, 4, "Link Stream Status"),
            ] {
                emit_numbered(&row, at, number, emit);
            }
            at += 8;
        }
    }
    if capability & SELECTIVE_STREAMS != 0 {
        for number in 0..=(capability >> 16 & 0xff) as u16 {
            if !shape.holds(at) {
                break;
            }
            let associations = (shape.dword(at) & 0xf) as u16;
            let len = 8 + associations * 0x0c;
            for row in [
                constant(0, 4, "Selective Stream Capability"),
                software(4, 4, "Selective Stream Control").effect(WriteEffect::Locking),
                volatile(8, 4, "Selective Stream Status"),
                software(0x0c, len, "Selective Stream Association").effect(WriteEffect::Locking),
            ] {
                emit_numbered(&row, at, number, emit);
            }
            at += 0x0c + len;
        }
    }
}

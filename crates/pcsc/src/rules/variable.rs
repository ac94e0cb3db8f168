//! Rules of structures whose layout is computed from their own registers.

use super::{ByteClass, ByteRule, Field, Shape, WriteEffect, st, sw, vo};
use warmbus_pci::registers::extended as ids;

type Paint<'a> = &'a mut dyn FnMut(u16, u16, ByteRule);

fn expand(fields: &[Field], shape: &mut dyn Shape, paint: Paint<'_>) {
    for field in fields {
        field.expand(shape, paint);
    }
}

/// Enhanced Allocation (PCIe 7.8.5): entries of one to eight dwords; a base
/// or offset is a constant unless the entry is writable.
pub(super) fn enhanced_allocation(shape: &mut dyn Shape, paint: Paint<'_>) {
    const WRITABLE: u32 = 1 << 30;

    let entries = shape.dword(0) >> 16 & 0x3f;
    paint(2, 2, ByteRule::of(ByteClass::Static));
    let mut at: u16 = 4;
    if shape.facts().header_type == 1 {
        // Fixed secondary and subordinate bus numbers.
        paint(4, 4, ByteRule::of(ByteClass::Static));
        at = 8;
    }
    for _ in 0..entries {
        let header = shape.dword(at);
        let body = (header as u16 & 7) * 4;
        let class = if header & WRITABLE == 0 {
            ByteClass::Static
        } else {
            ByteClass::Software
        };
        let effect = WriteEffect::Locking;
        paint(at, 3, ByteRule::of(ByteClass::Static));
        paint(
            at + 3,
            1,
            ByteRule {
                effect,
                ..ByteRule::of(ByteClass::Software)
            },
        );
        paint(
            at + 4,
            body,
            ByteRule {
                effect,
                ..ByteRule::of(class)
            },
        );
        at += 4 + body;
        if at > 0xfc {
            break;
        }
    }
}

/// Virtual Channel structures (PCIe 7.9.1, 7.9.2): resources by the extended
/// VC count, arbitration tables at offsets that count in 16 bytes.
pub(super) fn virtual_channel(id: u16, shape: &mut dyn Shape, paint: Paint<'_>) {
    const PORT: &[Field] = &[st(4, 8), sw(0x0c, 2), vo(0x0e, 2)];

    expand(PORT, shape, paint);
    let capability_1 = shape.dword(4);
    let capability_2 = shape.dword(8);
    let count = (capability_1 & 7) as u16 + 1;
    for vc in 0..count {
        let at = 0x10 + vc * 0x0c;
        expand(&[st(at, 4), sw(at + 4, 4), vo(at + 8, 4)], shape, paint);
        let resource = shape.dword(at);
        let table = (resource >> 24) as u16 * 16;
        if table != 0 {
            let phases = widest_phases(resource, &[(1, 32), (2, 64), (3, 128), (4, 128), (5, 256)]);
            // Port arbitration entries are 1, 2, 4 or 8 bits; an MFVC table
            // arbitrates functions with 8 bits (PCIe 7.9.2.8).
            let entry_bits = if id == ids::MULTI_FUNCTION_VC {
                8
            } else {
                1 << (capability_1 >> 10 & 3)
            };
            paint(
                table,
                phases * entry_bits / 8,
                ByteRule::of(ByteClass::Software),
            );
        }
    }
    let table = (capability_2 >> 24) as u16 * 16;
    if table != 0 {
        let phases = widest_phases(capability_2, &[(1, 32), (2, 64), (3, 128)]);
        paint(table, phases / 2, ByteRule::of(ByteClass::Software));
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

/// Integrity and Data Encryption (PCIe 7.9.25): link stream blocks, then
/// selective stream blocks that each say how many address associations follow.
pub(super) fn ide(shape: &mut dyn Shape, paint: Paint<'_>) {
    const LINK_STREAMS: u32 = 1 << 0;
    const SELECTIVE_STREAMS: u32 = 1 << 1;

    let locking = |class| ByteRule {
        effect: WriteEffect::Locking,
        ..ByteRule::of(class)
    };
    let capability = shape.dword(4);
    paint(4, 4, ByteRule::of(ByteClass::Static));
    paint(8, 4, locking(ByteClass::Software));
    let mut at: u16 = 0x0c;
    if capability & LINK_STREAMS != 0 {
        for _ in 0..=(capability >> 13 & 7) {
            paint(at, 4, locking(ByteClass::Software));
            paint(at + 4, 4, ByteRule::of(ByteClass::Volatile));
            at += 8;
        }
    }
    if capability & SELECTIVE_STREAMS != 0 {
        for _ in 0..=(capability >> 16 & 0xff) {
            let associations = (shape.dword(at) & 0xf) as u16;
            paint(at, 4, ByteRule::of(ByteClass::Static));
            paint(at + 4, 4, locking(ByteClass::Software));
            paint(at + 8, 4, ByteRule::of(ByteClass::Volatile));
            paint(
                at + 0x0c,
                8 + associations * 0x0c,
                locking(ByteClass::Software),
            );
            at += 0x14 + associations * 0x0c;
            if at >= 0x1000 {
                break;
            }
        }
    }
}

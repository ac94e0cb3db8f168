//! Registers whose number or place their structure tells.

use super::{Put, Row, Shape, each};
use warmbus_pci::registers::extended as ids;

/// PCIe 7.9.1.
const RESOURCE: &[Row] = &[
    (0, 4, "Resource Capability"),
    (4, 4, "Resource Control"),
    (8, 2, "Resource Reserved"),
    (10, 2, "Resource Status"),
];

/// PCIe 7.7.3.
const WIDE_LANE: &[Row] = &[(0, 2, "Lane Equalization Control")];
/// PCIe 7.7.5, 7.7.6.
const LANE: &[Row] = &[(0, 1, "Lane Equalization Control")];
/// PCIe 7.7.7.
const MARGINING_LANE: &[Row] = &[(0, 2, "Lane Control"), (2, 2, "Lane Status")];

/// Calls `put` for the registers of extended capability `id` that repeat.
pub(super) fn registers(id: u16, shape: &Shape<'_>, put: &mut Put<'_>) {
    match id {
        ids::VIRTUAL_CHANNEL | ids::VIRTUAL_CHANNEL_MFVC | ids::MULTI_FUNCTION_VC => {
            let count = (shape.dword(4) & 7) as u16 + 1;
            each(0x10, 0x0c, count, RESOURCE, put);
            for number in 0..count {
                let table = (shape.dword(0x10 + number * 0x0c) >> 24) as u16 * 16;
                if table != 0 {
                    put(table, 256, "Port Arbitration Table", Some(number));
                }
            }
            let table = (shape.dword(8) >> 24) as u16 * 16;
            if table != 0 {
                put(table, 64, "VC Arbitration Table", None);
            }
        }
        0x05 => {
            let links = (shape.dword(4) >> 8 & 0xff) as u16;
            each(0x10, 0x10, links, &[(0, 0x10, "Link Entry")], put);
        }
        0x0d if shape.dword(4) & 1 << 5 != 0 => {
            let bits = match (shape.dword(4) >> 8 & 0xff) as u16 {
                0 => 256,
                bits => bits,
            };
            let dwords = bits.div_ceil(32);
            each(8, 4, dwords, &[(0, 4, "Egress Control Vector")], put);
        }
        0x15 | 0x24 => {
            let bars = (shape.dword(8) >> 5 & 7).min(6) as u16;
            each(4, 8, bars, &[(0, 4, "Capability"), (4, 4, "Control")], put);
        }
        0x16 => {
            let substates = (shape.dword(4) & 0x1f) as u16 + 1;
            each(0x10, 1, substates, &[(0, 1, "Power Allocation")], put);
        }
        0x17 if shape.dword(4) >> 9 & 3 == 1 => {
            let entries = (shape.dword(4) >> 16 & 0x7ff) as u16 + 1;
            each(0x0c, 2, entries, &[(0, 2, "Steering Tag")], put);
        }
        0x19 => {
            each(0x0c, 2, shape.lanes, WIDE_LANE, put);
        }
        0x26 | 0x2a => {
            each(0x20, 1, shape.lanes, LANE, put);
        }
        0x27 => {
            each(8, 4, shape.lanes, MARGINING_LANE, put);
        }
        ids::DVSEC => {
            // The body belongs to the vendor; Header 1 tells the length.
            let length = (shape.dword(4) >> 20) as u16;
            let words = length.saturating_sub(0x0a) / 2;
            each(0x0a, 2, words, &[(0, 2, "Register")], put);
        }
        ids::IDE => ide(shape, put),
        0x36 => {
            let dwords = ((shape.dword(4) & 0xfff) as u16 / 4).saturating_sub(2);
            each(8, 4, dwords, &[(0, 4, "Locator")], put);
        }
        _ => {}
    }
}

/// PCIe 7.9.25: link streams, then selective streams that each say how many
/// address associations follow.
fn ide(shape: &Shape<'_>, put: &mut Put<'_>) {
    let capability = shape.dword(4);
    let mut at: u16 = 0x0c;
    if capability & 1 != 0 {
        for number in 0..=(capability >> 13 & 7) as u16 {
            put(at, 4, "Link Stream Control", Some(number));
            put(at + 4, 4, "Link Stream Status", Some(number));
            at += 8;
        }
    }
    if capability & 2 != 0 {
        for number in 0..=(capability >> 16 & 0xff) as u16 {
            if shape.start.saturating_add(at) >= shape.end {
                return;
            }
            let associations = (shape.dword(at) & 0xf) as u16;
            put(at, 4, "Selective Stream Capability", Some(number));
            put(at + 4, 4, "Selective Stream Control", Some(number));
            put(at + 8, 4, "Selective Stream Status", Some(number));
            let len = 8 + associations * 0x0c;
            put(at + 0x0c, len, "Selective Stream Association", Some(number));
            at += 0x0c + len;
        }
    }
}

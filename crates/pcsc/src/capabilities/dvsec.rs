//! Designated Vendor-Specific extended capabilities (PCIe 7.9.6).
//!
//! A body is known by vendor and ID; the ones here are those of Compute
//! Express Link (CXL 3.1, 8.1).

use alloc::vec::Vec;

use super::{
    ByteRule, Emit, InvalidatedBy, Range, Row, Shape, WriteEffect, constant, expand, software,
    volatile,
};

const CXL: u32 = 0x1e98;

/// The name of each word of a body: Header 1 contains only the length of it.
const WORD: &str = "Register";

/// The first byte after the two headers.
const BODY: u16 = 0x0a;

/// Two headers, then the body of the vendor.
pub(super) const HEADERS: &[Row] = &[constant(4, 4, "Header 1"), constant(8, 2, "Header 2")];

/// The words of the body, with the rules of those that are described.
pub(super) fn body(shape: &mut Shape<'_>, emit: &mut Emit<'_>) {
    let header_1 = shape.dword(4);
    let length = (header_1 >> 20) as u16;
    let mut described: Vec<Range> = Vec::new();
    if header_1 & 0xffff == CXL {
        let rows = cxl(shape.dword(8) as u16);
        expand(rows, shape, &mut |range| {
            // Older revisions are shorter.
            if range.at.saturating_add(range.len) <= length {
                described.push(range);
            }
        });
    }
    for number in 0..length.saturating_sub(BODY) / 2 {
        let at = BODY + 2 * number;
        let range = described
            .iter()
            .find(|range| (range.at..range.at + range.len).contains(&at));
        emit(Range {
            at,
            len: 2,
            name: WORD,
            number: Some(number),
            rule: range.map_or(ByteRule::UNKNOWN, |range| range.rule),
        });
    }
}

/// The rows of the body with DVSEC ID `id`.
pub(super) const fn cxl(id: u16) -> &'static [Row] {
    match id {
        0 => DEVICE,
        2 => NON_CXL_FUNCTION_MAP,
        3 => PORT_EXTENSIONS,
        4 => GPF_PORT,
        5 => GPF_DEVICE,
        7 => FLEX_BUS_PORT,
        8 => REGISTER_LOCATOR,
        9 => MULTI_LOGICAL_DEVICE,
        _ => &[],
    }
}

/// CXL 8.1.3. A range size holds once it is valid and the memory active.
const DEVICE: &[Row] = &[
    constant(0x0a, 2, WORD),
    software(0x0c, 2, WORD),
    volatile(0x0e, 2, WORD),
    volatile(0x10, 2, WORD).effect(WriteEffect::CxlControl2),
    volatile(0x12, 2, WORD),
    software(0x14, 2, WORD).effect(WriteEffect::Locking),
    constant(0x16, 2, WORD),
    constant(0x18, 4, WORD),
    constant(0x1c, 4, WORD).when(|s| is_ready(s, 0x1c)),
    volatile(0x1c, 4, WORD).when(|s| !is_ready(s, 0x1c)),
    software(0x20, 8, WORD),
    constant(0x28, 4, WORD),
    constant(0x2c, 4, WORD).when(|s| is_ready(s, 0x2c)),
    volatile(0x2c, 4, WORD).when(|s| !is_ready(s, 0x2c)),
    software(0x30, 8, WORD),
    constant(0x38, 2, WORD),
];

/// `Memory_Info_Valid` and `Memory_Active` of a range.
fn is_ready(shape: &mut Shape<'_>, at: u16) -> bool {
    shape.dword(at) & 3 == 3
}

/// CXL 8.1.4.
const NON_CXL_FUNCTION_MAP: &[Row] = &[constant(0x0c, 0x20, WORD)];

/// CXL 8.1.5.
const PORT_EXTENSIONS: &[Row] = &[
    volatile(0x0a, 2, WORD),
    software(0x0c, 2, WORD).tag(InvalidatedBy::Link),
    software(0x0e, 2, WORD).tag(InvalidatedBy::Link),
    software(0x10, 0x10, WORD).tag(InvalidatedBy::Link),
    software(0x20, 8, WORD).tag(InvalidatedBy::Link),
];

/// CXL 8.1.6.
const GPF_PORT: &[Row] = &[software(0x0c, 2, WORD), software(0x0e, 2, WORD)];

/// CXL 8.1.7.
const GPF_DEVICE: &[Row] = &[constant(0x0a, 2, WORD), constant(0x0c, 4, WORD)];

/// CXL 8.2.1.3: meaningful while the link is a CXL link.
const FLEX_BUS_PORT: &[Row] = &[
    constant(0x0a, 2, WORD).tag(InvalidatedBy::Link),
    software(0x0c, 2, WORD).tag(InvalidatedBy::Link),
    volatile(0x0e, 2, WORD),
    volatile(0x10, 4, WORD),
    constant(0x14, 4, WORD).tag(InvalidatedBy::Link),
    software(0x18, 4, WORD).tag(InvalidatedBy::Link),
    volatile(0x1c, 4, WORD),
];

/// CXL 8.1.9: pairs of dwords to the end of the structure.
const REGISTER_LOCATOR: &[Row] =
    &[constant(0x0c, 4, WORD).each(4, |s| ((s.dword(4) >> 20) as u16 / 4).saturating_sub(3))];

/// CXL 8.1.10.
const MULTI_LOGICAL_DEVICE: &[Row] = &[constant(0x0a, 2, WORD), volatile(0x0c, 2, WORD)];

//! Rules of Designated Vendor-Specific extended capabilities.
//!
//! A body is known by vendor and ID; the ones here are those of Compute
//! Express Link (CXL 3.1, 8.1).

use super::{ByteClass, ByteRule, Field, InvalidatedBy, Shape, WriteEffect, st, sw, vo};

const CXL: u32 = 0x1e98;

/// PCIe 7.9.6: two headers, then the vendor's body.
pub(super) fn dvsec(shape: &mut dyn Shape, paint: &mut dyn FnMut(u16, u16, ByteRule)) {
    paint(4, 6, ByteRule::of(ByteClass::Static));
    let header_1 = shape.dword(4);
    let length = (header_1 >> 20) as u16;
    if header_1 & 0xffff != CXL {
        return;
    }
    let table: &[Field] = match shape.dword(8) & 0xffff {
        0 => DEVICE,
        2 => NON_CXL_FUNCTION_MAP,
        3 => PORT_EXTENSIONS,
        4 => GPF_PORT,
        5 => GPF_DEVICE,
        7 => FLEX_BUS_PORT,
        8 => REGISTER_LOCATOR,
        9 => MULTI_LOGICAL_DEVICE,
        _ => &[],
    };
    for field in table {
        field.expand(shape, &mut |at, len, cell| {
            // Older revisions are shorter.
            if at.saturating_add(len) <= length {
                paint(at, len, cell);
            }
        });
    }
}

/// CXL 8.1.3. A range size holds once it is valid and the memory active.
const DEVICE: &[Field] = &[
    st(0x0a, 2),
    sw(0x0c, 2),
    vo(0x0e, 2),
    vo(0x10, 2).effect(WriteEffect::CxlControl2),
    vo(0x12, 2),
    sw(0x14, 2).effect(WriteEffect::Locking),
    st(0x16, 2),
    st(0x18, 4),
    st(0x1c, 4).when(|s| is_ready(s, 0x1c)),
    vo(0x1c, 4).when(|s| !is_ready(s, 0x1c)),
    sw(0x20, 8),
    st(0x28, 4),
    st(0x2c, 4).when(|s| is_ready(s, 0x2c)),
    vo(0x2c, 4).when(|s| !is_ready(s, 0x2c)),
    sw(0x30, 8),
    st(0x38, 2),
];

/// `Memory_Info_Valid` and `Memory_Active` of a range.
fn is_ready(shape: &mut dyn Shape, at: u16) -> bool {
    shape.dword(at) & 3 == 3
}

/// CXL 8.1.4.
const NON_CXL_FUNCTION_MAP: &[Field] = &[st(0x0c, 0x20)];

/// CXL 8.1.5.
const PORT_EXTENSIONS: &[Field] = &[
    vo(0x0a, 2),
    sw(0x0c, 2).tag(InvalidatedBy::Link),
    sw(0x0e, 2).tag(InvalidatedBy::Link),
    sw(0x10, 0x10).tag(InvalidatedBy::Link),
    sw(0x20, 8).tag(InvalidatedBy::Link),
];

/// CXL 8.1.6.
const GPF_PORT: &[Field] = &[sw(0x0c, 2), sw(0x0e, 2)];

/// CXL 8.1.7.
const GPF_DEVICE: &[Field] = &[st(0x0a, 2), st(0x0c, 4)];

/// CXL 8.2.1.3: meaningful while the link is a CXL link.
const FLEX_BUS_PORT: &[Field] = &[
    st(0x0a, 2).tag(InvalidatedBy::Link),
    sw(0x0c, 2).tag(InvalidatedBy::Link),
    vo(0x0e, 2),
    vo(0x10, 4),
    st(0x14, 4).tag(InvalidatedBy::Link),
    sw(0x18, 4).tag(InvalidatedBy::Link),
    vo(0x1c, 4),
];

/// CXL 8.1.9: pairs of dwords to the end of the structure.
const REGISTER_LOCATOR: &[Field] =
    &[st(0x0c, 4).each(4, |s| ((s.dword(4) >> 20) as u16 / 4).saturating_sub(3))];

/// CXL 8.1.10.
const MULTI_LOGICAL_DEVICE: &[Field] = &[st(0x0a, 2), vo(0x0c, 2)];

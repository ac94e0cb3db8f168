//! Numbers in tables: little-endian, at any offset, perhaps beyond the end.

pub(super) fn u8_at(bytes: &[u8], offset: usize) -> Option<u8> {
    bytes.get(offset).copied()
}

pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    array(bytes, offset).map(u16::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array(bytes, offset).map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    array(bytes, offset).map(u64::from_le_bytes)
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

/// The structures of a table that start with a type and a length, from
/// `offset` on. One that is shorter than its own two bytes, or not all there,
/// ends the walk.
pub(super) fn structures(bytes: &[u8], offset: usize) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes.get(offset..).unwrap_or_default();
    core::iter::from_fn(move || {
        let (&kind, &length) = (rest.first()?, rest.get(1)?);
        let length = usize::from(length);
        if length < 2 {
            return None;
        }
        let structure = rest.get(..length)?;
        rest = &rest[length..];
        Some((kind, structure))
    })
}

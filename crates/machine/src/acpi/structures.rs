//! Tables that are lists of structures.

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

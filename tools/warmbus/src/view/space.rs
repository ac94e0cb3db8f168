//! Configuration spaces, in a form that takes little room.

use std::collections::BTreeMap;

use warmbus_pci::{ConfigOffset, Sbdf};
use warmbus_pcsc::names::RegisterMap;
use warmbus_pcsc::{ByteClass, FunctionCache};

use super::model::{Page, Piece, Space};
use crate::hex_digits;
use crate::hierarchy::Hierarchy;
use crate::input;

/// Zeros between two pieces at least.
const GAP: usize = 8;

/// Classes as the script numbers them.
const UNKNOWN: usize = 0;
const CACHEABLE: usize = 1;
const CACHED: usize = 2;
const VOLATILE: usize = 3;
const SIDE_EFFECT: usize = 4;
const PASSED_THROUGH: usize = 5;

/// Adds every space to `page`. Returns the number of each.
pub(super) fn add(
    page: &mut Page,
    hierarchy: &Hierarchy,
    spaces: &BTreeMap<Sbdf, input::Space>,
) -> BTreeMap<Sbdf, usize> {
    let mut numbers = BTreeMap::new();
    for (&sbdf, space) in spaces {
        numbers.insert(sbdf, page.spaces.len());
        let space = one(page, hierarchy, sbdf, space);
        page.spaces.push(space);
    }
    numbers
}

fn one(page: &mut Page, hierarchy: &Hierarchy, sbdf: Sbdf, space: &input::Space) -> Space {
    let size = space.bytes.len();
    let mut layout = Vec::new();
    for register in hierarchy
        .names(sbdf)
        .into_iter()
        .flat_map(RegisterMap::iter)
    {
        let (offset, len) = (usize::from(register.offset), usize::from(register.len));
        if offset + len <= size {
            layout.extend([offset, len, page.names.intern(register.to_string())]);
        }
    }
    let block = hierarchy.block(sbdf);
    let classes = (0..size).map(|offset| class(block, space, offset));
    let known = space.known.iter().map(|known| usize::from(*known));
    let known = runs(known);
    let mut ranges = Vec::new();
    let mut at = 0;
    for run in known.chunks_exact(2) {
        if run[1] == 1 {
            ranges.extend([at, at + run[0]]);
        }
        at += run[0];
    }
    Space {
        size,
        data: pieces(&space.bytes),
        layout: page.layouts.intern(layout),
        class_runs: page.classes.intern(runs(classes)),
        known_runs: page.known.intern(ranges),
    }
}

/// Lengths and values of runs of equal `values`.
fn runs(values: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut runs: Vec<usize> = Vec::new();
    for value in values {
        match runs[..] {
            [.., ref mut length, last] if last == value => *length += 1,
            _ => runs.extend([1, value]),
        }
    }
    runs
}

fn class(block: Option<&FunctionCache>, space: &input::Space, offset: usize) -> usize {
    let offset = ConfigOffset::wrapping(offset as u16);
    let class = block.map_or(ByteClass::Unknown, |block| block.class(offset));
    let by_handover = space
        .extension
        .as_ref()
        .and_then(|extension| extension.cacheable.get(offset.index()));
    let is_cacheable = by_handover.copied().unwrap_or(class.is_cacheable());
    match class {
        _ if is_cacheable && space.known.get(offset.index()) == Some(&true) => CACHED,
        _ if is_cacheable => CACHEABLE,
        ByteClass::Volatile => VOLATILE,
        ByteClass::SideEffect => SIDE_EFFECT,
        ByteClass::PassThrough => PASSED_THROUGH,
        ByteClass::Unknown | ByteClass::Static | ByteClass::Software => UNKNOWN,
    }
}

/// The bytes without long runs of zeros.
fn pieces(bytes: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(skipped) = bytes[at..].iter().position(|byte| *byte != 0) {
        let start = at + skipped;
        let zeros = |window: &[u8]| window.iter().all(|byte| *byte == 0);
        let end = bytes[start..].windows(GAP).position(zeros);
        let end = end.map_or(bytes.len(), |length| start + length);
        let text = hex_digits(&bytes[start..end]);
        pieces.extend([Piece::Offset(start), Piece::Bytes(text)]);
        at = end;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_have_lengths_and_values() {
        assert_eq!(runs([2, 2, 0, 2].into_iter()), [2, 2, 1, 0, 1, 2]);
        assert_eq!(runs([1, 1, 1].into_iter()), [3, 1]);
        assert!(runs(std::iter::empty()).is_empty());
    }

    #[test]
    fn pieces_have_every_byte_that_is_not_zero() {
        for bytes in [
            vec![0; 64],
            vec![1; 64],
            [&[0; 20][..], &[7, 0, 0, 9], &[0; 30], &[5]].concat(),
            [&[3][..], &[0; GAP], &[4]].concat(),
        ] {
            let mut read = vec![0; bytes.len()];
            for pair in pieces(&bytes).chunks_exact(2) {
                let [Piece::Offset(at), Piece::Bytes(text)] = pair else {
                    panic!("{pair:?}");
                };
                for (number, digits) in text.as_bytes().chunks_exact(2).enumerate() {
                    let digits = str::from_utf8(digits).unwrap();
                    read[at + number] = u8::from_str_radix(digits, 16).unwrap();
                }
            }
            assert_eq!(read, bytes);
        }
    }
}

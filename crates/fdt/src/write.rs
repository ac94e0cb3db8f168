//! Tokens of a structure block, for writing.

use alloc::vec::Vec;

use crate::header::VERSION;
use crate::tokens::{BEGIN_NODE, END, END_NODE, PROP, RawTree};
use crate::{FdtError, HEADER_SIZE, MAGIC};

/// The oldest version that a reader of version 17 is compatible with.
const COMPATIBLE_WITH: u32 = 16;

/// A memory reservation block without reservations.
pub const NO_RESERVATIONS: [u8; 16] = [0; 16];

/// The structure block ends.
pub const FINISH: [u8; 4] = END.to_be_bytes();

/// The header and the memory reservations of `tree` for a tree with blocks of
/// these sizes, which are to follow in this order.
///
/// # Errors
///
/// If the tree would be larger than its header can describe, or memory for it
/// is exhausted.
pub fn start(tree: &RawTree<'_>, structure: usize, strings: usize) -> Result<Vec<u8>, FdtError> {
    let structure_at = HEADER_SIZE + tree.reservations.len();
    let strings_at = structure_at + structure;
    let header = header(structure_at, strings_at, strings, tree.boot_cpu)?;
    let needed = strings_at + strings;
    let mut out = Vec::new();
    out.try_reserve_exact(needed)
        .map_err(|_| FdtError::NoMemory { needed })?;
    out.extend_from_slice(&header);
    out.extend_from_slice(tree.reservations);
    Ok(out)
}

/// The header of a tree (DT 5.2) whose memory reservation block comes first,
/// then the structure block from the offset `structure` on, then `names` bytes
/// of names from the offset `strings` on.
pub(crate) fn header(
    structure: usize,
    strings: usize,
    names: usize,
    boot_cpu: u32,
) -> Result<[u8; HEADER_SIZE], FdtError> {
    let total = u32::try_from(strings + names).map_err(|_| FdtError::TooLarge)?;
    let fields = [
        MAGIC,
        total,
        structure as u32,
        strings as u32,
        HEADER_SIZE as u32,
        VERSION,
        COMPATIBLE_WITH,
        boot_cpu,
        names as u32,
        (strings - structure) as u32,
    ];
    let mut header = [0; HEADER_SIZE];
    for (bytes, field) in header.chunks_exact_mut(4).zip(fields) {
        bytes.copy_from_slice(&field.to_be_bytes());
    }
    Ok(header)
}

/// A node begins, in the one that began last and did not end.
pub fn begin(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(&BEGIN_NODE.to_be_bytes());
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    align(out);
}

/// A node ends.
pub fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(&END_NODE.to_be_bytes());
}

/// The structure block ends.
pub fn finish(out: &mut Vec<u8>) {
    out.extend_from_slice(&FINISH);
}

/// A property whose name is at the offset `name` of the strings block.
pub fn property(out: &mut Vec<u8>, name: u32, value: &[u8]) {
    out.extend_from_slice(&PROP.to_be_bytes());
    out.extend_from_slice(&(value.len() as u32).to_be_bytes());
    out.extend_from_slice(&name.to_be_bytes());
    out.extend_from_slice(value);
    align(out);
}

fn align(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

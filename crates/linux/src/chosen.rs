//! Properties of `/chosen` for Linux.
//!
//! Every token and every string of the boot tree is copied; only properties of
//! `/chosen` are added or replaced, and one memory reservation may be removed.
//! A tree is not rebuilt from names and values, as real trees have names that
//! the specification does not allow, `/__symbols__` for one.

use alloc::vec::Vec;
use core::ops::Range;

use warmbus_fdt::{FdtError, RawTree, Token, is_chosen, write};
use warmbus_memory::MemoryRange;
use warmbus_memory::bytes::be_u32;

/// The properties of `/chosen` to set. All others stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chosen<'a> {
    /// The kernel command line (`bootargs`), without a NUL.
    pub bootargs: Option<&'a [u8]>,
    /// The range of the initrd (`linux,initrd-start`, `linux,initrd-end`).
    pub initrd: Option<MemoryRange>,
    /// The handover.
    pub handover: Option<ChosenHandover>,
    /// Linux preserves bus numbers and BARs (`linux,pci-probe-only`).
    pub probe_only: bool,
    /// A range to remove from the memory reservation block.
    pub released: Option<MemoryRange>,
}

/// The two ranges that Linux reads a handover from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChosenHandover {
    /// The page of the root tree (`linux,kho-fdt`).
    pub root: MemoryRange,
    /// The array of scratch areas (`linux,kho-scratch`).
    pub scratch: MemoryRange,
}

/// Why a tree cannot be edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChosenError {
    /// It cannot be read, or the edited one not be written.
    #[error(transparent)]
    Tree(#[from] FdtError),
    /// The root node has no numbers of cells for addresses and sizes, or
    /// others than 1 and 2.
    #[error("the root of the device tree does not give #address-cells and #size-cells of 1 or 2")]
    Cells,
    /// A number does not fit into the cells of the root node.
    #[error("{value:#x} does not fit into the cells of the root of the device tree")]
    TooWide {
        /// The number.
        value: u64,
    },
    /// The command line holds a NUL.
    #[error("the command line holds a NUL")]
    CommandLine,
}

/// Returns `tree` with the additions of `chosen`.
///
/// The size of the result does not depend on addresses, so that it can be
/// computed before they are known.
pub fn edit(tree: &[u8], chosen: &Chosen<'_>) -> Result<Vec<u8>, ChosenError> {
    let tree = RawTree::new(tree)?;
    let places = Places::find(&tree)?;
    let mut strings = tree.strings.to_vec();
    let mut additions = Vec::new();
    for (name, value) in properties(chosen, &places)? {
        let at = u32::try_from(strings.len()).map_err(|_| FdtError::TooLarge)?;
        write::property(&mut additions, at, &value);
        strings.extend_from_slice(name.as_bytes());
        strings.push(0);
    }
    let names = names(chosen);
    let replaced = |name: &[u8]| names.iter().any(|new| new.as_bytes() == name);

    let mut structure = Vec::with_capacity(tree.structure.len() + additions.len() + 32);
    let mut copied = 0;
    let mut copy_to = |structure: &mut Vec<u8>, end: usize, next: usize| {
        structure.extend_from_slice(&tree.structure[copied..end]);
        copied = next;
    };
    match places.chosen {
        Some(at) => {
            copy_to(&mut structure, at, at);
            structure.extend_from_slice(&additions);
            for (place, name) in &places.chosen_properties {
                if replaced(name) {
                    copy_to(&mut structure, place.start, place.end);
                }
            }
        }
        None if additions.is_empty() => {}
        None => {
            copy_to(&mut structure, places.root_end, places.root_end);
            write::begin(&mut structure, "chosen");
            structure.extend_from_slice(&additions);
            write::end(&mut structure);
        }
    }
    copy_to(&mut structure, places.end, places.end);
    write::finish(&mut structure);
    let mut reservations = Vec::new();
    for entry in tree.reservations.chunks_exact(16) {
        let (start, size) = entry.split_at(8);
        let is = |range: MemoryRange| {
            *start == range.start.0.to_be_bytes() && *size == range.size.to_be_bytes()
        };
        if !chosen.released.is_some_and(is) {
            reservations.extend_from_slice(entry);
        }
    }
    let tree = RawTree {
        reservations: &reservations,
        ..tree
    };
    Ok(assemble(&tree, &structure, &strings)?)
}

/// The names of the properties that `chosen` sets.
fn names(chosen: &Chosen<'_>) -> Vec<&'static str> {
    let sets = [
        ("bootargs", chosen.bootargs.is_some()),
        ("linux,initrd-start", chosen.initrd.is_some()),
        ("linux,initrd-end", chosen.initrd.is_some()),
        (warmbus_kho::FDT_PROPERTY, chosen.handover.is_some()),
        (warmbus_kho::SCRATCH_PROPERTY, chosen.handover.is_some()),
        ("linux,pci-probe-only", chosen.probe_only),
    ];
    sets.into_iter()
        .filter_map(|(name, set)| set.then_some(name))
        .collect()
}

/// The values for [`names`], in the same order.
fn properties(
    chosen: &Chosen<'_>,
    places: &Places<'_>,
) -> Result<Vec<(&'static str, Vec<u8>)>, ChosenError> {
    let mut values = Vec::new();
    if let Some(bootargs) = chosen.bootargs {
        if bootargs.contains(&0) {
            return Err(ChosenError::CommandLine);
        }
        let mut text = bootargs.to_vec();
        text.push(0);
        values.push(text);
    }
    if let Some(initrd) = chosen.initrd {
        values.push(initrd.start.0.to_be_bytes().to_vec());
        values.push(initrd.end().to_be_bytes().to_vec());
    }
    if let Some(handover) = chosen.handover {
        for range in [handover.root, handover.scratch] {
            values.push(places.pair(range)?);
        }
    }
    if chosen.probe_only {
        values.push(1_u32.to_be_bytes().to_vec());
    }
    Ok(names(chosen).into_iter().zip(values).collect())
}

/// Appends `value` in `count` big-endian cells.
fn cells(value: u64, count: u32, out: &mut Vec<u8>) -> Result<(), ChosenError> {
    if count == 2 {
        out.extend_from_slice(&value.to_be_bytes());
    } else {
        let low = u32::try_from(value).map_err(|_| ChosenError::TooWide { value })?;
        out.extend_from_slice(&low.to_be_bytes());
    }
    Ok(())
}

/// Offsets in the structure block.
#[derive(Default)]
struct Places<'a> {
    /// The offset after the begin token of `/chosen`.
    chosen: Option<usize>,
    /// The properties of `/chosen` itself.
    chosen_properties: Vec<(Range<usize>, &'a [u8])>,
    /// The offset of the end token of the root node.
    root_end: usize,
    /// The offset after it.
    end: usize,
    address_cells: Option<u32>,
    size_cells: Option<u32>,
}

impl<'a> Places<'a> {
    fn find(tree: &RawTree<'a>) -> Result<Self, FdtError> {
        let mut places = Self::default();
        let mut depth = 0;
        let mut in_chosen = false;
        let mut tokens = tree.tokens();
        for token in &mut tokens {
            let (place, token) = token?;
            match token {
                Token::Begin { name } => {
                    depth += 1;
                    if depth == 2 && places.chosen.is_none() && is_chosen(name) {
                        places.chosen = Some(place.end);
                        in_chosen = true;
                    }
                }
                Token::End => {
                    if depth == 2 {
                        in_chosen = false;
                    }
                    depth -= 1;
                    places.root_end = place.start;
                }
                Token::Property { name, value } if depth == 1 => match name {
                    b"#address-cells" => places.address_cells = be_u32(value, 0),
                    b"#size-cells" => places.size_cells = be_u32(value, 0),
                    _ => {}
                },
                Token::Property { name, .. } if depth == 2 && in_chosen => {
                    places.chosen_properties.push((place, name));
                }
                Token::Property { .. } => {}
            }
        }
        places.end = tokens.position();
        Ok(places)
    }

    /// `range` as one address and one size in the cells of the root node.
    fn pair(&self, range: MemoryRange) -> Result<Vec<u8>, ChosenError> {
        let count = |cells: Option<u32>| {
            cells
                .filter(|count| (1..=2).contains(count))
                .ok_or(ChosenError::Cells)
        };
        let mut out = Vec::with_capacity(16);
        cells(range.start.0, count(self.address_cells)?, &mut out)?;
        cells(range.size, count(self.size_cells)?, &mut out)?;
        Ok(out)
    }
}

/// Assembles the blocks, in the order in which dtc writes them.
fn assemble(tree: &RawTree<'_>, structure: &[u8], strings: &[u8]) -> Result<Vec<u8>, FdtError> {
    let mut out = write::start(tree, structure.len(), strings.len())?;
    out.extend_from_slice(structure);
    out.extend_from_slice(strings);
    Ok(out)
}

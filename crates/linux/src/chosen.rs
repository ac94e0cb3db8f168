//! Properties of `/chosen`, and of the nodes of host bridges, for Linux.
//!
//! Every token and every string of the boot tree is copied; only properties of
//! these nodes are added or replaced, and one memory reservation may be removed.
//! A tree is not rebuilt from names and values, as real trees have names that
//! the specification does not allow, `/__symbols__` for one.

use alloc::string::String;
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
    /// What the nodes of host bridges get.
    pub nodes: &'a [NodeEdit],
    /// A range to remove from the memory reservation block.
    pub released: Option<MemoryRange>,
}

/// The properties of the node of a PCI host bridge to set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeEdit {
    /// Its path from the root. What has no such node is not added.
    pub path: String,
    /// Its segment number (`linux,pci-domain`).
    pub domain: Option<u32>,
    /// Whether Linux preserves BARs below it, whatever `/chosen` says
    /// (`linux,pci-probe-only`).
    pub probe_only: Option<bool>,
}

impl NodeEdit {
    fn properties(&self) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
        let domain = self.domain.map(|domain| ("linux,pci-domain", domain));
        let probe_only = self.probe_only.map(u32::from);
        let probe_only = probe_only.map(|probe_only| ("linux,pci-probe-only", probe_only));
        let cell = |(name, cell): (_, u32)| (name, cell.to_be_bytes().to_vec());
        domain.into_iter().chain(probe_only).map(cell)
    }
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
    let mut strings = Strings::new(tree.strings);
    let mut splices = node_splices(&tree, chosen.nodes, &mut strings)?;
    splices.extend(chosen_splices(chosen, &places, &mut strings)?);
    splices.sort_by_key(|splice| splice.replaced.start);
    let mut structure = Vec::with_capacity(tree.structure.len() + 256);
    let mut copied = 0;
    for Splice { replaced, with } in splices {
        structure.extend_from_slice(&tree.structure[copied..replaced.start]);
        structure.extend_from_slice(&with);
        copied = replaced.end;
    }
    structure.extend_from_slice(&tree.structure[copied..places.end]);
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
    Ok(assemble(&tree, &structure, &strings.bytes)?)
}

/// Bytes of the structure block and what comes in their place.
struct Splice {
    replaced: Range<usize>,
    with: Vec<u8>,
}

impl Splice {
    const fn insertion(at: usize, with: Vec<u8>) -> Self {
        let replaced = at..at;
        Self { replaced, with }
    }

    const fn removal(replaced: Range<usize>) -> Self {
        let with = Vec::new();
        Self { replaced, with }
    }
}

/// The strings block, and where the names are that were added.
struct Strings {
    bytes: Vec<u8>,
    added: Vec<(&'static str, u32)>,
}

impl Strings {
    fn new(before: &[u8]) -> Self {
        Self {
            bytes: before.to_vec(),
            added: Vec::new(),
        }
    }

    fn offset_of(&mut self, name: &'static str) -> Result<u32, FdtError> {
        if let Some((_, at)) = self.added.iter().find(|(added, _)| *added == name) {
            return Ok(*at);
        }
        let at = u32::try_from(self.bytes.len()).map_err(|_| FdtError::TooLarge)?;
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.added.push((name, at));
        Ok(at)
    }

    /// The tokens of `properties`.
    fn tokens(
        &mut self,
        properties: impl IntoIterator<Item = (&'static str, Vec<u8>)>,
    ) -> Result<Vec<u8>, FdtError> {
        let mut tokens = Vec::new();
        for (name, value) in properties {
            let at = self.offset_of(name)?;
            write::property(&mut tokens, at, &value);
        }
        Ok(tokens)
    }
}

/// The changes to `/chosen`, which is added where there is none.
fn chosen_splices(
    chosen: &Chosen<'_>,
    places: &Places<'_>,
    strings: &mut Strings,
) -> Result<Vec<Splice>, ChosenError> {
    let additions = strings.tokens(properties(chosen, places)?)?;
    let Some(at) = places.chosen else {
        if additions.is_empty() {
            return Ok(Vec::new());
        }
        let mut node = Vec::new();
        write::begin(&mut node, "chosen");
        node.extend_from_slice(&additions);
        write::end(&mut node);
        return Ok(alloc::vec![Splice::insertion(places.root_end, node)]);
    };
    let names = names(chosen);
    let is_set = |name: &[u8]| names.iter().any(|new| new.as_bytes() == name);
    let mut splices = alloc::vec![Splice::insertion(at, additions)];
    for (place, name) in &places.chosen_properties {
        if is_set(name) {
            splices.push(Splice::removal(place.clone()));
        }
    }
    Ok(splices)
}

/// The changes to the nodes of host bridges.
fn node_splices(
    tree: &RawTree<'_>,
    edits: &[NodeEdit],
    strings: &mut Strings,
) -> Result<Vec<Splice>, FdtError> {
    let mut splices = Vec::new();
    // The path of the node that is read, and where in it its parts begin.
    let (mut path, mut starts): (Vec<u8>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut edited: Option<(usize, &NodeEdit)> = None;
    for token in tree.tokens() {
        let (place, token) = token?;
        match token {
            Token::Begin { name } => {
                starts.push(path.len());
                // The root has no name.
                if starts.len() > 1 {
                    path.push(b'/');
                    path.extend_from_slice(name);
                }
                let is_here = |edit: &&NodeEdit| edit.path.as_bytes() == path;
                if let Some(edit) = edits.iter().find(is_here) {
                    let with = strings.tokens(edit.properties())?;
                    splices.push(Splice::insertion(place.end, with));
                    edited = Some((starts.len(), edit));
                }
            }
            Token::End => {
                edited = edited.filter(|(depth, _)| *depth != starts.len());
                path.truncate(starts.pop().unwrap_or(0));
            }
            Token::Property { name, .. } => {
                // The properties of a node come before the nodes in it.
                let edit = edited.filter(|(depth, _)| *depth == starts.len());
                let mut set = edit.into_iter().flat_map(|(_, edit)| edit.properties());
                if set.any(|(new, _)| new.as_bytes() == name) {
                    splices.push(Splice::removal(place));
                }
            }
        }
    }
    Ok(splices)
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

//! A reader of flattened device trees that shares nothing with that of the
//! firmware (Devicetree Specification 0.4, chapter 5).

use std::collections::BTreeMap;

/// One node, with the index of its parent.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) path: String,
    pub(crate) parent: Option<usize>,
    pub(crate) properties: BTreeMap<String, Vec<u8>>,
}

/// The nodes of a tree, each after its parent.
#[derive(Debug)]
pub(crate) struct Blob(pub(crate) Vec<Node>);

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn string(bytes: &[u8], at: usize) -> String {
    let rest = &bytes[at..];
    let end = rest.iter().position(|&byte| byte == 0).expect("an end");
    String::from_utf8_lossy(&rest[..end]).into_owned()
}

impl Blob {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let (structure, strings) = (word(bytes, 8) as usize, word(bytes, 12) as usize);
        let mut nodes: Vec<Node> = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        let mut at = structure;
        loop {
            let token = word(bytes, at);
            at += 4;
            match token {
                1 => {
                    let name = string(bytes, at);
                    at += (name.len() + 1).next_multiple_of(4);
                    let parent = open.last().copied();
                    let path = match parent {
                        None => String::new(),
                        Some(parent) => format!("{}/{name}", nodes[parent].path),
                    };
                    open.push(nodes.len());
                    nodes.push(Node {
                        path,
                        parent,
                        ..Node::default()
                    });
                }
                2 => {
                    open.pop();
                }
                3 => {
                    let length = word(bytes, at) as usize;
                    let name = string(bytes, strings + word(bytes, at + 4) as usize);
                    let value = bytes[at + 8..at + 8 + length].to_vec();
                    at += 8 + length.next_multiple_of(4);
                    let node = *open.last().expect("properties are in nodes");
                    nodes[node].properties.insert(name, value);
                }
                4 => {}
                _ => return Self(nodes),
            }
        }
    }

    /// The nodes from `node` up to the root, both included.
    pub(crate) fn upwards(&self, node: usize) -> impl Iterator<Item = &Node> {
        let indices = std::iter::successors(Some(node), |&at| self.0[at].parent);
        indices.map(|at| &self.0[at])
    }
}

impl Node {
    /// The strings of a property.
    pub(crate) fn strings(&self, name: &str) -> Vec<String> {
        let value = self.properties.get(name);
        let text = String::from_utf8_lossy(value.map_or(&[], Vec::as_slice)).into_owned();
        let words = text.split('\0').filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    }

    /// The cells of a property.
    pub(crate) fn cells(&self, name: &str) -> Option<Vec<u32>> {
        let value = self.properties.get(name)?;
        Some(value.chunks_exact(4).map(|cell| word(cell, 0)).collect())
    }

    /// A property of one cell.
    pub(crate) fn cell(&self, name: &str) -> Option<u32> {
        self.cells(name)?.first().copied()
    }

    /// `#address-cells` and `#size-cells`.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let count = |name, default| self.cell(name).unwrap_or(default) as usize;
        (count("#address-cells", 2), count("#size-cells", 1))
    }

    pub(crate) fn is_okay(&self) -> bool {
        let status = self.strings("status");
        status.is_empty() || status[0] == "okay" || status[0] == "ok"
    }
}

/// `bytes` with a node of 1 GiB of memory at `start`: boards leave it to their
/// loader to fill the memory in.
pub(crate) fn with_memory(bytes: &[u8], start: u64) -> Vec<u8> {
    let field = |number: usize| word(bytes, 4 * number) as usize;
    let (structure, strings) = (field(2), field(3));
    let (string_size, structure_size) = (field(8), field(9));
    let root = Blob::new(bytes).0.swap_remove(0);
    let (address_cells, size_cells) = root.counts();
    let number = |value: u64, cells: usize| -> Vec<u8> {
        let all = u128::from(value).to_be_bytes();
        all[16 - 4 * cells..].to_vec()
    };
    let reg = [number(start, address_cells), number(1 << 30, size_cells)].concat();
    let mut names = bytes[strings..strings + string_size].to_vec();
    let mut name = |text: &str| {
        let at = names.len() as u32;
        names.extend(text.bytes().chain([0]));
        at.to_be_bytes()
    };
    // All but the end of the root node and of the structure.
    let mut blocks = bytes[structure..structure + structure_size - 8].to_vec();
    blocks.extend([0, 0, 0, 1]);
    blocks.extend(b"memory@fill\0");
    for (property, value) in [("device_type", &b"memory\0"[..]), ("reg", &reg)] {
        blocks.extend([0, 0, 0, 3]);
        blocks.extend((value.len() as u32).to_be_bytes());
        blocks.extend(name(property));
        blocks.extend(value);
        blocks.resize(blocks.len().next_multiple_of(4), 0);
    }
    blocks.extend([0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 9]);
    // The header and the reserved memory stay where they are.
    let mut tree = bytes[..structure.min(strings)].to_vec();
    let structure = tree.len() as u32;
    tree.extend(&blocks);
    let strings = tree.len() as u32;
    tree.extend(&names);
    let size = tree.len() as u32;
    for (number, value) in [
        (1, size),
        (2, structure),
        (3, strings),
        (8, names.len() as u32),
        (9, blocks.len() as u32),
    ] {
        tree[4 * number..4 * number + 4].copy_from_slice(&value.to_be_bytes());
    }
    tree
}

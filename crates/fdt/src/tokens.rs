//! A flattened device tree, token by token.
//!
//! Editing a tree in place needs to know where each token lies, which readers
//! of trees do not tell. Layout: Devicetree Specification 0.4, chapter 5.

use core::fmt;
use core::ops::Range;

/// The first four bytes of a flattened device tree, big-endian (DT 5.2).
pub const MAGIC: u32 = 0xd00d_feed;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// How deep nodes may nest; Linux stops at 64.
pub const MAX_DEPTH: usize = 64;

/// A tree whose header and block boundaries have been checked.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    /// The structure block.
    pub structure: &'a [u8],
    /// The strings block.
    pub strings: &'a [u8],
    /// The memory reservation block with its end mark.
    pub reservations: &'a [u8],
    /// The number of the boot core.
    pub boot_cpu: u32,
}

/// One token of the structure block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A node begins.
    Begin {
        /// Its name, with the unit address.
        name: &'a [u8],
    },
    /// A property of the node that began last and did not end.
    Property {
        /// Its name.
        name: &'a [u8],
        /// Its bytes.
        value: &'a [u8],
    },
    /// A node ends.
    End,
}

impl<'a> Tree<'a> {
    /// The tree that `bytes` starts with.
    pub fn new(bytes: &'a [u8]) -> Result<Self, TreeError> {
        let header = |index: usize| u32_at(bytes, index * 4).ok_or(TreeError::Truncated);
        let magic = header(0)?;
        if magic != MAGIC {
            return Err(TreeError::Magic { found: magic });
        }
        let total = header(1)? as usize;
        let bytes = bytes.get(..total).ok_or(TreeError::Truncated)?;
        let (version, compatible) = (header(5)?, header(6)?);
        if version < 16 || compatible > 17 {
            return Err(TreeError::Version {
                version,
                compatible,
            });
        }
        let block = |offset: u32, size: u32| {
            let start = offset as usize;
            bytes
                .get(start..start.checked_add(size as usize)?)
                .filter(|_| start >= 36)
        };
        let structure = header(2)?;
        let structure_size = if version >= 17 {
            header(9)?
        } else {
            (total as u32).saturating_sub(structure)
        };
        let outside = TreeError::Blocks;
        let reservations = header(4)?;
        let rest = (total as u32).saturating_sub(reservations);
        Ok(Self {
            structure: block(structure, structure_size).ok_or(outside)?,
            strings: block(header(3)?, header(8)?).ok_or(TreeError::Blocks)?,
            reservations: block(reservations, rest)
                .and_then(reservation_block)
                .ok_or(TreeError::Reservations)?,
            boot_cpu: header(7)?,
        })
    }

    /// The tokens of the structure block with the bytes they take, up to the
    /// end of the root node. The first one begins the root node.
    pub fn tokens(&self) -> Tokens<'a> {
        self.tokens_of(0)
    }

    /// The tokens of the node that begins at the offset `at` of the structure
    /// block.
    pub fn tokens_of(&self, at: usize) -> Tokens<'a> {
        Tokens {
            tree: *self,
            at,
            depth: 0,
            done: false,
        }
    }
}

/// The reservation block at the start of `bytes`, with its end mark.
fn reservation_block(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes
        .chunks_exact(16)
        .position(|entry| entry.iter().all(|byte| *byte == 0))?;
    Some(&bytes[..(end + 1) * 16])
}

/// See [`Tree::tokens`].
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    tree: Tree<'a>,
    at: usize,
    depth: usize,
    done: bool,
}

impl<'a> Tokens<'a> {
    /// Bytes of the structure block up to the end of the root node.
    pub const fn position(&self) -> usize {
        self.at
    }

    fn step(&mut self) -> Result<(Range<usize>, Token<'a>), TreeError> {
        let block = self.tree.structure;
        let (start, kind) = loop {
            let start = self.at;
            let kind = u32_at(block, start).ok_or(TreeError::Truncated)?;
            self.at += 4;
            if kind != NOP {
                break (start, kind);
            }
        };
        let token = match kind {
            BEGIN_NODE => {
                let name = text_at(block, self.at).ok_or(TreeError::Truncated)?;
                self.skip(name.len() + 1)?;
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(TreeError::Depth);
                }
                Token::Begin { name }
            }
            END_NODE if self.depth > 0 => {
                self.depth -= 1;
                self.done = self.depth == 0;
                Token::End
            }
            PROP if self.depth > 0 => {
                let size = u32_at(block, self.at).ok_or(TreeError::Truncated)? as usize;
                let name = u32_at(block, self.at + 4).ok_or(TreeError::Truncated)? as usize;
                let from = self.at + 8;
                let value = from
                    .checked_add(size)
                    .and_then(|end| block.get(from..end))
                    .ok_or(TreeError::Truncated)?;
                let name = text_at(self.tree.strings, name).ok_or(TreeError::Name)?;
                self.at = from;
                self.skip(size)?;
                Token::Property { name, value }
            }
            _ => {
                return Err(TreeError::Token {
                    offset: start,
                    kind,
                });
            }
        };
        Ok((start..self.at, token))
    }

    /// Goes on by `bytes`, rounded up to the next token boundary.
    fn skip(&mut self, bytes: usize) -> Result<(), TreeError> {
        self.at = self
            .at
            .checked_add(bytes)
            .and_then(|at| at.checked_next_multiple_of(4))
            .filter(|at| *at <= self.tree.structure.len())
            .ok_or(TreeError::Truncated)?;
        Ok(())
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Result<(Range<usize>, Token<'a>), TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.step();
        self.done |= step.is_err();
        Some(step)
    }
}

/// Tokens for writing.
pub mod write {
    use super::{BEGIN_NODE, END, END_NODE, MAGIC, PROP, Tree, TreeError};
    use alloc::vec::Vec;

    /// Bytes of the header of a tree of version 17.
    pub const HEADER_SIZE: usize = 40;
    /// A memory reservation block without reservations.
    pub const NO_RESERVATIONS: [u8; 16] = [0; 16];
    /// The structure block is over.
    pub const FINISH: [u8; 4] = END.to_be_bytes();

    /// The header and the memory reservations of `tree` for a tree with blocks
    /// of these sizes, which are to follow in this order.
    pub fn start(tree: &Tree<'_>, structure: usize, strings: usize) -> Result<Vec<u8>, TreeError> {
        let structure_at = HEADER_SIZE + tree.reservations.len();
        let strings_at = structure_at + structure;
        let header = header(structure_at, strings_at, strings, tree.boot_cpu)?;
        let total = strings_at + strings;
        let mut out = Vec::new();
        out.try_reserve_exact(total)
            .map_err(|_| TreeError::NoRoom { needed: total })?;
        out.extend_from_slice(&header);
        out.extend_from_slice(tree.reservations);
        Ok(out)
    }

    /// The header of a tree (DT 5.2) whose memory reservation block comes
    /// first, then the structure block from the offset `structure` on, then
    /// `names` bytes of names from the offset `strings` on.
    pub(crate) fn header(
        structure: usize,
        strings: usize,
        names: usize,
        boot_cpu: u32,
    ) -> Result<[u8; HEADER_SIZE], TreeError> {
        let total = u32::try_from(strings + names).map_err(|_| TreeError::TooLarge)?;
        let words = [
            MAGIC,
            total,
            structure as u32,
            strings as u32,
            HEADER_SIZE as u32,
            17,
            16,
            boot_cpu,
            names as u32,
            (strings - structure) as u32,
        ];
        let mut header = [0; HEADER_SIZE];
        for (bytes, word) in header.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        Ok(header)
    }

    /// A node begins.
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

    /// A property whose name is at `name` in the strings block.
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
}

/// The big-endian cell at `offset`.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let raw = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_be_bytes([raw[0], raw[1], raw[2], raw[3]]))
}

/// The NUL-terminated text at `offset`, without the NUL.
fn text_at(bytes: &[u8], offset: usize) -> Option<&[u8]> {
    let tail = bytes.get(offset..)?;
    Some(&tail[..memchr::memchr(0, tail)?])
}

/// Why a device tree cannot be read or edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeError {
    /// It ends too early.
    Truncated,
    /// The magic number is another one.
    Magic {
        /// What stands in its place.
        found: u32,
    },
    /// The version of the format is not supported.
    Version {
        /// The version.
        version: u32,
        /// The oldest version that it is compatible with.
        compatible: u32,
    },
    /// The structure or the strings block is not inside the tree.
    Blocks,
    /// The memory reservation block has no end.
    Reservations,
    /// A token does not exist or is not allowed here.
    Token {
        /// Its offset in the structure block.
        offset: usize,
        /// The token.
        kind: u32,
    },
    /// The name of a property is not in the strings block.
    Name,
    /// Nodes nest too deeply.
    Depth,
    /// A node or property was written where none may be.
    Order,
    /// The root node does not say in how many cells an address and a size are
    /// written, or in other numbers than 1 or 2.
    Cells,
    /// A number does not fit into the cells of the root node.
    TooWide {
        /// The number.
        value: u64,
    },
    /// The command line holds a NUL.
    CommandLine,
    /// The edited tree is too large for the format.
    TooLarge,
    /// There is no memory for the edited tree.
    NoRoom {
        /// Its bytes.
        needed: usize,
    },
    /// A node has a phandle that is kept for nodes which are added.
    Phandle {
        /// The phandle.
        phandle: u32,
    },
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the device tree is cut off"),
            Self::Magic { found } => write!(
                f,
                "this is no device tree: its magic number is {found:#010x} instead of {MAGIC:#010x}"
            ),
            Self::Version {
                version,
                compatible,
            } => write!(
                f,
                "the device tree has version {version}, compatible with {compatible}, instead of 17 or 16"
            ),
            Self::Blocks => f.write_str("a block of the device tree is not inside the tree"),
            Self::Reservations => {
                f.write_str("the memory reservation block of the device tree has no end")
            }
            Self::Token { offset, kind } => write!(
                f,
                "token {kind:#x} at offset {offset:#x} of the device tree does not belong there"
            ),
            Self::Name => {
                f.write_str("a property of the device tree has a name outside the strings block")
            }
            Self::Depth => write!(f, "the device tree nests more than {MAX_DEPTH} nodes"),
            Self::Order => f.write_str(
                "a node or property of the device tree was written where none may be",
            ),
            Self::Cells => f.write_str(
                "the root of the device tree does not give #address-cells and #size-cells of 1 or 2",
            ),
            Self::TooWide { value } => write!(
                f,
                "{value:#x} does not fit into the cells of the root of the device tree"
            ),
            Self::CommandLine => f.write_str("the command line holds a NUL"),
            Self::TooLarge => f.write_str("the edited device tree is too large for its format"),
            Self::NoRoom { needed } => write!(
                f,
                "there is no memory for the edited device tree of {needed} bytes"
            ),
            Self::Phandle { phandle } => write!(
                f,
                "the phandle {phandle:#x} is kept for nodes that are added to the device tree"
            ),
        }
    }
}

impl core::error::Error for TreeError {}

//! A flattened device tree, token by token.
//!
//! Editing a tree in place needs the offset of each token, which readers of
//! nodes and properties do not have.

use alloc::format;
use core::ops::Range;

use warmbus_memory::bytes::be_u32;

use crate::header::Blocks;
use crate::{FdtError, MAX_DEPTH};

pub(crate) const BEGIN_NODE: u32 = 1;
pub(crate) const END_NODE: u32 = 2;
pub(crate) const PROP: u32 = 3;
const NOP: u32 = 4;
pub(crate) const END: u32 = 9;

/// A tree whose header and block boundaries have been checked.
#[derive(Clone, Copy, Debug)]
pub struct RawTree<'a> {
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

impl<'a> RawTree<'a> {
    /// The tree that `bytes` starts with, of version 16 or 17.
    ///
    /// # Errors
    ///
    /// If the header is damaged, the blocks that it describes are not all in
    /// `bytes`, or the version is another one.
    pub fn new(bytes: &'a [u8]) -> Result<Self, FdtError> {
        let blocks = Blocks::find(bytes)?;
        let reservations = reservation_block(blocks.reservations);
        Ok(Self {
            structure: blocks.structure,
            strings: blocks.strings,
            reservations: reservations.ok_or(FdtError::Reservations {
                offset: blocks.reservations_offset,
            })?,
            boot_cpu: blocks.boot_cpu,
        })
    }

    /// The tokens of the structure block with the bytes they take, up to the
    /// end of the root node. The first one begins the root node.
    #[must_use]
    pub fn tokens(&self) -> Tokens<'a> {
        self.tokens_of(0)
    }

    /// The tokens of the node that begins at the offset `at` of the structure
    /// block.
    #[must_use]
    pub fn tokens_of(&self, at: usize) -> Tokens<'a> {
        Tokens {
            tree: *self,
            at,
            depth: 0,
            done: false,
        }
    }
}

/// Whether `name` is that of the node `/chosen`: Linux accepts both.
#[must_use]
pub fn is_chosen(name: &[u8]) -> bool {
    name == b"chosen" || name == b"chosen@0"
}

/// The memory reservation block at the start of `bytes`, with its end mark
/// (DT 5.3).
fn reservation_block(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes
        .chunks_exact(16)
        .position(|entry| entry.iter().all(|byte| *byte == 0))?;
    Some(&bytes[..(end + 1) * 16])
}

/// See [`RawTree::tokens`].
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    tree: RawTree<'a>,
    at: usize,
    depth: usize,
    done: bool,
}

impl<'a> Tokens<'a> {
    /// The offset in the structure block of what follows the last token.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.at
    }

    fn step(&mut self) -> Result<(Range<usize>, Token<'a>), FdtError> {
        let block = self.tree.structure;
        let (start, kind) = loop {
            let start = self.at;
            let unfinished = FdtError::Unfinished { offset: start };
            let kind = be_u32(block, start).ok_or(unfinished)?;
            self.at += 4;
            if kind != NOP {
                break (start, kind);
            }
        };
        let unfinished = || FdtError::Unfinished { offset: start };
        let token = match kind {
            BEGIN_NODE => {
                let name = text_at(block, self.at).ok_or_else(unfinished)?;
                self.skip(name.len() + 1)?;
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    let place = format!("offset {start:#x}");
                    return Err(FdtError::TooDeep { place });
                }
                Token::Begin { name }
            }
            END_NODE if self.depth > 0 => {
                self.depth -= 1;
                self.done = self.depth == 0;
                Token::End
            }
            PROP if self.depth > 0 => {
                let size = be_u32(block, self.at).ok_or_else(unfinished)? as usize;
                let name = be_u32(block, self.at + 4).ok_or_else(unfinished)? as usize;
                let from = self.at + 8;
                let value = from
                    .checked_add(size)
                    .and_then(|end| block.get(from..end))
                    .ok_or_else(unfinished)?;
                let name = text_at(self.tree.strings, name);
                let name = name.ok_or(FdtError::Name { offset: start })?;
                self.at = from;
                self.skip(size)?;
                Token::Property { name, value }
            }
            _ => {
                return Err(FdtError::Token {
                    offset: start,
                    kind,
                });
            }
        };
        Ok((start..self.at, token))
    }

    /// Goes on by `bytes`, rounded up to the next token boundary.
    fn skip(&mut self, bytes: usize) -> Result<(), FdtError> {
        let offset = self.at;
        self.at = offset
            .checked_add(bytes)
            .and_then(|at| at.checked_next_multiple_of(4))
            .filter(|at| *at <= self.tree.structure.len())
            .ok_or(FdtError::Unfinished { offset })?;
        Ok(())
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Result<(Range<usize>, Token<'a>), FdtError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.step();
        self.done |= step.is_err();
        Some(step)
    }
}

/// The NUL-terminated text at `offset`, without the NUL.
fn text_at(bytes: &[u8], offset: usize) -> Option<&[u8]> {
    let tail = bytes.get(offset..)?;
    Some(&tail[..memchr::memchr(0, tail)?])
}

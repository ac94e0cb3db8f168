//! Why a device tree cannot be read or written.

use alloc::string::String;

use crate::{HEADER_SIZE, MAGIC, MAX_DEPTH, MAX_NAME};

/// Why a device tree cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FdtError {
    /// Fewer bytes than the header of a device tree has.
    #[error(
        "there is no device tree: {available} bytes are fewer than the {HEADER_SIZE} of a header"
    )]
    NoHeader {
        /// Bytes that there are.
        available: usize,
    },
    /// The first four bytes are not those of a flattened device tree.
    #[error("there is no device tree: it starts with {found:#010x} instead of {MAGIC:#010x}")]
    NoMagic {
        /// What they are, big-endian.
        found: u32,
    },
    /// The header claims more bytes than there are.
    #[error("the device tree is cut off: it announces {announced} bytes and {available} are there")]
    Truncated {
        /// Bytes that the header claims (`totalsize`).
        announced: u32,
        /// Bytes that there are.
        available: usize,
    },
    /// The format has a version that is not supported.
    #[error(
        "the device tree is of version {version}, compatible with {compatible_with}; version 17 is understood"
    )]
    Version {
        /// Its version.
        version: u32,
        /// The oldest version that it is compatible with.
        compatible_with: u32,
    },
    /// A block lies outside the tree, or cannot be one.
    #[error(
        "the {block} block of the device tree ({size} bytes at {offset:#x}) is not inside its {announced} bytes"
    )]
    Block {
        /// Which one.
        block: &'static str,
        /// Its offset in the tree.
        offset: u32,
        /// Its bytes.
        size: u32,
        /// Bytes of the tree.
        announced: u32,
    },
    /// The memory reservation block has no entry of zeros.
    #[error("the memory reservation block at {offset:#x} of the device tree has no end")]
    Reservations {
        /// Its offset in the tree.
        offset: u32,
    },
    /// The names of properties have a name that no property has.
    #[error(
        "the strings block of the device tree has a name of {length} bytes at {offset:#x}, more than {MAX_NAME}"
    )]
    LongName {
        /// Its offset in the strings block.
        offset: usize,
        /// Its bytes.
        length: usize,
    },
    /// A node has a name that no node has.
    #[error("a node below {parent} has a name of {length} bytes, more than {MAX_NAME}")]
    LongNodeName {
        /// The node that it is in.
        parent: String,
        /// Its bytes.
        length: usize,
    },
    /// The structure block ends in the middle of a token or of a node.
    #[error("the structure block of the device tree ends after {offset:#x} bytes, within a node")]
    Unfinished {
        /// The offset that more was expected at.
        offset: usize,
    },
    /// A token does not exist, or is not allowed where it is.
    #[error(
        "token {kind:#x} at offset {offset:#x} of the structure block of the device tree does not belong there"
    )]
    Token {
        /// Its offset in the structure block.
        offset: usize,
        /// The token.
        kind: u32,
    },
    /// The name of a property is not in the strings block.
    #[error(
        "the property at offset {offset:#x} of the structure block of the device tree has a name outside the strings block"
    )]
    Name {
        /// The offset of the property in the structure block.
        offset: usize,
    },
    /// A node cannot be read.
    #[error("the device tree is damaged at {path}: {reason}")]
    Structure {
        /// The node in or after which the damage is.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Nodes are nested more deeply than Linux allows.
    #[error("the device tree nests more than {MAX_DEPTH} nodes at {place}")]
    TooDeep {
        /// The node that is one too deep, by its path or its offset.
        place: String,
    },
    /// A node or property was written where none may be.
    #[error("a node or property of the device tree is written where none may be")]
    Order,
    /// A name or text that is written holds a NUL.
    #[error("a name or text that is written to the device tree holds a NUL")]
    Nul,
    /// The tree that is written is too large for the format.
    #[error("the device tree that is written is too large for its format")]
    TooLarge,
    /// There is no memory for the tree that is written.
    #[error("there is no memory for a device tree of {needed} bytes")]
    NoMemory {
        /// Its bytes.
        needed: usize,
    },
}

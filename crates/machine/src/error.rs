//! Why a device tree cannot be used at all.

use alloc::string::String;
use core::fmt;

/// Why a device tree cannot be used at all. Smaller faults only cost the part
/// of the machine that they describe; see [`super::Machine::warnings`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineError {
    /// Fewer bytes than the header of a device tree has.
    NoHeader {
        /// Bytes there are.
        available: usize,
    },
    /// The first four bytes are not those of a flattened device tree.
    NoMagic {
        /// What they are, big-endian.
        found: u32,
    },
    /// The header announces more bytes than there are.
    Truncated {
        /// Bytes announced (`totalsize`).
        announced: u32,
        /// Bytes there are.
        available: usize,
    },
    /// The tree needs a reader of another version than 17.
    Version {
        /// Its version.
        version: u32,
        /// The oldest version it is compatible with.
        compatible_with: u32,
    },
    /// A block lies outside the tree, or is too small to be one.
    Block {
        /// Which one.
        block: &'static str,
        /// Where it starts.
        offset: u32,
        /// Its bytes.
        size: u32,
        /// Bytes of the tree.
        announced: u32,
    },
    /// The structure block breaks off or makes no sense.
    Structure {
        /// The node in or after which it does.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Nodes are nested deeper than this reader follows.
    TooDeep {
        /// The node that would be one too deep.
        path: String,
    },
    /// The tree has more of something than any machine.
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many are accepted.
        limit: usize,
    },
    /// The tree names no usable memory.
    NoMemory,
    /// The tree has no host bridge that can be used.
    NoHostBridge {
        /// How many it has that cannot be used.
        refused: usize,
    },
}

impl fmt::Display for MachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHeader { available } => write!(
                f,
                "there is no device tree: {available} bytes are fewer than a header has"
            ),
            Self::NoMagic { found } => write!(
                f,
                "there is no device tree: it starts with {found:#010x} instead of 0xd00dfeed"
            ),
            Self::Truncated {
                announced,
                available,
            } => write!(
                f,
                "the device tree is cut off: it announces {announced} bytes and {available} are there"
            ),
            Self::Version {
                version,
                compatible_with,
            } => write!(
                f,
                "the device tree is of version {version}, compatible with {compatible_with}; version 17 is understood"
            ),
            Self::Block {
                block,
                offset,
                size,
                announced,
            } => write!(
                f,
                "the {block} block of the device tree ({size} bytes at {offset:#x}) is not inside its {announced} bytes"
            ),
            Self::Structure { path, reason } => {
                write!(f, "the device tree is damaged at {path}: {reason}")
            }
            Self::TooDeep { path } => write!(f, "the device tree is nested too deeply at {path}"),
            Self::TooMany { what, limit } => {
                write!(f, "the device tree has more than {limit} {what}")
            }
            Self::NoMemory => write!(f, "the device tree names no memory"),
            Self::NoHostBridge { refused: 0 } => {
                write!(
                    f,
                    "the device tree has no pci-host-ecam-generic host bridge"
                )
            }
            Self::NoHostBridge { refused } => write!(
                f,
                "none of the {refused} pci-host-ecam-generic host bridges of the device tree can be used"
            ),
        }
    }
}

impl core::error::Error for MachineError {}

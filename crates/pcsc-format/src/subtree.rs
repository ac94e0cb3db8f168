//! Reading the `pcsc` tree.

use alloc::string::String;
use alloc::vec::Vec;

use thiserror::Error;
use warmbus_fdt::{FdtError, RawTree, Token};
use warmbus_memory::MemoryRange;
use warmbus_memory::bytes::{le_u32, le_u64};
use warmbus_pci::{PhysAddr, Sbdf};

use crate::build::{COMPATIBLE, EXTENSION_VERSION, RULES_VERSION};

/// The `pcsc` tree as it was read from memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subtree {
    extension: Option<SubtreeExtension>,
    nodes: Vec<(Sbdf, PhysAddr)>,
}

/// What the tree says of the extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubtreeExtension {
    /// The stamp of the handover, the same in the index and in each block.
    pub generation: u64,
    /// Where the index is.
    pub index: MemoryRange,
}

impl Subtree {
    /// Reads the tree that `bytes` begin with.
    ///
    /// # Errors
    ///
    /// [`SubtreeError`] if the tree is damaged, or not of version 1.
    pub fn decode(bytes: &[u8]) -> Result<Self, SubtreeError> {
        let mut is_compatible = false;
        let mut root: [Option<&[u8]>; PROPERTIES.len()] = [None; PROPERTIES.len()];
        let mut nodes: Vec<(Sbdf, Option<PhysAddr>)> = Vec::new();
        let mut depth = 0;
        for token in RawTree::new(bytes)?.tokens() {
            match token?.1 {
                Token::Begin { name } => {
                    depth += 1;
                    if depth == 2 {
                        nodes.push((function_of(name)?, None));
                    }
                }
                Token::End => depth -= 1,
                Token::Property {
                    name: b"compatible",
                    value,
                } if depth == 1 => {
                    let mut texts = value.split(|byte| *byte == 0);
                    is_compatible = texts.any(|text| text == COMPATIBLE.as_bytes());
                }
                Token::Property { name, value } if depth == 1 => {
                    let mut names = PROPERTIES.iter();
                    if let Some(at) = names.position(|(known, _)| known.as_bytes() == name) {
                        root[at] = Some(value);
                    }
                }
                Token::Property { name: b"da", value } if depth == 2 => {
                    let address = exactly("da", 8, Some(value))?;
                    if let Some((_, found)) = nodes.last_mut() {
                        *found = Some(PhysAddr(address));
                    }
                }
                Token::Property { .. } => {}
            }
        }
        if !is_compatible {
            return Err(SubtreeError::Incompatible);
        }
        let number = |at: usize| exactly(PROPERTIES[at].0, PROPERTIES[at].1, root[at]);
        let version = number(0)?;
        if version != u64::from(RULES_VERSION) {
            return Err(SubtreeError::Rules { version });
        }
        let is_extended = number(1) == Ok(EXTENSION_VERSION.into());
        let mut extension = None;
        if is_extended {
            extension = Some(SubtreeExtension {
                generation: number(2)?,
                index: MemoryRange::new(PhysAddr(number(3)?), number(4)?),
            });
        }
        let mut functions = Vec::with_capacity(nodes.len());
        for (function, address) in nodes {
            let block = address.ok_or(SubtreeError::NoBlock { function })?;
            functions.push((function, block));
        }
        Ok(Self {
            extension,
            nodes: functions,
        })
    }

    /// Where the index is and which stamp it has; `None` without an extension,
    /// or with one of an unknown version: then only the base of the blocks can
    /// be used.
    #[must_use]
    pub const fn extension(&self) -> Option<SubtreeExtension> {
        self.extension
    }

    /// The functions that have a node and where their blocks are, in the order
    /// of the tree.
    #[must_use]
    pub fn nodes(&self) -> &[(Sbdf, PhysAddr)] {
        &self.nodes
    }
}

/// The properties of the root node that are numbers, and their bytes.
const PROPERTIES: [(&str, usize); 5] = [
    ("pv", 4),
    ("warmbus,version", 4),
    ("warmbus,generation", 8),
    ("warmbus,index", 8),
    ("warmbus,index-size", 8),
];

/// The number in a property of `size` bytes, 4 or 8.
fn exactly(name: &'static str, size: usize, value: Option<&[u8]>) -> Result<u64, SubtreeError> {
    let found = value.ok_or(SubtreeError::Missing { name })?;
    let number = match size {
        4 => le_u32(found, 0).map(u64::from),
        _ => le_u64(found, 0),
    };
    let number = number.filter(|_| found.len() == size);
    number.ok_or(SubtreeError::Length {
        name,
        found: found.len(),
        size,
    })
}

/// The function that a node such as `dev_0000_01_00_0` is named after.
fn function_of(name: &[u8]) -> Result<Sbdf, SubtreeError> {
    let function = || {
        let rest = core::str::from_utf8(name).ok()?.strip_prefix("dev_")?;
        let mut parts = rest.split('_');
        let mut part = |digits: usize| {
            let text = parts.next().filter(|text| text.len() == digits)?;
            u16::from_str_radix(text, 16).ok()
        };
        let (segment, bus, device, function) = (part(4)?, part(2)?, part(2)?, part(1)?);
        let is_whole = parts.next().is_none() && device < 32 && function < 8;
        let routing_id = bus << 8 | device << 3 | function;
        is_whole.then_some(Sbdf::from_routing_id(segment, routing_id))
    };
    function().ok_or_else(|| SubtreeError::Node {
        name: String::from_utf8_lossy(name).into_owned(),
    })
}

/// Why the `pcsc` tree cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SubtreeError {
    /// It is no tree.
    #[error(transparent)]
    Tree(#[from] FdtError),
    /// It is a tree of something else.
    #[error("it is not compatible with {COMPATIBLE}")]
    Incompatible,
    /// Its bitmaps follow other rules.
    #[error("it follows version {version} of the cacheability rules instead of {RULES_VERSION}")]
    Rules {
        /// The version of its rules.
        version: u64,
    },
    /// A property is missing.
    #[error("the property {name} is missing")]
    Missing {
        /// The property.
        name: &'static str,
    },
    /// A property has another length.
    #[error("the property {name} has {found} bytes instead of {size}")]
    Length {
        /// The property.
        name: &'static str,
        /// Bytes that it has.
        found: usize,
        /// Bytes that it should have.
        size: usize,
    },
    /// A node is not named after a function.
    #[error("the node {name} names no function")]
    Node {
        /// The name.
        name: String,
    },
    /// The node of a function does not say where its block is.
    #[error("the node of {function} has no address of a block")]
    NoBlock {
        /// The function.
        function: Sbdf,
    },
}

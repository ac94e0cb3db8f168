//! Reading a flattened device tree that may be damaged.
//!
//! The `fdt` crate reads; what it takes on trust in the header is checked
//! here first. "DT" means the Devicetree Specification 0.4.

use alloc::format;
use alloc::string::{String, ToString};
use core::ops::ControlFlow;

use fdt::helpers::UnalignedFallibleNode;
use fdt::nodes::AsNode;
use fdt::parsing::{NoPanic, unaligned::UnalignedParser};

use super::MachineError;

/// Nodes inside nodes that are followed. Real trees have fewer than ten.
const MAX_DEPTH: u32 = 32;
/// Longest name of a property that is believed; DT 2.2.4 allows 31.
const MAX_NAME: usize = 255;
const MAGIC: u32 = 0xd00d_feed;
const HEADER_SIZE: usize = 40;
/// A root node without name, properties and children, and the end mark.
const MIN_STRUCTURE: u32 = 16;

type Node<'a> = UnalignedFallibleNode<'a>;
type Fdt<'a> = fdt::Fdt<'a, (UnalignedParser<'a>, NoPanic)>;

/// A device tree with a sound header.
pub(super) struct Tree<'a> {
    fdt: Fdt<'a>,
    bytes: &'a [u8],
}

impl<'a> Tree<'a> {
    /// The tree that starts with `bytes`, which may go on after it.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, MachineError> {
        let field = |index: usize| big_endian_u32(bytes, 4 * index);
        let (Some(magic), true) = (field(0), bytes.len() >= HEADER_SIZE) else {
            return Err(MachineError::NoHeader {
                available: bytes.len(),
            });
        };
        if magic != MAGIC {
            return Err(MachineError::NoMagic { found: magic });
        }
        let field = |index| field(index).unwrap_or(0);
        let announced = field(1);
        let Some(bytes) = bytes.get(..announced as usize) else {
            return Err(MachineError::Truncated {
                announced,
                available: bytes.len(),
            });
        };
        let (version, compatible_with) = (field(5), field(6));
        if version < 17 || compatible_with > 17 {
            return Err(MachineError::Version {
                version,
                compatible_with,
            });
        }
        let (structure, strings) = ((field(2), field(9)), (field(3), field(8)));
        block("structure", bytes, structure, MIN_STRUCTURE)?;
        let names = block("strings", bytes, strings, 0)?;
        if structure.1 % 4 != 0 || names.split(|&byte| byte == 0).any(|s| s.len() > MAX_NAME) {
            let (block, (offset, size)) = if structure.1 % 4 == 0 {
                ("strings", strings)
            } else {
                ("structure", structure)
            };
            return Err(MachineError::Block {
                block,
                offset,
                size,
                announced,
            });
        }
        let fdt =
            Fdt::new_unaligned_fallible(bytes).map_err(|error| structure_error("/", error))?;
        Ok(Self { fdt, bytes })
    }

    /// All bytes of the tree.
    pub(super) const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Offset of the memory reservation block.
    pub(super) fn reservation_offset(&self) -> u32 {
        self.fdt.header().memory_reserve_map_offset
    }

    /// Shows every node to `visit`, parents before children, in the order of
    /// the tree. What is below a node for which it returns `Break` is left
    /// out.
    pub(super) fn walk(
        &self,
        visit: &mut dyn FnMut(&FdtNode<'_, 'a>) -> Result<ControlFlow<()>, MachineError>,
    ) -> Result<(), MachineError> {
        let root = self
            .fdt
            .root()
            .map_err(|error| structure_error("/", error))?;
        descend(
            &FdtNode {
                node: root.as_node(),
                parent: None,
            },
            0,
            visit,
        )
    }

    /// Shows the nodes directly below the root, and below those of them that
    /// `visit` returns `Continue` for.
    pub(super) fn walk_root_children(
        &self,
        visit: &mut dyn FnMut(&FdtNode<'_, 'a>) -> Result<ControlFlow<()>, MachineError>,
    ) -> Result<(), MachineError> {
        self.walk(&mut |place| match place.parent {
            None => Ok(ControlFlow::Continue(())),
            Some(_) => visit(place),
        })
    }

    /// The value of `property` of the node `/node`.
    pub(super) fn root_child_property(
        &self,
        node: &str,
        property: &str,
    ) -> Result<Option<&'a [u8]>, MachineError> {
        let mut value = None;
        let walked = self.walk_root_children(&mut |place| {
            if place.name()? == node && value.is_none() {
                value = place.property(property)?;
            }
            Ok(ControlFlow::Break(()))
        });
        found(walked, value)
    }
}

fn descend<'a>(
    place: &FdtNode<'_, 'a>,
    depth: u32,
    visit: &mut dyn FnMut(&FdtNode<'_, 'a>) -> Result<ControlFlow<()>, MachineError>,
) -> Result<(), MachineError> {
    if depth > MAX_DEPTH {
        return Err(MachineError::TooDeep { path: place.path() });
    }
    if visit(place)?.is_break() {
        return Ok(());
    }
    let children = place.node.children().map_err(|error| place.error(error))?;
    for child in children.iter() {
        let child = FdtNode {
            node: child.map_err(|error| place.error(error))?,
            parent: Some(place),
        };
        descend(&child, depth + 1, visit)?;
    }
    Ok(())
}

fn block<'a>(
    name: &'static str,
    bytes: &'a [u8],
    (offset, size): (u32, u32),
    least: u32,
) -> Result<&'a [u8], MachineError> {
    let start = offset as usize;
    let slice = (offset as usize >= HEADER_SIZE && size >= least)
        .then(|| bytes.get(start..start.checked_add(size as usize)?))
        .flatten();
    slice.ok_or(MachineError::Block {
        block: name,
        offset,
        size,
        announced: bytes.len() as u32,
    })
}

fn structure_error(path: &str, error: fdt::FdtError) -> MachineError {
    MachineError::Structure {
        path: path.into(),
        reason: error.to_string(),
    }
}

/// A node and where it is.
pub(super) struct FdtNode<'p, 'a> {
    node: Node<'a>,
    parent: Option<&'p FdtNode<'p, 'a>>,
}

/// Number of 32-bit cells that addresses and sizes below a node have
/// (DT 2.3.5).
#[derive(Clone, Copy)]
pub(super) struct Cells {
    pub(super) address: usize,
    pub(super) size: usize,
}

impl<'p, 'a> FdtNode<'p, 'a> {
    fn error(&self, error: fdt::FdtError) -> MachineError {
        structure_error(&self.path(), error)
    }

    /// The node that this one is in; `None` for the root.
    pub(super) const fn parent(&self) -> Option<&'p Self> {
        self.parent
    }

    /// Name with the unit address, `name@address`.
    pub(super) fn name(&self) -> Result<String, MachineError> {
        let name = self.node.name().map_err(|error| self.error(error))?;
        Ok(name.to_string())
    }

    /// Path from the root, as far as its names can be read.
    pub(super) fn path(&self) -> String {
        let name = self
            .node
            .name()
            .map_or_else(|_| "?".into(), |name| name.to_string());
        match self.parent {
            None => "/".into(),
            Some(parent) if parent.parent.is_none() => format!("/{name}"),
            Some(parent) => format!("{}/{name}", parent.path()),
        }
    }

    /// The value of a property.
    pub(super) fn property(&self, name: &str) -> Result<Option<&'a [u8]>, MachineError> {
        let property = self
            .node
            .raw_property(name)
            .map_err(|error| self.error(error))?;
        Ok(property.map(|property| property.value))
    }

    /// The value of a property of one cell; `None` also where it has another
    /// length.
    pub(super) fn cell(&self, name: &str) -> Result<Option<u32>, MachineError> {
        let value = self.property(name)?;
        Ok(value
            .filter(|value| value.len() == 4)
            .and_then(|value| big_endian_u32(value, 0)))
    }

    /// The value of a property of one string.
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, MachineError> {
        Ok(self.property(name)?.and_then(text))
    }

    /// Whether `compatible` lists `model` (DT 2.3.1).
    pub(super) fn is_compatible(&self, model: &str) -> Result<bool, MachineError> {
        let list = self.property("compatible")?.unwrap_or_default();
        Ok(list
            .split(|&byte| byte == 0)
            .any(|entry| entry == model.as_bytes()))
    }

    /// Whether the node is there to be used (DT 2.3.4).
    pub(super) fn is_okay(&self) -> Result<bool, MachineError> {
        let status = self.property("status")?;
        Ok(status.is_none_or(|status| matches!(text(status), Some("okay" | "ok"))))
    }

    /// Cells of the addresses and sizes in the nodes below this one.
    pub(super) fn cells(&self) -> Result<Cells, MachineError> {
        // Boot modules are added below a `/chosen` that says nothing, and
        // counted as the root counts.
        if let Some(root) = self.parent
            && self.property("#address-cells")?.is_none()
            && self.name()? == "chosen"
        {
            return root.cells();
        }
        let address = self.cell("#address-cells")?.unwrap_or(2);
        let size = self.cell("#size-cells")?.unwrap_or(1);
        Ok(Cells {
            address: address as usize,
            size: size as usize,
        })
    }
}

/// Lets a walk that has found what it looked for end there, damaged or not.
pub(super) fn found<T>(
    result: Result<(), MachineError>,
    value: Option<T>,
) -> Result<Option<T>, MachineError> {
    match value {
        Some(value) => Ok(Some(value)),
        None => result.map(|()| None),
    }
}

/// The string that a property value holds, up to the first NUL.
pub(super) fn text(value: &[u8]) -> Option<&str> {
    let end = value.iter().position(|&byte| byte == 0)?;
    core::str::from_utf8(value.get(..end)?).ok()
}

/// The big-endian 32 bits at `offset`.
pub(super) fn big_endian_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

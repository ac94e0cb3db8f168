//! Reading nodes and properties of a flattened device tree that may be
//! damaged.
//!
//! The `fdt` crate reads, in its fallible mode; the fields of the header that
//! it does not check are checked before.

use alloc::format;
use alloc::string::{String, ToString};
use core::ops::ControlFlow;

use fdt::helpers::UnalignedFallibleNode;
use fdt::nodes::{AsNode, NodeName};
use fdt::parsing::{NoPanic, unaligned::UnalignedParser};
use warmbus_memory::bytes::be_u32;

use crate::header::{Blocks, VERSION};
use crate::{FdtError, MAX_DEPTH, MAX_NAME};

type Node<'a> = UnalignedFallibleNode<'a>;
type Fdt<'a> = fdt::Fdt<'a, (UnalignedParser<'a>, NoPanic)>;

/// What a walk calls for each node: `Break` skips the nodes below.
pub type Visit<'v, 'a> = dyn FnMut(&FdtNode<'_, 'a>) -> Result<ControlFlow<()>, FdtError> + 'v;

/// A device tree with a valid header.
pub struct DeviceTree<'a> {
    fdt: Fdt<'a>,
    blocks: Blocks<'a>,
}

impl<'a> DeviceTree<'a> {
    /// The tree that starts with `bytes`, which may go on after it. Its
    /// version is 17: before, the header does not have the size of the
    /// structure block, which the `fdt` crate needs.
    ///
    /// # Errors
    ///
    /// If the header is damaged, the blocks that it describes are not all in
    /// `bytes`, or the version is not compatible with 17.
    pub fn new(bytes: &'a [u8]) -> Result<Self, FdtError> {
        let blocks = Blocks::find(bytes)?;
        if blocks.version < VERSION {
            return Err(FdtError::Version {
                version: blocks.version,
                compatible_with: blocks.compatible_with,
            });
        }
        let size = blocks.structure.len();
        if !size.is_multiple_of(4) {
            return Err(FdtError::Unfinished { offset: size });
        }
        let fdt = Fdt::new_unaligned_fallible(blocks.tree);
        let fdt = fdt.map_err(|error| structure_error("/", error))?;
        Ok(Self { fdt, blocks })
    }

    /// The memory reservations (DT 5.3): pairs of address and bytes, which may
    /// be empty or wrap around. The last item is an error where the block has
    /// no end mark.
    pub fn reservations(&self) -> impl Iterator<Item = Result<(u64, u64), FdtError>> + use<'a> {
        let offset = self.blocks.reservations_offset;
        let mut entries = Some(Cells::new(self.blocks.reservations));
        core::iter::from_fn(move || {
            let block = entries.as_mut()?;
            match (block.number(2), block.number(2)) {
                (Some(0), Some(0)) => {
                    entries = None;
                    None
                }
                (Some(address), Some(size)) => Some(Ok((address, size))),
                _ => {
                    entries = None;
                    Some(Err(FdtError::Reservations { offset }))
                }
            }
        })
    }

    /// Calls `visit` for every node, parents before children, in the order of
    /// the tree. Nodes below one for which it returns `Break` are skipped.
    ///
    /// # Errors
    ///
    /// If the structure is damaged, nodes are nested deeper than
    /// [`MAX_DEPTH`](crate::MAX_DEPTH), or `visit` returns an error.
    pub fn walk(&self, visit: &mut Visit<'_, 'a>) -> Result<(), FdtError> {
        let root = self.fdt.root();
        let root = root.map_err(|error| structure_error("/", error))?;
        let root = FdtNode {
            node: root.as_node(),
            parent: None,
        };
        descend(&root, 1, visit)
    }

    /// Calls `visit` for the nodes directly below the root, and for those
    /// below them where it returns `Continue`.
    ///
    /// # Errors
    ///
    /// Those of [`walk`](Self::walk).
    pub fn walk_root_children(&self, visit: &mut Visit<'_, 'a>) -> Result<(), FdtError> {
        self.walk(&mut |node| match node.parent {
            None => Ok(ControlFlow::Continue(())),
            Some(_) => visit(node),
        })
    }

    /// The value of the property `property` of the node `/node`.
    ///
    /// # Errors
    ///
    /// If the tree is damaged and the property was not found before that.
    pub fn root_child_property(
        &self,
        node: &str,
        property: &str,
    ) -> Result<Option<&'a [u8]>, FdtError> {
        let mut value = None;
        let walked = self.walk_root_children(&mut |child| {
            if value.is_none() && child.name()? == node {
                value = child.property(property)?;
            }
            Ok(ControlFlow::Break(()))
        });
        tolerate_damage_after(value, walked)
    }
}

/// Visits `node`, the `depth`th of the nodes on its path, and what is below.
fn descend<'a>(
    node: &FdtNode<'_, 'a>,
    depth: usize,
    visit: &mut Visit<'_, 'a>,
) -> Result<(), FdtError> {
    if depth > MAX_DEPTH {
        return Err(FdtError::TooDeep { place: node.path() });
    }
    if visit(node)?.is_break() {
        return Ok(());
    }
    let children = node.node.children().map_err(|error| node.error(error))?;
    for child in children.iter() {
        let child = FdtNode {
            node: child.map_err(|error| node.error(error))?,
            parent: Some(node),
        };
        descend(&child, depth + 1, visit)?;
    }
    Ok(())
}

/// Bytes of the name of a node.
fn length(name: &NodeName<'_>) -> usize {
    let address = name.unit_address.map_or(0, |address| 1 + address.len());
    name.name.len() + address
}

fn structure_error(path: &str, error: fdt::FdtError) -> FdtError {
    FdtError::Structure {
        path: path.into(),
        reason: error.to_string(),
    }
}

/// A node and the nodes that it is in.
pub struct FdtNode<'p, 'a> {
    node: Node<'a>,
    parent: Option<&'p FdtNode<'p, 'a>>,
}

/// The names in the `compatible` of a node (DT 2.3.1), the most specific first.
#[derive(Clone, Copy, Debug)]
pub struct Compatible<'a> {
    list: &'a [u8],
}

impl Compatible<'_> {
    /// Whether `model` is one of them.
    #[must_use]
    pub fn lists(self, model: &str) -> bool {
        let mut entries = self.list.split(|byte| *byte == 0);
        entries.any(|entry| entry == model.as_bytes())
    }
}

/// How many 32-bit cells addresses and sizes below a node have (DT 2.3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellCounts {
    /// Cells of an address, `#address-cells`.
    pub address: usize,
    /// Cells of a size, `#size-cells`.
    pub size: usize,
}

impl CellCounts {
    /// What counts where a node has neither property.
    pub const DEFAULT: Self = Self {
        address: 2,
        size: 1,
    };
}

impl<'p, 'a> FdtNode<'p, 'a> {
    fn error(&self, error: fdt::FdtError) -> FdtError {
        structure_error(&self.path(), error)
    }

    /// The node that this one is in; `None` for the root.
    #[must_use]
    pub const fn parent(&self) -> Option<&'p Self> {
        self.parent
    }

    /// The name with the unit address, `name@address`.
    ///
    /// # Errors
    ///
    /// If the node is damaged, or its name is longer than
    /// [`MAX_NAME`](crate::MAX_NAME) bytes.
    pub fn name(&self) -> Result<String, FdtError> {
        let name = self.node.name().map_err(|error| self.error(error))?;
        let length = length(&name);
        if length > MAX_NAME {
            return Err(FdtError::LongNodeName {
                parent: self.parent.map_or_else(|| "/".into(), FdtNode::path),
                length,
            });
        }
        Ok(name.to_string())
    }

    /// The path from the root. A name that cannot be read, or is too long, is
    /// a question mark.
    #[must_use]
    pub fn path(&self) -> String {
        let name = self.node.name().ok();
        let name = name.filter(|name| length(name) <= MAX_NAME);
        let name = name.map_or_else(|| "?".into(), |name| name.to_string());
        match self.parent {
            None => "/".into(),
            Some(parent) if parent.parent.is_none() => format!("/{name}"),
            Some(parent) => format!("{}/{name}", parent.path()),
        }
    }

    /// The value of a property.
    ///
    /// # Errors
    ///
    /// If the node is damaged; the error has its path.
    pub fn property(&self, name: &str) -> Result<Option<&'a [u8]>, FdtError> {
        let property = self.node.raw_property(name);
        let property = property.map_err(|error| self.error(error))?;
        Ok(property.map(|property| property.value))
    }

    /// The value of a property of one cell; `None` also where it has another
    /// length.
    ///
    /// # Errors
    ///
    /// If the node is damaged; the error has its path.
    pub fn cell(&self, name: &str) -> Result<Option<u32>, FdtError> {
        let value = self.property(name)?.filter(|value| value.len() == 4);
        Ok(value.and_then(|value| be_u32(value, 0)))
    }

    /// The value of a property of one string; `None` also where it is not
    /// UTF-8 or has no NUL.
    ///
    /// # Errors
    ///
    /// If the node is damaged; the error has its path.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>, FdtError> {
        Ok(self.property(name)?.and_then(text))
    }

    /// The names in `compatible` (DT 2.3.1).
    ///
    /// # Errors
    ///
    /// If the node is damaged; the error has its path.
    pub fn compatible(&self) -> Result<Compatible<'a>, FdtError> {
        let list = self.property("compatible")?.unwrap_or_default();
        Ok(Compatible { list })
    }

    /// Whether `compatible` lists `model`.
    ///
    /// # Errors
    ///
    /// Those of [`compatible`](Self::compatible).
    pub fn is_compatible(&self, model: &str) -> Result<bool, FdtError> {
        Ok(self.compatible()?.lists(model))
    }

    /// Whether the node may be used (`status`, DT 2.3.4).
    ///
    /// # Errors
    ///
    /// If the node is damaged; the error has its path.
    pub fn is_okay(&self) -> Result<bool, FdtError> {
        let status = self.property("status")?;
        Ok(status.is_none_or(|status| matches!(text(status), Some("okay" | "ok"))))
    }

    /// The cells of the addresses and sizes in the nodes below this one.
    ///
    /// # Errors
    ///
    /// If the node, or the root where its cells are taken, is damaged.
    pub fn cell_counts(&self) -> Result<CellCounts, FdtError> {
        // Boot modules are added below a `/chosen` that has no such
        // properties, and are written in the cells of the root.
        if let Some(root) = self.parent
            && self.property("#address-cells")?.is_none()
            && self.name()? == "chosen"
        {
            return root.cell_counts();
        }
        let address = self.cell("#address-cells")?.map(|cells| cells as usize);
        let size = self.cell("#size-cells")?.map(|cells| cells as usize);
        Ok(CellCounts {
            address: address.unwrap_or(CellCounts::DEFAULT.address),
            size: size.unwrap_or(CellCounts::DEFAULT.size),
        })
    }
}

/// Cells taken one after the other from the value of a property.
#[derive(Clone, Debug)]
pub struct Cells<'a> {
    bytes: &'a [u8],
}

impl<'a> Cells<'a> {
    /// The cells of `value`.
    #[must_use]
    pub const fn new(value: &'a [u8]) -> Self {
        Self { bytes: value }
    }

    /// Whether all bytes of the value were taken.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next cell; `None` at the end of the value.
    pub fn cell(&mut self) -> Option<u32> {
        let cell = be_u32(self.bytes, 0)?;
        self.bytes = self.bytes.get(4..)?;
        Some(cell)
    }

    /// A number of `cells` cells. `None` at the end of the value, and where
    /// the number has more than 64 bits.
    pub fn number(&mut self, cells: usize) -> Option<u64> {
        // Bounded by the value, whatever #address-cells is.
        let mut number = 0_u64;
        for _ in 0..cells {
            if number >> 32 != 0 {
                return None;
            }
            number = number << 32 | u64::from(self.cell()?);
        }
        Some(number)
    }
}

/// The value that a walk has found, if there is one, whether the tree is
/// damaged after it or not; the error of the walk otherwise.
///
/// # Errors
///
/// The error of `walked` where there is no value.
pub fn tolerate_damage_after<T>(
    value: Option<T>,
    walked: Result<(), FdtError>,
) -> Result<Option<T>, FdtError> {
    match value {
        Some(value) => Ok(Some(value)),
        None => walked.map(|()| None),
    }
}

/// The string that the value of a property holds, up to the first NUL; `None`
/// where there is none, or no UTF-8.
#[must_use]
pub fn text(value: &[u8]) -> Option<&str> {
    let end = value.iter().position(|&byte| byte == 0)?;
    core::str::from_utf8(value.get(..end)?).ok()
}

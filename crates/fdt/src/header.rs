//! The header of a flattened device tree, and the blocks that it names
//! (DT 5.2).

use warmbus_memory::bytes::be_u32;

use crate::{FdtError, HEADER_SIZE, MAGIC, MAX_NAME};

/// The oldest version that is read: since then a node has its name and not its
/// whole path in it. Since 17, the header has the size of the structure block.
const OLDEST_VERSION: u32 = 16;
/// The version that is written, and that a tree has to be compatible with.
pub(crate) const VERSION: u32 = 17;
/// A root node without name, properties and children, and the end mark.
const MIN_STRUCTURE: usize = 16;

/// The blocks of a tree, whose boundaries have been checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocks<'a> {
    /// All bytes of the tree.
    pub(crate) tree: &'a [u8],
    pub(crate) version: u32,
    pub(crate) compatible_with: u32,
    pub(crate) boot_cpu: u32,
    pub(crate) structure: &'a [u8],
    pub(crate) strings: &'a [u8],
    /// From the memory reservation block on.
    pub(crate) reservations: &'a [u8],
    pub(crate) reservations_offset: u32,
}

impl<'a> Blocks<'a> {
    /// Finds the blocks of the tree that `bytes` starts with. `bytes` may go
    /// on after the tree.
    pub(crate) fn find(bytes: &'a [u8]) -> Result<Self, FdtError> {
        let available = bytes.len();
        let Some(header) = bytes.get(..HEADER_SIZE) else {
            return Err(FdtError::NoHeader { available });
        };
        let field = |index: usize| be_u32(header, 4 * index).unwrap_or_default();
        let found = field(0);
        if found != MAGIC {
            return Err(FdtError::NoMagic { found });
        }
        let announced = field(1);
        let tree = bytes.get(..announced as usize);
        let tree = tree.ok_or(FdtError::Truncated {
            announced,
            available,
        })?;
        let (version, compatible_with) = (field(5), field(6));
        if version < OLDEST_VERSION || compatible_with > VERSION {
            return Err(FdtError::Version {
                version,
                compatible_with,
            });
        }
        let (offset, min_offset) = (field(2), min_offset(version));
        let structure = match version {
            OLDEST_VERSION => (offset, announced.saturating_sub(offset)),
            _ => (offset, field(9)),
        };
        let block = |name, place, min| block(name, tree, place, min_offset, min);
        let reservations_offset = field(4);
        let blocks = Self {
            tree,
            version,
            compatible_with,
            boot_cpu: field(7),
            structure: block("structure", structure, MIN_STRUCTURE)?,
            strings: block("strings", (field(3), field(8)), 0)?,
            // Its size shows only when it is read.
            reservations: tree
                .get(reservations_offset as usize..)
                .filter(|_| reservations_offset as usize >= min_offset)
                .unwrap_or_default(),
            reservations_offset,
        };
        blocks.check_names()?;
        Ok(blocks)
    }

    /// Refuses names that no property has: each property is compared with
    /// them.
    fn check_names(&self) -> Result<(), FdtError> {
        let mut offset = 0;
        for name in self.strings.split(|byte| *byte == 0) {
            if name.len() > MAX_NAME {
                let length = name.len();
                return Err(FdtError::LongName { offset, length });
            }
            offset += name.len() + 1;
        }
        Ok(())
    }
}

/// Bytes of the header of a tree of `version`, before which no block is.
const fn min_offset(version: u32) -> usize {
    match version {
        OLDEST_VERSION => HEADER_SIZE - 4,
        _ => HEADER_SIZE,
    }
}

/// The block of `size` bytes, at least `min` of them, at `offset`.
fn block<'a>(
    name: &'static str,
    tree: &'a [u8],
    (offset, size): (u32, u32),
    min_offset: usize,
    min: usize,
) -> Result<&'a [u8], FdtError> {
    let start = offset as usize;
    let end = start.checked_add(size as usize);
    let block = end.and_then(|end| tree.get(start..end));
    block
        .filter(|block| start >= min_offset && block.len() >= min)
        .ok_or(FdtError::Block {
            block: name,
            offset,
            size,
            announced: tree.len() as u32,
        })
}

//! How the pieces of a handover of functions lie in their arena.

use core::fmt;

use super::index;
use super::wire::BLOCK_SIZE;
use warmbus_kho::{ARENA_BLOCK, InheritedState, KhoAbi};
use warmbus_memory::PageSize;

/// The name of the subtree.
pub(crate) const SUBTREE: &str = "pcsc";
/// The names of the memory that it points to.
pub(crate) const INDEX: &str = "index";
pub(crate) const BLOCK: &str = "data block";

/// What Linux prints as the kernel before it.
const RELEASE: &str = concat!("warmbus-", env!("CARGO_PKG_VERSION"));

/// Bytes of a function's node in the subtree: begin and end token, a name of
/// 16 characters, one property of 8 bytes.
const NODE_SIZE: u64 = 48;

/// More than the subtree takes without its nodes.
const SUBTREE_FIXED: u64 = 512;

/// Sizes and offsets in the arena for a number of functions: the subtree, the
/// index, a data block for each function, and what every handover has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    kho: warmbus_kho::Layout,
    functions: u64,
}

impl Layout {
    /// The layout for `functions` functions.
    ///
    /// # Errors
    ///
    /// [`LayoutError`] if one handover cannot carry so many.
    pub fn new(functions: usize, abi: KhoAbi, page_size: PageSize) -> Result<Self, LayoutError> {
        let too_many = LayoutError { functions };
        let count = functions as u64;
        if count > ARENA_BLOCK / BLOCK_SIZE {
            return Err(too_many);
        }
        let kho = warmbus_kho::Layout::builder(abi, page_size)
            .subtree(SUBTREE, SUBTREE_FIXED + NODE_SIZE * count)
            .preserve(INDEX, 1, index::size(functions))
            .preserve(BLOCK, count, BLOCK_SIZE)
            .metadata(RELEASE)
            .build();
        Ok(Self {
            kho: kho.map_err(|_| too_many)?,
            functions: count,
        })
    }

    /// The same with space for what goes on from a previous handover.
    ///
    /// # Errors
    ///
    /// [`LayoutError`] if there are too many functions for that.
    pub fn with_inherited(self, inherited: InheritedState<'_>) -> Result<Self, LayoutError> {
        let functions = self.functions;
        let kho = self.kho.with_inherited(inherited);
        Ok(Self {
            kho: kho.map_err(|_| LayoutError {
                functions: functions as usize,
            })?,
            functions,
        })
    }

    /// The same for a kernel that has another name for the version, as
    /// [`warmbus_kho::Layout::with_name`].
    #[must_use]
    pub fn with_name(mut self, name: Option<&str>) -> Self {
        self.kho = self.kho.with_name(name);
        self
    }

    /// The layout of all of the handover.
    #[must_use]
    pub const fn kho(&self) -> &warmbus_kho::Layout {
        &self.kho
    }

    /// Bytes of the arena.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.kho.size()
    }

    /// Alignment of the arena, in bytes; a power of two.
    #[must_use]
    pub const fn align(&self) -> u64 {
        self.kho.align()
    }

    /// Bytes of the arena that stay preserved in Linux.
    #[must_use]
    pub const fn preserved_size(&self) -> u64 {
        self.kho.preserved_size()
    }

    /// Functions that the arena has space for.
    #[must_use]
    pub const fn functions(&self) -> u64 {
        self.functions
    }

    /// The version of the handover.
    #[must_use]
    pub const fn abi(&self) -> KhoAbi {
        self.kho.abi()
    }

    /// The page size of the kernel that receives the handover.
    #[must_use]
    pub const fn page_size(&self) -> PageSize {
        self.kho.page_size()
    }

    /// Bytes from one data block to the next.
    #[must_use]
    pub fn block_stride(&self) -> u64 {
        self.kho.stride(BLOCK).unwrap_or(BLOCK_SIZE)
    }
}

/// There are more functions than one handover can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutError {
    /// How many there are.
    pub functions: usize,
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} functions are more than the {} MiB of one handover can carry",
            self.functions,
            ARENA_BLOCK >> 20
        )
    }
}

impl core::error::Error for LayoutError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_functions_are_refused_with_their_number() {
        let error = Layout::new(140_000, KhoAbi::V4, PageSize::K4).unwrap_err();
        assert_eq!(error.functions, 140_000);
        assert!(Layout::new(usize::MAX, KhoAbi::V1, PageSize::K64).is_err());
        assert!(Layout::new(65_536, KhoAbi::V4, PageSize::K4).is_ok());
        assert!(Layout::new(65_536, KhoAbi::V4, PageSize::K64).is_err());
    }
}

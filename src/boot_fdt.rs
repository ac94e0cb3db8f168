//! The device tree in memory.

use core::ptr;

use warmbus_fdt::MAGIC;
use warmbus_linux::memory_plan::MAX_TREE_SIZE;
use warmbus_memory::MemoryRange;
use warmbus_memory::PhysAddr;

use crate::arch::cache;

/// What is looked at where there is no tree, to say so with the numbers.
const HEADER_SIZE: u64 = warmbus_fdt::HEADER_SIZE as u64;

/// The device tree that the loader left in memory.
#[derive(Clone, Copy)]
pub(crate) struct BootTree {
    /// Physical address.
    pub(crate) address: u64,
    /// Bytes, no more than may be looked at; 0 where there is none.
    pub(crate) size: u64,
    /// Whether it begins as a device tree does.
    pub(crate) is_tree: bool,
}

impl BootTree {
    /// Finds out how large the tree at `address` is.
    ///
    /// # Safety
    ///
    /// `address` must be 0 or that of memory, with the MMU off.
    pub(crate) unsafe fn at(address: u64) -> Self {
        // The boot protocol asks for 8; with the MMU off less would fault.
        if address == 0 || !address.is_multiple_of(8) {
            return Self {
                address,
                size: 0,
                is_tree: false,
            };
        }
        // The boot protocol has a loader clean the kernel and not the tree. With
        // the caches off, what it has in them would not be seen.
        let header = MemoryRange::new(PhysAddr(address), HEADER_SIZE);
        cache::clean_and_invalidate_to_poc(header);
        let word = |index: usize| {
            let words = ptr::with_exposed_provenance::<u32>(address as usize);
            // SAFETY: by the contract of this function, and aligned.
            u32::from_be(unsafe { words.add(index).read_volatile() })
        };
        let is_tree = word(0) == MAGIC;
        let size = if is_tree {
            u64::from(word(1)).clamp(HEADER_SIZE, MAX_TREE_SIZE)
        } else {
            HEADER_SIZE
        };
        Self {
            address,
            size,
            is_tree,
        }
    }

    /// The bytes of the tree.
    ///
    /// # Safety
    ///
    /// The tree must be mapped, and nothing may write to it.
    pub(crate) unsafe fn bytes(&self) -> &'static [u8] {
        if self.size == 0 {
            return &[];
        }
        let start = ptr::with_exposed_provenance(self.address as usize);
        // SAFETY: by the contract of this function.
        unsafe { core::slice::from_raw_parts(start, self.size as usize) }
    }

    /// The memory it takes; at least a byte.
    pub(crate) fn region(&self) -> MemoryRange {
        MemoryRange::new(PhysAddr(self.address), self.size.max(1))
    }
}

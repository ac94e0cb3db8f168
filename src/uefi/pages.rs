//! Pages of UEFI.

use alloc::format;
use core::ptr::NonNull;

use uefi::boot::{self, AllocateType};
use uefi_raw::table::boot::MemoryType;
use warmbus_memory::{MemoryRange, PhysAddr};

use super::Why;

/// The pages of UEFI, whatever those of a kernel are.
const PAGE: u64 = 4096;

/// Pages that are given back with this value.
pub(super) struct Pages {
    range: MemoryRange,
}

impl Pages {
    /// The pages of `range`, which are free.
    pub(super) fn at(range: MemoryRange) -> Result<Self, Why> {
        let place = AllocateType::Address(range.start.0);
        Self::new(place, MemoryType::LOADER_DATA, range.size)
    }

    /// Pages for `size` bytes anywhere, of which Linux keeps nothing.
    pub(super) fn anywhere(size: u64) -> Result<Self, Why> {
        Self::new(AllocateType::AnyPages, MemoryType::BOOT_SERVICES_DATA, size)
    }

    fn new(place: AllocateType, kind: MemoryType, size: u64) -> Result<Self, Why> {
        let count = usize::try_from(size.div_ceil(PAGE))?;
        let start = boot::allocate_pages(place, kind, count).map_err(|error| {
            format!("there is no memory for {size:#x} bytes: {}", error.status())
        })?;
        let start = PhysAddr(start.addr().get() as u64);
        Ok(Self {
            range: MemoryRange::new(start, size),
        })
    }

    /// Where they are; as many bytes as were asked for.
    pub(super) const fn range(&self) -> MemoryRange {
        self.range
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let count = self.range.size.div_ceil(PAGE) as usize;
        let start = core::ptr::with_exposed_provenance_mut(self.range.start.0 as usize);
        if let Some(start) = NonNull::new(start) {
            // SAFETY: they belong to this value, and nothing refers to them.
            // What UEFI does not take back is lost until Linux runs.
            let _ = unsafe { boot::free_pages(start, count) };
        }
    }
}

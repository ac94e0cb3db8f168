//! Memory as boot services have mapped it.

use alloc::vec::Vec;
use core::mem::size_of;

use uefi::{Status, StatusExt as _};
use uefi_raw::table::boot::MemoryDescriptor;
use warmbus_machine::MemoryMap;
use warmbus_memory::{MemoryRange, NotMemory, PhysMemory};

use super::{Why, cannot};

/// Descriptors that a map may get between the two calls for it, which allocate.
const MORE_DESCRIPTORS: usize = 16;

/// A memory map, as it was.
pub(super) struct MapNow {
    /// Aligned like the descriptors in it.
    buffer: Vec<u64>,
    size: usize,
    descriptor_size: usize,
}

impl MapNow {
    /// Asks for it. The function of the crate `uefi` panics where UEFI refuses
    /// what it should not, and here that would end the boot.
    pub(super) fn read() -> Result<Self, Why> {
        let table = uefi::table::system_table_raw().ok_or("there is no system table")?;
        // SAFETY: it is the table of UEFI, and boot services are active.
        let services = unsafe { table.as_ref() }.boot_services;
        let mut map = Self {
            buffer: Vec::new(),
            size: 0,
            descriptor_size: 0,
        };
        let mut status = Status::BUFFER_TOO_SMALL;
        // The first call only says how large it is.
        for _ in 0..3 {
            let one = map.descriptor_size.max(size_of::<MemoryDescriptor>());
            let more = one.saturating_mul(MORE_DESCRIPTORS);
            let words = map.size.saturating_add(more).div_ceil(size_of::<u64>());
            map.buffer.clear();
            let reserved = map.buffer.try_reserve_exact(words);
            reserved.map_err(|_| "there is no memory for the memory map")?;
            map.buffer.resize(words, 0);
            map.size = words * size_of::<u64>();
            let (mut key, mut version) = (0, 0);
            // SAFETY: the buffer has so many bytes.
            status = unsafe {
                ((*services).get_memory_map)(
                    &raw mut map.size,
                    map.buffer.as_mut_ptr().cast::<MemoryDescriptor>(),
                    &raw mut key,
                    &raw mut map.descriptor_size,
                    &raw mut version,
                )
            };
            if status != Status::BUFFER_TOO_SMALL {
                break;
            }
        }
        match status.to_result() {
            Ok(()) => Ok(map),
            Err(error) => Err(cannot("say what is in memory")(error).into()),
        }
    }
}

/// All memory of a memory map.
pub(super) struct Mapped<'a>(MemoryMap<'a>);

impl<'a> Mapped<'a> {
    pub(super) fn of(map: &'a MapNow) -> Self {
        let size = map.size.min(size_of_val(&*map.buffer));
        // SAFETY: the words have so many bytes.
        let bytes = unsafe { core::slice::from_raw_parts(map.buffer.as_ptr().cast(), size) };
        Self(MemoryMap::new(bytes, map.descriptor_size))
    }

    pub(super) const fn map(&self) -> &MemoryMap<'a> {
        &self.0
    }
}

impl PhysMemory for Mapped<'_> {
    fn bytes(&self, range: MemoryRange) -> Result<&[u8], NotMemory> {
        if range.start.0 == 0 || !self.0.is_memory(range) {
            return Err(NotMemory { range });
        }
        let start = core::ptr::with_exposed_provenance(range.start.0 as usize);
        // SAFETY: all of it is memory, which UEFI maps one to one; tables and
        // code do not change.
        Ok(unsafe { core::slice::from_raw_parts(start, range.size as usize) })
    }
}

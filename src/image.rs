//! Where the image lies in memory.

use warmbus_memory::MemoryRange;
use warmbus_memory::PhysAddr;

unsafe extern "C" {
    static __image_start: u8;
    static __rodata_start: u8;
    static __data_start: u8;
    static __guard: u8;
    static __exception_guard: u8;
    static __image_end: u8;
}

/// The borders of the image, all on page boundaries.
#[derive(Clone, Copy)]
pub(crate) struct Image {
    /// First address; code starts here.
    pub(crate) start: u64,
    /// Read-only data starts here.
    pub(crate) rodata: u64,
    /// Writable data starts here.
    pub(crate) data: u64,
    /// Pages below the stacks, never to be mapped.
    pub(crate) guards: [u64; 2],
    /// First address behind the image and its stacks.
    pub(crate) end: u64,
}

impl Image {
    /// The running image.
    pub(crate) fn running() -> Self {
        let address = |symbol: *const u8| symbol.addr() as u64;
        Self {
            start: address(&raw const __image_start),
            rodata: address(&raw const __rodata_start),
            data: address(&raw const __data_start),
            guards: [
                address(&raw const __guard),
                address(&raw const __exception_guard),
            ],
            end: address(&raw const __image_end),
        }
    }

    /// All of it.
    pub(crate) const fn region(&self) -> MemoryRange {
        MemoryRange::new(PhysAddr(self.start), self.end - self.start)
    }
}

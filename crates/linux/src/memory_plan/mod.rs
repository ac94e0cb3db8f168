//! Addresses for all that Linux is started with.
//!
//! [`MemoryPlan::new`] places the kernel, the initrd, the device tree and the
//! handover in the memory of a machine; [`MemoryPlan::check`] is an independent
//! check of the result. The constraints are those of the arm64 boot protocol
//! (`Documentation/arch/arm64/booting.rst`) and of the Kexec HandOver receiver.

mod check;
mod error;
mod plan;
mod scratch;
mod scratch_area;
mod scratch_needs;
mod windows;

pub use check::PlanViolation;
pub use error::PlanError;
pub use plan::MemoryPlan;
pub use scratch_needs::{GiganticPages, ScratchNeeds, ScratchRequest};

use warmbus_kho::KhoAbi;
pub use warmbus_memory::RamRegion;
use warmbus_memory::{MemoryRange, PageSize};

/// Kernels are placed at multiples of this, plus their text offset.
pub const KERNEL_ALIGN: u64 = 2 << 20;

/// Bytes of the largest device tree: Linux maps as many of them early.
pub const MAX_TREE_SIZE: u64 = 2 << 20;

/// A kernel and its initrd lie in one window of this many bytes, which is
/// itself aligned to [`INITRD_WINDOW_ALIGN`].
pub const INITRD_WINDOW: u64 = 32 << 30;

/// See [`INITRD_WINDOW`].
pub const INITRD_WINDOW_ALIGN: u64 = 1 << 30;

/// Any device can be expected to access memory below this address.
pub const LOW_MEMORY_END: u64 = 1 << 32;

/// A region that is set aside by the memory reservation block or by
/// `/reserved-memory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservedRegion {
    /// Where it is.
    pub range: MemoryRange,
    /// Linux must not map it (`no-map`).
    pub no_map: bool,
}

/// What a kernel needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelNeeds {
    /// Offset from a 2 MiB boundary, from the image header.
    pub text_offset: u64,
    /// Bytes in memory, from the image header.
    pub image_size: u64,
    /// The range that its file was loaded to, where the file is not packed. It
    /// stays there if that is possible.
    pub loaded: Option<MemoryRange>,
}

/// What an initrd needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitrdNeeds {
    /// The range that it was loaded to. It stays there if that is possible.
    pub loaded: MemoryRange,
}

/// The size and the form of a handover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandoverNeeds {
    /// The version of the handover.
    pub abi: KhoAbi,
    /// The page size of the kernel.
    pub page_size: PageSize,
    /// Bytes of the arena, as the layout of the handover says.
    pub arena_size: u64,
    /// Alignment of the arena in bytes, a power of two.
    pub arena_align: u64,
    /// The needs that the size of the scratch memory is calculated from.
    pub scratch: ScratchNeeds,
}

/// A machine and what is to be placed in it.
#[derive(Clone, Copy, Debug)]
pub struct PlanRequest<'a> {
    /// All RAM.
    pub ram: &'a [RamRegion],
    /// Memory that must not be used.
    pub reserved: &'a [ReservedRegion],
    /// Memory that is in use until Linux is entered: the firmware with its heap
    /// and stacks, the boot tree, compressed files. Nothing is written there
    /// before; Linux may use it as scratch memory afterwards.
    pub occupied: &'a [MemoryRange],
    /// The kernel. Its range is occupied as well.
    pub kernel: KernelNeeds,
    /// The initrd, if there is one. Its range is occupied as well.
    pub initrd: Option<InitrdNeeds>,
    /// Bytes of the device tree for Linux.
    pub tree_size: u64,
    /// The handover; `None` for a boot without one.
    pub handover: Option<HandoverNeeds>,
    /// The scratch areas of the previous handover, which are used again; empty
    /// where there is none.
    pub scratch: &'a [MemoryRange],
}

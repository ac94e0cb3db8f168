//! From the firmware to the kernel, by the arm64 boot protocol
//! (`Documentation/arch/arm64/booting.rst`).

use core::arch::asm;

use warmbus_boot::loader::LoadedLinux;

use crate::arch::cache;
use crate::arch::mmu::{self, SCTLR_ON};
use crate::arch::serror::{self, Syndrome};
use crate::console::println;
use crate::image::Image;
use crate::mem::heap;

/// Prints the last line and starts `linux`.
///
/// # Safety
///
/// Nothing may have been written since `linux` was loaded to the memory that it
/// was loaded to.
pub(crate) unsafe fn start_linux(linux: &LoadedLinux, image: &Image) -> ! {
    serror::synchronise();
    if let Some(Syndrome(syndrome)) = serror::take_pending() {
        println!(
            "warmbus: an SError that no access explains was pending before Linux starts, \
             with the syndrome {syndrome:#x}; it was taken"
        );
    }
    println!(
        "warmbus: starting Linux at {:#x}, {} the cache",
        linux.entry,
        if linux.without_cache.is_none() {
            "with"
        } else {
            "without"
        }
    );
    // Linux may use this memory before its caches are on.
    cache::clean_and_invalidate_to_poc(heap::touched());
    // Nothing accesses a device from here on, so none can become pending.
    serror::synchronise();
    serror::take_pending();
    // SAFETY: both were loaded and cleaned; that nothing was written since is
    // the contract of this function.
    unsafe { enter_kernel(linux.entry, linux.tree.start.0, image) }
}

/// Turns MMU and caches off and enters the kernel at the exception level that
/// the firmware was entered at.
///
/// # Safety
///
/// `kernel` must be the entry of an arm64 kernel and `tree` the address of a
/// device tree, both clean to the point of coherency.
// `cargo xtask bench` finds the end of the firmware by the name of its function.
#[inline(never)]
pub(crate) unsafe fn enter_kernel(kernel: u64, tree: u64, image: &Image) -> ! {
    // SAFETY: the image is mapped to itself, so that the code goes on where it
    // is when the MMU is off. From then on no memory is touched: everything is
    // in registers. What the caches still hold of the image, this stack
    // included, is written back then, before Linux uses that memory. The rest
    // is the contract of this function.
    unsafe {
        asm!(
            "msr daifset, #0xf",
            "dsb sy",
            "cbz x7, 2f",
            "mrs x9, sctlr_el2",
            "bic x9, x9, x8",
            "msr sctlr_el2, x9",
            "isb",
            "tlbi alle2",
            "b 3f",
            "2:",
            "mrs x9, sctlr_el1",
            "bic x9, x9, x8",
            "msr sctlr_el1, x9",
            "isb",
            "tlbi vmalle1",
            "3:",
            "mrs x9, ctr_el0",
            "ubfx x9, x9, #16, #4",
            "mov x10, #4",
            "lsl x9, x10, x9",
            // Eight lines a round: the image has whole pages.
            "4:",
            ".rept 8",
            "dc civac, x5",
            "add x5, x5, x9",
            ".endr",
            "cmp x5, x6",
            "b.lo 4b",
            "ic iallu",
            "dsb sy",
            "isb",
            "msr spsel, #1",
            "mov x1, xzr",
            "mov x2, xzr",
            "mov x3, xzr",
            "br x4",
            in("x0") tree,
            in("x4") kernel,
            in("x5") image.start,
            in("x6") image.end,
            in("x7") u64::from(mmu::at_el2()),
            in("x8") SCTLR_ON,
            options(noreturn, nostack),
        );
    }
}

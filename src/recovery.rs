//! Recovery: a second start, without PCI, where the firmware itself fails and
//! there is a Linux to start.
//!
//! Nothing of what failed is trusted: the image is put back to what it was at
//! the first start, and only the device tree and a sentence come along. The
//! payload is still where its loader left it, because it is never written to.

use core::cell::UnsafeCell;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Mutex;

use crate::arch::{cache, psci};
use crate::console::println;
use crate::image::Image;
use crate::kernel_entry;
use crate::mem::heap;

/// Most bytes of the sentence that are retained.
const CAPACITY: usize = 240;

/// What outlives the second start, in memory that no start clears.
#[repr(C)]
struct Retained {
    /// Address of the device tree.
    tree: u64,
    /// Bytes of the sentence.
    length: usize,
    why: [u8; CAPACITY],
}

#[repr(transparent)]
struct Cell(UnsafeCell<Retained>);

// SAFETY: it is written before a second start, and read after it.
unsafe impl Sync for Cell {}

unsafe extern "C" {
    /// See `entry.rs`, which has it next to what it clears.
    static retained: Cell;
    /// Says to the first instructions that it is the second start.
    static boot_state: UnsafeCell<u32>;
}

/// The value of `boot_state` that asks for a second start.
const AGAIN: u32 = 2;

/// There is a kernel to be started, and this is the first start.
static ARMED: AtomicBool = AtomicBool::new(false);

/// What went wrong is being printed.
static IS_PRINTING: AtomicBool = AtomicBool::new(false);

/// What ends the program where there is no second start.
static END: Mutex<fn() -> !> = Mutex::new(psci::off);

/// Sets what ends the program where there is no second start.
pub(crate) fn set_fallback(end: fn() -> !) {
    *END.lock() = end;
}

/// Has the next fatal error end in a second start with the tree at `tree`.
///
/// # Safety
///
/// To be called on the first start only, with no other core running.
pub(crate) unsafe fn arm(tree: u64) {
    // SAFETY: by the contract of this function there is no other access.
    unsafe {
        (*retained.0.get()).tree = tree;
        retain(format_args!("the firmware failed and could not say why"));
    }
    ARMED.store(true, Ordering::Relaxed);
}

/// Has a fatal error end in power off from now on: Linux takes over.
pub(crate) fn disarm() {
    ARMED.store(false, Ordering::Relaxed);
}

/// Why the first start failed, on the second one.
///
/// # Safety
///
/// To be called on the second start only.
pub(crate) unsafe fn previous_failure() -> &'static str {
    // SAFETY: by the contract of this function `restart` has written it, and
    // it is not written again.
    let all = unsafe { &*retained.0.get() };
    let bytes = all.why.get(..all.length).unwrap_or_default();
    // Whole characters were written, so this never falls back.
    core::str::from_utf8(bytes).unwrap_or("the firmware failed")
}

/// The end of a start that cannot go on: the second start if there is one, or
/// else one line and what [`set_fallback`] has set, power off by default. `dump`
/// prints more about it before that.
///
/// Whatever breaks while something is printed ends in [`recover_silently`].
///
/// # Safety
///
/// The code that ran must never be resumed.
pub(crate) unsafe fn recover_or_power_off(reason: fmt::Arguments<'_>, dump: impl FnOnce()) -> ! {
    if IS_PRINTING.swap(true, Ordering::Relaxed) {
        // SAFETY: by the contract of this function.
        unsafe { recover_silently() }
    }
    if ARMED.load(Ordering::Relaxed) {
        // SAFETY: there is one core, and what ran before is never resumed.
        unsafe { retain(reason) };
        dump();
        println!("warmbus: {reason}: starting again without PCI");
    } else {
        dump();
        println!("warmbus: result: error: {reason}");
    }
    // SAFETY: by the contract of this function.
    unsafe { recover_silently() }
}

/// The same without a line, for what breaks in there: the console may have been
/// what broke.
///
/// # Safety
///
/// The code that ran must never be resumed.
pub(crate) unsafe fn recover_silently() -> ! {
    // Once only: what breaks on the way there ends the second case.
    if ARMED.swap(false, Ordering::Relaxed) {
        // SAFETY: armed, so that the tree is known; the rest is the contract
        // of this function.
        unsafe { restart() }
    }
    // SAFETY: as above.
    unsafe { END.force_unlock() };
    let end = *END.lock();
    end()
}

/// Keeps `reason` for the second start.
///
/// # Safety
///
/// Nothing else may access what is retained.
unsafe fn retain(reason: fmt::Arguments<'_>) {
    // SAFETY: by the contract of this function there is no other access.
    let all = unsafe { &mut *retained.0.get() };
    all.length = 0;
    // Too long a sentence is cut, which is no failure.
    let _ = all.write_fmt(reason);
}

/// # Safety
///
/// `arm` must have been called, and the code that ran must never be resumed.
unsafe fn restart() -> ! {
    // SAFETY: by the contract of this function there is no other access.
    let all = unsafe { &*retained.0.get() };
    // SAFETY: only the first instructions read it.
    unsafe { boot_state.get().write_volatile(AGAIN) };
    // SAFETY: the code that holds the lock is never resumed.
    cache::clean_and_invalidate_to_poc(unsafe { heap::force_touched() });
    let image = Image::running();
    // SAFETY: the image starts with the instructions that a loader enters,
    // and `enter` writes it back to memory.
    unsafe { kernel_entry::enter_kernel(image.start, all.tree, &image) }
}

impl Write for Retained {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            let end = self.length + letter.len_utf8();
            let room = self.why.get_mut(self.length..end).ok_or(fmt::Error)?;
            letter.encode_utf8(room);
            self.length = end;
        }
        Ok(())
    }
}

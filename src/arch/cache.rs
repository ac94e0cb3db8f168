//! Maintenance of the data caches (Arm ARM D7.5).

use core::arch::asm;

use warmbus_memory::MemoryRange;

/// Cleans and invalidates the data caches for `range`, to the point of
/// coherency: an observer with its caches off reads what was written, and no
/// stale line is evicted over what it writes.
///
/// The range must be mapped, or the MMU be off.
pub(crate) fn clean_and_invalidate_to_poc(range: MemoryRange) {
    if range.size == 0 {
        return;
    }
    // SAFETY: maintenance to the point of coherency changes nothing that a
    // program can see; there are as many rounds as lines.
    unsafe {
        asm!(
            "mrs {line}, ctr_el0",
            "ubfx {line}, {line}, #16, #4",
            "add {shift}, {line}, #2",
            "lsl {line}, {four}, {line}",
            "sub {count}, {line}, #1",
            "bic {at}, {at}, {count}",
            "add {count}, {count}, {end}",
            "sub {count}, {count}, {at}",
            "lsr {count}, {count}, {shift}",
            // Eight lines a round, then those that are left.
            "lsr {shift}, {count}, #3",
            "and {count}, {count}, #7",
            "cbz {shift}, 3f",
            "2:",
            ".rept 8",
            "dc civac, {at}",
            "add {at}, {at}, {line}",
            ".endr",
            "subs {shift}, {shift}, #1",
            "b.ne 2b",
            "3:",
            "cbz {count}, 5f",
            "4:",
            "dc civac, {at}",
            "add {at}, {at}, {line}",
            "subs {count}, {count}, #1",
            "b.ne 4b",
            "5:",
            "dsb sy",
            line = out(reg) _,
            shift = out(reg) _,
            count = out(reg) _,
            four = in(reg) 4_u64,
            at = inout(reg) range.start.0 => _,
            end = in(reg) range.end(),
            options(nostack),
        );
    }
}

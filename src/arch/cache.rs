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
    // program can see; the rounds end with the range.
    unsafe {
        asm!(
            "mrs {line}, ctr_el0",
            "ubfx {line}, {line}, #16, #4",
            "lsl {line}, {four}, {line}",
            "sub {mask}, {line}, #1",
            "bic {at}, {at}, {mask}",
            "2:",
            "dc civac, {at}",
            "add {at}, {at}, {line}",
            "cmp {at}, {end}",
            "b.lo 2b",
            "dsb sy",
            line = out(reg) _,
            mask = out(reg) _,
            four = in(reg) 4_u64,
            at = inout(reg) range.start.0 => _,
            end = in(reg) range.end(),
            options(nostack),
        );
    }
}

//! Copies of whole kernels.

use core::arch::asm;

/// Bytes of a round of the loop.
const ROUND: usize = 64;

/// Copies `source` to `target`, which has the same size, by pairs of registers:
/// a fifth of the instructions of what the compiler has for `copy_from_slice`.
///
/// # Panics
///
/// If the sizes differ.
pub(crate) fn copy(source: &[u8], target: &mut [u8]) {
    assert_eq!(source.len(), target.len());
    // Where one is aligned and the other is not there are no pairs.
    let is_aligned =
        source.as_ptr().addr().is_multiple_of(8) && target.as_ptr().addr().is_multiple_of(8);
    let size = if is_aligned {
        source.len() / ROUND * ROUND
    } else {
        0
    };
    if size != 0 {
        // SAFETY: the loop reads the first `size` bytes of `source` and writes
        // them to `target`, which has as many; it runs at least once. The
        // registers are named, and the flags are among what assembly may change.
        unsafe {
            asm!(
                "2:",
                "ldp {a}, {b}, [{from}], #64",
                "ldp {c}, {d}, [{from}, #-48]",
                "stp {a}, {b}, [{to}], #64",
                "stp {c}, {d}, [{to}, #-48]",
                "ldp {a}, {b}, [{from}, #-32]",
                "ldp {c}, {d}, [{from}, #-16]",
                "stp {a}, {b}, [{to}, #-32]",
                "stp {c}, {d}, [{to}, #-16]",
                "subs {left}, {left}, #64",
                "b.ne 2b",
                from = inout(reg) source.as_ptr() => _,
                to = inout(reg) target.as_mut_ptr() => _,
                left = inout(reg) size => _,
                a = out(reg) _,
                b = out(reg) _,
                c = out(reg) _,
                d = out(reg) _,
                options(nostack),
            );
        }
    }
    target[size..].copy_from_slice(&source[size..]);
}

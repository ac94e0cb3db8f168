//! `SError`: an external abort that does not stop at the instruction that caused
//! it (Arm ARM D1.3.5).
//!
//! It stays pending for as long as `PSTATE.A` masks it. The firmware always
//! masks it and looks for it where one is expected: after accesses to device
//! registers, at entry and before Linux starts. Linux unmasks it early, and stops
//! with a panic if one is pending then.

use core::arch::{asm, global_asm};

use aarch64_cpu::registers::HCR_EL2;
use tock_registers::interfaces::{Readable, Writeable};

use super::mmu;

/// `ISR_EL1.A`: an `SError` is pending.
const PENDING: u64 = 1 << 8;
/// `HCR_EL2.AMO`: a physical `SError` is taken to EL2. Without it the processor does
/// not take one at EL2 at all, and keeps it for EL1.
const ROUTE_TO_EL2: u64 = 1 << 5;
/// Set beside the syndrome in what `serror_take` returns.
const TAKEN: u64 = 1 << 63;
/// How many are taken one after another. A source that signals another one each time
/// cannot be silenced here.
const MAX_IN_A_ROW: usize = 8;

// The only instructions of the program with PSTATE.A clear. An SError that is
// taken between the labels goes on at `serror_taken`, with TAKEN and the
// syndrome in x0 (see `fixup`).
global_asm!(
    r#"
.section .text.serror, "ax"
.global serror_take, serror_unmasked, serror_masked
serror_take:
    mov     x0, xzr
    msr     daifclr, #4
serror_unmasked:
    isb
    nop
    msr     daifset, #4
serror_masked:
    ret
"#
);

unsafe extern "C" {
    fn serror_take() -> u64;
    static serror_unmasked: u8;
    static serror_masked: u8;
}

/// The syndrome of an `SError`, `ESR_ELx`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Syndrome(pub(crate) u64);

impl Syndrome {
    /// Whether the processor says that its own state may be wrong: `DFSC` is that
    /// of an asynchronous `SError`, and `AET` says "uncontainable" (Arm ARM
    /// D24.2.40, with `FEAT_RAS`). Other syndromes are defined by the
    /// implementation or say nothing.
    pub(crate) const fn is_uncontainable(self) -> bool {
        const IMPLEMENTATION_DEFINED: u64 = 1 << 24;
        const AET: u64 = 0x7 << 10;
        const DFSC: u64 = 0x3f;
        const ASYNCHRONOUS: u64 = 0x11;
        self.0 & (IMPLEMENTATION_DEFINED | AET | DFSC) == ASYNCHRONOUS
    }
}

/// Where to go on after an `SError` at `instruction`, and what to have in `x0`
/// there; `None` where none was to be taken there.
pub(crate) fn fixup(instruction: u64, syndrome: Syndrome) -> Option<(u64, u64)> {
    let address = |symbol: *const u8| symbol.addr() as u64;
    let end = address(&raw const serror_masked);
    let unmasked = address(&raw const serror_unmasked)..end;
    (unmasked.contains(&instruction) && !syndrome.is_uncontainable())
        .then_some((end, TAKEN | syndrome.0))
}

/// Waits until the accesses before it are complete, as far as the processor
/// knows.
pub(crate) fn synchronise() {
    // SAFETY: barriers change nothing.
    unsafe { asm!("dsb sy", "isb", options(nostack, preserves_flags)) };
}

/// Takes the `SError`s that are pending. Returns the syndrome of the last one.
pub(crate) fn take_pending() -> Option<Syndrome> {
    let mut last = None;
    for _ in 0..MAX_IN_A_ROW {
        if !is_pending() {
            break;
        }
        last = take().or(last);
    }
    last
}

/// Whether an `SError` is pending that this exception level could take.
fn is_pending() -> bool {
    let status: u64;
    // SAFETY: it reads a register that has no side effect.
    unsafe {
        asm!("mrs {status}, isr_el1", status = out(reg) status,
            options(nomem, nostack, preserves_flags));
    }
    status & PENDING != 0
}

/// Takes one `SError`, where there is one.
fn take() -> Option<Syndrome> {
    let control = mmu::at_el2().then(|| HCR_EL2.get());
    if let Some(control) = control {
        HCR_EL2.set(control | ROUTE_TO_EL2);
        synchronise();
    }
    // SAFETY: an `SError` between its labels is repaired by the vectors, which
    // are set from the first Rust code on; it changes `PSTATE.A` only, and leaves
    // it set.
    let taken = unsafe { serror_take() };
    if let Some(control) = control {
        HCR_EL2.set(control);
        synchronise();
    }
    (taken & TAKEN != 0).then_some(Syndrome(taken & !TAKEN))
}

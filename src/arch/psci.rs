//! PSCI (Arm DEN 0022): powers off or resets the machine.

use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use aarch64_cpu::asm;
use warmbus_machine::{Psci, PsciConduit};

use super::mmu;

const NOT_KNOWN: u8 = 0;
const HVC: u8 = 1;
const SMC: u8 = 2;
const NONE: u8 = 3;

static CONDUIT: AtomicU8 = AtomicU8::new(NOT_KNOWN);

/// The machine has an entry to boot by itself.
static BOOTS_BY_ITSELF: AtomicBool = AtomicBool::new(false);

// A call by a conduit that is not there is an undefined instruction, which goes on
// at `psci_refused` (see `fixup`). Only exceptions of code on SP_EL0 are repaired, and
// the call may be made in a handler, which is on SP_ELx. Registers from x19 on outlast
// a call (Arm DEN 0028, 2.6).
global_asm!(
    r#"
.section .text.psci, "ax"
.global psci_smc, psci_hvc, psci_calls, psci_end, psci_refused, psci_endings
psci_smc:
    stp     x19, x30, [sp, #-16]!
    mrs     x19, spsel
    msr     spsel, #0
    b       5f
psci_hvc:
    stp     x19, x30, [sp, #-16]!
    mrs     x19, spsel
    msr     spsel, #0
    b       6f
psci_calls:
5:  smc     #0
    b       7f
6:  hvc     #0
    b       7f
psci_end:
psci_refused:
    mov     x0, #-1
7:  msr     spsel, x19
    ldp     x19, x30, [sp], #16
    ret
.balign 4
psci_endings:
    .word   0x84000008      // SYSTEM_OFF, in the calling convention of 32 bits
    .word   0x84000009      // SYSTEM_RESET
"#
);

unsafe extern "C" {
    fn psci_smc(function: u32) -> u64;
    fn psci_hvc(function: u32) -> u64;
    static psci_calls: u8;
    static psci_end: u8;
    static psci_refused: u8;
    /// The functions that end the machine, the first choice first: as words, which
    /// a scan of the image finds.
    static psci_endings: [u32; 2];
}

/// Where to go on after an undefined instruction at `instruction`: `None` where that
/// is not a call of PSCI.
pub(crate) fn fixup(instruction: u64) -> Option<u64> {
    let address = |symbol: *const u8| symbol.addr() as u64;
    let calls = address(&raw const psci_calls)..address(&raw const psci_end);
    calls
        .contains(&instruction)
        .then(|| address(&raw const psci_refused))
}

/// Sets how PSCI is called, once the machine description is read.
pub(crate) fn set_conduit(psci: Psci) {
    let number = match psci {
        Psci::NotKnown => NOT_KNOWN,
        Psci::None => NONE,
        Psci::By(PsciConduit::Hvc) => HVC,
        Psci::By(PsciConduit::Smc) => SMC,
    };
    CONDUIT.store(number, Ordering::Relaxed);
}

/// Has the machine start again at its end, since UEFI boots it then.
pub(crate) fn reset_at_the_end() {
    BOOTS_BY_ITSELF.store(true, Ordering::Relaxed);
}

/// Powers the machine off (PSCI `SYSTEM_OFF`), or resets it where it cannot be
/// powered off; the other way round after [`reset_at_the_end`].
///
/// Where no description of the machine can be read, both conduits are tried: what is lost
/// is a CPU that would sleep without end. At EL2 an `HVC` would come back to the firmware
/// itself, so that it is not made. Where the description has no PSCI, or disables it,
/// this CPU sleeps: an `SMC` may end in an EL3 that has no code.
pub(crate) fn off() -> ! {
    let conduit = CONDUIT.load(Ordering::Relaxed);
    // SAFETY: it is two words of the image that nothing changes.
    let mut endings = unsafe { psci_endings };
    if BOOTS_BY_ITSELF.load(Ordering::Relaxed) {
        endings.reverse();
    }
    for function in endings {
        // SAFETY: such a function does not return unless it failed; a call may change
        // the registers that any function may change. A conduit that is not there is
        // repaired by `fixup`, as the vectors are set.
        unsafe {
            if matches!(conduit, SMC | NOT_KNOWN) {
                psci_smc(function);
            }
            if matches!(conduit, HVC | NOT_KNOWN) && !mmu::at_el2() {
                psci_hvc(function);
            }
        }
    }
    loop {
        asm::wfi();
    }
}

//! Exceptions: an external abort of an access to a device register is expected
//! and repaired, all others end this start with a register dump.

use core::arch::global_asm;
use core::panic::PanicInfo;

use aarch64_cpu::registers::{
    CurrentEL, ELR_EL1, ELR_EL2, ESR_EL1, ESR_EL2, FAR_EL1, FAR_EL2, SPSR_EL1, SPSR_EL2,
};
use tock_registers::interfaces::{Readable, Writeable};

use super::serror::{self, Syndrome};
use super::{mmu, psci};
use crate::console::{self, println};
use crate::image::Image;
use crate::{mmio, recovery};

// The first four vectors are for code on SP_EL0, which is all of ours. An
// exception on SP_ELx is one inside the handler: it gets the stack afresh, and
// a second one of that kind gets nothing any more.
global_asm!(
    r#"
.macro vector number
.balign 0x80
    sub     sp, sp, #256
    stp     x0, x1, [sp]
    mov     x1, #\number
    b       exception_entry
.endm

.macro lost_vector
.balign 0x80
    b       exception_in_exception
.endm

.section .text.vectors, "ax"
.balign 0x800
.global vectors
vectors:
    vector 0
    vector 1
    vector 2
    vector 3
.rept 12
    lost_vector
.endr

exception_entry:
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    mrs     x2, sp_el0
    stp     x30, x2, [sp, #240]
    mov     x0, sp
    bl      {exception}
    ldp     x2, x3, [sp, #16]
    ldp     x4, x5, [sp, #32]
    ldp     x6, x7, [sp, #48]
    ldp     x8, x9, [sp, #64]
    ldp     x10, x11, [sp, #80]
    ldp     x12, x13, [sp, #96]
    ldp     x14, x15, [sp, #112]
    ldp     x16, x17, [sp, #128]
    ldp     x18, x19, [sp, #144]
    ldr     x30, [sp, #240]
    ldp     x0, x1, [sp], #256
    eret

exception_in_exception:
    adrp    x0, lost
    add     x0, x0, :lo12:lost
    ldr     w1, [x0]
    cbnz    w1, 2f
    mov     w1, #1
    str     w1, [x0]
    adrp    x0, __exception_stack_top
    mov     sp, x0
    bl      {in_exception}
2:  wfi
    b       2b

.section .bss.lost, "aw", %nobits
.balign 8
lost:
    .skip   8
"#,
    exception = sym exception,
    in_exception = sym in_exception,
);

/// The registers of the code that was interrupted.
#[repr(C)]
struct Frame {
    x: [u64; 31],
    sp: u64,
}

/// What the processor says about an exception.
struct Cause {
    esr: u64,
    elr: u64,
    far: u64,
    spsr: u64,
}

impl Cause {
    fn read() -> Self {
        if mmu::at_el2() {
            Self {
                esr: ESR_EL2.get(),
                elr: ELR_EL2.get(),
                far: FAR_EL2.get(),
                spsr: SPSR_EL2.get(),
            }
        } else {
            Self {
                esr: ESR_EL1.get(),
                elr: ELR_EL1.get(),
                far: FAR_EL1.get(),
                spsr: SPSR_EL1.get(),
            }
        }
    }

    /// Has the interrupted code go on at `next` with `SError` masked.
    fn go_on_at(&self, next: u64) {
        const SPSR_A: u64 = 1 << 8;
        let spsr = self.spsr | SPSR_A;
        if mmu::at_el2() {
            ELR_EL2.set(next);
            SPSR_EL2.set(spsr);
        } else {
            ELR_EL1.set(next);
            SPSR_EL1.set(spsr);
        }
    }

    /// Exception class.
    const fn class(&self) -> u64 {
        self.esr >> 26 & 0x3f
    }

    /// Fault status code of an abort.
    const fn status(&self) -> u64 {
        self.esr & 0x3f
    }

    /// A data abort that the system and not the MMU answered with
    /// (Arm ARM D24.2.40: class 0x25, status 0x10).
    const fn is_external_data_abort(&self) -> bool {
        self.class() == 0x25 && self.status() == 0x10
    }

    /// An instruction that the processor does not have, or does not have here.
    const fn is_undefined(&self) -> bool {
        self.class() == 0
    }

    const fn class_name(&self) -> &'static str {
        match self.class() {
            0x00 => "undefined instruction",
            0x07 => "floating point is trapped",
            0x0e => "illegal execution state",
            0x15 => "SVC",
            0x16 => "HVC",
            0x17 => "SMC",
            0x18 => "trapped system register",
            0x20 | 0x21 => "instruction abort",
            0x22 => "misaligned program counter",
            0x24 | 0x25 => "data abort",
            0x26 => "misaligned stack pointer",
            0x2f => "SError",
            0x3c => "breakpoint instruction",
            _ => "other",
        }
    }

    /// What the MMU says, for the classes that have a fault status.
    const fn status_name(&self) -> &'static str {
        if !matches!(self.class(), 0x20 | 0x21 | 0x24 | 0x25) {
            return "";
        }
        match self.status() {
            0x00..=0x03 => ", address size fault",
            0x04..=0x07 => ", nothing is mapped there",
            0x08..=0x0b => ", access flag fault",
            0x0c..=0x0f => ", not permitted there",
            0x10 => ", external abort",
            0x14..=0x17 => ", external abort in the table walk",
            0x18..=0x1f => ", parity or ECC error",
            0x21 => ", misaligned",
            _ => ", other fault",
        }
    }
}

/// Every exception of our own code arrives here; only those that are repaired
/// return.
extern "C" fn exception(frame: &mut Frame, vector: u64) {
    /// Vectors of a synchronous exception and of an `SError`.
    const SYNCHRONOUS: u64 = 0;
    const SERROR: u64 = 3;
    let cause = Cause::read();
    if vector == SYNCHRONOUS
        && cause.is_external_data_abort()
        && let Some(next) = mmio::fixup(cause.elr)
    {
        cause.go_on_at(next);
        return;
    }
    if vector == SYNCHRONOUS
        && cause.is_undefined()
        && let Some(next) = psci::fixup(cause.elr)
    {
        cause.go_on_at(next);
        return;
    }
    if vector == SERROR
        && let Some((next, taken)) = serror::fixup(cause.elr, Syndrome(cause.esr))
    {
        frame.x[0] = taken;
        cause.go_on_at(next);
        return;
    }
    end_without_mmu();
    // SAFETY: the interrupted code never goes on.
    unsafe { console::force_unlock() };
    let reason = format_args!(
        "{} at image+{:#x}{}, address {:#x}",
        cause.class_name(),
        cause.elr.wrapping_sub(Image::running().start),
        cause.status_name(),
        cause.far
    );
    // SAFETY: as above.
    unsafe { recovery::recover_or_power_off(reason, || dump(frame, &cause, vector)) }
}

/// Ends the program where the MMU is off: a lock may never be had then, as exclusive
/// accesses need cacheable memory (Arm ARM B2.12.2), and there is no console yet.
fn end_without_mmu() {
    if !mmu::is_on() {
        psci::off();
    }
}

fn dump(frame: &Frame, cause: &Cause, vector: u64) {
    let kind = ["synchronous", "IRQ", "FIQ", "SError"];
    println!(
        "exception: {} at EL{}: {}{}",
        kind.get(vector as usize).unwrap_or(&"?"),
        CurrentEL.read(CurrentEL::EL),
        cause.class_name(),
        cause.status_name()
    );
    let image = Image::running();
    let inside = (image.start..image.end).contains(&cause.elr);
    println!(
        "esr {:#010x}  far {:#018x}  elr {:#018x} ({}{:#x})  spsr {:#010x}",
        cause.esr,
        cause.far,
        cause.elr,
        if inside { "image+" } else { "outside image " },
        if inside {
            cause.elr - image.start
        } else {
            cause.elr
        },
        cause.spsr
    );
    for (row, registers) in frame.x.chunks(4).enumerate() {
        console::print(format_args!(" "));
        for (column, register) in registers.iter().enumerate() {
            console::print(format_args!(" x{:<2} {register:016x}", 4 * row + column));
        }
        println!("");
    }
    println!("  sp  {:016x}", frame.sp);
}

/// An exception inside the handler, which was printing most likely.
extern "C" fn in_exception() -> ! {
    // SAFETY: the handler never goes on.
    unsafe { recovery::recover_silently() }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    end_without_mmu();
    // SAFETY: the code that panicked never goes on.
    unsafe { console::force_unlock() };
    let print = || println!("{info}");
    // The message may have several lines, the result has one.
    // SAFETY: as above.
    unsafe {
        match info.location() {
            Some(location) => {
                recovery::recover_or_power_off(format_args!("panicked at {location}"), print)
            }
            None => recovery::recover_or_power_off(format_args!("panicked"), print),
        }
    }
}

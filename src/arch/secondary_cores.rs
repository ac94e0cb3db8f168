//! The other cores of the machine, for as long as one piece of work lasts.
//!
//! They are turned on by PSCI (Arm DEN 0022, `CPU_ON`), get the translation,
//! the vectors and the floating-point access of this core and a stack each,
//! do the work, and turn themselves off. Linux finds them as it would have
//! without us.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::arch::global_asm;
use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

use aarch64_cpu::registers::{
    CPACR_EL1, CPTR_EL2, CurrentEL, HCR_EL2, MAIR_EL1, MAIR_EL2, MPIDR_EL1, SCTLR_EL1, SCTLR_EL2,
    TCR_EL1, TCR_EL2, TTBR0_EL1, TTBR0_EL2, VBAR_EL1, VBAR_EL2,
};
use log::{debug, warn};
use smccc::psci::{AffinityState, LowestAffinityLevel, affinity_info, cpu_on};
use smccc::{Hvc, Smc};
use tock_registers::interfaces::Readable;
use warmbus_machine::PsciConduit;
use warmbus_memory::MemoryRange;
use warmbus_memory::PhysAddr;
use warmbus_pci::time::Clock;

use super::{cache, mmu, psci};
use crate::arch::timer::Timer;
use crate::recovery;

/// Bytes of the stack of a core, and of the one for its exceptions.
const STACK: usize = 16 << 10;
const EXCEPTION_STACK: usize = 8 << 10;
/// How long a core may take to turn itself off once its work is done, and
/// how often its state is polled, in nanoseconds.
const OFF_TIMEOUT: u64 = 5_000_000_000;
const OFF_POLL_INTERVAL: u64 = 20_000;
/// `MPIDR_EL1`: the affinity fields.
const AFFINITY: u64 = 0xff_00ff_ffff;
const NOT_SET: u64 = u64::MAX;

/// The core that the firmware was started on, once there are others.
static FIRST: AtomicU64 = AtomicU64::new(NOT_SET);

// On entry, as PSCI has it: MMU and caches off, `x0` is the address of a
// `Context`, the exception level is that of the caller. On exit, to
// `Context::main`: translation, vectors and stacks as the first core wants them.
// The order of the fields is that of the loads.
global_asm!(
    r#"
.section .text.secondary, "ax"
.global secondary_entry
secondary_entry:
    msr     daifset, #0xf
    ldp     x1, x2, [x0]            // exception level, HCR_EL2
    mrs     x3, CurrentEL
    cmp     x1, x3
    b.ne    4f
    ldp     x4, x5, [x0, #16]       // MAIR, TCR
    ldp     x6, x7, [x0, #32]       // TTBR0, SCTLR
    ldp     x8, x9, [x0, #48]       // VBAR, CPACR or CPTR
    ldp     x10, x11, [x0, #64]     // stack, stack for exceptions
    msr     spsel, #1
    mov     sp, x11
    msr     spsel, #0
    mov     sp, x10
    cmp     x1, #(2 << 2)
    b.eq    2f
    msr     mair_el1, x4
    msr     tcr_el1, x5
    msr     ttbr0_el1, x6
    msr     vbar_el1, x8
    msr     cpacr_el1, x9
    isb
    tlbi    vmalle1
    ic      iallu
    dsb     nsh
    isb
    msr     sctlr_el1, x7
    b       3f
2:  msr     hcr_el2, x2
    isb
    msr     mair_el2, x4
    msr     tcr_el2, x5
    msr     ttbr0_el2, x6
    msr     vbar_el2, x8
    msr     cptr_el2, x9
    isb
    tlbi    alle2
    ic      iallu
    dsb     nsh
    isb
    msr     sctlr_el2, x7
3:  isb
    mov     x29, xzr
    mov     x30, xzr
    ldr     x1, [x0, #80]
    br      x1
    // Not the level that its registers are for: nothing can be done here.
4:  wfi
    b       4b
"#
);

unsafe extern "C" {
    static secondary_entry: u8;
}

/// What a core is started with.
#[repr(C)]
struct Context<'a> {
    level: u64,
    hypervisor: u64,
    attributes: u64,
    translation: u64,
    tables: u64,
    control: u64,
    vectors: u64,
    floating_point: u64,
    stack: u64,
    exception_stack: u64,
    main: extern "C" fn(&Context<'_>) -> !,
    work: &'a (dyn Fn() + Sync),
    /// Set by the core once it runs with its caches on. Until a core has
    /// started, PSCI may report it as off although it was turned on.
    has_started: AtomicBool,
}

/// The registers of this core that every core is to have.
fn context(work: &(dyn Fn() + Sync)) -> Context<'_> {
    let (attributes, translation, tables, control, vectors, floating_point, hypervisor);
    if mmu::at_el2() {
        attributes = MAIR_EL2.get();
        translation = TCR_EL2.get();
        tables = TTBR0_EL2.get();
        control = SCTLR_EL2.get();
        vectors = VBAR_EL2.get();
        floating_point = CPTR_EL2.get();
        hypervisor = HCR_EL2.get();
    } else {
        attributes = MAIR_EL1.get();
        translation = TCR_EL1.get();
        tables = TTBR0_EL1.get();
        control = SCTLR_EL1.get();
        vectors = VBAR_EL1.get();
        floating_point = CPACR_EL1.get();
        hypervisor = 0;
    }
    Context {
        level: CurrentEL.get(),
        hypervisor,
        attributes,
        translation,
        tables,
        control,
        vectors,
        floating_point,
        stack: 0,
        exception_stack: 0,
        main: secondary,
        work,
        has_started: AtomicBool::new(false),
    }
}

/// A core that was turned on, with what it uses until it is off.
struct Core<'a> {
    affinity: u64,
    context: Box<Context<'a>>,
    _stacks: Vec<u128>,
}

/// Runs `work` on this core and on those of `affinities`, other cores, that can
/// be turned on, and returns when they are off again. Returns how many cores it ran on.
///
/// A core that does not turn itself off within some seconds is reported and
/// left behind, with all that it may still use.
pub(crate) fn run_on(
    affinities: &[u64],
    conduit: PsciConduit,
    timer: Timer,
    work: &(dyn Fn() + Sync),
) -> usize {
    FIRST.store(this_mpidr(), Ordering::Relaxed);
    let was_armed = recovery::disarm();
    let started: Vec<Core<'_>> = affinities
        .iter()
        .filter_map(|&affinity| turn_on(affinity, conduit, work))
        .collect();
    let count = started.len();
    work();
    let mut all_off = true;
    for core in started {
        if !is_off_soon(&core, conduit, timer) {
            all_off = false;
            warn!(
                "core {:#x} does not turn itself off; it is left behind",
                core.affinity
            );
            let _left = ManuallyDrop::new(core);
        }
    }
    recovery::rearm(was_armed && all_off);
    count + 1
}

fn turn_on(affinity: u64, conduit: PsciConduit, work: &(dyn Fn() + Sync)) -> Option<Core<'_>> {
    // A core that is in use is left alone.
    if state(affinity, conduit) != Some(AffinityState::Off) {
        return None;
    }
    let stacks = vec![0_u128; (STACK + EXCEPTION_STACK) / size_of::<u128>()];
    let bottom = stacks.as_ptr().addr() as u64;
    let mut context = Box::new(context(work));
    context.stack = bottom + STACK as u64;
    context.exception_stack = context.stack + EXCEPTION_STACK as u64;
    let address = core::ptr::from_ref(&*context).expose_provenance() as u64;
    // The core reads it with its caches off.
    cache::clean_and_invalidate_to_poc(MemoryRange::new(
        PhysAddr(address),
        size_of::<Context<'_>>() as u64,
    ));
    let entry = (&raw const secondary_entry).addr() as u64;
    let answer = match conduit {
        PsciConduit::Hvc => cpu_on::<Hvc>(affinity, entry, address),
        PsciConduit::Smc => cpu_on::<Smc>(affinity, entry, address),
    };
    if let Err(error) = answer {
        debug!("core {affinity:#x} is not turned on: PSCI says {error}");
        return None;
    }
    Some(Core {
        affinity,
        context,
        _stacks: stacks,
    })
}

fn state(affinity: u64, conduit: PsciConduit) -> Option<AffinityState> {
    let level = LowestAffinityLevel::All;
    match conduit {
        PsciConduit::Hvc => affinity_info::<Hvc>(affinity, level),
        PsciConduit::Smc => affinity_info::<Smc>(affinity, level),
    }
    .ok()
}

fn is_off_soon(core: &Core<'_>, conduit: PsciConduit, mut timer: Timer) -> bool {
    (0..OFF_TIMEOUT / OFF_POLL_INTERVAL).any(|_| {
        let is_off = core.context.has_started.load(Ordering::Acquire)
            && state(core.affinity, conduit) == Some(AffinityState::Off);
        if !is_off {
            timer.wait(Duration::from_nanos(OFF_POLL_INTERVAL));
        }
        is_off
    })
}

/// What a core does: its work, and then nothing.
extern "C" fn secondary(context: &Context<'_>) -> ! {
    context.has_started.store(true, Ordering::Release);
    (context.work)();
    psci::off_this_core()
}

/// The affinity of this core.
pub(crate) fn this_mpidr() -> u64 {
    MPIDR_EL1.get() & AFFINITY
}

/// Whether this is one of the cores that only help.
pub(crate) fn is_helping() -> bool {
    let first = FIRST.load(Ordering::Relaxed);
    first != NOT_SET && first != this_mpidr()
}

//! PSCI (Arm DEN 0022): powers off the machine, or one core.

use core::sync::atomic::{AtomicU8, Ordering};

use aarch64_cpu::asm;
use smccc::{Hvc, Smc, psci};
use warmbus_machine::PsciConduit;

const NOT_KNOWN: u8 = 0;
const HVC: u8 = 1;
const SMC: u8 = 2;

static CONDUIT: AtomicU8 = AtomicU8::new(NOT_KNOWN);

/// Sets how PSCI is called, once the machine description is read.
pub(crate) fn set_conduit(conduit: Option<PsciConduit>) {
    let number = match conduit {
        None => NOT_KNOWN,
        Some(PsciConduit::Hvc) => HVC,
        Some(PsciConduit::Smc) => SMC,
    };
    CONDUIT.store(number, Ordering::Relaxed);
}

/// Turns this core off (PSCI `CPU_OFF`), or lets it sleep where that fails.
pub(crate) fn off_this_core() -> ! {
    let _failed = match CONDUIT.load(Ordering::Relaxed) {
        HVC => psci::cpu_off::<Hvc>(),
        SMC => psci::cpu_off::<Smc>(),
        _ => Ok(()),
    };
    loop {
        asm::wfi();
    }
}

/// Powers the machine off (PSCI `SYSTEM_OFF`). Where there is no PSCI, or it
/// does not do it, this CPU sleeps: without knowing the conduit a call would
/// be an exception that nothing handles.
pub(crate) fn off() -> ! {
    // The call returns only if it failed, which nothing can be done about.
    let _failed = match CONDUIT.load(Ordering::Relaxed) {
        HVC => psci::system_off::<Hvc>(),
        SMC => psci::system_off::<Smc>(),
        _ => Ok(()),
    };
    loop {
        asm::wfi();
    }
}

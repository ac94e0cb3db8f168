//! PSCI (Arm DEN 0022): powers off or resets the machine.

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

/// Powers the machine off (PSCI `SYSTEM_OFF`), or resets it where it cannot be
/// powered off. Where there is no PSCI this CPU sleeps: without knowing the
/// conduit a call would be an exception that nothing handles.
pub(crate) fn off() -> ! {
    // The calls return only if they failed.
    match CONDUIT.load(Ordering::Relaxed) {
        HVC => {
            let _failed = psci::system_off::<Hvc>();
            let _failed = psci::system_reset::<Hvc>();
        }
        SMC => {
            let _failed = psci::system_off::<Smc>();
            let _failed = psci::system_reset::<Smc>();
        }
        _ => {}
    }
    loop {
        asm::wfi();
    }
}

//! In UEFI: stay resident, start nobody.
//!
//! Warmbus is a driver, or an application that starts the next program. Each
//! time the EFI stub of a Linux kernel runs, configuration space is read, and
//! what the kernel can use of it is put where the stub finds it. Loaders, kernels,
//! signatures and measurements are what they are without it, and whatever goes
//! wrong costs one line.

mod attempt;
mod chain;
mod handover;
mod kernels;
mod mapped;
mod pages;
mod root_bridges;
mod tables;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::error::Error;
use core::ffi::c_void;
use core::fmt::Debug;

use uefi::boot::{self, OpenProtocolAttributes, OpenProtocolParams, ScopedProtocol};
use uefi::proto::Protocol;
use uefi::proto::loaded_image::LoadedImage;
use uefi::{Handle, Status};
use uefi_raw::table::boot::MemoryType;
use uefi_raw::table::system::SystemTable;
use warmbus_boot::load_options::LoadOptions;
use warmbus_boot::options::Options;

use crate::arch::timer::Timer;
use crate::console::{self, println};
use crate::mem::heap;
use crate::{logger, recovery};
use handover::Resident;
use kernels::{Claim, Watch};

type Why = Box<dyn Error>;

/// The sentence for an error of UEFI, which could not do `what`.
fn cannot<D: Debug>(what: &str) -> impl FnOnce(uefi::Error<D>) -> String {
    move |error| format!("UEFI cannot {what}: {}", error.status())
}

/// Called by the first instructions. A driver that returns success stays; an
/// application is removed when it returns.
pub(crate) extern "C" fn start_in_uefi(handle: *mut c_void, table: *const SystemTable) -> Status {
    // SAFETY: UEFI promises a handle or NULL.
    let Some(handle) = (unsafe { Handle::from_ptr(handle) }) else {
        return Status::INVALID_PARAMETER;
    };
    // SAFETY: both are those of this image, and boot services are active.
    unsafe {
        boot::set_image_handle(handle);
        uefi::table::set_system_table(table);
        heap::start();
    }
    console::open_uefi();
    recovery::set_fallback(give_up);
    match run() {
        Ok(status) => status,
        Err(error) => {
            println!("warmbus: nothing is handed over: {error}");
            Status::ABORTED
        }
    }
}

/// Ends the program where it cannot go on. Where that is no longer possible the
/// machine starts again, and that start goes past Warmbus (see `attempt.rs`).
fn give_up() -> ! {
    // SAFETY: whatever this image has allocated does not run by itself.
    let result = unsafe {
        boot::exit(
            boot::image_handle(),
            Status::ABORTED,
            0,
            core::ptr::null_mut(),
        )
    };
    // Exit returns only if the platform refuses it, as it does in a callback.
    if let Err(error) = result {
        println!("warmbus: the machine starts again: {error}");
    }
    uefi::runtime::reset(uefi::runtime::ResetType::COLD, Status::ABORTED, None)
}

fn run() -> Result<Status, Why> {
    let timer = Timer::start();
    let load_options = chain::load_options();
    let options = Options::from_bootargs(&load_options.words);
    logger::start(timer, options.log_level);
    if load_options.off {
        println!("warmbus: switched off by its load options");
        return go_on(&load_options);
    }
    if let Err(why) = attempt::check() {
        println!("warmbus: nothing is handed over: {why}");
        return go_on(&load_options);
    }
    let report_only = load_options.report_only;
    let mut resident = Box::new(Resident::new(timer, options, &load_options));
    if report_only {
        resident.report()?;
        return Ok(Status::SUCCESS);
    }
    let Some(claim) = Claim::new()? else {
        println!("warmbus: another Warmbus is resident, and this one does nothing");
        return go_on(&load_options);
    };
    let watch = Watch::new(claim, resident)?;
    if is_driver() {
        // It ends with boot services.
        core::mem::forget(watch);
        return Ok(Status::SUCCESS);
    }
    // The watch ends where the program comes back: nothing of this image may run
    // when it is removed.
    go_on(&load_options)
}

/// The protocol `P` of `handle`, which others may have open and keep.
///
/// # Safety
///
/// `handle` and its protocol must stay as long as the value is used.
unsafe fn shared_protocol<P: Protocol>(handle: Handle) -> Option<ScopedProtocol<P>> {
    let params = OpenProtocolParams {
        handle,
        agent: boot::image_handle(),
        controller: None,
    };
    // SAFETY: by the contract of this function.
    unsafe { boot::open_protocol::<P>(params, OpenProtocolAttributes::GetProtocol) }.ok()
}

/// Whether UEFI keeps this image when its entry returns.
fn is_driver() -> bool {
    let image = boot::open_protocol_exclusive::<LoadedImage>(boot::image_handle());
    image.is_ok_and(|image| image.code_type() == MemoryType::BOOT_SERVICES_CODE)
}

/// Starts the next program, if this is an application that has one.
fn go_on(options: &LoadOptions) -> Result<Status, Why> {
    if is_driver() {
        return Ok(Status::SUCCESS);
    }
    match &options.next {
        Some(next) => chain::start(next, &options.next_options),
        None => Err(format!(
            "as an application Warmbus needs next= with the program to start, in its load options or in {}",
            chain::OPTIONS
        )
        .into()),
    }
}

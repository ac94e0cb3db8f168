//! What a boot leaves for the next one, in variables of UEFI: that it was here,
//! until it has come back.

use alloc::format;

use uefi::runtime::{self, VariableAttributes, VariableVendor};
use uefi::{CStr16, Status, cstr16, guid};

use super::Why;

/// The vendor of the variables of Warmbus.
const VENDOR: VariableVendor = VariableVendor(guid!("8e5a6f0c-1c55-4d6b-9d0f-5b2f4d0a7c31"));
/// Set while Warmbus runs.
const ATTEMPT: &CStr16 = cstr16!("WarmbusAttempt");
/// Set by an operator: Warmbus does nothing.
const DISABLE: &CStr16 = cstr16!("WarmbusDisable");

/// Fails where Warmbus is to do nothing: an operator says so, or the last
/// attempt did not come back, which counts once.
pub(super) fn check() -> Result<(), Why> {
    if is_set(DISABLE) {
        return Err(format!("switched off by the variable {DISABLE}-{}", VENDOR.0).into());
    }
    if is_set(ATTEMPT) {
        delete(ATTEMPT);
        return Err("the last attempt did not come back; the next boot tries again".into());
    }
    Ok(())
}

/// An attempt that was begun. It ends with this value.
pub(super) struct Attempt;

impl Attempt {
    /// Begins. Where the variable cannot be set, a crash would come again with
    /// each boot: then there is no attempt.
    pub(super) fn begin() -> Result<Self, Why> {
        let attributes = VariableAttributes::NON_VOLATILE | VariableAttributes::BOOTSERVICE_ACCESS;
        runtime::set_variable(ATTEMPT, &VENDOR, attributes, &[1])
            .map_err(|error| format!("the variable {ATTEMPT} cannot be set: {}", error.status()))?;
        Ok(Self)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        delete(ATTEMPT);
    }
}

fn is_set(name: &CStr16) -> bool {
    let mut value = [0; 8];
    match runtime::get_variable(name, &VENDOR, &mut value) {
        Ok(_) => true,
        Err(error) => error.status() == Status::BUFFER_TOO_SMALL,
    }
}

fn delete(name: &CStr16) {
    // One that stays makes the next boot go past Warmbus, which is safe.
    let _ = runtime::delete_variable(name, &VENDOR);
}

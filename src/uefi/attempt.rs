//! What a boot leaves for the next one, in variables of UEFI: that it was here,
//! until it has come back.

use alloc::format;

use uefi::runtime::{self, VariableAttributes, VariableVendor};
use uefi::{CStr16, Status, cstr16, guid};
use warmbus_boot::attempts::Permission;

use super::Why;

/// The vendor of the variables of Warmbus.
const VENDOR: VariableVendor = VariableVendor(guid!("8e5a6f0c-1c55-4d6b-9d0f-5b2f4d0a7c31"));
/// Set while Warmbus works, and by boots after one that did not come back.
const ATTEMPT: &CStr16 = cstr16!("WarmbusAttempt");
/// Set by an operator: Warmbus does nothing.
const DISABLE: &CStr16 = cstr16!("WarmbusDisable");

/// Fails where Warmbus is to do nothing: an operator says so, or attempts did
/// not come back.
pub(super) fn check() -> Result<(), Why> {
    if value(DISABLE).is_some() {
        return Err(format!("switched off by the variable {DISABLE}-{}", VENDOR.0).into());
    }
    match Permission::of(value(ATTEMPT)) {
        Permission::Try { .. } => Ok(()),
        Permission::PassOnce { value } => {
            // Where it cannot be set the next boot goes past Warmbus again.
            let _ = set(value);
            Err("the last attempt did not come back; the next boot tries again".into())
        }
        Permission::Off { value } => {
            let _ = set(value);
            Err(format!(
                "two attempts did not come back; the variable {ATTEMPT}-{} has to be deleted for another one",
                VENDOR.0
            )
            .into())
        }
    }
}

/// An attempt that was begun. It ends with this value.
pub(super) struct Attempt;

impl Attempt {
    /// Begins. Where the variable cannot be set, a crash would come again with
    /// each boot: then there is no attempt.
    pub(super) fn begin() -> Result<Self, Why> {
        let Permission::Try { value } = Permission::of(value(ATTEMPT)) else {
            return Err(format!("the variable {ATTEMPT} was set meanwhile").into());
        };
        set(value)?;
        Ok(Self)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // One that stays makes the next boot go past Warmbus, which is safe.
        let _ = runtime::delete_variable(ATTEMPT, &VENDOR);
    }
}

fn set(value: u8) -> Result<(), Why> {
    let attributes = VariableAttributes::NON_VOLATILE | VariableAttributes::BOOTSERVICE_ACCESS;
    runtime::set_variable(ATTEMPT, &VENDOR, attributes, &[value])
        .map_err(|error| format!("the variable {ATTEMPT} cannot be set: {}", error.status()).into())
}

/// The first byte of a variable, if it is set, to whatever.
fn value(name: &CStr16) -> Option<u8> {
    let mut value = [0; 8];
    match runtime::get_variable(name, &VENDOR, &mut value) {
        Ok(_) => Some(value[0]),
        Err(error) => (error.status() == Status::BUFFER_TOO_SMALL).then_some(u8::MAX),
    }
}

//! How often Warmbus has begun its work in UEFI without coming back, which a
//! variable remembers from boot to boot.
//!
//! After the first time one boot goes past Warmbus, so that the machine starts.
//! The boot after that tries once more: power may have failed. Where that does
//! not come back either, only an operator has Warmbus try again.

/// The value of the variable while the first attempt runs.
const FIRST: u8 = 1;
/// The boot after it goes past Warmbus.
const PASSED: u8 = 2;
/// The second attempt runs.
const SECOND: u8 = 3;
/// It did not come back either.
const OFF: u8 = 4;

/// What a boot may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Try, with this value of the variable meanwhile.
    Try {
        /// It is deleted when the attempt comes back.
        value: u8,
    },
    /// Go past Warmbus once, and set the variable to this value.
    PassOnce {
        /// The next boot tries again.
        value: u8,
    },
    /// Do nothing until the variable is deleted. It has this value from now on.
    Off {
        /// It stays.
        value: u8,
    },
}

impl Permission {
    /// What a boot may do that finds the variable with `value`; `None` where
    /// there is none. What an attempt never writes counts as off.
    #[must_use]
    pub const fn of(value: Option<u8>) -> Self {
        match value {
            None => Self::Try { value: FIRST },
            Some(FIRST) => Self::PassOnce { value: PASSED },
            Some(PASSED) => Self::Try { value: SECOND },
            Some(_) => Self::Off { value: OFF },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// Boots that try, of the next twelve, where an attempt comes back if
    /// `comes_back` says so for the number of its boot.
    fn boots_that_try(comes_back: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut variable = None;
        let mut tried = Vec::new();
        for boot in 0..12 {
            match Permission::of(variable) {
                Permission::Try { value } => {
                    tried.push(boot);
                    variable = (!comes_back(boot)).then_some(value);
                }
                Permission::PassOnce { value } | Permission::Off { value } => {
                    variable = Some(value);
                }
            }
        }
        tried
    }

    #[test]
    fn a_crash_that_repeats_costs_two_boots_in_all() {
        assert_eq!(boots_that_try(|_| false), [0, 2]);
        assert_eq!(boots_that_try(|boot| boot < 3), [0, 1, 2, 3, 5]);
    }

    #[test]
    fn one_that_does_not_repeat_costs_one_boot() {
        assert_eq!(boots_that_try(|_| true), (0..12).collect::<Vec<_>>());
        let tried = boots_that_try(|boot| boot != 4);
        assert_eq!(tried, [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]);
    }

    #[test]
    fn a_value_that_was_never_written_is_off() {
        for value in [0, 5, 0xff] {
            assert_eq!(Permission::of(Some(value)), Permission::Off { value: OFF });
        }
    }
}

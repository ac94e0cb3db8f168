//! The library of the host command `warmbus`: it surveys a machine, decodes
//! captures, compares them, replays recorded accesses through the cache, and
//! checks kernels.
#![forbid(unsafe_code)]

pub mod check_kernel;
pub mod diff;
pub mod hierarchy;
pub mod input;
pub mod inspect;
pub mod install;
pub mod lspci;
pub mod replay;
pub mod status;
pub mod survey;
pub mod trace;
pub mod u_boot;
pub mod view;

/// The result of a command, beside its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No damage and no difference; the kernel gets the cache.
    Good,
    /// Damage or differences; the kernel gets nothing. Ends the program with status 1.
    Bad,
}

/// The bytes as hexadecimal digits, two each.
pub(crate) fn hex_digits(bytes: &[u8]) -> String {
    use std::fmt::Write;

    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

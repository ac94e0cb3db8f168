//! The library of the host command `warmbus`: it decodes captures, compares
//! them, and replays recorded accesses through the cache.
#![forbid(unsafe_code)]

pub mod diff;
pub mod hierarchy;
pub mod input;
pub mod inspect;
pub mod lspci;
pub mod replay;
pub mod trace;

/// The result of a command, beside its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No damage and no difference.
    Good,
    /// Damage or differences. Ends the program with status 1.
    Bad,
}

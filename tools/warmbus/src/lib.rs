//! The host command `warmbus`, as a library: reads what Warmbus captured,
//! shows it, compares it, and replays recorded accesses through its cache.
#![forbid(unsafe_code)]

pub mod diff;
pub mod hierarchy;
pub mod input;
pub mod inspect;
pub mod lspci;
pub mod replay;
pub mod trace;

/// What a command found, beside what it printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All as it should be, or no difference.
    Good,
    /// Damage or differences. Ends the program with status 1.
    Bad,
}

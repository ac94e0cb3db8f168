//! What is done with arbitrary bytes to find out whether Warmbus survives them.
//!
//! Each target takes any bytes, uses them as a device, a loader or a file
//! would, and panics where something is wrong that must not be. `cargo test` runs
//! them over the corpus in `fuzz/` and a bounded number of mutations of it.
#![forbid(unsafe_code)]

mod function;
mod handover;
mod machine;
pub mod mutate;
mod report;
mod tree;

pub use function::function;
pub use handover::{handover, sound as sound_handover};
pub use machine::machine;
pub use report::report;
pub use tree::tree;

/// Something that bytes are given to.
pub type Target = fn(&[u8]);

/// All targets by name. The corpus of each is in `fuzz/corpus/<name>`.
pub const TARGETS: [(&str, Target); 5] = [
    ("function", function),
    ("machine", machine),
    ("tree", tree),
    ("handover", handover),
    ("report", report),
];

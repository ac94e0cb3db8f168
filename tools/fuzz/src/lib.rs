//! Fuzz targets.
//!
//! Each target uses arbitrary bytes as a device, a boot loader or a file would
//! supply them, and panics if an invariant does not hold. `cargo test` runs
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

/// A fuzz target.
pub type Target = fn(&[u8]);

/// All targets by name. The corpus of each is in `fuzz/corpus/<name>`.
pub const TARGETS: [(&str, Target); 5] = [
    ("function", function),
    ("machine", machine),
    ("tree", tree),
    ("handover", handover),
    ("report", report),
];

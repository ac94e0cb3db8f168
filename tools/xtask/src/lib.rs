//! Everything a developer of Warmbus runs, as a library.
//!
//! The binary `cargo xtask` and the end-to-end tests are its users: each command
//! line of QEMU exists once, here.

pub mod bench;
pub mod boards;
pub mod build;
pub mod debian;
pub mod disk;
pub mod dist;
pub mod elf_to_image;
pub mod fresh;
pub mod image;
pub mod linux;
pub mod paths;
pub mod process;
pub mod programs;
pub mod progress;
pub mod qemu;
pub mod qmp;
pub mod remap;
pub mod run;
pub mod setup;
pub mod test;
pub mod toolchain;
pub mod topology;

use std::fmt;

/// A request that cannot be carried out as it is: an invalid option, a file that
/// does not exist, a tool that is missing. Ends the program with status 2.
#[derive(Debug)]
pub struct UsageError(pub String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

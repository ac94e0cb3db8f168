//! Flattened device trees: reading and editing them token by token.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod tokens;
mod writer;

pub use writer::FdtWriter;

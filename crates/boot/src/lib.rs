//! The pipeline of a boot.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod board;
pub mod capture;
pub mod options;
pub mod report;
pub mod unassigned;

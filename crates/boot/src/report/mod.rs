//! What was found and what it cost, for people and for programs.
//!
//! [`Report`] is plain data: [`Report::new`] fills it from what enumeration and
//! the cache know, and everything else only reads it. [`json`] writes it for
//! programs, [`tree`] and [`summary`] print it on a console, and [`lspci`]
//! writes the captured configuration spaces in a form that `lspci -F` reads.
//! [`console`] is the form in which all of that is printed, and its reader.

mod build;
pub mod console;
pub mod json;
pub mod lspci;
mod model;
pub mod names;
pub mod summary;
pub mod tree;
mod units;

pub use build::{CachedBytes, ReportInput, cached_bytes};
pub use model::{
    Accesses, Anomaly, Bar, Bridge, Buses, CacheStatistics, Capability, Difference,
    ExtendedCapability, Function, HostBridge, HostWindow, Machine, Name, Phase, Report, SCHEMA,
    SelfCheck, SrIov, Subsystem, VirtualFunction, Window,
};

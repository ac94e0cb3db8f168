//! The processor: first instructions, exceptions, translation, caches, time and
//! power.

pub(crate) mod cache;
pub(crate) mod copy;
pub(crate) mod entry;
mod exceptions;
pub(crate) mod mmu;
pub(crate) mod psci;
pub(crate) mod serror;
pub(crate) mod timer;

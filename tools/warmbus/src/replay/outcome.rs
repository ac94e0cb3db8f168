//! The results of a replay.

use std::collections::{BTreeMap, BTreeSet};

use warmbus_pci::Sbdf;

/// The outcome of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Served by the cache.
    Hit,
    /// No function responded.
    Absent,
    /// The function responded, but was evicted, and its Vendor ID not read since.
    Forgotten,
    /// The first read of the function, by which the cache adds it.
    FirstSight,
    /// Cacheable, but not cached yet.
    Cold,
    /// A write to the register itself had invalidated it.
    Written,
    /// A write to another register had invalidated it.
    WrittenElsewhere,
    /// The function was reset and has not responded yet.
    Reset,
    /// Changes on its own.
    Volatile,
    /// The read has a side effect, or is passed through on purpose.
    SideEffect,
    /// No rule covers it.
    Unknown,
}

impl Outcome {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Absent => "absent",
            Self::Forgotten => "forgotten",
            Self::FirstSight => "first-sight",
            Self::Cold => "cold",
            Self::Written => "written",
            Self::WrittenElsewhere => "written-elsewhere",
            Self::Reset => "reset",
            Self::Volatile => "volatile",
            Self::SideEffect => "side-effect",
            Self::Unknown => "unknown",
        }
    }

    /// What would make such reads hits.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Hit => "nothing to do",
            Self::Absent => "fewer probes: an absent function cannot be cached",
            Self::Forgotten => "adding a function again without a read of its Vendor ID",
            Self::FirstSight => "a capture with the function",
            Self::Cold => "a capture with the register",
            Self::Written => {
                "a write mask of the register, learned by reading back after a write of ones"
            }
            Self::WrittenElsewhere => "a narrower invalidation, where the specification allows it",
            Self::Reset => "nothing: a function must respond again after a reset",
            Self::Volatile => "reading it less often: it changes on its own and is never kept",
            Self::SideEffect => "reading it less often: it is passed through on purpose",
            Self::Unknown => "a rule that covers the register",
        }
    }
}

/// The reads of one register, over all functions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub reads: u64,
    /// By their outcomes.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// The registers whose writes invalidated it, and the number of reads that
    /// missed for that reason.
    pub invalidated_by: BTreeMap<String, u64>,
}

impl Tally {
    /// Reads that the cache served.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.outcomes.get(&Outcome::Hit).copied().unwrap_or(0)
    }

    /// Reads that reached the hardware.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.reads - self.hits()
    }
}

/// A hit that is not what the hardware returned in the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    /// Line of the trace.
    pub line: usize,
    /// The function.
    pub function: Sbdf,
    /// The register.
    pub register: String,
    /// What the cache served.
    pub cached: u32,
    /// What the hardware had returned.
    pub recorded: u32,
}

/// What a replay measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// All reads.
    pub total: Tally,
    /// The reads by register.
    pub registers: BTreeMap<String, Tally>,
    /// Writes in the trace.
    pub writes: u64,
    /// Cached bytes that writes and resets invalidated.
    pub invalidations: u64,
    /// Reads that the cache makes beyond those of the trace.
    pub own_reads: u64,
    /// Hits with another value than the trace has.
    pub stale: Vec<Stale>,
    /// Functions that responded in the trace.
    pub functions: BTreeSet<Sbdf>,
}

//! The accesses to a fabric, and those that violate the protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use warmbus_pci::{ConfigOffset, Sbdf, Width};

use crate::fabric::NodeId;

/// How an access ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// A function completed it.
    Completed,
    /// No host bridge has this segment and bus.
    NoHost,
    /// No bridge forwards this bus.
    NoBridge,
    /// The bus is there; no function has this number.
    NoFunction,
    /// A downstream port terminated it: device number not 0 and ARI forwarding
    /// off (PCIe 7.3.1).
    DeviceFiltered,
    /// A port on the way has its link down.
    LinkDown,
    /// A bridge on the way is not in D0.
    PoweredDown,
    /// The function answered with RRS.
    NotReady,
    /// The function is broken or gone.
    Gone,
    /// The machine refused the access.
    Aborted,
    /// An extended register number on the way to a conventional bus, or to a
    /// function that has 256 bytes.
    NoExtendedSpace,
}

const OUTCOMES: usize = 11;

/// One access, as it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Nanoseconds since power-on.
    pub time: u64,
    /// The address.
    pub function: Sbdf,
    /// The offset.
    pub offset: ConfigOffset,
    /// The width.
    pub width: Width,
    /// Whether it was a write.
    pub write: bool,
    /// The value that was read or written.
    pub value: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// The function that completed it, for VFs their physical function.
    pub node: Option<NodeId>,
    /// Number of the VF, from 0.
    pub vf: Option<u16>,
}

/// An access that software must not make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolViolation {
    /// A byte was read whose read has a side effect.
    ForbiddenRead {
        /// Where.
        function: Sbdf,
        /// Which bytes.
        offset: ConfigOffset,
        /// How many.
        width: Width,
    },
    /// An offset that is no multiple of the width.
    Misaligned {
        /// Where.
        function: Sbdf,
        /// The offset.
        offset: ConfigOffset,
        /// The width.
        width: Width,
    },
    /// No host bridge decodes the address.
    OutsideHosts {
        /// The address.
        function: Sbdf,
    },
    /// Two bridges of one bus forward the same bus number.
    ClaimedTwice {
        /// The bus number.
        bus: u8,
        /// The bridge with the lower number.
        first: NodeId,
        /// The other.
        second: NodeId,
    },
    /// An access went through a bridge whose Primary Bus Number is not the
    /// bus that it is on.
    WrongPrimary {
        /// The bridge.
        bridge: NodeId,
        /// The bus that it is on.
        bus: u8,
        /// The value of its register.
        primary: u8,
    },
    /// All ones were written into a BAR that decodes.
    SizedWhileDecoding {
        /// Where.
        function: Sbdf,
        /// The BAR.
        offset: ConfigOffset,
    },
    /// A VF was accessed within 100 ms of VF Enable.
    EarlyVf {
        /// The VF.
        function: Sbdf,
    },
    /// `NumVFs` was written while VF Enable is set.
    NumVfsWhileEnabled {
        /// The physical function.
        function: Sbdf,
    },
}

impl fmt::Display for ProtocolViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForbiddenRead {
                function,
                offset,
                width,
            } => write!(
                f,
                "{function}: {} bytes at {offset} were read and must not be",
                width.bytes()
            ),
            Self::Misaligned {
                function,
                offset,
                width,
            } => write!(
                f,
                "{function}: an access of {} bytes at {offset} is not aligned",
                width.bytes()
            ),
            Self::OutsideHosts { function } => {
                write!(f, "{function}: no host bridge decodes this address")
            }
            Self::ClaimedTwice { bus, first, second } => {
                write!(f, "bus {bus:02x} is forwarded by both {first} and {second}")
            }
            Self::WrongPrimary {
                bridge,
                bus,
                primary,
            } => write!(
                f,
                "{bridge} is on bus {bus:02x} and its primary bus number is {primary:02x}"
            ),
            Self::SizedWhileDecoding { function, offset } => write!(
                f,
                "{function}: all ones were written to the BAR at {offset} while it decodes"
            ),
            Self::EarlyVf { function } => {
                write!(f, "{function}: accessed within 100 ms of VF Enable")
            }
            Self::NumVfsWhileEnabled { function } => {
                write!(f, "{function}: NumVFs was written while VF Enable is set")
            }
        }
    }
}

/// The number of violations that are kept, each once.
const VIOLATIONS: usize = 256;

/// The accesses to a fabric.
#[derive(Clone, Debug, Default)]
pub struct AccessLog {
    reads: u64,
    writes: u64,
    outcomes: [u64; OUTCOMES],
    entries: Option<Vec<Access>>,
    violations: Vec<ProtocolViolation>,
}

impl AccessLog {
    /// Keeps every access from now on, not only the totals.
    pub fn record(&mut self) {
        self.entries.get_or_insert_default();
    }

    /// Clears the log and keeps recording if it did.
    pub fn clear(&mut self) {
        let recording = self.entries.is_some();
        *self = Self::default();
        if recording {
            self.record();
        }
    }

    pub(crate) fn add(&mut self, access: Access) {
        if access.write {
            self.writes += 1;
        } else {
            self.reads += 1;
        }
        self.outcomes[access.outcome as usize] += 1;
        if let Some(entries) = &mut self.entries {
            entries.push(access);
        }
    }

    pub(crate) fn violate(&mut self, violation: ProtocolViolation) {
        if self.violations.len() < VIOLATIONS && !self.violations.contains(&violation) {
            self.violations.push(violation);
        }
    }

    /// Reads so far.
    pub fn reads(&self) -> u64 {
        self.reads
    }

    /// Writes so far.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// Accesses so far that ended like this.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize]
    }

    /// Accesses so far that nothing completed.
    pub fn absent(&self) -> u64 {
        self.reads + self.writes - self.count(Outcome::Completed)
    }

    /// The violations: each once, the first 256.
    pub fn violations(&self) -> &[ProtocolViolation] {
        &self.violations
    }

    /// All accesses since recording started.
    pub fn entries(&self) -> &[Access] {
        self.entries.as_deref().unwrap_or_default()
    }

    /// The recorded accesses that ended like this.
    pub fn ended(&self, outcome: Outcome) -> impl Iterator<Item = &Access> {
        self.entries().iter().filter(move |a| a.outcome == outcome)
    }

    /// The buses that recorded accesses were addressed to: segment and bus.
    pub fn buses(&self) -> BTreeSet<(u16, u8)> {
        let address = |a: &Access| (a.function.segment(), a.function.bus());
        self.entries().iter().map(address).collect()
    }

    /// Recorded reads that completed, by function, VF and offset of the dword.
    pub fn reads_by_dword(&self) -> BTreeMap<(NodeId, Option<u16>, u16), u32> {
        let mut counts = BTreeMap::new();
        for access in self.entries().iter().filter(|a| !a.write) {
            if let (Some(node), Outcome::Completed) = (access.node, access.outcome) {
                let key = (node, access.vf, access.offset.dword().get());
                *counts.entry(key).or_insert(0) += 1;
            }
        }
        counts
    }

    /// Recorded reads of the dword of `node` that holds `offset`.
    pub fn reads_of(&self, node: NodeId, offset: u16) -> u32 {
        let reads = self.reads_by_dword();
        reads.get(&(node, None, offset & !3)).copied().unwrap_or(0)
    }
}

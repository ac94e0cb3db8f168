//! Anomalies: what a function or a bus does that the specification does not
//! allow, or that leaves something of it unused.

mod kind;

use core::fmt;

use super::Sbdf;
pub use kind::AnomalyKind;

/// An anomaly and where it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Anomaly {
    /// The function, which need not be one that answered.
    pub function: Sbdf,
    /// What was seen.
    pub kind: AnomalyKind,
}

impl Anomaly {
    /// The anomaly `kind` of `function`.
    #[must_use]
    pub const fn new(function: Sbdf, kind: AnomalyKind) -> Self {
        Self { function, kind }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.function, self.kind)
    }
}

/// What an anomaly casts doubt on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a set of independent subjects, each read by name"
)]
#[non_exhaustive]
pub struct Affects {
    /// Whether a function is there, or all functions are known.
    pub presence: bool,
    /// Bus numbers or routing IDs.
    pub buses: bool,
    /// Addresses of BARs or windows of a bridge.
    pub resources: bool,
    /// The capability lists of the function: a capability may be missing.
    pub lists: bool,
    /// The access itself: a value that was read may be none.
    pub access: bool,
}

impl Affects {
    const NOTHING: Self = Self {
        presence: false,
        buses: false,
        resources: false,
        lists: false,
        access: false,
    };
    const PRESENCE: Self = Self {
        presence: true,
        ..Self::NOTHING
    };
    const BUSES: Self = Self {
        buses: true,
        ..Self::NOTHING
    };
    const RESOURCES: Self = Self {
        resources: true,
        ..Self::NOTHING
    };
    const LISTS: Self = Self {
        lists: true,
        ..Self::NOTHING
    };
}

/// During what a function stopped answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its capability lists were walked.
    Capabilities,
    /// Its header was read.
    Header,
    /// Its BARs were sized.
    Sizing,
    /// Its configuration space was captured.
    Capture,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Capabilities => "its capabilities were read",
            Self::Header => "its header was read",
            Self::Sizing => "its BARs were sized",
            Self::Capture => "it was captured",
        })
    }
}

/// What decodes a range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoder {
    /// A BAR of a function.
    Bar,
    /// One VF BAR, for all VFs of a physical function.
    VfBars,
    /// A window of a bridge.
    Window,
}

impl fmt::Display for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bar => "BAR",
            Self::VfBars => "VF BARs",
            Self::Window => "window",
        })
    }
}

impl AnomalyKind {
    /// What the anomaly casts doubt on.
    #[must_use]
    pub const fn affects(&self) -> Affects {
        match self {
            Self::CapabilityPointer { .. }
            | Self::CapabilityLoop { .. }
            | Self::CapabilityAllOnes { .. }
            | Self::ExtendedCapabilityPointer { .. }
            | Self::ExtendedCapabilityLoop { .. }
            | Self::ExtendedCapabilityAllOnes { .. }
            | Self::UnknownHeaderType { .. } => Affects::LISTS,
            // All ones may have ended a list, or stand for any register.
            Self::ExternalAbort { .. } => Affects {
                access: true,
                ..Affects::LISTS
            },
            // One that came back may be another one.
            Self::StoppedAnswering { .. } => Affects {
                lists: true,
                ..Affects::PRESENCE
            },
            Self::NotReady { .. }
            | Self::NotReadyBesideFunction0
            | Self::NextFunctionNumber { .. }
            | Self::AnnouncedButAbsent
            | Self::PhysicalFunctionGone
            | Self::VfsUnresponsive { .. } => Affects::PRESENCE,
            Self::InvalidBusNumbers(_)
            | Self::FixedBusNumbersTaken { .. }
            | Self::NoBusNumberLeft { .. }
            | Self::BusNumbersNotWritable { .. }
            | Self::BusesNotNested(_)
            | Self::VfsOverlap { .. }
            | Self::VfsBeyondLastBus { .. }
            | Self::VfsExcludedOverlap { .. }
            | Self::VfsExcludedBeyondBus { .. }
            | Self::VfsExcludedTaken { .. } => Affects::BUSES,
            Self::BridgeLoop => Affects {
                buses: true,
                ..Affects::PRESENCE
            },
            Self::BarType { .. }
            | Self::BarWithoutUpperHalf { .. }
            | Self::BarMask { .. }
            | Self::RomMask { .. }
            | Self::EnhancedAllocationEntry { .. }
            | Self::BarUnassigned { .. }
            | Self::BarNotForwarded { .. }
            | Self::MemoryWindowHardwired { .. }
            | Self::PrefetchableWindowHardwired { .. }
            | Self::PrefetchableUpperHardwired { .. }
            | Self::NotForwarded { .. }
            | Self::Overlap { .. } => Affects::RESOURCES,
            Self::ZeroPrimaryBus { .. }
            | Self::NoPhysicalFunction
            | Self::TooManyVfs { .. }
            | Self::VfsNotEnabled { .. } => Affects::NOTHING,
        }
    }
}

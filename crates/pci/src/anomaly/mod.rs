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
    /// Addresses of single BARs of the function, and of nothing else.
    pub bars: bool,
    /// Addresses that others depend on: windows of a bridge, ranges that two
    /// decode.
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
        bars: false,
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
    const BARS: Self = Self {
        bars: true,
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
            | Self::BusesOverlap { .. }
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
            | Self::BarUnassigned { .. }
            | Self::BarNotForwarded { .. } => Affects::BARS,
            Self::EnhancedAllocationEntry { .. }
            | Self::IoWindowHardwired { .. }
            | Self::MemoryWindowHardwired { .. }
            | Self::PrefetchableWindowHardwired { .. }
            | Self::PrefetchableUpperHardwired { .. }
            | Self::NotForwarded { .. }
            | Self::OnlyPrefetchable { .. }
            | Self::Overlap { .. } => Affects::RESOURCES,
            Self::ZeroPrimaryBus { .. }
            | Self::NoPhysicalFunction
            | Self::TooManyVfs { .. }
            | Self::VfsNotEnabled { .. } => Affects::NOTHING,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BarKind, BusNumbers, ConfigOffset};
    use alloc::string::ToString;

    /// One letter a subject, in the order of the fields.
    fn letters(kind: AnomalyKind) -> alloc::string::String {
        let affects = kind.affects();
        let subjects = [
            (affects.presence, 'p'),
            (affects.buses, 'b'),
            (affects.bars, 'm'),
            (affects.resources, 'r'),
            (affects.lists, 'l'),
            (affects.access, 'a'),
        ];
        let named = subjects.into_iter().filter(|(is_affected, _)| *is_affected);
        named.map(|(_, letter)| letter).collect()
    }

    #[test]
    fn each_kind_affects_what_depends_on_it() {
        let numbers = BusNumbers::default();
        let invalid = numbers.validate(0, 0xff).unwrap_err();
        let (index, size, kind) = (0, 0x1000, BarKind::Memory32);
        let at = Sbdf::new(0, 1, 0, 0);
        let cases = [
            (
                AnomalyKind::CapabilityLoop {
                    from: 0x41,
                    to: 0x40,
                },
                "l",
            ),
            (AnomalyKind::ExtendedCapabilityAllOnes { at: 0x100 }, "l"),
            (AnomalyKind::UnknownHeaderType { header_type: 0x7f }, "l"),
            (
                AnomalyKind::ExternalAbort {
                    offset: ConfigOffset::wrapping(0x100),
                },
                "la",
            ),
            (
                AnomalyKind::StoppedAnswering {
                    during: Step::Sizing,
                },
                "pl",
            ),
            (AnomalyKind::NotReady { milliseconds: 1000 }, "p"),
            (AnomalyKind::InvalidBusNumbers(invalid), "b"),
            (AnomalyKind::BusesNotNested(invalid), "b"),
            (AnomalyKind::BridgeLoop, "pb"),
            (AnomalyKind::ZeroPrimaryBus { bus: 1 }, ""),
            (
                AnomalyKind::VfsExcludedTaken {
                    number: 1,
                    num_vfs: 2,
                    at,
                },
                "b",
            ),
            (AnomalyKind::BarNotForwarded { index, kind, size }, "m"),
            (
                AnomalyKind::MemoryWindowHardwired { wrote: 0, read: 1 },
                "r",
            ),
            (AnomalyKind::VfsNotEnabled { num_vfs: 4 }, ""),
        ];
        for (kind, expected) in cases {
            assert_eq!(letters(kind), expected, "{kind}");
        }
    }

    #[test]
    fn an_anomaly_is_a_sentence_about_its_function() {
        let anomaly = Anomaly::new(
            Sbdf::new(0, 1, 0, 0),
            AnomalyKind::BusNumbersNotWritable {
                wrote: BusNumbers::from_dword(0x00ff_0201),
                read: BusNumbers::default(),
            },
        );
        assert_eq!(
            anomaly.to_string(),
            "0000:01:00.0: bus numbers do not stick: wrote 01/02/ff, read 00/00/00; what is below is left alone"
        );
    }
}

//! The phases of a boot, and who observes them.

use warmbus_pci::ConfigAccess;
use warmbus_pcsc::ConfigCache;

/// A phase of a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// From the first instruction to the first of the phases that follow: memory,
    /// the console and the description of the machine.
    Start,
    /// Finding the functions and assigning bus numbers.
    Enumerate,
    /// Sizing BARs and assigning addresses.
    Assign,
    /// Reading everything cacheable.
    Capture,
    /// Waiting for virtual functions to become ready.
    VfWait,
    /// Capturing virtual functions.
    Vfs,
    /// Verifying the assignment.
    Verify,
    /// Comparing the cache with the hardware.
    SelfCheck,
    /// Finding a place in memory for everything.
    Plan,
    /// Unpacking the kernel.
    Unpack,
    /// Finding out what the kernel supports.
    Detect,
    /// Looking once more at ports that were empty.
    LatePorts,
    /// Probing the routing IDs of virtual functions.
    VfRouting,
    /// Building the handover.
    Build,
    /// Writing the device tree for Linux.
    Tree,
    /// Cleaning the data caches.
    Clean,
    /// Verifying the handover.
    HandoverCheck,
    /// What was in no other phase up to the report, such as printing.
    Other,
}

impl Phase {
    /// Its name in reports, which stays the same from version to version.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Enumerate => "enumerate",
            Self::Assign => "assign",
            Self::Capture => "capture",
            Self::VfWait => "vf-wait",
            Self::Vfs => "vfs",
            Self::Verify => "check",
            Self::SelfCheck => "self-check",
            Self::Plan => "plan",
            Self::Unpack => "unpack",
            Self::Detect => "detect",
            Self::LatePorts => "late-ports",
            Self::VfRouting => "vf-routing",
            Self::Build => "kho",
            Self::Tree => "tree",
            Self::Clean => "clean",
            Self::HandoverCheck => "handover-check",
            Self::Other => "other",
        }
    }
}

/// Observes the phases of a boot. What is not implemented does nothing.
pub trait Observer<A: ConfigAccess> {
    /// `phase` begins; `config` is there where it accesses configuration
    /// space.
    fn phase_begins(&mut self, phase: Phase, config: Option<&ConfigCache<A>>) {
        let _ = (phase, config);
    }

    /// `phase` ends.
    fn phase_ends(&mut self, phase: Phase, config: Option<&ConfigCache<A>>) {
        let _ = (phase, config);
    }
}

/// Nobody observes.
impl<A: ConfigAccess> Observer<A> for () {}

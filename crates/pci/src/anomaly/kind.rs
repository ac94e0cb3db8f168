//! The kinds of anomalies and their sentences.

use thiserror::Error;

use super::{Decoder, Step};
use crate::{BarKind, BusNumbers, BusNumbersError, ConfigOffset, Sbdf};

/// What was seen, with the numbers. Its `Display` is a sentence about the
/// function that it was seen at.
///
/// Addresses are addresses on the PCI side, sizes are bytes, ranges are
/// inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AnomalyKind {
    /// A capability pointer below the first structure (PCIe 7.5.1.1.11).
    #[error("capability pointer at {from:02x} leads into the header, to {to:02x}")]
    CapabilityPointer {
        /// Offset of the pointer.
        from: u16,
        /// Its value.
        to: u8,
    },
    /// A capability list that comes back to a structure it has been at.
    #[error("capability list leads from {from:02x} back to {to:02x}")]
    CapabilityLoop {
        /// Offset of the pointer.
        from: u16,
        /// Its value.
        to: u8,
    },
    /// A capability header of all ones.
    #[error("capability at {at:02x} reads all ones")]
    CapabilityAllOnes {
        /// Offset of the capability.
        at: u8,
    },
    /// A pointer of the extended list below 0x100 (PCIe 7.6.3).
    #[error("extended capability at {from:03x} leads out of the extended space, to {to:03x}")]
    ExtendedCapabilityPointer {
        /// Offset of the capability with the pointer.
        from: u16,
        /// Its value.
        to: u16,
    },
    /// An extended list that comes back to a structure it has been at.
    #[error("extended capability list leads from {from:03x} back to {to:03x}")]
    ExtendedCapabilityLoop {
        /// Offset of the capability with the pointer.
        from: u16,
        /// Its value.
        to: u16,
    },
    /// An extended capability header of all ones.
    #[error("extended capability at {at:03x} reads all ones")]
    ExtendedCapabilityAllOnes {
        /// Offset of the capability.
        at: u16,
    },
    /// A header layout that the specification does not define; its capability
    /// lists were not walked.
    #[error("header type {header_type:02x} is not known; only its first 16 bytes are read")]
    UnknownHeaderType {
        /// The layout, without the Multi-Function bit.
        header_type: u8,
    },
    /// The machine refused an access.
    #[error("access to offset {offset} ended in an external abort and reads as all ones")]
    ExternalAbort {
        /// The offset that was accessed.
        offset: ConfigOffset,
    },

    /// A function that answered, and then did not.
    #[error("stopped answering while {during}")]
    StoppedAnswering {
        /// What was done meanwhile.
        during: Step,
    },
    /// A device that returned Request Retry Status to the end (PCIe 2.3.1).
    #[error("not ready after {milliseconds} ms, excluded")]
    NotReady {
        /// How long it was waited for.
        milliseconds: u64,
    },
    /// A function that is not ready although function 0 of its device is.
    #[error("not ready while its device is")]
    NotReadyBesideFunction0,
    /// A Next Function Number that is not above that of the function
    /// (PCIe 7.8.8.2).
    #[error("next function number {next:02x} does not lead on")]
    NextFunctionNumber {
        /// The number.
        next: u8,
    },
    /// A function that another one names as its next and that is absent.
    #[error("announced as next function, but absent")]
    AnnouncedButAbsent,

    /// A bridge whose Primary Bus Number is 0 although it is on another bus;
    /// some ports hardwire it. That breaks nothing: PCI Express does not use
    /// it (PCIe 7.5.1.3.2).
    #[error("its primary bus number is 00 and not {bus:02x}, which is accepted")]
    ZeroPrimaryBus {
        /// The bus that the bridge is on.
        bus: u8,
    },
    /// Bus numbers that a bridge at this place cannot have.
    #[error("{0}; what is below is left alone")]
    InvalidBusNumbers(BusNumbersError),
    /// Bus numbers that Enhanced Allocation fixes and something else has.
    #[error("fixed bus numbers {secondary:02x} to {subordinate:02x} are not free")]
    FixedBusNumbersTaken {
        /// Fixed Secondary Bus Number.
        secondary: u8,
        /// Fixed Subordinate Bus Number.
        subordinate: u8,
    },
    /// A bridge without a bus number.
    #[error("no bus number is left below it, the last is {last:02x}")]
    NoBusNumberLeft {
        /// The last bus that can be below it.
        last: u8,
    },
    /// A bridge that does not hold the bus numbers that were written.
    #[error("bus numbers do not stick: wrote {wrote}, read {read}; what is below is left alone")]
    BusNumbersNotWritable {
        /// The numbers that were written.
        wrote: BusNumbers,
        /// The numbers that were read.
        read: BusNumbers,
    },
    /// A bridge that is reached again through itself.
    #[error("its bus numbers were overwritten from below: the bridges form a loop")]
    BridgeLoop,
    /// Bus numbers in the registers of a bridge that are not within those of
    /// the bridge above.
    #[error("buses {} do not nest in {:02x} to {:02x}", .0.found, .0.bus, .0.last)]
    BusesNotNested(BusNumbersError),

    /// Buses that two bridges on one bus forward to.
    #[error(
        "buses {secondary:02x} to {subordinate:02x} are also below {other}, which has {other_secondary:02x} to {other_subordinate:02x}"
    )]
    BusesOverlap {
        /// Secondary Bus Number.
        secondary: u8,
        /// Subordinate Bus Number.
        subordinate: u8,
        /// The other bridge.
        other: Sbdf,
        /// Its Secondary Bus Number.
        other_secondary: u8,
        /// Its Subordinate Bus Number.
        other_subordinate: u8,
    },

    /// VFs that share routing IDs (PCIe 9.3.3.9 and 9.3.3.10).
    #[error("VF offset {offset} and stride {stride} put {total_vfs} VFs on top of each other")]
    VfsOverlap {
        /// First VF Offset.
        offset: u16,
        /// VF Stride.
        stride: u16,
        /// TotalVFs.
        total_vfs: u16,
    },
    /// VFs for which the host bridge has no bus.
    #[error(
        "{total_vfs} VFs would end on bus {bus:#x}, beyond the last bus {last:02x} of the host bridge"
    )]
    VfsBeyondLastBus {
        /// TotalVFs.
        total_vfs: u16,
        /// The bus of the last VF, which may be beyond 255.
        bus: u32,
        /// The last bus of the host bridge.
        last: u8,
    },
    /// VFs were requested of something that can have none.
    #[error("VFs were requested, but no physical function is there")]
    NoPhysicalFunction,
    /// More VFs were requested than there can be.
    #[error("{requested} VFs are more than the {total_vfs} that it can have")]
    TooManyVfs {
        /// How many were requested.
        requested: u16,
        /// TotalVFs.
        total_vfs: u16,
    },
    /// VFs that would have to be enabled below a preserved host bridge.
    #[error("{num_vfs} VFs were requested, but are not enabled, and nothing may be written")]
    VfsNotEnabled {
        /// How many were requested.
        num_vfs: u16,
    },
    /// A physical function that stopped answering before its VFs were enabled
    /// or found.
    #[error("its VFs cannot be found: it does not answer any more")]
    PhysicalFunctionGone,
    /// VFs that were not captured since they share routing IDs.
    #[error(
        "its VFs are excluded: offset {offset} and stride {stride} put {num_vfs} of them on top of each other"
    )]
    VfsExcludedOverlap {
        /// First VF Offset.
        offset: u16,
        /// VF Stride.
        stride: u16,
        /// NumVFs.
        num_vfs: u16,
    },
    /// VFs that were not captured since no bus is reserved for them.
    #[error(
        "its VFs are excluded: the last of {num_vfs} would be on bus {bus:#x}, beyond bus {reserved:02x}"
    )]
    VfsExcludedBeyondBus {
        /// NumVFs.
        num_vfs: u16,
        /// The bus of the last VF, which may be beyond 255.
        bus: u32,
        /// The last bus that is reserved for VFs of the function.
        reserved: u8,
    },
    /// VFs that were not captured since another function has a routing ID of
    /// one.
    #[error(
        "its VFs are excluded: VF {number} of {num_vfs} would be at {at}, where there is another function"
    )]
    VfsExcludedTaken {
        /// The VF, from 1.
        number: u16,
        /// NumVFs.
        num_vfs: u16,
        /// Its address.
        at: Sbdf,
    },
    /// VFs that did not answer in time.
    #[error("{count} of {num_vfs} VFs do not answer and are excluded, first VF {first} at {at}")]
    VfsUnresponsive {
        /// How many.
        count: usize,
        /// NumVFs.
        num_vfs: u16,
        /// The first of them.
        first: u16,
        /// Its address.
        at: Sbdf,
    },

    /// A BAR with the reserved memory type (PCIe 7.5.1.2.1).
    #[error("BAR {index} has the reserved memory type: {value:08x} after ones")]
    BarType {
        /// Resource index of the BAR.
        index: u8,
        /// What it read after ones were written.
        value: u32,
    },
    /// A 64-bit BAR without a register for its upper half.
    #[error("BAR {index} wants 64 bits and is the last one")]
    BarWithoutUpperHalf {
        /// Resource index of the BAR.
        index: u8,
    },
    /// A BAR whose address bits are not contiguous.
    #[error("BAR {index} is invalid: its address mask is {mask:#x}")]
    BarMask {
        /// Resource index of the BAR.
        index: u8,
        /// The address bits that are writable.
        mask: u64,
    },
    /// An expansion ROM BAR whose address bits are not contiguous.
    #[error("expansion ROM is invalid: its address mask is {mask:08x}")]
    RomMask {
        /// The address bits that are writable.
        mask: u32,
    },
    /// An entry of Enhanced Allocation outside of the space that has it.
    #[error("Enhanced Allocation entry at {at:02x} leaves the first 256 bytes")]
    EnhancedAllocationEntry {
        /// Offset of the entry.
        at: u16,
    },
    /// A BAR for which no addresses are left.
    #[error(
        "BAR {index} ({}, {size:#x} bytes) does not fit and stays disabled; the largest free range is {largest_free:#x} bytes",
        .kind.name()
    )]
    BarUnassigned {
        /// Resource index of the BAR.
        index: u8,
        /// What it requests.
        kind: BarKind,
        /// Bytes, for VF BARs those of all VFs.
        size: u64,
        /// Bytes of the largest free range.
        largest_free: u64,
        /// Whether the host windows have fewer aligned ranges of this size than
        /// there are BARs of this size or larger which can be nowhere else, so
        /// that Linux loses one of them as well, and this is the last one.
        is_excess: bool,
    },
    /// A BAR below a bridge that does not forward its space.
    #[error(
        "BAR {index} ({}, {size:#x} bytes) stays disabled; a bridge above it does not forward that space",
        .kind.name()
    )]
    BarNotForwarded {
        /// Resource index of the BAR.
        index: u8,
        /// What it requests.
        kind: BarKind,
        /// Bytes, for VF BARs those of all VFs.
        size: u64,
    },
    /// An I/O window that does not hold what was written.
    #[error("I/O window is hardwired: wrote {wrote:04x}, read {read:04x}")]
    IoWindowHardwired {
        /// Base and limit register as written.
        wrote: u16,
        /// Base and limit register as read.
        read: u16,
    },
    /// A memory window that does not hold what was written.
    #[error("memory window is hardwired: wrote {wrote:08x}, read {read:08x}")]
    MemoryWindowHardwired {
        /// Base and limit register as written.
        wrote: u32,
        /// Base and limit register as read.
        read: u32,
    },
    /// A prefetchable window that does not hold what was written.
    #[error("prefetchable window is hardwired: wrote {wrote:08x}, read {read:08x}")]
    PrefetchableWindowHardwired {
        /// Base and limit register as written.
        wrote: u32,
        /// Base and limit register as read.
        read: u32,
    },
    /// A 64-bit prefetchable window whose upper halves do not hold what was
    /// written.
    #[error(
        "upper half of the prefetchable window does not stick: wrote {:08x} and {:08x}, read {:08x} and {:08x}",
        .wrote.0, .wrote.1, .read.0, .read.1
    )]
    PrefetchableUpperHardwired {
        /// Upper base and limit as written.
        wrote: (u32, u32),
        /// Upper base and limit as read.
        read: (u32, u32),
    },
    /// Addresses that a bridge above does not forward.
    #[error("{decoder} {base:#x} to {limit:#x} is outside of what the bridge above forwards")]
    NotForwarded {
        /// What decodes them.
        decoder: Decoder,
        /// First address.
        base: u64,
        /// Last address.
        limit: u64,
    },
    /// Memory that is not prefetchable in windows that are.
    #[error(
        "{decoder} {base:#x} to {limit:#x} is not prefetchable, but only a prefetchable window forwards it"
    )]
    OnlyPrefetchable {
        /// What decodes it.
        decoder: Decoder,
        /// First address.
        base: u64,
        /// Last address.
        limit: u64,
    },
    /// Addresses that two things on one bus decode.
    #[error(
        "{decoder} {base:#x} to {limit:#x} overlaps {other_decoder} {other_base:#x} to {other_limit:#x} of {other}"
    )]
    Overlap {
        /// What decodes them.
        decoder: Decoder,
        /// First address.
        base: u64,
        /// Last address.
        limit: u64,
        /// The function of the other one.
        other: Sbdf,
        /// What the other one is.
        other_decoder: Decoder,
        /// Its first address.
        other_base: u64,
        /// Its last address.
        other_limit: u64,
    },
}

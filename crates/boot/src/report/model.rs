//! The report as data: schema `warmbus-report/1`, see `docs/report-format.md`.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use warmbus_pci::Sbdf;

/// Value of the key `schema`.
pub const SCHEMA: &str = "warmbus-report/1";

/// A word from a fixed set, which the firmware need not copy.
pub type Name = Cow<'static, str>;

/// What was found and what it cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: Name,
    /// `ok`, or the sentence that says what failed.
    pub result: String,
    /// The machine and the memory that was used.
    pub machine: Machine,
    /// Host bridges in the order of the machine description.
    pub host_bridges: Vec<HostBridge>,
    /// Functions, each bridge before what is below it.
    pub functions: Vec<Function>,
    /// Configuration accesses that reached the hardware.
    pub accesses: Accesses,
    /// What the cache did.
    pub cache: CacheStatistics,
    /// The parts of the boot, in order.
    pub phases: Vec<Phase>,
    /// Outcome of the comparison with the hardware, if it was asked for.
    pub self_check: Option<SelfCheck>,
    /// What is not as it should be and belongs to no function of `functions`.
    pub anomalies: Vec<Anomaly>,
}

/// The machine and the memory that was used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// What the machine description calls the machine.
    pub model: Option<String>,
    /// Exception level at entry, 1 or 2.
    pub exception_level: u8,
    /// Cores in the machine description.
    pub cores: u32,
    /// Bytes of RAM in the machine description.
    pub memory_bytes: u64,
    /// Ticks a second of the timer that `phases` counts in.
    pub timer_hz: u64,
    /// Bytes of the firmware in memory: code, data, stacks, without the heap.
    pub image_bytes: u64,
    /// Most bytes of heap that were in use at the same time.
    pub heap_peak_bytes: u64,
    /// `heap_peak_bytes` divided by the number of functions, rounded up; 0
    /// without functions. [`Report::new`] fills it in.
    pub bytes_per_function: u64,
}

/// One host bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostBridge {
    /// What the machine description calls it.
    pub name: String,
    /// Segment group number.
    pub segment: u16,
    /// Physical address of the ECAM window.
    pub ecam_base: u64,
    /// Bytes of the ECAM window; 0 where there is no such window.
    pub ecam_size: u64,
    /// Buses that the ECAM window reaches.
    pub buses: Buses,
    /// Buses that are in use or reserved.
    pub buses_in_use: Buses,
    /// Whether numbers and BARs were left as they were found.
    pub preserve: bool,
    /// What the bridge forwards.
    pub windows: Vec<HostWindow>,
}

/// An inclusive range of bus numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buses {
    /// Lowest.
    pub first: u8,
    /// Highest.
    pub last: u8,
}

/// A window of a host bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostWindow {
    /// `io`, `mem32` or `mem64`.
    pub kind: Name,
    /// Whether it is meant for prefetchable memory.
    pub prefetchable: bool,
    /// First address on the PCI side.
    pub pci_address: u64,
    /// First address on the CPU side.
    pub cpu_address: u64,
    /// Bytes.
    pub size: u64,
}

/// One function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// Its address, for example `0000:01:00.0`.
    pub sbdf: Sbdf,
    /// The bridge above it; null on a root bus.
    pub parent: Option<Sbdf>,
    /// Index in [`Report::host_bridges`].
    pub host_bridge: u32,
    /// Vendor ID.
    pub vendor_id: u16,
    /// Device ID.
    pub device_id: u16,
    /// Revision ID.
    pub revision: u8,
    /// Base class, sub-class and interface, 24 bits.
    pub class_code: u32,
    /// Header layout without the Multi-Function bit.
    pub header_type: u8,
    /// Multi-Function bit.
    pub multi_function: bool,
    /// Subsystem IDs, where there are any and they were captured.
    pub subsystem: Option<Subsystem>,
    /// Device/port type; null where it is no PCI Express function.
    pub port_type: Option<Name>,
    /// Implemented BARs.
    pub bars: Vec<Bar>,
    /// What a bridge has more; null for others.
    pub bridge: Option<Bridge>,
    /// SR-IOV; null for others than physical functions.
    pub sriov: Option<SrIov>,
    /// Which VF of which function it is; null for others.
    #[serde(default)]
    pub virtual_function: Option<VirtualFunction>,
    /// How often it was looked for again.
    #[serde(default)]
    pub retries: u32,
    /// Nanoseconds from the start of the enumeration to the retry that found it;
    /// null where it was found at once.
    #[serde(default)]
    pub ready_nanoseconds: Option<u64>,
    /// Capabilities in list order.
    pub capabilities: Vec<Capability>,
    /// Extended capabilities in list order.
    pub extended_capabilities: Vec<ExtendedCapability>,
    /// Size of the configuration space that was captured: 256 or 4096; 0
    /// where the function is not in the cache.
    pub config_bytes: u16,
    /// Bytes of it that may be cached.
    pub cacheable_bytes: u16,
    /// Bytes of it that were.
    pub cached_bytes: u16,
    /// What is not as it should be.
    pub anomalies: Vec<String>,
}

/// Subsystem vendor ID and subsystem ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subsystem {
    /// Subsystem Vendor ID.
    pub vendor_id: u16,
    /// Subsystem ID.
    pub device_id: u16,
}

/// One base address register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bar {
    /// 0 to 5 for the BARs, 6 for the expansion ROM, 7 to 12 for the VF BARs.
    pub index: u8,
    /// Name of a [`BarKind`](warmbus_pci::BarKind).
    pub kind: Name,
    /// Whether the memory is prefetchable.
    pub prefetchable: bool,
    /// Whether Enhanced Allocation fixes it.
    pub fixed: bool,
    /// Address on the PCI side; null where none was assigned.
    pub address: Option<u64>,
    /// Bytes, for a VF BAR of one VF; null where it is not known.
    pub size: Option<u64>,
}

/// What a function with a type 1 header has more than others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Bus that the bridge is on.
    pub primary: u8,
    /// Bus directly below it.
    pub secondary: u8,
    /// Highest bus below it.
    pub subordinate: u8,
    /// I/O window; null if closed.
    pub io: Option<Window>,
    /// Memory window; null if closed.
    pub memory: Option<Window>,
    /// Prefetchable memory window; null if closed.
    pub prefetchable: Option<Window>,
    /// Whether the link below is up; null where that is unknown.
    pub link_up: Option<bool>,
    /// Whether it has a hot-plug capable slot.
    pub hot_plug: bool,
    /// Whether ARI forwarding is enabled.
    pub ari_forwarding: bool,
}

/// An inclusive range of addresses on the PCI side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// First address.
    pub base: u64,
    /// Last address.
    pub limit: u64,
}

/// SR-IOV of a physical function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SrIov {
    /// TotalVFs.
    pub total_vfs: u16,
    /// First VF Offset.
    pub first_vf_offset: u16,
    /// VF Stride.
    pub vf_stride: u16,
    /// VF Device ID.
    pub vf_device_id: u16,
    /// Highest bus that a VF can be on.
    pub last_bus: u8,
    /// NumVFs with which VFs were captured; 0 where none were.
    #[serde(default)]
    pub num_vfs: u16,
    /// Whether VF Enable is set in the end.
    #[serde(default)]
    pub vfs_enabled: bool,
}

/// What makes a function a virtual one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualFunction {
    /// Its physical function.
    pub physical: Sbdf,
    /// Its number, from 1.
    pub number: u16,
}

/// One capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// Capability ID.
    pub id: u8,
    /// Where it starts.
    pub offset: u8,
}

/// One extended capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtendedCapability {
    /// Extended capability ID.
    pub id: u16,
    /// Where it starts.
    pub offset: u16,
    /// Capability version.
    pub version: u8,
}

/// Configuration accesses that reached the hardware.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accesses {
    /// Reads, absent probes included.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Reads of a Vendor ID that nothing answered.
    pub absent_probes: u64,
    /// Reads of the cacheable dword that was read most often, read-backs for
    /// sizing aside.
    pub most_reads_of_one_dword: u64,
    /// Reads of a dword that was written since it was last read: the sizes of
    /// BARs, and whether a value sticks.
    pub read_backs: u64,
    /// Dwords with a cacheable byte, of all functions: what one read each
    /// would take.
    pub cacheable_dwords: u64,
}

/// What the cache did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheStatistics {
    /// Reads served without the hardware.
    pub hits: u64,
    /// Reads of cacheable bytes that had to ask the hardware.
    pub misses: u64,
    /// Reads of bytes that must not be cached.
    pub uncacheable: u64,
    /// Writes.
    pub writes: u64,
    /// Cached bytes dropped because of a write or a reset.
    pub invalidations: u64,
}

/// One part of the boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name.
    pub name: Name,
    /// Timer ticks that it took.
    pub ticks: u64,
    /// The same in nanoseconds.
    pub nanoseconds: u64,
    /// The ticks of it that were spent in configuration accesses.
    pub config_ticks: u64,
}

/// Outcome of the comparison of every cached byte with the hardware.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfCheck {
    /// Bytes compared.
    pub bytes: u64,
    /// Hardware reads that this took; they are not part of `accesses`.
    pub reads: u64,
    /// Where the two differ.
    pub differences: Vec<Difference>,
}

/// A cached byte that is not what the hardware returns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The function.
    pub sbdf: Sbdf,
    /// Offset in its configuration space.
    pub offset: u16,
    /// What the cache holds.
    pub cached: u8,
    /// What the hardware returned.
    pub hardware: u8,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anomaly {
    /// Where it was seen; null where it concerns no single function.
    pub sbdf: Option<Sbdf>,
    /// What was seen.
    pub text: String,
}

//! The accesses of the benchmark by kind of function, schema
//! `warmbus-counts/1`. `cargo xtask bench --counts` writes them.

use serde::{Deserialize, Serialize};

use super::kind::Kind;

/// Value of the key `schema`.
pub const SCHEMA: &str = "warmbus-counts/1";

/// The published counts.
const PUBLISHED: &str = include_str!("../../../../bench/results/counts.json");

/// All counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// [`SCHEMA`].
    pub schema: String,
    /// The release of Linux.
    pub linux: String,
    /// Boots, by what is counted, topology and kind.
    pub boots: Vec<BootCount>,
    /// Starts of a virtual machine with a function.
    pub virtual_machines: Vec<EventCount>,
    /// Virtual functions that were created, without a driver.
    pub created_vfs: Vec<EventCount>,
}

/// Who made the accesses of a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// A stock Linux, without firmware before it.
    LinuxStock,
    /// Warmbus.
    Warmbus,
    /// Linux with the series, started by Warmbus.
    LinuxAfterWarmbus,
    /// Linux with the series, started by kexec from the former.
    LinuxAfterKexec,
}

/// Reads and writes of one stage to the functions of one kind, on one topology.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootCount {
    /// Who made them.
    pub stage: Stage,
    /// The name of the topology.
    pub topology: String,
    /// The kind.
    pub kind: Kind,
    /// A driver used these functions. Of bridges it does not matter, and they
    /// count as used.
    pub driver: bool,
    /// How many there are.
    pub functions: u64,
    /// `TotalVFs` of all of them.
    pub total_vfs: u64,
    /// Those to the function with the fewest.
    pub least: u64,
    /// Those to the function with the most.
    pub most: u64,
    /// Those to all of them.
    pub all: u64,
}

/// Reads and writes of something that was done to each of some functions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventCount {
    /// The name of the topology.
    pub topology: String,
    /// How often it was done.
    pub functions: u64,
    /// Those of a stock Linux.
    pub stock: u64,
    /// Those of Linux with the series, started by Warmbus.
    pub after_warmbus: u64,
}

impl Counts {
    /// The counts in `bench/results`.
    ///
    /// # Errors
    ///
    /// If the text is not of [`SCHEMA`].
    pub fn published() -> Result<Self, serde_json::Error> {
        serde_json::from_str(PUBLISHED)
    }
}

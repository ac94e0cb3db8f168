//! Instructions and accesses of boots, schema `warmbus-time/2`: two
//! integers that are the same on every host and in every run. From them follows
//! the time for a processor of any speed and for accesses of any latency.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::published;
use super::time_boots::Programs;
use crate::topology::Topology;

/// Value of the key `schema`.
pub const SCHEMA: &str = "warmbus-time/2";
/// Picoseconds of an instruction of a boot that is timed.
pub(super) const SLOW_INSTRUCTION: u64 = 2000;
/// Microseconds of an access of it.
pub(super) const SLOW_ACCESS: u64 = 17;
/// A rise of this part is none.
const PER_CENT: u64 = 1;
/// The name of the file in `bench/results`.
const JSON: &str = "time.json";

/// Two integers that a time follows from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Instructions that the processor executes.
    pub instructions: u64,
    /// Those of them that read or write configuration space.
    pub accesses: u64,
}

impl Work {
    /// Microseconds, where an instruction takes `picoseconds` and an access
    /// `latency` microseconds more.
    #[must_use]
    pub fn microseconds(self, picoseconds: u64, latency: u64) -> u64 {
        self.instructions * picoseconds / 1_000_000 + self.accesses * latency
    }

    /// Both of them together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            instructions: self.instructions + other.instructions,
            accesses: self.accesses + other.accesses,
        }
    }

    /// The latency in nanoseconds from which on this takes less time than
    /// `other`, where an instruction takes `picoseconds`. `None` where it never
    /// does; 0 where it always does.
    #[must_use]
    pub fn break_even(self, other: Self, picoseconds: u64) -> Option<u64> {
        let more = self.instructions.saturating_sub(other.instructions) * picoseconds / 1000;
        let saved = other.accesses.saturating_sub(self.accesses);
        match (more, saved) {
            (0, _) if self.accesses <= other.accesses => Some(0),
            (_, 0) => None,
            (more, saved) => Some(more / saved),
        }
    }
}

/// The same for so many of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// How many.
    pub count: u64,
    /// For all of them.
    #[serde(flatten)]
    pub work: Work,
}

/// What a firmware does before the first instruction of Linux.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firmware {
    /// From its first instruction on.
    #[serde(flatten)]
    pub work: Work,
    /// Bytes that it prints. The console of the machine takes them at once.
    pub console_bytes: u64,
}

/// One boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    /// What runs before Linux, if anything does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Firmware>,
    /// From the first instruction of Linux, or from the system call that leaves
    /// the kernel before, to the end of the set-up of PCI.
    pub pci: Work,
    /// From there to the start of the first process.
    pub init: Work,
    /// Creating all virtual functions of all devices after that, without the time
    /// that Linux waits for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vfs: Option<Counted>,
    /// Nanoseconds that all of it took by the clock of the guest, with instructions of
    /// 2 ns and accesses that last 17 us longer: what is otherwise calculated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow: Option<u64>,
}

impl Timed {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> Work {
        let firmware = self.firmware.map(|firmware| firmware.work);
        let vfs = self.vfs.unwrap_or_default().work;
        let linux = self.pci.and(self.init).and(vfs);
        firmware.unwrap_or_default().and(linux)
    }
}

/// Who boots, and after what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// Stock Linux, without firmware before it.
    LinuxStock,
    /// Linux with our patches, without firmware before it.
    LinuxCold,
    /// U-Boot, then stock Linux.
    UBootLinuxStock,
    /// Warmbus, then stock Linux.
    WarmbusLinuxStock,
    /// Warmbus, then Linux with our patches.
    WarmbusLinux,
    /// EDK2, then stock Linux.
    Edk2LinuxStock,
    /// EDK2, then Linux with our patches.
    Edk2LinuxCold,
    /// EDK2 with Warmbus resident, then Linux with our patches.
    Edk2WarmbusLinux,
    /// Stock Linux, by kexec from stock Linux.
    KexecLinuxStock,
    /// Linux with our patches, by kexec from the same that Warmbus started.
    KexecLinux,
}

impl Peer {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 10] = [
        Self::LinuxStock,
        Self::LinuxCold,
        Self::UBootLinuxStock,
        Self::WarmbusLinuxStock,
        Self::WarmbusLinux,
        Self::Edk2LinuxStock,
        Self::Edk2LinuxCold,
        Self::Edk2WarmbusLinux,
        Self::KexecLinuxStock,
        Self::KexecLinux,
    ];

    /// The name in tables.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::LinuxStock => "Linux, stock",
            Self::LinuxCold => "Linux, cache cold",
            Self::UBootLinuxStock => "U-Boot + Linux, stock",
            Self::WarmbusLinuxStock => "Warmbus + Linux, stock",
            Self::WarmbusLinux => "Warmbus + Linux",
            Self::Edk2LinuxStock => "EDK2 + Linux, stock",
            Self::Edk2LinuxCold => "EDK2 + Linux, cache cold",
            Self::Edk2WarmbusLinux => "EDK2 + Warmbus + Linux",
            Self::KexecLinuxStock => "kexec: Linux, stock",
            Self::KexecLinux => "kexec: Linux",
        }
    }

    /// Those whose Linux is measured until it has created virtual functions: U-Boot
    /// and a stock Linux behind Warmbus change nothing of that.
    pub const OF_A_HOST: [Self; 5] = [
        Self::LinuxStock,
        Self::LinuxCold,
        Self::WarmbusLinux,
        Self::KexecLinuxStock,
        Self::KexecLinux,
    ];

    /// Those that show what a function costs.
    pub const OF_A_SIZE: [Self; 3] = [Self::LinuxStock, Self::LinuxCold, Self::WarmbusLinux];

    /// Whether it is started by kexec.
    #[must_use]
    pub fn is_kexec(self) -> bool {
        self >= Self::KexecLinuxStock
    }
}

/// What is measured of a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// All to the first process.
    FirstProcess,
    /// The same, and once more with the time of accesses taken instead of calculated.
    Timed,
    /// A host of virtual machines, with an IOMMU: to the last virtual function that its
    /// devices have.
    VirtualFunctions,
    /// Such a host: how virtual machines start on it.
    VirtualMachines,
}

/// A machine, and what is booted there.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The machine.
    pub topology: &'a Topology,
    /// What is measured.
    pub goal: Goal,
    /// Who boots there.
    pub peers: &'a [Peer],
}

impl<'a> Case<'a> {
    /// A boot of a machine with `topology`, to the first process.
    #[must_use]
    pub const fn boot(topology: &'a Topology) -> Self {
        Self {
            topology,
            goal: Goal::FirstProcess,
            peers: &Peer::ALL,
        }
    }

    /// The same, timed as well.
    #[must_use]
    pub const fn timed(topology: &'a Topology) -> Self {
        Self {
            goal: Goal::Timed,
            ..Self::boot(topology)
        }
    }

    /// The same for one of several sizes of a machine.
    #[must_use]
    pub const fn size(topology: &'a Topology) -> Self {
        Self {
            topology,
            goal: Goal::FirstProcess,
            peers: &Peer::OF_A_SIZE,
        }
    }

    /// A host, to its last virtual function.
    #[must_use]
    pub const fn host(topology: &'a Topology) -> Self {
        Self {
            topology,
            goal: Goal::VirtualFunctions,
            peers: &Peer::OF_A_HOST,
        }
    }

    /// A host that starts virtual machines.
    #[must_use]
    pub const fn machines(topology: &'a Topology) -> Self {
        Self {
            topology,
            goal: Goal::VirtualMachines,
            peers: &Peer::OF_A_SIZE,
        }
    }

    /// Whether it has an IOMMU and hands functions out.
    pub(super) fn is_host(self) -> bool {
        matches!(self.goal, Goal::VirtualFunctions | Goal::VirtualMachines)
    }

    /// The name in tables.
    #[must_use]
    pub fn name(self) -> String {
        let suffix = match self.goal {
            Goal::VirtualFunctions => "-host",
            Goal::FirstProcess | Goal::Timed | Goal::VirtualMachines => "",
        };
        format!("{}{suffix}", self.topology.name)
    }
}

/// All boots of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// [`SCHEMA`].
    pub schema: String,
    /// By the name of the [`Case`].
    pub topologies: BTreeMap<String, BTreeMap<Peer, Timed>>,
    /// Starts of virtual machines, each of which gets one function: from the monitor's
    /// open of the function to its use by a driver of the guest, without the time that
    /// Linux waits.
    pub machines: BTreeMap<String, BTreeMap<Peer, Counted>>,
}

impl Times {
    /// The published ones.
    pub fn published() -> Result<Self> {
        published::load(JSON)
    }

    /// Replaces the published ones.
    pub fn publish(&self) -> Result<()> {
        published::replace(JSON, self).map(drop)
    }

    /// One boot.
    #[must_use]
    pub fn get(&self, topology: &str, peer: Peer) -> Option<&Timed> {
        self.topologies.get(topology)?.get(&peer)
    }

    /// Boots the peers of each of `cases`, with the firmware `image`. `each` gets what
    /// is measured next.
    pub fn measure(
        image: &Path,
        cases: &[Case<'_>],
        mut each: impl FnMut(Case<'_>, Peer),
    ) -> Result<Self> {
        let (mut topologies, mut machines) = (BTreeMap::new(), BTreeMap::new());
        let first = cases.first().context("no case to boot")?;
        let programs = Programs::ready(image, first.topology)?;
        for &case in cases {
            let peers = case.peers.iter().inspect(|&&peer| each(case, peer));
            if case.goal == Goal::VirtualMachines {
                let starts = peers.map(|&peer| Ok((peer, programs.machines(peer, case)?)));
                machines.insert(case.name(), starts.collect::<Result<_>>()?);
            } else {
                let boots = peers.map(|&peer| Ok((peer, programs.boot(peer, case)?)));
                topologies.insert(case.name(), boots.collect::<Result<_>>()?);
            }
        }
        Ok(Self {
            schema: SCHEMA.into(),
            topologies,
            machines,
        })
    }

    /// The boots whose firmware takes more than it did `before`, as sentences.
    #[must_use]
    pub fn rises(&self, before: &Self) -> Vec<String> {
        let firmware = |timed: &Timed| Some(timed.firmware?.work.instructions);
        let mut rises = Vec::new();
        for (topology, boots) in &self.topologies {
            for (&peer, timed) in boots {
                let before = before.get(topology, peer).and_then(firmware);
                if let (Some(now), Some(before)) = (firmware(timed), before)
                    && now > before + before * PER_CENT / 100
                {
                    let title = peer.title();
                    rises.push(format!(
                        "{topology}, {title}: the firmware took {before} instructions, and takes {now}"
                    ));
                }
            }
        }
        rises
    }

    /// What differs from `before`, as sentences; boots of only one of them are
    /// not compared.
    #[must_use]
    pub fn differences(&self, before: &Self) -> Vec<String> {
        let mut all = differences(&self.topologies, &before.topologies);
        all.extend(differences(&self.machines, &before.machines));
        all
    }
}

/// What of `now` differs from what there was `before`.
fn differences<T: Copy + Debug + PartialEq>(
    now: &BTreeMap<String, BTreeMap<Peer, T>>,
    before: &BTreeMap<String, BTreeMap<Peer, T>>,
) -> Vec<String> {
    let boots = now.iter().flat_map(|(topology, boots)| {
        let boots = boots.iter();
        boots.map(move |(peer, now)| (topology, *peer, now))
    });
    let different = boots.filter_map(|(topology, peer, now)| {
        let before = before.get(topology)?.get(&peer)?;
        let title = peer.title();
        (before != now).then(|| format!("{topology}, {title}: {before:?}, and now {now:?}"))
    });
    different.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn work(instructions: u64, accesses: u64) -> Work {
        Work {
            instructions,
            accesses,
        }
    }

    #[test]
    fn time_is_instructions_and_accesses_each_at_its_price() {
        let work = work(3_000_000, 100);
        assert_eq!(work.microseconds(2000, 0), 6000);
        assert_eq!(work.microseconds(500, 17), 3200);
    }

    #[test]
    fn the_break_even_is_where_both_take_the_same_time() {
        let stock = work(1_000_000, 1000);
        // A million more instructions at 2 ns for 500 accesses less: 4 us each.
        let with_cache = work(2_000_000, 500);
        assert_eq!(with_cache.break_even(stock, 2000), Some(4000));
        assert_eq!(
            with_cache.microseconds(2000, 4),
            stock.microseconds(2000, 4)
        );
        assert_eq!(with_cache.break_even(stock, 500), Some(1000));
        assert_eq!(stock.break_even(with_cache, 2000), None);
        assert_eq!(work(9, 9).break_even(work(10, 10), 2000), Some(0));
        assert_eq!(work(11, 10).break_even(work(10, 10), 2000), None);
    }

    #[test]
    fn the_total_is_of_all_parts_and_keys_are_those_of_the_page() {
        let timed = Timed {
            firmware: Some(Firmware {
                work: work(1, 2),
                console_bytes: 99,
            }),
            pci: work(10, 20),
            init: work(100, 200),
            vfs: None,
            slow: None,
        };
        assert_eq!(timed.total(), work(111, 222));
        let vfs = Some(Counted {
            count: 4,
            work: work(1000, 2000),
        });
        assert_eq!(Timed { vfs, ..timed }.total(), work(1111, 2222));
        let json = serde_json::to_value(timed).unwrap();
        assert_eq!(json["firmware"]["instructions"], 1);
        assert_eq!(json["firmware"]["console_bytes"], 99);
        assert_eq!(json["pci"]["accesses"], 20);
        let peer = serde_json::to_value(Peer::WarmbusLinuxStock).unwrap();
        assert_eq!(peer, "warmbus-linux-stock");
    }

    /// What README and pages say of time.
    #[test]
    fn the_published_times_are_those_that_are_promised() {
        let times = Times::published().unwrap();
        let get = |topology: &str, peer| times.get(topology, peer).unwrap().total();
        let slow = |work: Work| work.microseconds(SLOW_INSTRUCTION, SLOW_ACCESS);
        for (topology, most) in [("small", 15), ("switch", 15), ("sriov", 15), ("fan", 5)] {
            let ours = get(topology, Peer::WarmbusLinux);
            let stock = get(topology, Peer::LinuxStock);
            assert!(slow(ours) < slow(stock), "{topology}");
            let from = ours.break_even(stock, SLOW_INSTRUCTION).unwrap();
            assert!(from <= most * 1000, "{topology}: from {from} ns on");
            let fast = |work: Work| work.microseconds(SLOW_INSTRUCTION, 1);
            let u_boot = get(topology, Peer::UBootLinuxStock);
            assert!(fast(ours) < fast(u_boot), "{topology}");
        }
        for (topology, per_cent) in [("fan", 75), ("sriov-host", 40)] {
            let [ours, stock] =
                [Peer::KexecLinux, Peer::KexecLinuxStock].map(|peer| slow(get(topology, peer)));
            assert!(
                ours * 100 <= stock * per_cent,
                "{topology}: {ours} of {stock}"
            );
        }
    }

    #[test]
    fn boots_that_were_timed_took_what_was_calculated() {
        let times = Times::published().unwrap();
        let boots = times.topologies.values().flatten();
        let slow = boots.filter_map(|(_, boot)| Some((boot.total(), boot.slow? / 1000)));
        let slow: Vec<_> = slow.collect();
        assert!(slow.len() >= 12, "{slow:?}");
        for (work, taken) in slow {
            let calculated = work.microseconds(SLOW_INSTRUCTION, SLOW_ACCESS);
            let difference = taken.abs_diff(calculated);
            assert!(difference * 200 <= calculated, "{taken} for {calculated}");
        }
    }
}

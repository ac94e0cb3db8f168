//! The results of a run, as data: schema `warmbus-bench/1`, see
//! `docs/benchmark.md`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::board_reports::Board;
use super::contender::Contender;
use super::measure::Measure;
use super::versions::Versions;
use crate::UsageError;

/// Value of the key `schema`.
pub const SCHEMA: &str = "warmbus-bench/1";

/// The results of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`SCHEMA`].
    pub schema: String,
    /// Versions.
    pub versions: Versions,
    /// The topologies of the board, in order of their functions.
    pub topologies: Vec<Case>,
    /// Machines of more and more functions.
    pub sizes: Vec<Case>,
    /// Functions given to virtual machines.
    pub virtual_machines: Vec<VirtualMachines>,
    /// Machines of users, by their reports.
    pub boards: Vec<Board>,
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// The name of its topology.
    pub name: String,
    /// One line about it.
    pub description: String,
    /// How many functions Warmbus found; `None` where it was not measured.
    pub functions: Option<u64>,
    /// Most bytes of heap that Warmbus used at the same time.
    pub heap_peak_bytes: Option<u64>,
    /// The contenders that were measured on it.
    #[serde(rename = "peers")]
    pub contenders: Vec<Row>,
}

/// The accesses of one contender on one machine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The contender.
    #[serde(rename = "peer")]
    pub contender: Contender,
    /// Its accesses.
    #[serde(flatten)]
    pub measure: Measure,
}

/// The start and the end of a virtual machine for each function of a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VirtualMachines {
    /// The name of the topology.
    pub name: String,
    /// The number of functions that were assigned: all but bridges, or all
    /// virtual functions.
    pub functions: u64,
    /// How much of configuration space the monitor reads before it shows the
    /// function to its guest: `needed` or `whole`.
    pub monitor: String,
    /// By a stock kernel.
    pub stock: Measure,
    /// By a kernel with the cache.
    pub cached: Measure,
    /// Reads that the kernel with the cache served from it.
    pub hits: u64,
    /// Those that it passed on to the hardware.
    pub passed_on: u64,
}

impl Case {
    /// The accesses of `contender`.
    #[must_use]
    pub fn measure(&self, contender: Contender) -> Option<&Measure> {
        let row = self
            .contenders
            .iter()
            .find(|row| row.contender == contender);
        row.map(|row| &row.measure)
    }

    /// The reads of a Linux in relation to those of a stock one; `None` for
    /// another contender, and where there is no stock one.
    #[must_use]
    pub fn share_of_stock(&self, row: &Row) -> Option<f64> {
        let stock = self.measure(Contender::LinuxStock)?;
        row.contender
            .is_linux()
            .then(|| ratio(row.measure.reads, stock.reads))
    }

    /// The time of a contender to find all functions, in relation to that of a
    /// stock Linux.
    #[must_use]
    pub fn time_ratio(&self, row: &Row) -> Option<f64> {
        let stock = self.measure(Contender::LinuxStock)?;
        let times = [row.measure, *stock].map(|measure| measure.find_all_microseconds);
        (!times.contains(&0)).then(|| ratio(times[0], times[1]))
    }

    /// The accesses of Warmbus and the Linux after it together, and their
    /// relation to those of a stock Linux alone.
    #[must_use]
    pub fn together(&self) -> Option<(u64, f64)> {
        let [warmbus, linux, stock] = [
            Contender::Warmbus,
            Contender::LinuxAfterWarmbus,
            Contender::LinuxStock,
        ]
        .map(|contender| self.measure(contender).map(Measure::total));
        let both = warmbus? + linux?;
        Some((both, ratio(both, stock?)))
    }
}

impl VirtualMachines {
    /// The share of reads that the cache served, by the kernel's own count.
    #[must_use]
    pub fn served(&self) -> f64 {
        ratio(self.hits, self.hits + self.passed_on)
    }

    /// The reads that reached the hardware in relation to those of a stock
    /// kernel.
    #[must_use]
    pub fn share_of_stock(&self) -> f64 {
        ratio(self.cached.reads, self.stock.reads)
    }
}

/// `part` of `whole`; 0 of nothing.
pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    let ratio = part as f64 / whole as f64;
    ratio
}

impl Results {
    /// Reads results from `file`.
    pub fn load(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file)
            .map_err(|error| UsageError(format!("cannot read {}: {error}", file.display())))?;
        let results: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} is not a {SCHEMA}", file.display()))?;
        if results.schema != SCHEMA {
            let found = &results.schema;
            return Err(UsageError(format!("{} is {found}, not {SCHEMA}", file.display())).into());
        }
        Ok(results)
    }

    /// The results as JSON, one line for each row.
    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// The counts of both runs that can be compared, those of contenders whose
    /// versions are the same, and what of them differs, a line each.
    #[must_use]
    pub fn compare(&self, other: &Self) -> (usize, Vec<String>) {
        let mut same = 0;
        let mut differences = Vec::new();
        let cases = |results: &Self| -> Vec<Case> {
            results
                .topologies
                .iter()
                .chain(&results.sizes)
                .cloned()
                .collect()
        };
        let theirs = cases(other);
        for case in cases(self) {
            let Some(their) = theirs.iter().find(|their| their.name == case.name) else {
                continue;
            };
            for row in &case.contenders {
                let Some(measure) = their.measure(row.contender) else {
                    continue;
                };
                if !self.versions.comparable(&other.versions, row.contender) {
                    continue;
                }
                if measure.counts() == row.measure.counts() {
                    same += 1;
                } else {
                    let [now, before] = [row.measure, *measure].map(|measure| {
                        let [reads, writes, absent] = measure.counts();
                        format!("{reads} + {writes}, {absent} absent")
                    });
                    let (name, title) = (&case.name, row.contender.title());
                    differences.push(format!("{name}, {title}: {now}; before {before}"));
                }
            }
        }
        (same + differences.len(), differences)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Results of one topology, for tests.
    pub(in crate::bench) fn sample() -> Results {
        let row = |contender, reads, writes, time| Row {
            contender,
            measure: Measure {
                reads,
                writes,
                absent_probes: 31,
                find_all_microseconds: time,
            },
        };
        let case = |name: &str, functions| Case {
            name: name.into(),
            description: "a <few> devices & a switch".into(),
            functions: Some(functions),
            heap_peak_bytes: Some(functions * 7000),
            contenders: vec![
                row(Contender::UBoot, 796, 158, 30),
                row(Contender::Edk2, 3112, 662, 900),
                row(Contender::Warmbus, 355, 99, 20),
                row(Contender::LinuxStock, 2063, 361, 100),
                row(Contender::LinuxCold, 807, 361, 80),
                row(Contender::LinuxAfterWarmbus, 199, 300, 50),
                row(Contender::LinuxAfterKexec, 190, 300, 50),
            ],
        };
        Results {
            schema: SCHEMA.into(),
            versions: Versions::default(),
            topologies: vec![case("small", 9), case("fan", 65)],
            sizes: vec![case("8", 8), case("2048", 2048)],
            virtual_machines: vec![VirtualMachines {
                name: "sriov".into(),
                functions: 12,
                monitor: "needed".into(),
                stock: Measure {
                    reads: 4000,
                    ..Measure::default()
                },
                cached: Measure {
                    reads: 400,
                    ..Measure::default()
                },
                hits: 3600,
                passed_on: 400,
            }],
            boards: Vec::new(),
        }
    }

    #[test]
    fn results_are_read_back_as_they_were_written() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("results.json");
        fs::write(&file, sample().json().unwrap()).unwrap();
        assert_eq!(Results::load(&file).unwrap(), sample());
        let mut other = sample();
        other.schema = "warmbus-bench/2".into();
        fs::write(&file, other.json().unwrap()).unwrap();
        assert!(Results::load(&file).unwrap_err().is::<UsageError>());
    }

    #[test]
    fn shares_are_those_of_the_reads_of_a_stock_kernel() {
        let case = &sample().topologies[0];
        let share = |index: usize| case.share_of_stock(&case.contenders[index]);
        assert_eq!(share(2), None, "Warmbus is no Linux");
        assert_eq!(share(3), Some(1.0));
        assert!((share(5).unwrap() - 199.0 / 2063.0).abs() < 1e-9);
        assert_eq!(case.time_ratio(&case.contenders[5]), Some(0.5));
        let (both, share) = case.together().unwrap();
        assert_eq!(both, 355 + 99 + 199 + 300);
        assert!((share - 953.0 / 2424.0).abs() < 1e-9);
        assert!((sample().virtual_machines[0].served() - 0.9).abs() < 1e-9);
    }

    #[test]
    fn counts_that_differ_are_named_and_times_may_differ() {
        let mut now = sample();
        now.topologies[0].contenders[3]
            .measure
            .find_all_microseconds = 1;
        assert_eq!(now.compare(&sample()), (28, Vec::new()));
        now.topologies[1].contenders[3].measure.reads += 1;
        let (compared, differences) = now.compare(&sample());
        assert_eq!(compared, 28);
        assert_eq!(
            differences,
            ["fan, Linux, stock: 2064 + 361, 31 absent; before 2063 + 361, 31 absent"]
        );
        now.versions.qemu = "8.0".into();
        assert_eq!(
            now.compare(&sample()).0,
            0,
            "another QEMU may count otherwise"
        );
    }
}

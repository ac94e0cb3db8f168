//! Reports of Warmbus (`warmbus-report/1`) from the machines of users.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use warmbus_boot::report::{Report, SCHEMA};

use super::results::ratio;
use crate::UsageError;

/// The cost of configuration accesses on a machine, by its report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Board {
    /// The model of the machine, else the name of the file.
    pub name: String,
    /// Functions that were found.
    pub functions: u64,
    /// Reads that reached the hardware, absent probes included.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Reads of a Vendor ID that nothing answered.
    pub absent_probes: u64,
    /// Ticks of the timer that configuration accesses took, all phases
    /// together.
    pub config_ticks: u64,
    /// Ticks of all phases.
    pub ticks: u64,
    /// Ticks a second.
    pub timer_hz: u64,
}

impl Board {
    /// Reads a report.
    pub fn load(file: &Path) -> Result<Self> {
        let refuse = |why: String| UsageError(format!("{}: {why}", file.display()));
        let text = fs::read_to_string(file).map_err(|error| refuse(error.to_string()))?;
        let report: Report = serde_json::from_str(&text)
            .map_err(|error| refuse(format!("not a {SCHEMA}: {error}")))?;
        if report.schema != SCHEMA {
            return Err(refuse(format!("the schema is {}, not {SCHEMA}", report.schema)).into());
        }
        if report.machine.timer_hz == 0 {
            return Err(refuse("its timer_hz is 0".into()).into());
        }
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let sum = |what: fn(&warmbus_boot::report::Phase) -> u64| {
            report.phases.iter().map(what).fold(0, u64::saturating_add)
        };
        Ok(Self {
            name: report
                .machine
                .model
                .clone()
                .unwrap_or_else(|| stem.into_owned()),
            functions: report.functions.len() as u64,
            reads: report.accesses.reads,
            writes: report.accesses.writes,
            absent_probes: report.accesses.absent_probes,
            config_ticks: sum(|phase| phase.config_ticks),
            ticks: sum(|phase| phase.ticks),
            timer_hz: report.machine.timer_hz,
        })
    }

    /// Microseconds that an access took on average; a posted write takes less,
    /// a read of an absent function may take more.
    #[must_use]
    pub fn microseconds_per_access(&self) -> f64 {
        ratio(self.config_ticks, self.reads.saturating_add(self.writes)) * 1e6
            / ratio(self.timer_hz, 1)
    }

    /// The share of the time of Warmbus that accesses took.
    #[must_use]
    pub fn share_of_time(&self) -> f64 {
        ratio(self.config_ticks, self.ticks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_becomes_a_row() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("my-board.json");
        let mut report = Report {
            schema: SCHEMA.into(),
            ..Report::default()
        };
        report.machine.timer_hz = 25_000_000;
        report.accesses.reads = 300;
        report.accesses.writes = 100;
        for (name, ticks, config_ticks) in
            [("enumerate", 60_000, 40_000), ("plan", 140_000, 60_000)]
        {
            report.phases.push(warmbus_boot::report::Phase {
                name: name.into(),
                ticks,
                nanoseconds: ticks * 40,
                config_ticks,
            });
        }
        fs::write(&file, serde_json::to_string(&report).unwrap()).unwrap();
        let board = Board::load(&file).unwrap();
        assert_eq!(board.name, "my-board");
        assert!((board.microseconds_per_access() - 10.0).abs() < 1e-9);
        assert!((board.share_of_time() - 0.5).abs() < 1e-9);

        fs::write(&file, "{}").unwrap();
        let error = Board::load(&file).unwrap_err();
        assert!(error.is::<UsageError>());
        assert!(error.to_string().contains("my-board.json"), "{error}");
    }
}

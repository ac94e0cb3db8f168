//! The instructions of each phase of the firmware, schema
//! `warmbus-instructions/1`: QEMU lets each instruction take one nanosecond of
//! the machine's time, whatever the host is like, so that they are the same on
//! every host and in every run.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use warmbus_boot::report::console::{Event, Outcome, Section};

use super::published;
use crate::qemu::{Machine, Payload};
use crate::topology::Topology;
use crate::{linux, run};

/// Value of the key `schema`.
pub const SCHEMA: &str = "warmbus-instructions/1";
/// The topologies that are measured.
pub const TOPOLOGIES: [&str; 2] = ["small", "fan"];
/// The name of the file in `bench/results`.
const JSON: &str = "instructions.json";
/// A rise of this part, and of so many instructions, is none: the counter of the
/// machine ticks once in 16 of them.
const PER_CENT: u64 = 1;
const TICKS: u64 = 64;

/// Instructions by topology and phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instructions {
    /// [`SCHEMA`].
    pub schema: String,
    /// By topology, by phase.
    pub topologies: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Instructions {
    /// Measures `image` on the [`TOPOLOGIES`], where it starts a Linux without
    /// patches.
    pub fn measure(image: &Path) -> Result<Self> {
        let topologies = TOPOLOGIES.iter().map(|&name| {
            let topology = Topology::load(name)?;
            Ok((name.to_owned(), phases(image, &topology)?))
        });
        Ok(Self {
            schema: SCHEMA.into(),
            topologies: topologies.collect::<Result<_>>()?,
        })
    }

    /// The published ones.
    pub fn published() -> Result<Self> {
        published::load(JSON)
    }

    /// Replaces the published ones.
    pub fn publish(&self) -> Result<()> {
        published::replace(JSON, self).map(drop)
    }

    /// The phases that take more than they did `before`, as sentences.
    #[must_use]
    pub fn rises(&self, before: &Self) -> Vec<String> {
        let phases = self
            .topologies
            .iter()
            .flat_map(|(topology, phases)| phases.iter().map(move |phase| (topology, phase)));
        let rises = phases.filter_map(|(topology, (phase, &now))| {
            let before = before.topologies.get(topology)?.get(phase).copied();
            let limit = before.map_or(0, |before| before + before * PER_CENT / 100 + TICKS);
            let before = before.map_or_else(|| "nothing".into(), |before| before.to_string());
            (now > limit).then(|| format!("{topology}: {phase} took {before}, and takes {now}"))
        });
        rises.collect()
    }
}

/// Boots `image` on `topology`, and returns what its report says of its phases.
fn phases(image: &Path, topology: &Topology) -> Result<BTreeMap<String, u64>> {
    let payload = Payload {
        kernel: linux::image(&linux::Options::default())?,
        initrd: Some(linux::initramfs()?),
        bootargs: format!("{} quiet", run::LINUX_BOOTARGS),
    };
    let mut running = Machine::kernel(image)
        .topology(topology)
        .payload(payload)
        .section(Section::Report)
        .instruction_time(0)
        .start()?;
    let mut report = None;
    let outcome = running.result(|event| {
        if let Event::Complete(Section::Report, text) = event {
            report = Some(text);
        }
        Ok(())
    })?;
    running.end()?;
    if outcome != Outcome::Ok {
        bail!("the firmware failed on {}: {outcome:?}", topology.name);
    }
    let report = report.context("the firmware printed no report")?;
    let report: serde_json::Value = serde_json::from_str(&report)?;
    let phases = report["phases"].as_array().context("no phases")?;
    let phases = phases.iter().map(|phase| {
        let name = phase["name"].as_str().context("a phase without a name")?;
        let taken = phase["nanoseconds"]
            .as_u64()
            .context("no time of a phase")?;
        Ok((name.to_owned(), taken))
    });
    phases.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(phases: &[(&str, u64)]) -> Instructions {
        let phases = phases.iter().map(|&(name, taken)| (name.to_owned(), taken));
        Instructions {
            schema: SCHEMA.into(),
            topologies: BTreeMap::from([("small".to_owned(), phases.collect())]),
        }
    }

    #[test]
    fn a_rise_of_more_than_one_per_cent_names_its_phase() {
        let before = of(&[("enumerate", 1_000_000), ("plan", 100)]);
        assert_eq!(
            of(&[("enumerate", 1_010_064), ("plan", 165)]).rises(&before),
            [""; 0]
        );
        assert_eq!(of(&[("enumerate", 500_000)]).rises(&before), [""; 0]);
        assert_eq!(
            of(&[("enumerate", 1_010_065), ("new", 5)]).rises(&before),
            [
                "small: enumerate took 1000000, and takes 1010065",
                "small: new took nothing, and takes 5"
            ]
        );
    }
}

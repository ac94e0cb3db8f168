//! Accesses by kind of function, schema `warmbus-counts/1`, with which `warmbus
//! survey` forecasts.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use warmbus_cli::survey::counts::{BootCount, Counts, EventCount, SCHEMA, Stage};
use warmbus_cli::survey::tally;
use warmbus_cli::trace::Access;

use super::boots::{Recording, Tools};
use super::contender::{Boot, Contender};
use super::measure::mark;
use super::{Counter, attribution, published, sizes, vms};
use crate::image;
use crate::topology::Topology;

/// The name of the file in `bench/results`.
const JSON: &str = "counts.json";
/// The topologies that are booted.
const TOPOLOGIES: [&str; 4] = ["small", "switch", "fan", "sriov"];
/// A machine whose functions have no driver.
const WITHOUT_DRIVERS: u32 = 64;
/// Virtual functions that each device gets.
const VFS: u64 = 8;
/// What is counted, each in its boot.
const STAGES: [(Stage, Contender); 4] = [
    (Stage::LinuxStock, Contender::LinuxStock),
    (Stage::Warmbus, Contender::Warmbus),
    (Stage::LinuxAfterWarmbus, Contender::LinuxAfterWarmbus),
    (Stage::LinuxAfterKexec, Contender::LinuxAfterKexec),
];

/// Counts, and replaces the published counts.
pub(super) fn run() -> Result<()> {
    let tools = Tools::ready(&[Boot::Stock, Boot::Chain])?;
    let mut topologies = Vec::new();
    for name in TOPOLOGIES {
        topologies.push(Topology::load(name)?);
    }
    topologies.push(sizes::topology(WITHOUT_DRIVERS));
    let total = 2 * topologies.len() + vms::BOOTS + 2;
    let mut counter = Counter { done: 0, total };
    let mut boots = Vec::new();
    for topology in &topologies {
        for boot in [Boot::Stock, Boot::Chain] {
            let what = format!("{}: {}", topology.name, boot.title());
            let began = Instant::now();
            let step = counter.next(&what);
            let recording = tools.boot(boot, topology, true)?;
            boots.extend(of_boot(&recording, boot, &topology.name)?);
            counter.end(step, &what, began);
        }
    }
    let machines = vms::measure(&tools, &mut counter)?;
    // The other monitor reads everything, whatever it is.
    let machines = machines.iter().filter(|row| row.monitor == "needed");
    let virtual_machines = machines.map(|row| EventCount {
        topology: row.name.clone(),
        functions: row.functions,
        stock: row.stock.total(),
        after_warmbus: row.cached.total(),
    });
    let counts = Counts {
        schema: SCHEMA.into(),
        linux: image::facts(&tools.stock)?.version,
        boots,
        virtual_machines: virtual_machines.collect(),
        created_vfs: vec![created_vfs(&tools, &mut counter)?],
    };
    let file = published::replace(JSON, &counts)?;
    println!("wrote {}", file.display());
    Ok(())
}

/// The counts of every stage that `boot` shows.
fn of_boot(recording: &Recording, boot: Boot, topology: &str) -> Result<Vec<BootCount>> {
    let log = &recording.log;
    let all = accesses(&log.trace);
    let mut counts = Vec::new();
    for (stage, contender) in STAGES {
        if contender.boot() != boot {
            continue;
        }
        let part = attribution::accesses_of(contender, &log.console, log.trace.len())?;
        // Lines that are no access are not among `all`.
        let [first, end] = part.map(|line| accesses(&log.trace[..line]).len());
        let rows = tally::by_kind(&all, first..end, stage, topology);
        let counted: u64 = rows.iter().map(|row| row.all).sum();
        ensure!(
            counted == (end - first) as u64,
            "{topology}, {}: {counted} of {} accesses belong to a function",
            contender.title(),
            end - first
        );
        counts.extend(rows);
    }
    Ok(counts)
}

fn accesses(lines: &[String]) -> Vec<Access> {
    let all = lines.iter().filter_map(|line| Access::parse(line));
    all.filter(|access| mark(access).is_none()).collect()
}

/// The creation of virtual functions that get no driver.
fn created_vfs(tools: &Tools, counter: &mut Counter) -> Result<EventCount> {
    const NAME: &str = "sriov";
    let topology = Topology::load(NAME)?;
    let steps = format!("mark:1,bare_vfs:{VFS},mark:2,summary");
    let machines = [
        tools.linux_alone(&tools.stock, &steps),
        tools.after_warmbus(&steps)?,
    ];
    let mut totals = Vec::new();
    for machine in machines {
        let what = format!("{NAME}: {VFS} virtual functions of each device");
        let began = Instant::now();
        let step = counter.next(&what);
        let recording = Tools::linux(machine, &topology).context(what.clone())?;
        totals.push(vms::between(&recording.log, [1, 2])?.total());
        counter.end(step, &what, began);
    }
    let devices = topology
        .arguments
        .iter()
        .filter(|word| word.contains("sriov_max_vfs"));
    Ok(EventCount {
        topology: NAME.into(),
        functions: VFS * devices.count() as u64,
        stock: totals[0],
        after_warmbus: totals[1],
    })
}

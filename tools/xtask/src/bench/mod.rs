//! `cargo xtask bench`: who makes how many accesses to configuration space, all
//! counted in one way. `docs/benchmark.md` says what is measured and how.

mod boots;
pub mod measure;
pub mod owners;
mod page;
pub mod peer;
mod plot;
pub mod results;
pub mod sizes;
mod table;
pub mod versions;
mod vms;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::progress::Step;
use crate::topology::{self, Topology};
use crate::{Refusal, paths};

use boots::{Recording, Tools};
use measure::Measure;
use owners::Board;
use peer::{Boot, Peer};
use results::{Case, Results, Row, SCHEMA};
use versions::Versions;

/// Where the results are that the README shows, below the root.
const DIRECTORY: &str = "bench/results";
/// What the results are called there.
const JSON: &str = "bench.json";

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench
  cargo xtask bench --quick
  cargo xtask bench --topology fan --peer linux-stock,linux-after-warmbus
  cargo xtask bench --sizes 8,64,512 --topology none
  cargo xtask bench --report my-board.json
  cargo xtask bench --render
  cargo xtask bench --quick --output results && jq .topologies results/bench.json

Without options that choose less, the results in bench/results and the part of
the README that is made of them are written anew.")]
pub struct Options {
    /// Topologies to boot, those of boards/qemu-virt/topologies or files of QEMU
    /// arguments, or `none`; all four unless told
    #[arg(long, value_name = "NAME|FILE,...", value_delimiter = ',')]
    topology: Vec<String>,

    /// Who to measure: u-boot, edk2, warmbus, linux-stock, linux-cold,
    /// linux-after-warmbus, linux-after-kexec; all unless told
    #[arg(long, value_name = "PEER,...", value_delimiter = ',', value_parser = Peer::parse)]
    peer: Vec<Peer>,

    /// Numbers of functions to show the cost of, 1 to 2224, or 0 for none;
    /// 8, 64, 512 and 2048 unless something else was chosen
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(0..=2224))]
    sizes: Vec<u32>,

    /// Start a virtual machine for each function, too, although something else
    /// was chosen
    #[arg(long)]
    vms: bool,

    /// Only the smallest topology with a stock Linux, Warmbus and the two
    /// Linuxes after it
    #[arg(long, conflicts_with_all = ["topology", "peer", "sizes", "vms"])]
    quick: bool,

    /// Add a row for the machine of a report, schema warmbus-report/1
    #[arg(long, value_name = "FILE", num_args = 1..)]
    report: Vec<PathBuf>,

    /// Boot nothing: make pages and plots anew from the results that are there
    #[arg(long, conflicts_with_all = ["topology", "peer", "sizes", "vms", "quick", "report"])]
    render: bool,

    /// Write bench.json, README.md and the plots to this directory instead
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// One boot that has to be done, and what it shows.
struct Task {
    topology: Topology,
    boot: Boot,
    peers: Vec<Peer>,
}

/// Everything that has to be done.
struct Plan {
    topologies: Vec<Topology>,
    sizes: Vec<u32>,
    peers: Vec<Peer>,
    vms: bool,
}

impl Plan {
    fn of(options: &Options) -> Result<Self> {
        let load = |names: &[String]| -> Result<Vec<Topology>> {
            let names = names.iter().filter(|name| *name != "none");
            names.map(|name| Topology::load(name)).collect()
        };
        if options.quick {
            return Ok(Self {
                topologies: load(&["small".to_owned()])?,
                sizes: Vec::new(),
                // All of one chain, since a Linux that is left by kexec writes
                // more at its end than one that powers off.
                peers: vec![
                    Peer::Warmbus,
                    Peer::LinuxStock,
                    Peer::LinuxAfterWarmbus,
                    Peer::LinuxAfterKexec,
                ],
                vms: false,
            });
        }
        let topologies = match &options.topology[..] {
            [] => in_order_of_size(topology::all()?),
            names => load(names)?,
        };
        let sizes = match &options.sizes[..] {
            [] if options.everything() => &sizes::SIZES[..],
            sizes => sizes,
        };
        let sizes = sizes.iter().copied();
        Ok(Self {
            topologies,
            sizes: sizes.filter(|size| *size > 0).collect(),
            peers: match &options.peer[..] {
                [] => Peer::ALL.into(),
                peers => Peer::ALL
                    .into_iter()
                    .filter(|peer| peers.contains(peer))
                    .collect(),
            },
            vms: options.vms || options.everything(),
        })
    }

    /// The boots of all topologies.
    fn of_topologies(&self) -> Vec<Task> {
        let tasks = self.topologies.iter();
        tasks
            .flat_map(|topology| tasks_on(topology, &self.peers))
            .collect()
    }

    /// The boots that show the cost against size.
    fn of_sizes(&self) -> Vec<Task> {
        let tasks = self.sizes.iter().flat_map(|&size| {
            let peers = self.peers.iter().copied();
            let peers: Vec<Peer> = peers.filter(|peer| sizes::shows(*peer, size)).collect();
            tasks_on(&sizes::topology(size), &peers)
        });
        tasks.collect()
    }
}

/// The boots of one topology that show `peers`.
fn tasks_on(topology: &Topology, peers: &[Peer]) -> Vec<Task> {
    let boots: BTreeSet<Boot> = peers.iter().map(|peer| peer.boot()).collect();
    let task = |boot| Task {
        topology: topology.clone(),
        boot,
        peers: peers
            .iter()
            .copied()
            .filter(|peer| peer.boot() == boot)
            .collect(),
    };
    boots.into_iter().map(task).collect()
}

impl Options {
    /// Whether nothing chooses less than all there is.
    fn everything(&self) -> bool {
        !self.quick
            && !self.vms
            && self.topology.is_empty()
            && self.peer.is_empty()
            && self.sizes.is_empty()
    }

    /// Where results go, if they are kept.
    fn directory(&self) -> Option<PathBuf> {
        let usual = || self.everything().then(|| paths::root().join(DIRECTORY));
        self.output.clone().or_else(usual)
    }
}

/// The topologies with the fewest devices first.
fn in_order_of_size(mut topologies: Vec<Topology>) -> Vec<Topology> {
    topologies.sort_by_key(|topology| topology.arguments.len());
    topologies
}

/// Measures what `options` say, shows it, and writes it down.
pub fn run(options: &Options) -> Result<()> {
    let began = Instant::now();
    if options.render {
        let results = Results::load(&paths::root().join(DIRECTORY).join(JSON))?;
        let directory = options.directory().context("everything has its place")?;
        return write(&results, &directory, options.output.is_none());
    }
    let plan = Plan::of(options)?;
    let boards = options
        .report
        .iter()
        .map(|file| Board::load(file))
        .collect::<Result<_>>()?;
    if let Some(directory) = options.directory() {
        fs::create_dir_all(&directory)
            .map_err(|error| Refusal(format!("cannot make {}: {error}", directory.display())))?;
    }
    let (of_topologies, of_sizes) = (plan.of_topologies(), plan.of_sizes());
    let boots: Vec<Boot> = of_topologies
        .iter()
        .chain(&of_sizes)
        .map(|task| task.boot)
        .collect();
    let boots: Vec<Boot> = if plan.vms {
        [&boots[..], &[Boot::Cold]].concat()
    } else {
        boots
    };
    let tools = Tools::ready(&boots)?;
    let versions = Versions::find(&tools.stock, &tools.machine())?;

    let total = of_topologies.len() + of_sizes.len() + if plan.vms { vms::BOOTS } else { 0 };
    let mut counter = Counter { done: 0, total };
    let topologies = cases(&tools, of_topologies, &mut counter)?;
    let sizes = cases(&tools, of_sizes, &mut counter)?;
    let virtual_machines = if plan.vms {
        vms::measure(&tools, &mut counter)?
    } else {
        Vec::new()
    };
    let results = Results {
        schema: SCHEMA.into(),
        versions,
        topologies,
        sizes,
        virtual_machines,
        boards,
    };
    print!("{}", page::text(&results));
    println!();
    tell_whether_counts_repeat(&results);
    if let Some(directory) = options.directory() {
        write(&results, &directory, options.output.is_none())?;
    }
    println!(
        "{} boots in {} seconds",
        counter.done,
        began.elapsed().as_secs()
    );
    Ok(())
}

/// How many boots are done.
struct Counter {
    done: usize,
    total: usize,
}

impl Counter {
    /// Says that the next one begins, which is called `what`.
    fn next(&mut self, what: &str) -> Step {
        self.done += 1;
        Step::begin(&format!("[{}/{}] {what}", self.done, self.total))
    }

    /// Says that `step`, which began at `began`, is done, and `what` it showed.
    fn end(&self, step: Step, what: &str, began: Instant) {
        let seconds = began.elapsed().as_secs();
        let (done, total) = (self.done, self.total);
        step.end(&format!("[{done}/{total}] {what} ({seconds} s)"));
    }
}

/// Does `tasks`, and puts what they show together, by topology.
fn cases(tools: &Tools, tasks: Vec<Task>, counter: &mut Counter) -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    for task in tasks {
        let name = &task.topology.name;
        let began = Instant::now();
        let step = counter.next(&format!("{name}: {}", task.boot.title()));
        let kexec = task.peers.contains(&Peer::LinuxAfterKexec);
        let recording = tools.boot(task.boot, &task.topology, kexec)?;
        if cases.last().is_none_or(|case| case.name != *name) {
            cases.push(Case {
                name: name.clone(),
                description: task.topology.description.clone(),
                functions: None,
                heap_peak_bytes: None,
                peers: Vec::new(),
            });
        }
        let Some(case) = cases.last_mut() else {
            continue;
        };
        let seen = add(case, &recording, &task.peers)?;
        counter.end(step, &format!("{name}: {seen}"), began);
    }
    for case in &mut cases {
        case.peers.sort_by_key(|row| row.peer);
    }
    Ok(cases)
}

/// Adds to `case` what `recording` shows of `peers`, and says what that is.
fn add(case: &mut Case, recording: &Recording, peers: &[Peer]) -> Result<String> {
    if let Some(report) = &recording.report {
        case.functions = Some(report.functions.len() as u64);
        case.heap_peak_bytes = Some(report.machine.heap_peak_bytes);
    }
    let log = &recording.log;
    let mut seen = Vec::new();
    for &peer in peers {
        let part = peer.part(&log.said, log.trace.len())?;
        let measure = Measure::of(log, part);
        seen.push(format!(
            "{} {} + {}",
            peer.title(),
            measure.reads,
            measure.writes
        ));
        case.peers.push(Row { peer, measure });
    }
    Ok(seen.join("; "))
}

/// Compares with the results that are written down.
fn tell_whether_counts_repeat(results: &Results) {
    let Ok(before) = Results::load(&paths::root().join(DIRECTORY).join(JSON)) else {
        return;
    };
    let (compared, differences) = results.compare(&before);
    for difference in &differences {
        println!("differs: {difference}");
    }
    let same = compared - differences.len();
    println!("{same} of {compared} counts are those of {DIRECTORY}/{JSON}");
}

/// The files that show `results`, by name.
fn files(results: &Results) -> Result<Vec<(&'static str, String)>> {
    let mut files = vec![
        (JSON, results.json()?),
        ("README.md", page::markdown(results)),
    ];
    if !results.topologies.is_empty() {
        files.push(("topologies.svg", plot::topologies(results)?));
    }
    if !results.sizes.is_empty() {
        files.push(("sizes.svg", plot::sizes(results)?));
    }
    Ok(files)
}

/// Writes `results` to `directory`, and to the README of the project if
/// `readme` says so.
fn write(results: &Results, directory: &Path, readme: bool) -> Result<()> {
    let put = |file: &Path, text: &str| {
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    };
    for (name, text) in files(results)? {
        put(&directory.join(name), &text)?;
    }
    if readme {
        let file = paths::root().join("README.md");
        let old = fs::read_to_string(&file)?;
        let new = page::readme(&old, results).context("the README has no place for the results")?;
        put(&file, &new)?;
    }
    println!("wrote {}", directory.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_read_is_what_the_results_say() {
        let directory = paths::root().join(DIRECTORY);
        let results = Results::load(&directory.join(JSON)).unwrap();
        for (name, text) in files(&results).unwrap() {
            let written = fs::read_to_string(directory.join(name)).unwrap();
            assert!(written == text, "{DIRECTORY}/{name} is not made of {JSON}");
        }
        let readme = fs::read_to_string(paths::root().join("README.md")).unwrap();
        let made = page::readme(&readme, &results).expect("the README has its marks");
        assert!(
            readme == made,
            "the README does not show {DIRECTORY}/{JSON}"
        );
    }

    #[test]
    fn one_boot_shows_all_that_it_can() {
        let plan = Plan {
            topologies: Vec::new(),
            sizes: vec![64, 2048],
            peers: Peer::ALL.into(),
            vms: false,
        };
        let tasks = plan.of_sizes();
        let boots: Vec<_> = tasks
            .iter()
            .map(|task| (task.boot, task.peers.len()))
            .collect();
        assert_eq!(
            boots,
            [
                (Boot::UBoot, 1),
                (Boot::Edk2, 1),
                (Boot::Stock, 1),
                (Boot::Chain, 2),
                (Boot::Stock, 1),
                (Boot::Chain, 2),
            ]
        );
    }
}

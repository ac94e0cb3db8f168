//! `cargo xtask bench`: the accesses to configuration space of firmware and
//! kernels, counted in one way. `docs/benchmark.md` documents it.

pub mod attribution;
pub mod board_reports;
mod boots;
mod canvas;
pub mod contender;
mod counts;
pub mod instructions;
mod markdown;
pub mod measure;
mod plan;
mod plot;
mod published;
pub mod results;
pub mod sizes;
mod table;
pub mod time;
mod time_boots;
mod time_guest;
mod time_kernel;
mod time_plot;
mod time_table;
mod u_boot;
pub mod versions;
mod vms;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::progress::Progress;
use crate::{UsageError, build, paths, setup, topology};

use board_reports::Board;
use boots::{Recording, Tools};
use contender::{Boot, Contender};
use instructions::Instructions;
use measure::Measure;
use plan::{Plan, Task};
use results::{Case, Results, Row, SCHEMA};
use time::{Peer, Times};
use versions::Versions;

/// The directory of the published results, below the root.
const DIRECTORY: &str = "bench/results";
/// The name of the results there.
const JSON: &str = "bench.json";
/// The machine whose functions virtual machines get.
const MACHINES: &str = "fan";
/// The topology that hosts of virtual machines have.
const HOST: &str = "sriov";
/// The page with the tables of times.
const PAGE: &str = "docs/benchmark.md";

/// What to measure and where to write it.
#[derive(Debug, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
#[command(after_help = "\
Examples:
  cargo xtask bench
  cargo xtask bench --all
  cargo xtask bench --quick
  cargo xtask bench --topology fan --contender linux-stock,linux-after-warmbus
  cargo xtask bench --sizes 8,64,512 --topology none
  cargo xtask bench --report my-board.json
  cargo xtask bench --render
  cargo xtask bench --quick --output results && jq .topologies results/bench.json

Without options that restrict it, the run replaces the results in bench/results
and the part of the README that is generated from them.")]
pub struct Options {
    /// Topologies to boot, those of boards/qemu-virt/topologies or files of QEMU
    /// arguments, or `none` [default: all four]
    #[arg(long, value_name = "NAME|FILE,...", value_delimiter = ',')]
    topology: Vec<String>,

    /// Firmware and kernels to measure: u-boot, edk2, warmbus, linux-stock,
    /// linux-cold, linux-after-warmbus, linux-after-kexec [default: all]
    #[arg(long, alias = "peer", value_name = "CONTENDER,...", value_delimiter = ',', value_parser = Contender::parse)]
    contender: Vec<Contender>,

    /// Numbers of functions of the scaling runs, 1 to 2224, or 0 for none
    /// [default: 8,64,512,2048, none with other restrictions]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(0..=2224))]
    sizes: Vec<u32>,

    /// Include the start of a virtual machine for each function in a restricted
    /// run
    #[arg(long)]
    vms: bool,

    /// Measure the smallest topology only, with stock Linux, Warmbus and the
    /// two kernels after it
    #[arg(long, conflicts_with_all = ["topology", "contender", "sizes", "vms"])]
    quick: bool,

    /// Add a row for the machine of a report, schema warmbus-report/1
    #[arg(long, value_name = "FILE", num_args = 1..)]
    report: Vec<PathBuf>,

    /// Count the instructions of the firmware only, and replace those in
    /// bench/results/instructions.json
    #[arg(long, conflicts_with_all = ["topology", "contender", "sizes", "vms", "quick", "report", "render", "output"])]
    instructions: bool,

    /// Count the accesses by kind of function only, and replace those in
    /// bench/results/counts.json, with which `warmbus survey` forecasts
    #[arg(long, conflicts_with_all = ["topology", "contender", "sizes", "vms", "quick", "report", "render", "output", "instructions"])]
    counts: bool,

    /// Count instructions and accesses to the first process, each boot twice, and
    /// replace bench/results/time.json and the tables of docs/benchmark.md
    #[arg(long, conflicts_with_all = ["topology", "contender", "sizes", "vms", "quick", "report", "render", "output", "instructions", "counts"])]
    time: bool,

    /// Measure everything that is in bench/results: what a run without options does,
    /// --instructions, --counts and --time
    #[arg(long, conflicts_with_all = ["topology", "contender", "sizes", "vms", "quick", "report", "render", "output", "instructions", "counts", "time"])]
    all: bool,

    /// Boot nothing: generate pages and plots from the published results
    #[arg(long, conflicts_with_all = ["topology", "contender", "sizes", "vms", "quick", "report"])]
    render: bool,

    /// Write bench.json, README.md and the plots to this directory instead
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

impl Options {
    /// Whether no option restricts the run.
    fn everything(&self) -> bool {
        !self.quick
            && !self.vms
            && self.topology.is_empty()
            && self.contender.is_empty()
            && self.sizes.is_empty()
    }

    /// The directory for the results, if they are kept.
    fn directory(&self) -> Option<PathBuf> {
        let usual = || self.everything().then(|| paths::root().join(DIRECTORY));
        self.output.clone().or_else(usual)
    }
}

/// Measures what `options` select, prints the results and writes them.
pub fn run(options: &Options) -> Result<()> {
    if options.all {
        let began = Instant::now();
        count_accesses(options)?;
        count_instructions()?;
        counts::run()?;
        time_boots()?;
        println!("everything in {} seconds", began.elapsed().as_secs());
        return Ok(());
    }
    if options.render {
        let results = Results::load(&paths::root().join(DIRECTORY).join(JSON))?;
        let directory = options
            .directory()
            .context("no directory for the results")?;
        if options.output.is_none() {
            write_times(&Times::published()?)?;
        }
        return write(&results, &directory, options.output.is_none());
    }
    if options.instructions {
        return count_instructions();
    }
    if options.counts {
        return counts::run();
    }
    if options.time {
        return time_boots();
    }
    count_accesses(options)
}

/// Counts the accesses of firmware and kernels.
fn count_accesses(options: &Options) -> Result<()> {
    let began = Instant::now();
    let plan = Plan::of(options)?;
    let boards = options
        .report
        .iter()
        .map(|file| Board::load(file))
        .collect::<Result<_>>()?;
    if let Some(directory) = options.directory() {
        fs::create_dir_all(&directory).map_err(|error| {
            UsageError(format!("cannot create {}: {error}", directory.display()))
        })?;
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
    print!("{}", markdown::text(&results));
    println!();
    print_comparison(&results);
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

/// Counts the instructions of the firmware, prints what rose, and keeps them.
fn count_instructions() -> Result<()> {
    let toolchain = setup::ensure(setup::Purpose::Test)?;
    let image = build::firmware(&toolchain)?;
    let step = Progress::begin("counting the instructions of the firmware");
    let now = Instructions::measure(&image)?;
    step.end("counted the instructions of the firmware");
    for (topology, phases) in &now.topologies {
        for (phase, taken) in phases {
            println!("{topology:6} {phase:16} {taken:>12}");
        }
        println!(
            "{topology:6} {:16} {:>12}",
            "all",
            phases.values().sum::<u64>()
        );
    }
    if let Ok(before) = Instructions::published() {
        now.rises(&before)
            .iter()
            .for_each(|rise| println!("more: {rise}"));
    }
    now.publish()
}

/// Measures every boot in time twice, which has to be the same, and keeps it.
fn time_boots() -> Result<()> {
    let began = Instant::now();
    let toolchain = setup::ensure(setup::Purpose::Test)?;
    let image = build::firmware(&toolchain)?;
    let topologies = topology::all()?;
    let sizes = sizes::SIZES.map(sizes::named_topology);
    let mut cases: Vec<_> = topologies.iter().map(time::Case::timed).collect();
    let named = |name| {
        topologies
            .iter()
            .find(move |topology| topology.name == name)
    };
    cases.extend(named(HOST).map(time::Case::host));
    cases.extend(sizes.iter().map(time::Case::size));
    cases.extend(named(MACHINES).map(time::Case::machines));
    let total = 2 * cases.iter().map(|case| case.peers.len()).sum::<usize>();
    let mut boot = 0;
    let mut run = || {
        Times::measure(&image, &cases, |case, peer| {
            boot += 1;
            println!("[{boot}/{total}] {}: {}", case.name(), peer.title());
        })
    };
    let (first, second) = (run()?, run()?);
    let differences = second.differences(&first);
    ensure!(
        differences.is_empty(),
        "two runs differ: {}",
        differences.join("; ")
    );
    println!("{}", time_table::text(&first));
    if let Ok(before) = Times::published() {
        for change in first.differences(&before) {
            println!("differs: {change}");
        }
    }
    first.publish()?;
    write_times(&first)?;
    println!("each boot twice in {} seconds", began.elapsed().as_secs());
    Ok(())
}

/// The plots of `times`, by the names of their files.
fn time_plots(times: &Times) -> Result<[(&'static str, String); 5]> {
    use time_plot::{BOOTS, KEXEC, MACHINES, UEFI};
    let machines = MACHINES.map(String::from);
    let boots = |title, peers| time_plot::boots(times, title, &machines, peers);
    let sizes = time_plot::boots(
        times,
        "From power-on to the first process, by the number of functions",
        &sizes::SIZES.map(sizes::name),
        &Peer::OF_A_SIZE,
    )?;
    Ok([
        (
            "times.svg",
            boots(
                "From power-on to the first process, of a host to all virtual functions",
                &BOOTS,
            )?,
        ),
        (
            "uefi.svg",
            boots("From power-on to the first process, behind EDK2", &UEFI)?,
        ),
        (
            "kexec.svg",
            boots(
                "From kexec to the first process, of a host to all virtual functions",
                &KEXEC,
            )?,
        ),
        ("time-sizes.svg", sizes),
        (
            "machines.svg",
            time_plot::machines(times, "Starts of virtual machines, without their waits")?,
        ),
    ])
}

/// Writes the plots of `times`, and its tables to the page of the benchmark.
fn write_times(times: &Times) -> Result<()> {
    for (name, plot) in time_plots(times)? {
        let file = paths::root().join(DIRECTORY).join(name);
        fs::write(&file, plot).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let file = paths::root().join(PAGE);
    let old = fs::read_to_string(&file)?;
    let new = time_table::page(&old, times);
    let new = new.with_context(|| format!("{PAGE} has no marks for the times"))?;
    fs::write(&file, new).with_context(|| format!("cannot write {PAGE}"))
}

/// The number of boots that are complete.
struct Counter {
    done: usize,
    total: usize,
}

impl Counter {
    /// Prints that the next boot, `what`, begins.
    fn next(&mut self, what: &str) -> Progress {
        self.done += 1;
        Progress::begin(&format!("[{}/{}] {what}", self.done, self.total))
    }

    /// Prints that `step`, which began at `began`, is complete, with its result.
    fn end(&self, step: Progress, what: &str, began: Instant) {
        let seconds = began.elapsed().as_secs();
        let (done, total) = (self.done, self.total);
        step.end(&format!("[{done}/{total}] {what} ({seconds} s)"));
    }
}

/// Runs `tasks` and groups their results by topology.
fn cases(tools: &Tools, tasks: Vec<Task>, counter: &mut Counter) -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    for task in tasks {
        let name = &task.topology.name;
        let began = Instant::now();
        let step = counter.next(&format!("{name}: {}", task.boot.title()));
        let kexec = task.contenders.contains(&Contender::LinuxAfterKexec);
        let recording = tools.boot(task.boot, &task.topology, kexec)?;
        if cases.last().is_none_or(|case| case.name != *name) {
            cases.push(Case {
                name: name.clone(),
                description: task.topology.description.clone(),
                functions: None,
                heap_peak_bytes: None,
                contenders: Vec::new(),
            });
        }
        let Some(case) = cases.last_mut() else {
            continue;
        };
        let seen = add(case, &recording, &task.contenders)?;
        counter.end(step, &format!("{name}: {seen}"), began);
    }
    for case in &mut cases {
        case.contenders.sort_by_key(|row| row.contender);
    }
    Ok(cases)
}

/// Adds the counts of `contenders` in `recording` to `case`. Returns them as text.
fn add(case: &mut Case, recording: &Recording, contenders: &[Contender]) -> Result<String> {
    if let Some(report) = &recording.report {
        case.functions = Some(report.functions.len() as u64);
        case.heap_peak_bytes = Some(report.machine.heap_peak_bytes);
    }
    let log = &recording.log;
    let mut seen = Vec::new();
    for &contender in contenders {
        let part = attribution::accesses_of(contender, &log.console, log.trace.len())?;
        let measure = Measure::of(log, part);
        seen.push(format!(
            "{} {} + {}",
            contender.title(),
            measure.reads,
            measure.writes
        ));
        case.contenders.push(Row { contender, measure });
    }
    Ok(seen.join("; "))
}

/// Compares the counts with the published results.
fn print_comparison(results: &Results) {
    let Ok(before) = Results::load(&paths::root().join(DIRECTORY).join(JSON)) else {
        return;
    };
    let (compared, differences) = results.compare(&before);
    for difference in &differences {
        println!("differs: {difference}");
    }
    let same = compared - differences.len();
    println!("{same} of {compared} counts equal those in {DIRECTORY}/{JSON}");
}

/// The files for `results`, by name.
fn files(results: &Results) -> Result<Vec<(&'static str, String)>> {
    let mut files = vec![
        (JSON, results.json()?),
        ("README.md", markdown::markdown(results)),
    ];
    if !results.topologies.is_empty() {
        files.push(("topologies.svg", plot::topologies(results)?));
    }
    if !results.sizes.is_empty() {
        files.push(("sizes.svg", plot::sizes(results)?));
    }
    Ok(files)
}

/// Writes `results` to `directory` and, with `readme`, to the README of the
/// project.
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
        let new =
            markdown::readme(&old, results).context("the README has no marks for the results")?;
        put(&file, &new)?;
    }
    println!("wrote {}", directory.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_plots_are_generated_from_the_published_results() {
        let directory = paths::root().join(DIRECTORY);
        let results = Results::load(&directory.join(JSON)).unwrap();
        let times = Times::published().unwrap();
        let plots = time_plots(&times).unwrap();
        for (name, text) in files(&results).unwrap().into_iter().chain(plots) {
            let written = fs::read_to_string(directory.join(name)).unwrap();
            assert!(
                written == text,
                "{DIRECTORY}/{name} was not generated from the results"
            );
        }
        let readme = fs::read_to_string(paths::root().join("README.md")).unwrap();
        let made = markdown::readme(&readme, &results).expect("the README has its marks");
        assert!(
            readme == made,
            "the README does not show {DIRECTORY}/{JSON}"
        );
        let page = fs::read_to_string(paths::root().join(PAGE)).unwrap();
        let made = time_table::page(&page, &times);
        assert_eq!(Some(page), made, "{PAGE} does not show the published times");
    }
}

//! What it costs to start a virtual machine for each function.
//!
//! The test Linux takes each function that is no bridge from its driver, gives
//! it to `vfio-pci`, opens it, resets it, reads and writes its configuration
//! space as the monitor of a virtual machine and a guest in it do, and gives it
//! back. Between two marks in the trace there is nothing but that.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::Counter;
use super::boots::{Recording, Tools};
use super::measure::{Measure, mark};
use super::results::VirtualMachines;
use crate::qemu::{Log, Machine};
use crate::topology::Topology;
use crate::trace::Access;

/// Topologies, and the steps of the test Linux that come first: on `sriov` every
/// device gets some virtual functions.
const CASES: [(&str, &str); 2] = [("fan", ""), ("sriov", "vfs:4,")];
/// How many boots it takes.
pub(super) const BOOTS: usize = 2 * CASES.len();
/// With what each line starts that tells a counter of the cache.
const COUNTER: &str = "warmbus: linux: cache ";
/// With what each line starts that tells that a function was given away.
const GIVEN: &str = "warmbus: linux: a virtual machine had ";

/// Measures it with a stock kernel, and with one that has the cache and was
/// started by Warmbus.
pub(super) fn measure(tools: &Tools, counter: &mut Counter) -> Result<Vec<VirtualMachines>> {
    let mut all = Vec::new();
    for (name, first) in CASES {
        let topology = Topology::load(name)?;
        let stock = format!("{first}mark:1,vms,mark:2");
        let stock = tools.linux_alone(&tools.stock, &stock);
        let cached = tools.after_warmbus(&format!("{first}cache,mark:1,vms,mark:2,cache"))?;
        let mut boot = |machine: Machine, what: &str| -> Result<Recording> {
            let began = Instant::now();
            let what = format!("{name}: virtual machines, {what}");
            let step = counter.next(&what);
            let machine = machine.machine_option("iommu=smmuv3");
            let recording = Tools::linux(machine, &topology).context(what.clone())?;
            counter.end(step, &what, began);
            Ok(recording)
        };
        let stock = boot(stock, "stock Linux")?;
        let cached = boot(cached, "Linux after Warmbus")?;
        let functions = given(&cached.console);
        let same = given(&stock.console);
        ensure!(
            functions == same && functions > 0,
            "{name}: {same} functions were given away by a stock kernel, {functions} by the other"
        );
        let passed_on = ["misses", "passed", "unknown"].map(|what| grown(&cached.console, what));
        all.push(VirtualMachines {
            name: name.to_owned(),
            functions,
            stock: between_marks(&stock.log)?,
            cached: between_marks(&cached.log)?,
            hits: grown(&cached.console, "hits")?,
            passed_on: passed_on.into_iter().sum::<Result<u64>>()?,
        });
    }
    Ok(all)
}

/// How many functions were given to a virtual machine.
fn given(console: &[String]) -> u64 {
    console
        .iter()
        .filter(|line| line.starts_with(GIVEN))
        .count() as u64
}

/// By how much the counter `name` is larger at the end than it was at first.
fn grown(console: &[String], name: &str) -> Result<u64> {
    let told = console.iter().filter_map(|line| {
        let (counter, value) = line.strip_prefix(COUNTER)?.split_once(' ')?;
        (counter == name).then(|| value.trim().parse::<u64>())
    });
    let told: Vec<u64> = told.collect::<Result<_, _>>()?;
    let [before, after] = told[..] else {
        let times = told.len();
        anyhow::bail!("Linux told the counter {name:?} {times} times, not before and after");
    };
    Ok(after - before)
}

/// What was done between the marks 1 and 2.
fn between_marks(log: &Log) -> Result<Measure> {
    let place = |number: u16| {
        let is_it = |line: &String| Access::parse(line).as_ref().and_then(mark) == Some(number);
        let place = log.trace.iter().position(is_it);
        place.with_context(|| format!("mark {number} is not in the trace"))
    };
    Ok(Measure::of(log, [place(1)?, place(2)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_told_before_and_after() {
        let console = [
            "warmbus: linux: cache hits 100",
            "warmbus: linux: cache misses 7",
            "warmbus: linux: a virtual machine had 0000:01:00.0",
            "warmbus: linux: cache hits 150",
        ]
        .map(str::to_owned);
        assert_eq!(grown(&console, "hits").unwrap(), 50);
        assert!(grown(&console, "misses").is_err());
        assert_eq!(given(&console), 1);
    }

    #[test]
    fn only_what_is_between_the_marks_counts() {
        let line = |addr: u32, size: u32| {
            format!(
                "memory_region_ops_read cpu 0 mr 0x1 addr {addr:#x} value 0xff size {size} name 'pcie-mmcfg-mmio'"
            )
        };
        let log = Log {
            trace: vec![
                line(0, 4),
                line(0x0fff_f001, 1),
                line(8, 4),
                line(12, 4),
                line(0x0fff_f002, 1),
                line(8, 4),
            ],
            ..Log::default()
        };
        assert_eq!(between_marks(&log).unwrap().reads, 2);
        assert!(between_marks(&Log::default()).is_err());
    }
}

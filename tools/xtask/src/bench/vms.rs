//! The configuration accesses of a virtual machine start for each function.
//!
//! The test Linux unbinds each function that is not a bridge from its driver,
//! binds it to `vfio-pci`, opens it, resets it, reads and writes its
//! configuration space as the monitor of a virtual machine and a guest do, and
//! binds its driver again. Two marks in the trace enclose these accesses.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use warmbus_cli::trace::Access;

use super::Counter;
use super::boots::{Recording, Tools};
use super::measure::{Measure, mark};
use super::results::VirtualMachines;
use crate::qemu::{Log, Machine};
use crate::topology::Topology;

/// Topologies, the step that precedes, and the step that assigns functions to
/// virtual machines: all but bridges, or all virtual functions.
const CASES: [[&str; 3]; 2] = [["fan", "", "vms"], ["sriov", "vfs:2,", "vms_of_vfs"]];
/// Configuration space that monitors read before a guest starts.
const MONITORS: [&str; 2] = ["needed", "whole"];
/// The number of boots.
pub(super) const BOOTS: usize = 2 * CASES.len();
/// The start of each line with a counter of the cache.
const COUNTER: &str = "warmbus: linux: cache ";
/// The start of each line with a function that was assigned.
const ASSIGNED: &str = "warmbus: linux: a virtual machine had ";

/// Measures a stock kernel, and a kernel with the cache that Warmbus started.
pub(super) fn measure(tools: &Tools, counter: &mut Counter) -> Result<Vec<VirtualMachines>> {
    let mut all = Vec::new();
    for [name, first, step] in CASES {
        let topology = Topology::load(name)?;
        let steps = |counters: &str| {
            let [needed, whole] = MONITORS.map(|monitor| format!("{step}:{monitor}"));
            format!(
                "{first}{counters}mark:1,{needed},mark:2,{counters}{whole},mark:3,{counters}summary"
            )
        };
        let stock = tools.linux_alone(&tools.stock, &steps(""));
        let cached = tools.after_warmbus(&steps("cache,"))?;
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
        let assigned = [&stock, &cached].map(|boot| assigned_functions(&boot.console));
        ensure!(
            assigned[0] == assigned[1] && assigned[0] > 0,
            "{name}: {} functions were assigned by a stock kernel, {} by the other",
            assigned[0],
            assigned[1]
        );
        for (number, monitor) in MONITORS.into_iter().enumerate() {
            let grown = |what| grown(&cached.console, what, number);
            let marks = [1, 2].map(|mark| mark + number as u16);
            all.push(VirtualMachines {
                name: name.to_owned(),
                functions: assigned[0] / MONITORS.len() as u64,
                monitor: monitor.to_owned(),
                stock: between(&stock.log, marks)?,
                cached: between(&cached.log, marks)?,
                hits: grown("hits")?,
                passed_on: grown("passed")?,
            });
        }
    }
    Ok(all)
}

/// The number of functions that were assigned to a virtual machine.
fn assigned_functions(console: &[String]) -> u64 {
    console
        .iter()
        .filter(|line| line.starts_with(ASSIGNED))
        .count() as u64
}

/// The difference of the counter `name` between its `number`th value on the
/// console, counted from 0, and the next one.
fn grown(console: &[String], name: &str, number: usize) -> Result<u64> {
    let values = console.iter().filter_map(|line| {
        let (counter, value) = line.strip_prefix(COUNTER)?.split_once(' ')?;
        (counter == name).then(|| value.trim().parse::<u64>())
    });
    let values: Vec<u64> = values.collect::<Result<_, _>>()?;
    let Some(&[before, after]) = values.get(number..number + 2) else {
        bail!(
            "Linux printed the counter {name:?} only {} times",
            values.len()
        );
    };
    let grown = after.checked_sub(before);
    grown.with_context(|| format!("the counter {name:?} went from {before} to {after}"))
}

/// The accesses between two marks.
pub(super) fn between(log: &Log, marks: [u16; 2]) -> Result<Measure> {
    let place = |number: u16| {
        let is_it = |line: &String| Access::parse(line).as_ref().and_then(mark) == Some(number);
        let place = log.trace.iter().position(is_it);
        place.with_context(|| format!("mark {number} is not in the trace"))
    };
    let [from, to] = marks.map(place);
    Ok(Measure::of(log, [from?, to?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_of_a_counter_is_between_two_of_its_lines() {
        let console = [
            "warmbus: linux: cache hits 100",
            "warmbus: linux: cache misses 7",
            "warmbus: linux: a virtual machine had 0000:01:00.0",
            "warmbus: linux: cache hits 150",
        ]
        .map(str::to_owned);
        assert_eq!(grown(&console, "hits", 0).unwrap(), 50);
        assert!(grown(&console, "misses", 0).is_err());
        assert_eq!(assigned_functions(&console), 1);
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
        assert_eq!(between(&log, [1, 2]).unwrap().reads, 2);
        assert!(between(&Log::default(), [1, 2]).is_err());
    }
}

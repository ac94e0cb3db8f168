//! Many functions: what one of them costs does not depend on how many there are.

use std::collections::BTreeMap;

use warmbus_boot::report::console::Outcome;
use warmbus_qemu_tests::boot::{self, Lab};
use warmbus_qemu_tests::consumer;
use warmbus_qemu_tests::debugger::Debugger;
use warmbus_qemu_tests::linux::payload;
use warmbus_qemu_tests::prove;
use warmbus_qemu_tests::tree::Tree;
use xtask::bench::sizes;
use xtask::qemu::{Machine, Payload};
use xtask::test;
use xtask::topology::Topology;

/// The parts of a boot whose work is in functions; others wait, or depend on the
/// kernel only.
const PHASES: [&str; 8] = [
    "enumerate",
    "assign",
    "capture",
    "vfs",
    "check",
    "vf-routing",
    "kho",
    "handover-check",
];

/// Devices that QEMU makes of each controller of the topology `vfs`: a root
/// port, a subsystem, the controller.
const DEVICES: usize = 3;

/// So many controllers with 127 virtual functions each.
fn controllers(count: usize) -> Topology {
    boot::topology("vfs").first(DEVICES * count)
}

/// A machine whose firmware does all of its work for a Linux that reads the cache.
fn machine(topology: &Topology) -> Machine {
    Machine::kernel(boot::image())
        .topology(topology)
        .bootargs("warmbus.vfs=all")
        .payload(payload(consumer::kernel(), "cache"))
}

/// Instructions that each of the [`PHASES`] takes for one function.
fn instructions(topology: &Topology) -> BTreeMap<&'static str, u64> {
    let lab = Lab::new();
    let boot = lab
        .boot_in_instructions(machine(topology))
        .expect("it boots");
    prove::ended_well(&boot);
    let report = boot.report();
    let functions = report["functions"].as_array().expect("functions").len();
    let phases = report["phases"].as_array().expect("phases");
    let costs = PHASES.into_iter().filter_map(|name| {
        let phase = phases.iter().find(|phase| phase["name"] == name)?;
        Some((name, phase["nanoseconds"].as_u64()? / functions as u64))
    });
    let costs = costs.collect();
    let heap = boot.number("/machine/heap_peak_bytes") / functions as u64;
    println!(
        "{}: {functions} functions, instructions for each: {costs:?}, {heap} bytes of heap",
        topology.name
    );
    costs
}

fn is_within_a_fifth(cost: u64, of: u64) -> bool {
    cost.abs_diff(of) <= of / 5
}

/// What a function costs on the larger machines is what it costs on the first, to
/// a twentieth, and not much anywhere.
fn is_linear(topologies: &[Topology]) {
    let costs: Vec<u64> = topologies
        .iter()
        .map(|topology| instructions(topology).values().sum())
        .collect();
    for cost in &costs {
        assert!(cost.abs_diff(costs[0]) <= costs[0] / 20, "{costs:?}");
        assert!(*cost <= 100_000, "{costs:?}");
    }
}

#[test]
fn a_function_costs_the_same_instructions_however_many_there_are() {
    let sizes: &[u32] = if test::is_long() {
        &[64, 512, 2048]
    } else {
        &[64, 512]
    };
    let topologies: Vec<Topology> = sizes.iter().copied().map(sizes::topology).collect();
    is_linear(&topologies);
}

#[test]
fn a_virtual_function_costs_the_same_instructions_however_many_there_are() {
    let counts: &[usize] = if test::is_long() {
        &[1, 4, 32]
    } else {
        &[1, 4]
    };
    let topologies: Vec<Topology> = counts.iter().copied().map(controllers).collect();
    is_linear(&topologies);
}

/// Where the functions `names` of the kernel are while it is where it was linked.
fn symbols<const N: usize>(names: [&str; N]) -> [u64; N] {
    let steps = names.map(|name| format!("symbol:{name}")).join(",");
    let lab = Lab::new();
    let machine = Machine::kernel(boot::image())
        .topology(&controllers(1))
        .payload(linked(&steps));
    let linux = lab.boot_linux(machine).expect("it boots");
    let lines = consumer::said(&linux, "symbol ");
    names.map(|name| {
        let line = lines.iter().find_map(|line| line.strip_suffix(name));
        let digits = line.expect("the kernel has such a function").trim();
        u64::from_str_radix(digits, 16).expect("an address")
    })
}

/// The kernel that reads the cache, where it was linked.
fn linked(steps: &str) -> Payload {
    let mut payload = payload(consumer::kernel(), steps);
    payload.bootargs.push_str(" nokaslr");
    payload
}

/// Functions that Linux restores, and the instructions that it takes to unflatten
/// its device tree and to restore them.
fn restore(topology: &Topology, [unflatten, restore]: [u64; 2]) -> (u64, [u64; 2]) {
    let lab = Lab::new();
    let socket = lab.file("gdb");
    let machine = Machine::kernel(boot::image())
        .topology(topology)
        .bootargs("warmbus.vfs=all")
        .payload(linked("cache"))
        .arguments(Debugger::arguments(&socket))
        .arguments(["-S"]);
    let mut costs = [0; 2];
    let boot = lab.boot_in_instructions_with(machine, |running| {
        // The firmware runs until the first of them is there.
        let mut debugger = Debugger::stop(&socket)?;
        for (function, cost) in [unflatten, restore].into_iter().zip(&mut costs) {
            let caller = debugger.run_to(function)?.link()?;
            let before = running.qmp()?.instructions()?;
            debugger.run_to(caller)?;
            *cost = running.qmp()?.instructions()? - before;
        }
        debugger.go_on()
    });
    let boot = boot.expect("it boots, and Linux comes by");
    assert_eq!(boot.outcome, Some(Outcome::Ok));
    let functions = boot.report()["functions"].as_array().map_or(0, Vec::len) as u64;
    println!(
        "{functions} functions: {} instructions to unflatten the tree, {} to restore",
        costs[0], costs[1]
    );
    (functions, costs)
}

#[test]
fn linux_restores_each_function_in_fewer_instructions_than_a_node_of_its_tree_takes() {
    let nodes = Tree::of(&machine(&controllers(1)), &Lab::new()).nodes() as u64;
    println!("the tree has {nodes} nodes");
    let symbols = symbols(["unflatten_device_tree", "pcsc_restore"]);
    let counts: &[usize] = if test::is_long() {
        &[1, 4, 32]
    } else {
        &[1, 4]
    };
    let mut first = None;
    for &count in counts {
        let (functions, [unflatten, restore]) = restore(&controllers(count), symbols);
        assert!(restore / functions < unflatten / nodes);
        let each = restore / functions;
        assert!(each <= 3_550, "{each} instructions for each function");
        let first = *first.get_or_insert(each);
        assert!(is_within_a_fifth(each, first), "{each} after {first}");
    }
}

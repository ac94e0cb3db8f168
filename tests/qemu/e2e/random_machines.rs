//! Random machines whose host bridges have little space: whatever a Linux without the
//! firmware places has its place with it.
//!
//! One boot of Linux has many host bridges with a machine each. What `warmbus-pci`
//! assigns to the same machines is computed beside it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use warmbus_boot::report::console::Outcome;
use warmbus_boot::unassigned::unassigned_below;

use warmbus_pci::{
    AssignPolicy, BarKind, Function, PlainConfig, ScanPolicy, Topology, assign, enumerate,
};
use warmbus_pcie_sim::Fabric;
use warmbus_pcie_sim::proptest_config;
use warmbus_pcie_sim::random_machine::add_machine;
use warmbus_qemu_tests::boot::Lab;
use warmbus_qemu_tests::linux;
use warmbus_qemu_tests::simulated::stock::{Place, Sizes, Start, placed};
use xtask::test;

use crate::all_kernels;

/// Machines of one boot.
const OF_ONE_BOOT: usize = 32;
/// Machines of a test, and of a long one.
const FEW: u32 = 8;
const ALL: u32 = 2000;

/// The first resources that sysfs has of a bridge's windows.
const WINDOWS: u8 = 13;

/// What we make of the machines.
struct Ours {
    topology: Topology,
    /// Where each function is, and which of its BARs have an address.
    placed: BTreeMap<Place, Sizes>,
}

impl Ours {
    fn new(fabric: Fabric) -> Self {
        let mut clock = fabric.clock();
        let hosts = fabric.host_bridges();
        let mut config = PlainConfig::new(fabric);
        let topology = enumerate(&hosts, &ScanPolicy::default(), &mut config, &mut clock);
        let topology = assign(topology, &AssignPolicy::default(), &mut config).into_topology();
        let functions = topology.functions();
        let placed = functions
            .iter()
            .map(|function| (place(&topology, function), sizes(function)))
            .collect();
        Self { topology, placed }
    }

    /// The BARs of one segment that a function does not work without: those of memory,
    /// and where `io` all of them.
    fn needed(&self, segment: u16, io: bool) -> Vec<(Place, u8)> {
        let functions = self.topology.functions().iter();
        let functions = functions.filter(|function| function.sbdf.segment() == segment);
        let bars = functions.flat_map(|function| {
            let bars = function.bars.iter();
            let bars = bars.filter(|bar| row(bar.index) == 0 && (io || bar.kind != BarKind::Io));
            bars.map(|bar| (place(&self.topology, function), bar.index))
        });
        bars.collect()
    }
}

fn place(topology: &Topology, function: &Function) -> Place {
    let mut place = Vec::new();
    let mut next = Some(function);
    while let Some(function) = next {
        place.push(function.sbdf.devfn());
        next = function.parent.map(|parent| &topology.functions()[parent]);
    }
    place.reverse();
    (function.sbdf.segment(), place)
}

fn sizes(function: &Function) -> Sizes {
    let vfs = function.sriov.map_or(0, |sriov| u64::from(sriov.total_vfs));
    let placed = function.bars.iter().filter(|bar| bar.address.is_some());
    let sizes = placed.filter_map(|bar| {
        let count = match bar.kind {
            BarKind::VfMemory32 | BarKind::VfMemory64 => vfs,
            _ => 1,
        };
        Some((bar.index, bar.size? * count))
    });
    sizes.collect()
}

/// The index of a resource in the rows of a table.
fn row(index: u8) -> usize {
    match index {
        0..6 => 0,
        6 => 1,
        _ => 2,
    }
}

/// The resources of a function that are those of BARs, by their index.
fn bars(sizes: &Sizes) -> impl Iterator<Item = (&u8, &u64)> {
    sizes.iter().filter(|(index, _)| **index < WINDOWS)
}

/// How many of `bars` are placed.
fn count(placed: &BTreeMap<Place, Sizes>, bars: &[(Place, u8)]) -> usize {
    let is_placed = |(place, index): &&(Place, u8)| {
        let sizes = placed.get(place);
        sizes.is_some_and(|sizes| sizes.contains_key(index))
    };
    bars.iter().filter(is_placed).count()
}

/// What is in `theirs` of one segment and not in `ours`, in words.
fn missing(
    segment: u16,
    theirs: &BTreeMap<Place, Sizes>,
    ours: &BTreeMap<Place, Sizes>,
) -> Vec<(usize, String)> {
    let mut missing = Vec::new();
    for (place, sizes) in theirs.iter().filter(|((one, _), _)| *one == segment) {
        let Some(found) = ours.get(place) else {
            missing.push((0, format!("the function {:x?}", place.1)));
            continue;
        };
        for (index, size) in bars(sizes) {
            if found.get(index) != Some(size) {
                let text = format!("resource {index} of {:x?}, {size:#x} bytes", place.1);
                missing.push((row(*index), text));
            }
        }
    }
    missing
}

/// What became of the machines.
#[derive(Debug, Default)]
struct Table {
    machines: usize,
    /// All BARs have a place, with Linux alone and with us; and Linux is asked to
    /// keep what we assigned.
    complete: [usize; 3],
    functions: [usize; 2],
    /// Placed by Linux, by us, and by Linux but not by us: BARs, ROMs and VF BARs.
    bars: [[usize; 3]; 3],
    lost: Vec<String>,
}

impl Table {
    fn count(&mut self, theirs: &BTreeMap<Place, Sizes>, ours: &BTreeMap<Place, Sizes>) {
        for (column, placed) in [theirs, ours].into_iter().enumerate() {
            self.functions[column] += placed.len();
            for (index, _) in placed.values().flat_map(bars) {
                self.bars[row(*index)][column] += 1;
            }
        }
    }

    /// Adds what is missing of the machine number `case`.
    fn add_missing(&mut self, case: u64, missing: Vec<(usize, String)>) {
        for (row, text) in missing {
            self.bars[row][2] += 1;
            self.lost.push(format!("case {case}: {text}"));
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [linux, ours, kept] = self.complete;
        writeln!(
            f,
            "{} machines, {:?} functions",
            self.machines, self.functions
        )?;
        if kept > 0 {
            writeln!(f, "complete: {linux} by Linux, {ours} by us; kept: {kept}")?;
        }
        writeln!(f, "            by Linux    by us  by Linux only")?;
        for (name, row) in ["BARs", "ROMs", "VF BARs"].iter().zip(&self.bars) {
            writeln!(f, "{name:10}{:10}{:9}{:15}", row[0], row[1], row[2])?;
        }
        for line in &self.lost {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

/// The machines of `cases`, as many of them in one fabric as one boot has.
fn fabrics(cases: &[u64]) -> impl Iterator<Item = (Vec<u64>, Fabric)> {
    cases.chunks(OF_ONE_BOOT).map(|cases| {
        let mut fabric = Fabric::new();
        for (segment, case) in (0..).zip(cases) {
            add_machine(&mut fabric, segment, *case);
        }
        (cases.to_vec(), fabric)
    })
}

fn cases() -> Range<u64> {
    proptest_config::cases(if test::is_long() { ALL } else { FEW })
}

fn stock(fabric: Fabric) -> BTreeMap<Place, Sizes> {
    let lab = Lab::new();
    let boot = placed(fabric, &lab, Start::Linux, linux::kernel(), "");
    boot.expect("Linux starts").1
}

#[test]
fn whatever_linux_places_in_random_machines_is_placed() {
    let mut table = Table::default();
    let mut wrong = Vec::new();
    for (cases, fabric) in fabrics(&cases().collect::<Vec<_>>()) {
        let linux = stock(fabric.clone());
        let ours = Ours::new(fabric);
        table.count(&linux, &ours.placed);
        for (segment, case) in (0..).zip(cases) {
            // Ports below 0x1000 are not assigned here, and by Linux not always: where
            // an I/O BAR has no place for that, Linux assigns again.
            let [all, memory] = [true, false].map(|io| ours.needed(segment, io));
            let complete = [&linux, &ours.placed].map(|placed| count(placed, &all) == all.len());
            let counts = [&linux, &ours.placed].map(|placed| count(placed, &memory));
            let is_kept = unassigned_below(&ours.topology, segment.into()).is_none();
            let missing = missing(segment, &linux, &ours.placed);
            table.machines += 1;
            for (sum, is) in table
                .complete
                .iter_mut()
                .zip([complete[0], complete[1], is_kept])
            {
                *sum += usize::from(is);
            }
            if counts[1] < counts[0] || is_kept && !missing.is_empty() {
                wrong.push(format!("case {case}: {counts:?}, {is_kept}, {missing:?}"));
            }
            table.add_missing(case, missing);
        }
    }
    println!("{table}");
    assert_eq!(wrong, [""; 0]);
    assert!(
        table.bars.iter().all(|[by_linux, ..]| *by_linux > 0),
        "{table}"
    );
}

/// Whether Linux keeps the bus numbers below each host bridge of the machine number
/// `case`.
fn keeps_bus_numbers(case: u64) -> bool {
    let mut fabric = Fabric::new();
    add_machine(&mut fabric, 0, case);
    let unassigned = unassigned_below(&Ours::new(fabric).topology, 0);
    !unassigned.is_some_and(|unassigned| unassigned.reason.affects_bus_numbers())
}

#[test]
fn what_linux_places_in_random_machines_it_places_with_the_firmware() {
    let mut table = Table::default();
    // It keeps them everywhere or nowhere, and has no use for the cache then.
    let (kept, renumbered): (Vec<u64>, Vec<u64>) =
        cases().partition(|case| keeps_bus_numbers(*case));
    for (cases, is_kept) in [(kept, true), (renumbered, false)] {
        for (cases, fabric) in fabrics(&cases) {
            let linux = stock(fabric.clone());
            let lab = Lab::new();
            let boot = placed(fabric, &lab, Start::Firmware, linux::kernel(), "");
            let (boot, ours) = boot.expect("the firmware starts Linux");
            let console = boot.boot.console.join("\n");
            assert_eq!(boot.boot.outcome, Some(Outcome::Ok), "{console}");
            let with = if is_kept {
                ", with the cache"
            } else {
                ", without the cache"
            };
            let lines = boot.boot.lines_with(&["starting linux at", with]);
            assert_eq!(lines.len(), 1, "{console}");
            table.count(&linux, &ours);
            for (segment, case) in (0..).zip(cases) {
                table.machines += 1;
                table.add_missing(case, missing(segment, &linux, &ours));
            }
        }
    }
    println!("{table}");
    assert_eq!(table.lost, [""; 0]);
}

#[test]
#[ignore = "needs `--kernels DIR`"]
fn every_kernel_places_with_the_firmware_what_it_places_alone() {
    let cases: Vec<u64> = cases().filter(|case| keeps_bus_numbers(*case)).collect();
    let mut lost = Vec::new();
    println!("Linux        machines  functions       BARs, alone and with the firmware");
    for (file, version) in all_kernels::with_that_of_debian() {
        let mut table = Table::default();
        for (cases, fabric) in fabrics(&cases) {
            let boot = |start| {
                let boot = placed(fabric.clone(), &Lab::new(), start, &file, "");
                boot.unwrap_or_else(|error| panic!("Linux {version}, {start:?}: {error:?}"))
                    .1
            };
            let [alone, ours] = [Start::Linux, Start::Firmware].map(boot);
            table.count(&alone, &ours);
            table.machines += cases.len();
            for (segment, case) in (0..).zip(cases) {
                table.add_missing(case, missing(segment, &alone, &ours));
            }
        }
        let bars = [0, 1].map(|column| table.bars.iter().map(|row| row[column]).sum::<usize>());
        println!(
            "{version:12} {:8} {:>10} {:>10}",
            table.machines,
            format!("{:?}", table.functions),
            format!("{bars:?}")
        );
        lost.extend(
            table
                .lost
                .into_iter()
                .map(|line| format!("{version}: {line}")),
        );
    }
    assert_eq!(lost, [""; 0]);
}

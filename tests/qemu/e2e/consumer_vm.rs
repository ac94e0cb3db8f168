//! The start and end of virtual machines, which the idea was born for: a
//! function is bound to `vfio-pci`, opened, reset, shown to a guest, driven and
//! closed.

use warmbus_qemu_tests::boot::Lab;
use warmbus_qemu_tests::consumer;
use warmbus_qemu_tests::linux::{self, LinuxBoot, payload};
use xtask::trace::counts;

use crate::consumer::{ended_well, everything_was_restored, percent};
use std::path::Path;

/// Boots `topology` behind an SMMU to do `steps`, with the virtual machines
/// between the marks 1 and 2. Returns the boot, the reads in between, and the
/// number of virtual machines.
fn start_machines(topology: &str, kernel: &Path, steps: &str, mode: &str) -> (LinuxBoot, u64, u64) {
    let lab = Lab::new();
    let mut payload = payload(kernel, steps);
    payload.bootargs += mode;
    let machine = lab
        .machine(topology)
        .machine_option("iommu=smmuv3")
        .payload(payload)
        .trace();
    let linux = lab.boot_linux(machine).expect("it boots");
    ended_well(&linux);
    let reads = counts(consumer::between(&linux.accesses(), 1, 2)).reads;
    let machines = consumer::said(&linux, "a virtual machine had ").len() as u64;
    (linux, reads, machines)
}

/// Counts `steps` in `topology`: at least 81 % of the reads that a stock kernel
/// makes do not come to the hardware.
fn most_reads_are_served(topology: &str, steps: &str, machines: u64) {
    let (_, stock, known) = start_machines(topology, linux::kernel(), steps, "");
    assert_eq!(known, machines);
    let ours_steps = format!("{steps},cache,compare");
    let (linux, ours, known) = start_machines(topology, consumer::kernel(), &ours_steps, "");
    assert_eq!(known, machines);
    everything_was_restored(&linux);
    consumer::told_the_truth(&linux, 1);
    let served = 100.0 - percent(ours, stock);
    println!(
        "{topology}: {} reads a function stock, {} ours: {served:.1} % served",
        stock / machines,
        ours / machines
    );
    assert!(served >= 81.0, "{served:.1} %: {ours} of {stock}");
}

/// The same with `pcsc=verify`: nothing that would have been served differs.
fn nothing_served_is_stale(topology: &str, steps: &str, machines: u64) {
    let steps = format!("{steps},cache");
    let (linux, _, known) = start_machines(topology, consumer::kernel(), &steps, " pcsc=verify");
    assert_eq!(known, machines);
    let counters = consumer::counters(&linux);
    let last = counters.last().expect("there are counters");
    println!("{topology}: {} comparisons", last["verified"]);
    assert_eq!(last["differences"], 0, "{:?}", consumer::log(&linux));
    assert!(last["verified"] > 100 * machines, "{last:?}");
}

const FUNCTIONS: &str = "mark:1,vms,mark:2";
const VIRTUAL: &str = "vfs:2,mark:1,vms:virtual,mark:2";

#[test]
fn of_functions_most_reads_are_served() {
    most_reads_are_served("small", FUNCTIONS, 5);
}

#[test]
fn of_virtual_functions_most_reads_are_served() {
    most_reads_are_served("sriov", VIRTUAL, 8);
}

#[test]
fn of_functions_nothing_served_is_stale() {
    nothing_served_is_stale("small", FUNCTIONS, 5);
}

#[test]
fn of_virtual_functions_nothing_served_is_stale() {
    nothing_served_is_stale("sriov", VIRTUAL, 8);
}

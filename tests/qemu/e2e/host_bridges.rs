//! A machine with two host bridges of which the firmware knows one: what is below
//! the other works as without the firmware, and the cache of the known one is
//! handed over.

use std::path::Path;

use warmbus_qemu_tests::boot::Lab;
use warmbus_qemu_tests::handover::Replay;
use warmbus_qemu_tests::linux::{self, LinuxBoot, alone, payload};
use warmbus_qemu_tests::pci;
use warmbus_qemu_tests::tree::{HOST_BRIDGE, Tree};
use xtask::qemu::Machine;

use crate::all_kernels::{of_this_page_size, unpack};
use crate::linux::subtree_arrived;

/// Linux makes a device of what is below it at once. The firmware does not access
/// it: whether the clock runs is not known.
const BUS: &str = "/bus-with-clock";
/// The host bridge of the upper half of all buses.
const OTHER: &str = "/bus-with-clock/pcie@20000000";

/// Where `linux,pci-domain` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Domains {
    /// Both have one.
    Both,
    /// The one that is not known has 0, and the other has none: Linux calls it 1.
    OfTheOther,
    /// None has one: Linux numbers them as it probes them.
    Neither,
}

/// Adds a second hierarchy, from bus 0x80 on, with an `NVMe` controller.
fn two_hierarchies(machine: Machine) -> Machine {
    machine.arguments([
        "-device",
        "pxb-pcie,id=pxb,bus_nr=128,bus=pcie.0",
        "-device",
        "pcie-root-port,id=other,bus=pxb,chassis=77,slot=77",
        "-device",
        "nvme,serial=other,bus=other",
    ])
}

/// The tree of `machine`, with a host bridge for each of its hierarchies.
fn tree(machine: &Machine, lab: &Lab, domains: Domains) -> Tree {
    let tree = Tree::of(machine, lab);
    let clock = tree.cells("/pl011@9000000", "clocks")[0];
    tree.add_node(BUS)
        .set_string(BUS, "compatible", "simple-bus");
    for cells in ["#address-cells", "#size-cells"] {
        tree.set_cells(BUS, cells, &[2]);
    }
    tree.set_cells(BUS, "ranges", &[]);
    tree.set_cells(BUS, "clocks", &[clock]);
    tree.add_node(OTHER);
    for property in [
        "interrupt-map-mask",
        "interrupt-map",
        "#interrupt-cells",
        "msi-map",
        "#size-cells",
        "#address-cells",
    ] {
        tree.set_cells(OTHER, property, &tree.cells(HOST_BRIDGE, property));
    }
    tree.set_cells(OTHER, "dma-coherent", &[]);
    for node in [HOST_BRIDGE, OTHER] {
        tree.set_string(node, "device_type", "pci");
        tree.set_string(node, "compatible", "pci-host-ecam-generic");
    }
    tree.set_cells(HOST_BRIDGE, "reg", &[0x40, 0x1000_0000, 0, 0x800_0000]);
    tree.set_cells(OTHER, "reg", &[0x40, 0x1800_0000, 0, 0x800_0000]);
    tree.set_cells(HOST_BRIDGE, "bus-range", &[0, 0x7f]);
    tree.set_cells(OTHER, "bus-range", &[0x80, 0xff]);
    let memory = |at: u32| [0x0200_0000, 0, at, 0, at, 0, 0x1000_0000];
    let high = |at: u32| [0x0300_0000, at, 0, at, 0, 0x40, 0];
    let io = [0x0100_0000, 0, 0, 0, 0x3eff_0000, 0, 0x1_0000];
    let ranges = [io, memory(0x1000_0000), high(0x80)];
    tree.set_cells(HOST_BRIDGE, "ranges", ranges.as_flattened());
    let ranges = [memory(0x2000_0000), high(0xc0)];
    tree.set_cells(OTHER, "ranges", ranges.as_flattened());
    match domains {
        Domains::Both => {
            tree.set_cells(OTHER, "linux,pci-domain", &[1]);
        }
        Domains::OfTheOther => {
            tree.remove_property(HOST_BRIDGE, "linux,pci-domain");
            tree.set_cells(OTHER, "linux,pci-domain", &[0]);
        }
        Domains::Neither => {
            tree.remove_property(HOST_BRIDGE, "linux,pci-domain");
        }
    }
    tree
}

/// What Linux makes of the machine without the firmware: the drivers, and how
/// many functions there are.
fn stock(kernel: &Path, domains: Domains) -> [String; 2] {
    let lab = Lab::new();
    let base = two_hierarchies(lab.machine("small"));
    let tree = tree(&base, &lab, domains);
    let machine = alone(kernel, "summary").topology(&warmbus_qemu_tests::boot::topology("small"));
    let machine = two_hierarchies(machine).device_tree(tree.file());
    let linux = lab.follow_alone(machine).expect("it boots");
    seen(&linux)
}

fn seen(linux: &LinuxBoot) -> [String; 2] {
    ["PCI drivers", "PCI functions"].map(|row| linux.summary(row)[0].to_owned())
}

/// Boots `kernel` with and without the firmware, and compares.
fn works_beside_one_that_is_not_known(kernel: &Path, domains: Domains) {
    let lab = Lab::new();
    let machine = two_hierarchies(lab.machine("small"));
    let machine = machine.payload(payload(kernel, "summary,sections,wait"));
    let tree = tree(&machine, &lab, domains);
    let machine = machine.own_device_tree(tree.file());
    let linux = lab.boot_linux(machine.trace()).expect("it boots");
    subtree_arrived(&linux);
    // Nobody numbered or assigned the other hierarchy before Linux.
    for line in linux.kernel_log().lines() {
        let is_complaint = ["can't claim", "can't assign", "configuration invalid"]
            .iter()
            .any(|complaint| line.contains(complaint));
        let is_about_the_other = line.contains(":80:") || line.contains(":81:");
        assert!(!is_complaint || is_about_the_other, "{line}");
    }

    // As many functions and drivers as without the firmware.
    let stock = stock(kernel, domains);
    assert!(stock[0].contains("nvme x 2"), "{stock:?}");
    assert_eq!(seen(&linux), stock);

    // All that was found is handed over, under the numbers that Linux gives it, and
    // stayed where it was.
    let theirs = linux.functions().expect("Linux lists its functions");
    let ours = pci::of_report(&linux.boot.report());
    assert_eq!(linux.blocks.len(), ours.len());
    for function in &ours {
        let name = function.name();
        assert!(linux.blocks.contains_key(&name), "{name}");
        let their = theirs.get(&name);
        let their = their.unwrap_or_else(|| panic!("Linux has no {name}: {:?}", theirs.keys()));
        for (index, region) in &function.regions {
            let resource = their.resources[usize::try_from(*index).expect("an index")];
            if let Some(address) = region.address {
                assert_eq!(resource[0], address, "BAR {index} of {name}");
            }
        }
    }
    for (name, block) in &linux.blocks {
        // Revision and class, which nothing changes.
        let constant: Vec<_> = block
            .cached()
            .filter(|(at, _)| (8..12).contains(at))
            .collect();
        assert_eq!(constant.len(), 4, "{name}");
        for (at, value) in constant {
            assert_eq!(theirs[name].config[at], value, "{name} {at:#x}");
        }
    }
    // The trace of QEMU has no segments.
    if domains == Domains::Both {
        let replay = Replay::new(&linux.blocks, &linux.accesses());
        assert_eq!(replay.differences, Vec::<String>::new());
        assert!(replay.served > 0);
    }

    // The other hierarchy has addresses in its own windows.
    let others: Vec<_> = theirs
        .iter()
        .filter(|(name, _)| !linux.blocks.contains_key(*name))
        .collect();
    assert_eq!(others.len(), 2, "a port and a controller");
    for (name, function) in others {
        let [start, _, _] = function.resources[0];
        let in_windows = (0x2000_0000..0x3000_0000).contains(&start)
            || (0xc0_0000_0000..0x100_0000_0000).contains(&start);
        let has_bar = function.config[0x10..0x14] != [0; 4];
        assert!(in_windows || !has_bar, "{name} at {start:#x}");
    }
    let console = linux.boot.console.join("\n");
    let excluded = format!("{OTHER} is excluded: Linux starts {BUS} first");
    assert!(console.contains(&excluded), "{console}");
    let policy = format!("it assigns BARs below {OTHER} (excluded)");
    assert!(console.contains(&policy), "{console}");
}

#[test]
fn a_host_bridge_that_is_not_known_works_as_without_the_firmware() {
    works_beside_one_that_is_not_known(linux::kernel(), Domains::Both);
}

#[test]
fn the_segment_that_linux_gives_a_host_bridge_is_that_of_its_cache() {
    works_beside_one_that_is_not_known(linux::kernel(), Domains::OfTheOther);
    works_beside_one_that_is_not_known(linux::kernel(), Domains::Neither);
}

#[test]
#[ignore = "needs `--kernels DIR`"]
fn every_kernel_of_the_folder_keeps_one_host_bridge_and_assigns_below_the_other() {
    for (file, facts) in of_this_page_size() {
        println!("Linux {}", facts.version);
        let unpacked = Lab::new();
        let file = unpack(&file, &unpacked);
        works_beside_one_that_is_not_known(&file, Domains::Both);
    }
}

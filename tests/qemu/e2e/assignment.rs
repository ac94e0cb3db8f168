//! Addresses on machines where space is short: each BAR that a Linux without
//! the firmware places has an address with it.
//!
//! The machines are QEMU's; what Linux alone makes of each is found out by
//! booting it, so that nothing here states where a BAR belongs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use warmbus_qemu_tests::boot::{Lab, image};
use warmbus_qemu_tests::linux::{self, Function, LinuxBoot, alone, payload};
use warmbus_qemu_tests::tree::{HOST_BRIDGE, Tree};
use xtask::process;
use xtask::qemu::Machine;
use xtask::test;
use xtask::topology::Topology;

use crate::all_kernels;
use crate::linux::{SECTIONS, ended_well};

/// Devices of a machine, as QEMU arguments, and what its tree says of its host
/// bridge.
struct Case {
    devices: String,
    change: fn(&Tree),
}

impl Case {
    fn new(devices: impl Into<String>) -> Self {
        Self {
            devices: devices.into(),
            change: |_| (),
        }
    }

    fn with_tree(mut self, change: fn(&Tree)) -> Self {
        self.change = change;
        self
    }

    fn topology(&self) -> Topology {
        Topology::parse("case", &self.devices)
    }

    fn changed(&self, machine: &Machine, lab: &Lab) -> Tree {
        let tree = Tree::of(machine, lab);
        (self.change)(&tree);
        // QEMU doubles the size of a tree that it loads, and its own has 1 MiB:
        // Linux reads 2 MiB at most.
        let packed = lab.file("packed.dtb");
        let mut dtc = Command::new("dtc");
        dtc.args(["-q", "-I", "dtb", "-O", "dtb", "-o"]);
        process::output(dtc.arg(&packed).arg(tree.file())).expect("dtc packs the tree");
        fs::rename(packed, tree.file()).expect("the tree can be replaced");
        tree
    }

    /// What `kernel` alone makes of it.
    fn stock(&self, kernel: &Path) -> LinuxBoot {
        let lab = Lab::new();
        let machine = alone(kernel, "summary,sections").topology(&self.topology());
        let tree = self.changed(&machine, &lab);
        let linux = lab
            .follow_alone(machine.device_tree(tree.file()))
            .expect("it boots");
        assert!(linux.done && linux.powered_off);
        linux
    }

    /// What `kernel` makes of it after the firmware.
    fn with_firmware(&self, kernel: &Path) -> LinuxBoot {
        let lab = Lab::new();
        let machine = Machine::kernel(image())
            .topology(&self.topology())
            .bootargs("warmbus.show=summary")
            .payload(payload(kernel, SECTIONS));
        let tree = self.changed(&machine, &lab);
        let linux = lab
            .boot_linux(machine.own_device_tree(tree.file()))
            .expect("it boots");
        ended_well(&linux);
        linux
    }

    /// Boots it without and with the firmware: what Linux alone places has its
    /// place, and there is no function less. Returns the boot with the firmware.
    fn compare(&self) -> LinuxBoot {
        self.compare_on(linux::kernel())
    }

    fn compare_on(&self, kernel: &Path) -> LinuxBoot {
        let stock = placed(&self.stock(kernel));
        let linux = self.with_firmware(kernel);
        let ours = placed(&linux);
        assert!(stock.values().any(|bars| !bars.is_empty()));
        for (function, bars) in &stock {
            let found = ours.get(function);
            let found = found.unwrap_or_else(|| panic!("{function:x?} is lost"));
            for (index, size) in bars {
                assert_eq!(
                    found.get(index),
                    Some(size),
                    "resource {index} of {function:x?}, {size:#x} bytes"
                );
            }
        }
        linux
    }
}

/// The device and function number of each bridge above a function, and its own:
/// bus numbers may differ.
type Place = Vec<u8>;

fn places(functions: &BTreeMap<String, Function>) -> BTreeMap<String, Place> {
    let number = |text: &str| u8::from_str_radix(text, 16).expect("an address is hexadecimal");
    let own = |name: &str| {
        (
            number(&name[5..7]),
            number(&name[8..10]) << 3 | number(&name[11..]),
        )
    };
    let place = |name: &str| {
        let (mut bus, devfn) = own(name);
        let mut place = vec![devfn];
        while bus != 0 {
            let above = functions.iter().find(|(_, function)| {
                function
                    .config
                    .get(0x0e)
                    .is_some_and(|kind| kind & 0x7f == 1)
                    && function.config[0x19] == bus
            });
            let (above, _) = above.expect("a bridge leads to each bus");
            let devfn;
            (bus, devfn) = own(above);
            place.push(devfn);
        }
        place.reverse();
        place
    };
    functions
        .keys()
        .map(|name| (name.clone(), place(name)))
        .collect()
}

/// The size of each BAR that Linux has placed: resources 0 to 5 and those of VFs.
fn placed(linux: &LinuxBoot) -> BTreeMap<Place, BTreeMap<usize, u64>> {
    const UNSET: u64 = 0x2000_0000;

    let functions = linux.functions().expect("Linux lists its functions");
    let places = places(&functions);
    let bars = |function: &Function| {
        let resources = function.resources.iter().enumerate();
        resources
            .filter(|(index, [start, end, flags])| {
                *index < 6 && *start != 0 && start < end && flags & UNSET == 0
            })
            .map(|(index, [start, end, _])| (index, end - start + 1))
            .collect()
    };
    functions
        .iter()
        .map(|(name, function)| (places[name].clone(), bars(function)))
        .collect()
}

/// Linux keeps what the firmware assigned, and has the cache.
fn keeps(linux: &LinuxBoot) {
    assert_eq!(
        linux.summary("PCI setup").last(),
        Some(&"kept as handed over (probe only)"),
        "{}",
        linux.boot.console.join("\n")
    );
    assert_ne!(linux.summary("PCI cache"), ["none"]);
}

/// `count` root ports, each with what `device` names below it.
fn ports(count: usize, options: &str, device: impl Fn(usize) -> String) -> String {
    let port = |number| {
        let address = number + 2;
        format!(
            "-device pcie-root-port,id=r{number},chassis={address},slot={address},addr={address:x}.0{options}\n\
             -device {},bus=r{number}\n",
            device(number)
        )
    };
    (0..count).map(port).collect()
}

/// More I/O BARs than 64 KiB of I/O space have windows of bridges, which is 15.
fn eighteen_io_bars() -> Case {
    let device = |_| "virtio-net-pci,disable-modern=off,disable-legacy=off".into();
    Case::new(ports(18, "", device))
}

#[test]
fn io_bars_beyond_the_io_window_do_not_cost_the_cache() {
    let linux = eighteen_io_bars().compare();
    keeps(&linux);
    let lines = linux.boot.lines_with(&["does not fit"]);
    assert_eq!(lines.len(), 3, "{lines:?}");
}

/// The window of I/O space and the one of memory below 4 GiB in QEMU's tree.
const IO_WINDOW: [u32; 7] = [0x0100_0000, 0, 0, 0, 0x3eff_0000, 0, 0x1_0000];
const MEMORY_WINDOW: [u32; 7] = [0x0200_0000, 0, 0x1000_0000, 0, 0x1000_0000, 0, 0x2eff_0000];

fn set_windows(tree: &Tree, memory: [u32; 7], last: [u32; 7]) {
    let ranges = [IO_WINDOW, memory, last].concat();
    tree.set_cells(HOST_BRIDGE, "ranges", &ranges);
}

/// A function with one BAR of this size, prefetchable and with 64-bit addresses.
fn membar(size: &str) -> String {
    format!("pci-testdev,membar={size}")
}

/// Four BARs of 64 GiB together.
fn large_bars() -> Case {
    let sizes = ["32G", "8G", "8G", "16G"];
    Case::new(ports(4, ",hotplug=off", |number| membar(sizes[number])))
}

/// The same, with 80 GiB from 516 GiB on for them, where 32 GiB are aligned in one
/// place.
fn holes_below_aligned_bars() -> Case {
    let change = |tree: &Tree| {
        let high = [0x0300_0000, 0x81, 0, 0x81, 0, 0x14, 0];
        set_windows(tree, MEMORY_WINDOW, high);
    };
    large_bars().with_tree(change)
}

#[test]
fn large_bars_are_placed_as_by_linux() {
    keeps(&large_bars().compare());
}

#[test]
fn holes_below_aligned_bars_are_used_as_by_linux() {
    keeps(&holes_below_aligned_bars().compare());
}

/// A GPU and a disk.
fn gpu_and_nvme() -> Case {
    Case::new(ports(2, "", |number| match number {
        0 => membar("256M"),
        _ => "nvme,serial=a".into(),
    }))
}

/// Less memory above 4 GiB than the GPU needs.
fn little_high_memory() -> Case {
    let change = |tree: &Tree| {
        let high = [0x0300_0000, 0x80, 0, 0x80, 0, 0, 0x0400_0000];
        set_windows(tree, MEMORY_WINDOW, high);
    };
    gpu_and_nvme().with_tree(change)
}

#[test]
fn a_64_bit_bar_falls_back_below_4_gib_as_with_linux() {
    keeps(&little_high_memory().compare());
}

/// The GPU has a place in a prefetchable window below 4 GiB only.
fn prefetchable_below_4_gib() -> Case {
    let change = |tree: &Tree| {
        let low = [0x0200_0000, 0, 0x1000_0000, 0, 0x1000_0000, 0, 0x0100_0000];
        let prefetchable = [0x4200_0000, 0, 0x2000_0000, 0, 0x2000_0000, 0, 0x1eff_0000];
        set_windows(tree, low, prefetchable);
    };
    gpu_and_nvme().with_tree(change)
}

#[test]
fn a_prefetchable_window_below_4_gib_is_used_as_by_linux() {
    keeps(&prefetchable_below_4_gib().compare());
}

/// With a bus number to spare for each of 128 empty ports there are too few.
fn eight_switches() -> Case {
    let mut devices = String::new();
    for switch in 0..8 {
        let root = switch + 2;
        let _ = writeln!(
            devices,
            "-device pcie-root-port,id=r{switch},chassis={root},slot={root},addr={root:x}.0\n\
             -device x3130-upstream,id=u{switch},bus=r{switch}"
        );
        for port in 0..16 {
            let _ = writeln!(
                devices,
                "-device xio3130-downstream,id=d{switch}x{port},bus=u{switch},\
                 chassis={},slot={port},addr={port:x}.0",
                20 + switch
            );
        }
    }
    devices += "-device nvme,serial=a,bus=d7x15\n\
                -device pcie-root-port,id=last,chassis=99,slot=99,addr=a.0\n\
                -device nvme,serial=b,bus=last\n";
    Case::new(devices)
}

#[test]
fn spare_buses_leave_numbers_for_all_devices_of_eight_switches() {
    keeps(&eight_switches().compare());
}

/// 32-bit memory has two aligned places of 256 MiB, for three BARs.
fn three_bars_for_two_places() -> Case {
    let change = |tree: &Tree| {
        let low = [0x0200_0000, 0, 0x1000_0000, 0, 0x1000_0000, 0, 0x2eff_0000];
        let none = [0x0300_0000, 0x80, 0, 0x80, 0, 0, 0x0010_0000];
        set_windows(tree, low, none);
    };
    let devices = ports(3, ",hotplug=off", |_| membar("256M"));
    Case::new(devices).with_tree(change)
}

#[test]
fn the_last_of_three_bars_for_two_places_is_lost_as_with_linux() {
    let linux = three_bars_for_two_places().compare();
    keeps(&linux);
    let lines = linux.boot.lines_with(&["does not fit"]);
    assert_eq!(lines.len(), 1, "{lines:?}");
}

fn reserved_below_a_port() -> Case {
    let devices = "-device pcie-root-port,id=r0,chassis=1,slot=1,addr=2.0,bus-reserve=4,\
                   mem-reserve=64M,pref64-reserve=32G,io-reserve=8K\n\
                   -device pcie-root-port,id=r1,chassis=2,slot=2,addr=3.0\n\
                   -device nvme,serial=b,bus=r1\n";
    Case::new(devices)
}

#[test]
fn a_port_gets_what_qemu_asks_to_be_reserved() {
    let linux = reserved_below_a_port().compare();
    keeps(&linux);
    // Resources 7 to 9 of the header are those of a bridge; sysfs has them from 13
    // on, after those of virtual functions.
    let functions = linux.functions().expect("Linux lists its functions");
    let port = &functions["0000:00:02.0"];
    let sizes = [13, 14, 15].map(|window: usize| {
        let [start, end, _] = port.resources[window];
        end - start + 1
    });
    assert_eq!(sizes, [8 << 10, 64 << 20, 32 << 30]);
    let [secondary, subordinate] = [0x19, 0x1a].map(|at: usize| port.config[at]);
    assert_eq!(subordinate - secondary, 4);
    assert_eq!(linux.boot.lines_with(&["QEMU asks"]), [""; 0]);
}

fn more_reserved_than_there_is() -> Case {
    let devices = "-device pcie-root-port,id=r0,chassis=1,slot=1,addr=2.0,mem-reserve=2G\n\
                   -device pcie-root-port,id=r1,chassis=2,slot=2,addr=3.0\n\
                   -device nvme,serial=b,bus=r1\n";
    Case::new(devices)
}

#[test]
fn what_qemu_asks_for_and_does_not_fit_is_named() {
    let linux = more_reserved_than_there_is().compare();
    keeps(&linux);
    let line = "0000:00:02.0: QEMU asks for 0x80000000 bytes of memory below this bridge, \
                which has 0x200000";
    assert_eq!(linux.boot.lines_with(&[line]).len(), 1);
}

/// The tree gives all buses to the first root complex, and bus 3 answers for the
/// other one.
fn bus_of_an_expander() -> Case {
    let devices = "-device pcie-root-port,id=r0,chassis=1,slot=1,addr=2.0\n\
                   -device nvme,serial=a,bus=r0\n\
                   -device pcie-root-port,id=r1,chassis=2,slot=2,addr=3.0\n\
                   -device nvme,serial=b,bus=r1\n\
                   -device pxb-pcie,id=px,bus_nr=3,bus=pcie.0,addr=4.0\n\
                   -device pcie-root-port,id=r2,chassis=3,slot=3,bus=px\n\
                   -device nvme,serial=c,bus=r2\n";
    Case::new(devices)
}

#[test]
fn a_disk_is_not_hidden_by_the_bus_of_an_expander() {
    let linux = bus_of_an_expander().compare();
    let drivers = linux.summary("PCI drivers");
    assert!(drivers[0].contains("nvme x 2"), "{drivers:?}");
}

/// 16 of the 256 buses have configuration space, whatever the tree says of them.
fn small_ecam() -> Case {
    gpu_and_nvme().with_tree(|tree| {
        tree.set_cells(HOST_BRIDGE, "reg", &[0x40, 0x1000_0000, 0, 0x0100_0000]);
    })
}

#[test]
fn buses_without_configuration_space_are_not_used_as_by_linux() {
    keeps(&small_ecam().compare());
}

/// All machines above.
const CASES: [fn() -> Case; 12] = [
    eighteen_io_bars,
    holes_below_aligned_bars,
    little_high_memory,
    prefetchable_below_4_gib,
    large_bars,
    eight_switches,
    three_bars_for_two_places,
    reserved_below_a_port,
    more_reserved_than_there_is,
    bus_of_an_expander,
    small_ecam,
    gpu_and_nvme,
];

#[test]
#[ignore = "needs `--kernels DIR` and `--long`"]
fn every_kernel_places_on_these_machines_what_it_places_alone() {
    if !test::is_long() {
        return println!("skipped: needs --long");
    }
    for (file, version) in all_kernels::with_that_of_debian() {
        let unpacked = Lab::new();
        let kernel = all_kernels::unpack(&file, &unpacked);
        for case in CASES {
            let linux = case().compare_on(&kernel);
            let drivers = linux.summary("PCI drivers");
            println!("Linux {version}: {drivers:?}");
        }
    }
}

//! Addresses on machines where space is short: each BAR that a Linux without
//! the firmware places has an address with it.
//!
//! The machines are QEMU's; what Linux alone makes of each is found out by
//! booting it, so that nothing here states where a BAR belongs.

use std::collections::BTreeMap;

use warmbus_qemu_tests::boot::{Lab, image};
use warmbus_qemu_tests::linux::{self, Function, LinuxBoot, alone, payload};
use warmbus_qemu_tests::tree::{HOST_BRIDGE, Tree};
use xtask::qemu::Machine;
use xtask::topology::Topology;

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
        tree
    }

    /// What Linux alone makes of it.
    fn stock(&self) -> LinuxBoot {
        let lab = Lab::new();
        let machine = alone(linux::kernel(), "summary,sections").topology(&self.topology());
        let tree = self.changed(&machine, &lab);
        let linux = lab
            .follow_alone(machine.device_tree(tree.file()))
            .expect("it boots");
        assert!(linux.done && linux.powered_off);
        linux
    }

    /// What Linux makes of it after the firmware.
    fn with_firmware(&self, bootargs: &str) -> LinuxBoot {
        let lab = Lab::new();
        let machine = Machine::kernel(image())
            .topology(&self.topology())
            .bootargs(bootargs)
            .payload(payload(linux::kernel(), SECTIONS));
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
        let stock = placed(&self.stock());
        let linux = self.with_firmware("");
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
    let own = |name: &str| (number(&name[5..7]), number(&name[8..10]) << 3 | number(&name[11..]));
    let place = |name: &str| {
        let (mut bus, devfn) = own(name);
        let mut place = vec![devfn];
        while bus != 0 {
            let above = functions.iter().find(|(_, function)| {
                function.config.get(0x0e).is_some_and(|kind| kind & 0x7f == 1)
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

#[test]
fn io_bars_beyond_the_io_window_do_not_cost_the_cache() {
    // 64 KiB of I/O space have 15 windows of bridges.
    let device = |_| "virtio-net-pci,disable-modern=off,disable-legacy=off".into();
    let linux = Case::new(ports(18, "", device)).compare();
    keeps(&linux);
    let lines = linux.boot.lines_with(&["does not fit"]);
    assert_eq!(lines.len(), 3, "{lines:?}");
}

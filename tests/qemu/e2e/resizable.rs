//! BARs that a driver may have Linux make larger: it can, with the firmware as
//! without what it hands over.

use warmbus_pci::PortType;
use warmbus_pcie_sim::{BarModel, ExpressModel, Fabric, FunctionModel, devices};
use warmbus_qemu_tests::boot::Lab;
use warmbus_qemu_tests::linux::{self, LinuxBoot, payload};
use warmbus_qemu_tests::simulated::{self, Simulated};

use super::linux as proofs;

/// The device, and its BAR before and after.
const DEVICE: &str = "0000:01:00.0";
const NOW: u64 = 2 << 20;
const LARGER: u64 = 64 << 20;

/// A device with 2 MiB that may be 64 MiB, below a port whose window is no
/// larger than it has to be.
fn fabric() -> Fabric {
    let (mut fabric, host) = simulated::fabric();
    let port = fabric.add_root(host, 1, 0, devices::root_port(1).link_up());
    let device = FunctionModel::endpoint(0x1234, 7, 0xff_0000)
        .express(ExpressModel::new(PortType::Endpoint))
        .bar(0, BarModel::memory64(NOW).prefetchable())
        .resizable(&[(0, 1 << 1 | 1 << 6, 1)]);
    fabric.add_below(port, 0, 0, device);
    fabric
}

/// Boots a Linux without our patches that is asked to resize the BAR.
fn boot(bootargs: &str) -> LinuxBoot {
    let lab = Lab::new();
    let steps = format!("summary,resize:{DEVICE}@0@6,sections");
    let payload = payload(linux::kernel(), &steps);
    let machine = |machine: xtask::qemu::Machine| machine.bootargs(bootargs);
    let (linux, _) = Simulated::new(fabric())
        .boot(&lab, payload, machine, |_, _, _| Ok(()))
        .expect("it boots");
    proofs::ended_well(&linux);
    let console = linux.boot.console.join("\n");
    let line = format!("warmbus: linux: resized {DEVICE}");
    assert!(linux.boot.console.contains(&line), "{console}");
    let functions = linux.functions().expect("Linux lists its functions");
    let [start, end, _] = functions[DEVICE].resources[0];
    assert_eq!((start != 0, end - start + 1), (true, LARGER), "{console}");
    linux
}

#[test]
fn a_resizable_bar_can_be_resized_with_the_cache_as_without() {
    boot("warmbus.kho=off");
    let linux = boot("");
    let line = ["starting linux at", ", with the cache"];
    assert_eq!(linux.boot.lines_with(&line).len(), 1);
    let line = ["BAR 0 may be made larger, which its driver asks Linux for"];
    assert_eq!(linux.boot.lines_with(&line).len(), 1);
}

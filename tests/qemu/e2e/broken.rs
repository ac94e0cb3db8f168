//! Hardware that breaks the rules, below the real firmware and a real Linux:
//! each ends in a correct report and a started Linux.

use warmbus::pci::PortType;
use warmbus_fabric::{BarModel, BridgeWindows, ExpressModel, Fabric, FunctionModel, HostId};
use warmbus_qemu_tests::boot::Lab;
use warmbus_qemu_tests::consumer;
use warmbus_qemu_tests::linux::{LinuxBoot, payload};
use warmbus_qemu_tests::simulated::{self, Simulated};

fn root_port() -> FunctionModel {
    let express = ExpressModel::new(PortType::RootPort)
        .ari_forwarding()
        .active_reporting();
    FunctionModel::bridge(0x1234, 0x0004, BridgeWindows::default()).express(express)
}

fn endpoint(device: u16) -> FunctionModel {
    FunctionModel::endpoint(0x1234, device, 0xff_0000)
        .express(ExpressModel::new(PortType::Endpoint).flr())
}

#[test]
fn sound_hardware_is_sound() {
    let (mut fabric, host) = simulated::fabric();
    let port = fabric.add_root(host, 1, 0, root_port().link_up());
    fabric.add_below(port, 0, 0, endpoint(7).bar(0, BarModel::memory64(0x4000)));
    let lab = Lab::new();
    let steps = "summary,sections,cache,compare";
    let (linux, fabric) = Simulated::new(fabric)
        .boot(
            &lab,
            payload(consumer::kernel(), steps),
            |machine| machine,
            |_, _, _| Ok(()),
        )
        .unwrap();
    println!("{}", linux.boot.console.join("\n"));
    println!("{:?}", fabric.reachable());
    println!("{:?}", linux.boot.report());
    println!("{}", linux.kernel_log());
}

//! Ways to configuration space, against models of controllers that stand in
//! front of a simulated fabric.

mod brcmstb;
mod designware;
mod widths;
mod windows;

use warmbus_boot::pipeline::Pipeline;
use warmbus_pci::{ConfigAccess, ConfigOffset};
use warmbus_pci::{
    Function, HostBridge, HostBridgeAccess, Mechanism, PhysAddr, Registers, Sbdf, Topology, Width,
};
use warmbus_pcie_sim::{Fabric, devices};

const ROOT: Sbdf = Sbdf::new(0, 0, 0, 0);

/// A root port with a switch below it and two endpoints below that, set up as a
/// loader sets it up.
fn machine() -> Fabric {
    let (mut fabric, host) = Fabric::with_buses(0, 255);
    let port = fabric.add_root(host, 0, 0, devices::root_port(1).link_up());
    let upstream = fabric.add_below(port, 0, 0, devices::upstream_port());
    for number in 0..2 {
        let port = devices::downstream_port(10 + u16::from(number)).link_up();
        let port = fabric.add_below(upstream, number, 0, port);
        fabric.add_below(port, 0, 0, devices::nvme());
    }
    let mut hosts = fabric.host_bridges();
    hosts[0].preserve_config = false;
    let mut clock = fabric.clock();
    let prepared = Pipeline::default().prepare(&hosts, fabric, &mut clock, &mut ());
    assert_eq!(prepared.topology.functions().len(), 6);
    let mut fabric = prepared.config.access().clone();
    fabric.log_mut().clear();
    fabric
}

/// The bridge of [`machine`] as a tree would describe its controller.
fn host(fabric: &Fabric, mechanism: Mechanism, window: u64, size: u64) -> HostBridge {
    let mut host = fabric.host_bridges()[0].clone().preserved();
    host.mechanism = mechanism;
    host.ecam_base = PhysAddr(window);
    host.ecam_size = size;
    host.survives_linux_driver = false;
    host
}

/// Walks without writing and captures everything.
fn walk<A: ConfigAccess>(hosts: &[HostBridge], access: A, fabric: &Fabric) -> Topology {
    let mut clock = fabric.clock();
    let captured = Pipeline::default().run(hosts, access, &mut clock, &mut ());
    let topology = captured.topology.into_topology();
    assert!(
        topology.anomalies().is_empty(),
        "{:?}",
        topology.anomalies()
    );
    topology
}

/// What the fabric itself shows to somebody who only reads.
fn bare(fabric: &Fabric) -> Vec<Function> {
    let mut hosts = fabric.host_bridges();
    hosts[0].preserve_config = true;
    walk(&hosts, fabric.clone(), fabric).functions().to_vec()
}

/// Reads every dword of every function of `fabric` through `reach` and compares
/// it with what the fabric itself answers.
fn compare<R: Registers>(reach: &mut HostBridgeAccess<R>, fabric: &Fabric) {
    let mut fabric = fabric.clone();
    for function in bare(&fabric) {
        for offset in (0..0x200).step_by(4).map(ConfigOffset::wrapping) {
            for width in [Width::Byte, Width::Word, Width::Dword] {
                let expected = fabric.read(function.sbdf, offset, width);
                let read = reach.read(function.sbdf, offset, width);
                assert_eq!(read, expected, "{} {offset} {width:?}", function.sbdf);
            }
        }
    }
}

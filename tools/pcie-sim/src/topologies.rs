//! Whole machines.

use crate::bar::BarModel;
use crate::devices;
use crate::fabric::{Fabric, HostId};
use crate::model::FunctionModel;
use crate::sriov::SrIovModel;

/// A fabric with one host bridge of segment 0 and all buses, and a host
/// bridge function at 00.0.
pub fn empty() -> (Fabric, HostId) {
    let (mut fabric, host) = Fabric::with_buses(0, 255);
    fabric.add_root(host, 0, 0, devices::host_bridge());
    (fabric, host)
}

/// Three root ports with an endpoint each, and two endpoints in the root
/// complex.
pub fn small() -> Fabric {
    let (mut fabric, host) = empty();
    let below = [
        devices::virtio_network(),
        devices::nvme(),
        devices::old_network(),
    ];
    for (number, endpoint) in (1..).zip(below) {
        let port = devices::root_port(number.into()).link_up();
        let port = fabric.add_root(host, number, 0, port);
        fabric.add_below(port, 0, 0, endpoint);
    }
    fabric.add_root(host, 4, 0, devices::integrated_virtio());
    fabric.add_root(host, 5, 0, devices::integrated_usb());
    fabric
}

/// A switch with four endpoints, and a PCI Express to PCI bridge in the root
/// complex with conventional cards and one more bridge below it.
pub fn switch() -> Fabric {
    let (mut fabric, host) = empty();
    let port = fabric.add_root(host, 1, 0, devices::root_port(1).link_up());
    let upstream = fabric.add_below(port, 0, 0, devices::upstream_port());
    let below = [
        devices::nvme(),
        devices::nvme(),
        devices::virtio_network(),
        devices::old_network(),
    ];
    for (number, endpoint) in (0..).zip(below) {
        let port = devices::downstream_port(10 + u16::from(number)).link_up();
        let port = fabric.add_below(upstream, number, 0, port);
        fabric.add_below(port, 0, 0, endpoint);
    }
    let bridge = fabric.add_root(host, 2, 0, devices::pcie_to_pci_bridge());
    fabric.add_below(bridge, 3, 0, devices::conventional_network());
    fabric.add_below(bridge, 5, 0, devices::conventional_network());
    let inner = fabric.add_below(bridge, 7, 0, devices::pci_bridge());
    fabric.add_below(inner, 1, 0, devices::conventional_network());
    fabric.add_below(inner, 2, 0, devices::conventional_network());
    fabric
}

/// `count` (at most 248) root ports with an `NVMe` controller each, eight ports
/// to a multi-function device.
pub fn fan(count: u8) -> Fabric {
    let (mut fabric, host) = empty();
    for number in 0..count.min(248) {
        let port = devices::root_port(u16::from(number) + 1)
            .multi_function()
            .link_up();
        let port = fabric.add_root(host, 1 + number / 8, number % 8, port);
        fabric.add_below(port, 0, 0, devices::nvme());
    }
    fabric
}

/// `count` (at most 31) root ports with a physical function each that has
/// `vfs` virtual functions. The offset depends on `NumVFs` and on ARI.
pub fn sriov(count: u8, vfs: u16) -> Fabric {
    let (mut fabric, host) = empty();
    for number in 1..=count.min(31) {
        let port = devices::root_port(number.into()).link_up();
        let port = fabric.add_root(host, number, 0, port);
        let mut vf_bars = [None; 6];
        vf_bars[0] = Some(BarModel::memory64(0x4000));
        let model = SrIovModel {
            total_vfs: vfs,
            layout: |num_vfs, ari| match (ari, num_vfs) {
                (true, _) | (false, 0..=7) => (1, 1),
                // Device 0 has 8 functions: the rest goes to the next bus.
                (false, _) => (0x100, 1),
            },
            vf_bars,
            ..SrIovModel::default()
        };
        let physical = devices::nvme()
            .ari(0)
            .sriov(model, FunctionModel::virtual_function(0x01_0802));
        fabric.add_below(port, 0, 0, physical);
    }
    fabric
}

//! A machine whose registers move each other in every way that the simulator
//! knows.

use warmbus_pci::{PortType, Width};
use warmbus_pcie_sim::{
    BarModel, BridgeWindows, ExpressModel, Fabric, FunctionModel, MILLISECOND, SlotModel,
    VendorAction, devices, topologies,
};

use crate::twin::{sixteen_vfs, virtual_function};

/// The machine, with a device that can be exchanged below "socket".
pub(crate) fn entangled() -> Fabric {
    let (mut fabric, host) = topologies::empty();
    let express = ExpressModel::new(PortType::RootPort).slot(SlotModel {
        power_controller: true,
        ..SlotModel::HOT_PLUG
    });
    let portal = FunctionModel::bridge(0x1234, 4, BridgeWindows::default())
        .express(express.ari_forwarding())
        .flattening_portal()
        .containment()
        .vendor_register(0xf0, VendorAction::StopForwarding);
    let portal = fabric.add_root(host, 1, 0, portal.named("portal").link_up());
    fabric.add_below(portal, 0, 0, devices::nvme());

    let socket = devices::root_port(2).slot_command_time(5 * MILLISECOND);
    let socket = fabric.add_root(host, 2, 0, socket.named("socket").link_up());
    fabric.add_below(socket, 0, 0, devices::nvme().named("plugged"));

    let port = fabric.add_root(host, 3, 0, devices::root_port(3).link_up());
    for function in [0, 1] {
        let model = devices::nvme()
            .multi_function()
            .interrupt_messages(1, 5)
            .rom(0x1_0000)
            .bar(2, BarModel::memory32(1 << 20))
            .bist_that_resets(5 * MILLISECOND, 3)
            .cxl_device()
            .secondary_pcie(4)
            .resizable(&[(2, 7, 0)])
            .serial_number(1)
            .vendor_register(
                0xe00,
                VendorAction::Set {
                    offset: 8,
                    width: Width::Dword,
                    value: 0x0302_0001,
                },
            );
        fabric.add_below(port, 0, function, model);
    }
    let port = fabric.add_root(host, 4, 0, devices::root_port(4).link_up());
    let mut model = sixteen_vfs();
    model.vf_bars[0] = Some(BarModel::memory64(0x1000));
    model.clears_num_vfs = true;
    let physical = devices::nvme()
        .reset_time(50 * MILLISECOND)
        .ari(8)
        .sriov(model, virtual_function());
    fabric.add_below_devfn(port, 0, physical);
    fabric.add_below_devfn(port, 8, devices::nvme().ari(0));
    let integrated = FunctionModel::endpoint(0x1234, 9, 0x08_8000)
        .bar(0, BarModel::memory32(0x1000))
        .rom(0x1_0000)
        .rom_validated_at(3_000 * MILLISECOND)
        .power_management(false, 10 * MILLISECOND)
        .advanced_features();
    fabric.add_root(host, 5, 0, integrated);
    fabric
}

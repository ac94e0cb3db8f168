use warmbus_pci::{ConfigAccess, ConfigOffset, Sbdf, Width};
use warmbus_pcie_sim::{BarModel, FunctionModel, SrIovModel, VF_ENABLE_TIME, VfLayout, topologies};

use crate::{Machine, at, boot, endpoint, machine, root_port};

fn with_vfs(total_vfs: u16, layout: VfLayout, last_bus: u8) -> Machine {
    let (mut fabric, host) = machine(0, last_bus);
    for device in 1..3 {
        let port = fabric.add_root(host, device, 0, root_port().link_up());
        let mut vf_bars = [None; 6];
        vf_bars[0] = Some(BarModel::memory64(0x1000));
        let model = SrIovModel {
            total_vfs,
            layout,
            vf_bars,
            ..SrIovModel::default()
        };
        let physical = endpoint(7)
            .ari(0)
            .sriov(model, FunctionModel::virtual_function(0x01_0802));
        fabric.add_below(port, 0, 0, physical);
    }
    boot(fabric)
}

/// Enables all VFs of the function at `physical` behind the back of the cache
/// and counts those that answer.
fn answering(machine: &mut Machine, physical: Sbdf) -> usize {
    let sriov = machine.function(physical).extended_capabilities.iter();
    let at = sriov.filter(|c| c.id == 0x10).map(|c| c.offset).next();
    let at = at.expect("no SR-IOV");
    let fabric = machine.config.access_mut();
    let control = fabric.read(physical, ConfigOffset::wrapping(at + 8), Width::Word);
    fabric.write(
        physical,
        ConfigOffset::wrapping(at + 8),
        Width::Word,
        control | 1,
    );
    fabric.clock().advance(VF_ENABLE_TIME);
    let mut count = 0;
    for rid in 0..0x1000 {
        let function = Sbdf::from_routing_id(0, rid);
        let first = fabric.log().entries().len();
        fabric.read(function, ConfigOffset::wrapping(8), Width::Dword);
        let access = fabric.log().entries()[first];
        if access.vf.is_some() {
            count += 1;
        }
    }
    count
}

#[test]
fn buses_are_reserved_so_that_every_vf_can_be_reached() {
    let layouts: [VfLayout; 3] = [
        |_, ari| if ari { (1, 1) } else { (0x100, 1) },
        |_, _| (0x100, 2),
        |num_vfs, _| (0x80, num_vfs),
    ];
    for layout in layouts {
        let mut machine = with_vfs(60, layout, 255);
        machine.assert_sound();
        for bus in machine.addresses().into_iter().filter(|f| f.bus() > 0) {
            let answering = answering(&mut machine, bus);
            // Those of the first stay enabled.
            assert!(answering == 60 || answering == 120, "{answering}");
        }
    }
}

#[test]
fn vfs_that_do_not_fit_are_reported() {
    let machine = with_vfs(65534, |_, _| (0x100, 1), 255);
    assert!(!machine.complaints().is_empty());
    // All ones, and yet an answer.
    let machine = with_vfs(65535, |_, _| (0x100, 1), 255);
    assert!(!machine.complaints().is_empty());
    let machine = with_vfs(8, |_, _| (0xffff, 0xffff), 255);
    assert!(!machine.complaints().is_empty());
    let mut machine = with_vfs(0, |_, _| (0, 0), 255);
    machine.assert_sound();
    assert_eq!(machine.complaints(), [""; 0]);
}

#[test]
fn the_known_sriov_machine_reaches_all_127_vfs_of_a_function() {
    let mut fabric = topologies::sriov(1, 127);
    fabric.log_mut().record();
    let mut machine = boot(fabric);
    machine.assert_sound();
    assert_eq!(answering(&mut machine, at(1, 0, 0)), 127);
}

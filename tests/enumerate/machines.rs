use warmbus_pcie_sim::{Fabric, Outcome, topologies};

use crate::{Machine, at, boot};

fn known() -> [(&'static str, Fabric); 4] {
    let mut machines = [
        ("small", topologies::small()),
        ("switch", topologies::switch()),
        ("fan", topologies::fan(32)),
        ("sriov", topologies::sriov(4, 127)),
    ];
    for (_, fabric) in &mut machines {
        fabric.log_mut().record();
    }
    machines
}

#[test]
fn known_machines_come_out_sound_with_every_bar_assigned() {
    for (name, fabric) in known() {
        let functions = fabric.nodes().count();
        let mut machine = boot(fabric);
        machine.assert_sound();
        assert_eq!(machine.topology.functions().len(), functions, "{name}");
        assert_eq!(machine.outcome.disabled, 0, "{name}");
        assert_eq!(machine.complaints(), [""; 0], "{name}");
    }
}

#[test]
fn the_switch_is_numbered_depth_first() {
    let machine = boot(topologies::switch());
    let numbers = |machine: &Machine, sbdf| {
        let bridge = machine.function(sbdf).bridge.unwrap();
        (bridge.primary, bridge.secondary)
    };
    assert_eq!(numbers(&machine, at(0, 1, 0)), (0, 1));
    assert_eq!(numbers(&machine, at(1, 0, 0)), (1, 2));
    assert_eq!(numbers(&machine, at(2, 0, 0)), (2, 3));
}

#[test]
fn no_bus_is_touched_that_no_bridge_announces() {
    for (name, fabric) in known() {
        let machine = boot(fabric);
        let log = machine.fabric().log();
        assert_eq!(log.count(Outcome::NoBridge), 0, "{name}");
        assert_eq!(log.count(Outcome::NoHost), 0, "{name}");
        assert_eq!(log.count(Outcome::LinkDown), 0, "{name}");
        assert_eq!(log.count(Outcome::DeviceFiltered), 0, "{name}");
    }
}

#[test]
fn only_what_was_sized_is_read_from_the_hardware_more_than_once() {
    for (name, fabric) in known() {
        let machine = boot(fabric);
        for (sbdf, offset, count) in machine.cacheable_reads() {
            let function = machine.function(sbdf);
            let mut lists = function.extended_capabilities.iter();
            let vf_bars = lists.find(|c| c.id == 0x10).map_or(0, |c| c.offset + 0x24);
            let sized = match function.header_type {
                0 => (0x10..0x28).contains(&offset) || offset == 0x30,
                _ => (0x10..0x34).contains(&offset) || offset == 0x38,
            };
            let sized = sized || (vf_bars..vf_bars + 0x18).contains(&offset);
            let most = if sized { 2 } else { 1 };
            assert!(
                count <= most,
                "{name}: {sbdf} {offset:#x} was read {count} times"
            );
        }
    }
}

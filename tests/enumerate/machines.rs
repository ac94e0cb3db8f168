use warmbus::pci::ConfigOffset;
use warmbus_fabric::{Fabric, Outcome, topologies};

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
        assert_eq!(machine.topology.functions.len(), functions, "{name}");
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
fn only_bars_and_bridge_numbers_are_read_from_the_hardware_more_than_once() {
    for (name, fabric) in known() {
        let machine = boot(fabric);
        let (count, place) = machine.most_reads();
        assert!(count <= 2, "{name}: {count} reads at {place:?}");
        for ((node, _, offset), count) in machine.fabric().log().reads_by_dword() {
            let sized = (0x10..0x34).contains(&offset) || offset == 0x38;
            let vf_bar = machine.fabric().peek(node, 0, warmbus::pci::Width::Word) == 0x1b36
                && offset > 0x100;
            let sbdf = machine.fabric().reachable();
            let sbdf = sbdf.iter().find(|(_, id)| **id == node).map(|(s, _)| *s);
            let block = sbdf.and_then(|sbdf| machine.config.block(sbdf)).unwrap_or_else(|| panic!("{name} {node} {offset:#x} {sbdf:?}"));
            let cacheable = (offset..offset + 4).all(|o| block.is_cacheable(ConfigOffset::new(o)));
            if cacheable && !sized && !vf_bar {
                assert_eq!(count, 1, "{name}: {node} at {offset:#x}");
            }
        }
    }
}

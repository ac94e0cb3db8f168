use warmbus::pci::ScanPolicy;
use warmbus_fabric::{Fabric, topologies};

use crate::{Machine, boot, boot_with};

fn keep(fabric: Fabric) -> Machine {
    boot_with(fabric, &ScanPolicy::default(), |host| host.preserve = true)
}

#[test]
fn a_machine_that_is_to_be_preserved_is_never_written() {
    for fabric in [
        topologies::small(),
        topologies::switch(),
        topologies::sriov(2, 16),
    ] {
        let machine = keep(fabric);
        assert_eq!(machine.fabric().log().writes(), 0);
        // Out of reset, no bridge leads anywhere.
        assert!(machine.addresses().iter().all(|f| f.bus() == 0));
    }
}

#[test]
fn a_machine_that_was_set_up_is_found_as_it_is() {
    for fabric in [
        topologies::small(),
        topologies::switch(),
        topologies::fan(9),
        topologies::sriov(2, 16),
    ] {
        let first = boot(fabric);
        let mut fabric = first.fabric().clone();
        fabric.log_mut().clear();
        let mut second = keep(fabric);
        assert_eq!(second.fabric().log().writes(), 0);
        second.assert_sound();
        assert_eq!(second.addresses(), first.addresses());
        for (old, new) in first
            .topology
            .functions
            .iter()
            .zip(&second.topology.functions)
        {
            let addresses = |f: &warmbus::pci::Function| -> Vec<_> {
                let bars = f.bars.iter().filter(|b| b.index < 7);
                bars.filter_map(|b| Some((b.index, b.address?))).collect()
            };
            let (old_bars, new_bars) = (addresses(old), addresses(new));
            assert_eq!(old_bars, new_bars, "{}", old.sbdf);
            let numbers = |f: &warmbus::pci::Function| {
                f.bridge
                    .map(|b| (b.secondary, b.subordinate, b.memory, b.prefetchable, b.io))
            };
            assert_eq!(numbers(old), numbers(new), "{}", old.sbdf);
        }
    }
}

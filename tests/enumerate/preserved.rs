use warmbus_pci::{ScanPolicy, Width};
use warmbus_pcie_sim::{Fabric, topologies};

use crate::{Machine, boot, boot_with};

fn keep(fabric: Fabric) -> Machine {
    boot_with(fabric, &ScanPolicy::default(), |host| {
        host.preserve_config = true;
    })
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
            .functions()
            .iter()
            .zip(second.topology.functions())
        {
            let addresses = |f: &warmbus_pci::Function| -> Vec<_> {
                let bars = f.bars.iter().filter(|b| b.index < 7);
                bars.filter_map(|b| Some((b.index, b.address?))).collect()
            };
            let (old_bars, new_bars) = (addresses(old), addresses(new));
            assert_eq!(old_bars, new_bars, "{}", old.sbdf);
            let numbers = |f: &warmbus_pci::Function| {
                f.bridge
                    .map(|b| (b.secondary, b.subordinate, b.memory, b.prefetchable, b.io))
            };
            assert_eq!(numbers(old), numbers(new), "{}", old.sbdf);
        }
    }
}

/// A loader that numbered its buses another way.
#[test]
fn numbers_that_a_loader_left_are_not_trusted() {
    for fabric in [
        topologies::small(),
        topologies::switch(),
        topologies::fan(9),
    ] {
        let fresh = boot(fabric.clone());
        let mut used = fresh.fabric().clone();
        let bridges: Vec<_> = used
            .nodes()
            .filter(|&node| used.peek(node, 0x0e, Width::Byte) & 0x7f == 1)
            .collect();
        // Each bridge has the numbers that the one before it is about to get.
        let numbers: Vec<u32> = bridges
            .iter()
            .map(|&bridge| used.peek(bridge, 0x18, Width::Dword))
            .collect();
        for (bridge, numbers) in bridges.iter().skip(1).zip(numbers) {
            used.poke(*bridge, 0x18, Width::Dword, numbers);
        }
        let mut again = boot(used);
        again.assert_sound();
        assert_eq!(again.addresses(), fresh.addresses());
        for (old, new) in fresh
            .topology
            .functions()
            .iter()
            .zip(again.topology.functions())
        {
            assert_eq!(
                (old.vendor_id, old.device_id),
                (new.vendor_id, new.device_id)
            );
        }
    }
}

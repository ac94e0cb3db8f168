//! The one rule for bus numbers, where numbers are assigned and where they are
//! kept: a Primary Bus Number of 0 is accepted, as Linux accepts it.

use warmbus_boot::unassigned::unassigned_below;
use warmbus_pci::{AnomalyKind, BusRange, Width, verify_assignment};
use warmbus_pcie_sim::{BarModel, Fabric, devices};
use warmbus_pcsc_format::HandoverRecords;

use crate::{at, boot, boot_with};

const BUS_NUMBERS: u16 = 0x18;

/// A switch below a root port, whose upstream port ignores writes to Primary
/// Bus Number, with an `NVMe` controller that has one more BAR. The bridges
/// have the bus numbers `found`.
fn machine(bar: u64, found: [u32; 3]) -> Fabric {
    let mut fabric = Fabric::new();
    let host = fabric.add_host(Fabric::host_bridge(
        0,
        BusRange {
            first: 0,
            last: 255,
        },
    ));
    let root = devices::root_port(1).link_up();
    let port = fabric.add_root(host, 1, 0, root.set(BUS_NUMBERS, Width::Dword, found[0]));
    let up = devices::upstream_port()
        .set(BUS_NUMBERS, Width::Dword, found[1])
        .writable(BUS_NUMBERS, Width::Dword, 0x00ff_ff00);
    let up = fabric.add_below(port, 0, 0, up);
    let down = devices::downstream_port(1).link_up();
    let down = down.set(BUS_NUMBERS, Width::Dword, found[2]);
    let down = fabric.add_below(up, 0, 0, down);
    let nvme = devices::nvme().bar(4, BarModel::memory64(bar));
    fabric.add_below(down, 0, 0, nvme);
    fabric
}

#[test]
fn what_is_below_a_bridge_with_a_hardwired_primary_number_is_found_and_can_be_kept() {
    let mut machine = boot(machine(0x4000, [0; 3]));
    assert_eq!(verify_assignment(&machine.topology, &machine.config), []);
    assert_eq!(machine.config.self_check().differences, []);
    let functions = [at(0, 1, 0), at(1, 0, 0), at(2, 0, 0), at(3, 0, 0)];
    assert_eq!(machine.addresses(), functions);
    let anomaly = AnomalyKind::ZeroPrimaryBus { bus: 1 };
    assert_eq!(machine.function(at(1, 0, 0)).anomalies, [anomaly]);
    assert_eq!(unassigned_below(&machine.topology, 0), None);
}

#[test]
fn a_preserved_machine_with_a_hardwired_primary_number_is_consistent() {
    let fabric = machine(0x4000, [0x0003_0100, 0x0003_0200, 0x0003_0302]);
    let policy = warmbus_pci::ScanPolicy::default();
    let machine = boot_with(fabric, &policy, |host| host.preserve_config = true);
    let functions = [at(0, 1, 0), at(1, 0, 0), at(2, 0, 0), at(3, 0, 0)];
    assert_eq!(machine.addresses(), functions);
    assert_eq!(verify_assignment(&machine.topology, &machine.config), []);
}

/// Linux assigns other numbers to such a bridge, and what was captured below it
/// would be served for other functions.
#[test]
fn a_primary_number_of_another_bus_is_refused_where_numbers_are_kept() {
    let mut fabric = machine(0x4000, [0x0003_0100, 0x0003_0200, 0x0003_0302]);
    let up = fabric.nodes().nth(1).expect("the upstream port");
    fabric.poke(up, BUS_NUMBERS, Width::Dword, 0x0003_0205);
    let policy = warmbus_pci::ScanPolicy::default();
    let machine = boot_with(fabric, &policy, |host| host.preserve_config = true);
    let complaints = machine.complaints();
    let numbers = "0000:01:00.0: bus numbers primary 05, secondary 02, subordinate 03";
    let mut named = complaints.iter().filter(|text| text.starts_with(numbers));
    assert!(named.next().is_some(), "{complaints:?}");
    assert_eq!(machine.addresses(), [at(0, 1, 0), at(1, 0, 0)]);
}

#[test]
fn a_bar_that_does_not_fit_says_nothing_about_capability_lists() {
    let machine = boot(machine(1 << 50, [0; 3]));
    let nvme = machine.function(at(3, 0, 0));
    let mut anomalies = nvme.anomalies.iter();
    assert!(
        anomalies.any(|kind| matches!(kind, AnomalyKind::BarUnassigned { index: 4, .. })),
        "{:?}",
        nvme.anomalies
    );
    let records = HandoverRecords::new(&machine.config, &machine.topology);
    let blocks = records.blocks();
    assert_eq!(blocks.len(), 4);
    for block in blocks {
        assert!(block.capabilities_complete, "{}", block.sbdf);
    }
}

#[test]
fn a_list_that_could_not_be_followed_is_not_complete() {
    // The Next pointer of the first capability leads to itself.
    let mut fabric = Fabric::new();
    let range = BusRange {
        first: 0,
        last: 255,
    };
    let host = fabric.add_host(Fabric::host_bridge(0, range));
    fabric.add_root(host, 1, 0, devices::nvme());
    let node = fabric.nodes().next().expect("the controller");
    let first = fabric.peek(node, 0x34, Width::Byte);
    let register = u16::try_from(first).expect("an offset") + 1;
    fabric.poke(node, register, Width::Byte, first);
    let machine = boot(fabric);
    let records = HandoverRecords::new(&machine.config, &machine.topology);
    let blocks = records.blocks();
    assert_eq!(blocks.len(), 1);
    assert!(!blocks[0].capabilities_complete);
}

//! Hardware that is not as its description says: a report that says so, and a
//! started Linux.

use warmbus_boot::report::console::Outcome;
use warmbus_qemu_tests::boot::Lab;
use warmbus_qemu_tests::pci;
use warmbus_qemu_tests::tree::{HOST_BRIDGE, Tree};

use crate::start::with_kernel_at;

const KERNEL_AT: u64 = 0x4a00_0000;

#[test]
fn an_ecam_window_with_nothing_behind_it_and_empty_slots_end_in_linux_with_the_cache() {
    let lab = Lab::new();
    let machine = || {
        lab.machine("small").arguments([
            "-device",
            "pcie-root-port,id=empty,chassis=70",
            "-device",
            "pcie-root-port,id=closed,chassis=71,hotplug=off",
        ])
    };
    let tree = Tree::of(&with_kernel_at(&lab, machine(), KERNEL_AT, |_| ()), &lab);
    // At this address nothing answers the processor, not even with ones.
    let hole = "/pcie@5000000000";
    tree.add_node(hole)
        .set_string(hole, "compatible", "pci-host-ecam-generic")
        .set_string(hole, "device_type", "pci");
    for property in ["#address-cells", "#size-cells", "bus-range"] {
        tree.set_cells(hole, property, &tree.cells(HOST_BRIDGE, property));
    }
    tree.set_cells(hole, "reg", &[0x50, 0, 0, 0x1000_0000])
        .set_cells(hole, "linux,pci-domain", &[1])
        .set_cells(
            hole,
            "ranges",
            &[0x0200_0000, 0, 0x1000_0000, 0x60, 0, 0, 0x1000_0000],
        );
    let machine = machine()
        .device_tree(tree.file())
        .load(&lab.file("kernel"), KERNEL_AT)
        .bootargs("warmbus.verify warmbus.show=tree,summary");
    let boot = lab.boot(machine).expect("it boots");

    assert_eq!(boot.outcome, Some(Outcome::Ok));
    let lines = boot.lines_with(&["0001:00:", "ended in an external abort"]);
    assert_eq!(lines.len(), 32, "one for each device number");
    let names = |functions: Vec<pci::Function>| -> Vec<_> {
        functions.iter().map(pci::Function::name).collect()
    };
    assert_eq!(names(pci::of_report(&boot.report())), names(boot.pci()));
    assert_eq!(boot.lines_with(&["root port", "link down"]).len(), 2);
    let starts = boot.lines_with(&["warmbus: starting linux at", ", with the cache"]);
    assert_eq!(starts.len(), 1, "{:#?}", boot.console);
}

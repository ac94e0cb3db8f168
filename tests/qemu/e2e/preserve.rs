//! Preserve mode: everything is taken as it is found.

use warmbus_cli::trace;
use warmbus_qemu_tests::boot::{Boot, LOADED, Lab, u_boot_alone};
use warmbus_qemu_tests::tree::{HOST_BRIDGE, Tree};
use warmbus_qemu_tests::{pci, prove};

/// Not one write reached configuration space, and what is there is listed.
fn nothing_was_written(boot: &Boot) {
    prove::ended_well(boot);
    prove::same_counts(boot);
    let counts = trace::counts(&boot.accesses());
    assert_eq!(counts.writes, 0);
    assert!(counts.reads > 0);

    let list = |functions: Vec<pci::Function>| -> Vec<_> {
        let one = |function: pci::Function| {
            let buses = function.bridge.map(|bridge| bridge.buses);
            (function.name(), function.ids, function.class, buses)
        };
        functions.into_iter().map(one).collect()
    };
    assert_eq!(list(pci::of_report(&boot.report())), list(boot.pci()));
}

#[test]
fn a_boot_argument_keeps_it_from_writing() {
    let lab = Lab::new();
    let machine = lab.machine("switch").bootargs("warmbus.preserve");
    nothing_was_written(&lab.boot(machine).expect("it boots"));
}

#[test]
fn a_word_in_chosen_keeps_it_from_writing() {
    asked_by("/chosen");
}

#[test]
fn a_word_at_the_host_bridge_keeps_it_from_writing() {
    asked_by(HOST_BRIDGE);
}

fn asked_by(node: &str) {
    let lab = Lab::new();
    let machine = lab.machine("switch");
    let tree = Tree::of(&machine, &lab);
    tree.set_cells(node, "linux,pci-probe-only", &[1]);
    nothing_was_written(
        &lab.boot(machine.device_tree(tree.file()))
            .expect("it boots"),
    );
}

#[test]
fn what_u_boot_assigned_is_found_and_kept() {
    let alone = u_boot_alone("switch");
    let lab = Lab::new();
    let commands = format!(
        "setenv bootargs warmbus.preserve warmbus.report\nbooti {LOADED:#x} - ${{fdtcontroladdr}}"
    );
    let both = lab.u_boot("switch", &commands).expect("both end");
    prove::ended_well(&both);
    prove::same_functions_as_found(&both);
    assert_eq!(both.query_pci, alone.query_pci);
    assert!(both.pci().iter().any(|function| function.bus > 6));

    // U-Boot does the same work in both runs: the rest is the firmware's.
    let [alone, both_counted] = [alone, &both].map(|boot| trace::counts(&boot.accesses()));
    assert_eq!(both_counted.writes, alone.writes);
    assert_eq!(
        both_counted.reads,
        alone.reads + both.number("/accesses/reads")
    );
}

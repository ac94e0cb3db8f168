//! Machines that differ from the plain one.

use warmbus_boot::report::console::Outcome;
use warmbus_cli::trace;
use warmbus_qemu_tests::boot::{Boot, Lab, booted};
use warmbus_qemu_tests::prove;
use warmbus_qemu_tests::tree::{HOST_BRIDGE, Tree};
use xtask::qemu::Machine;

/// Boots the topology `switch` on a changed machine and proves all of it.
fn proven(change: impl FnOnce(Machine) -> Machine) -> Boot {
    let lab = Lab::new();
    let boot = lab.boot(change(lab.machine("switch"))).expect("it boots");
    prove::everything(&boot);
    boot
}

#[test]
fn it_works_at_el2() {
    let boot = proven(Machine::el2);
    assert_eq!(boot.number("/machine/exception_level"), 2);
    assert_eq!(booted("switch").number("/machine/exception_level"), 1);
}

#[test]
fn it_works_with_four_cores() {
    let boot = proven(|machine| machine.smp(4));
    assert_eq!(boot.number("/machine/cores"), 4);
}

#[test]
fn it_works_with_four_cores_at_el2() {
    proven(|machine| machine.smp(4).el2());
}

#[test]
fn it_works_with_512_mib() {
    let boot = proven(|machine| machine.memory("512M"));
    assert_eq!(boot.number("/machine/memory_bytes"), 512 << 20);
}

#[test]
fn it_works_with_8_gib() {
    let boot = proven(|machine| machine.memory("8G"));
    assert_eq!(boot.number("/machine/memory_bytes"), 8 << 30);
}

#[test]
fn it_works_with_all_windows_below_4_gib() {
    let boot = proven(|machine| machine.machine_option("highmem=off"));
    assert!(boot.number("/host_bridges/0/ecam_base") < 1 << 32);
    assert!(booted("switch").number("/host_bridges/0/ecam_base") >= 1 << 32);
}

#[test]
fn it_works_on_other_processors() {
    for model in ["cortex-a53", "neoverse-n1", "max"] {
        proven(|machine| machine.cpu(model));
    }
}

#[test]
fn a_machine_without_pci_is_reported_and_touched_nowhere() {
    let lab = Lab::new();
    let machine = lab.machine("small");
    let tree = Tree::of(&machine, &lab);
    tree.remove_node(HOST_BRIDGE);
    let boot = lab.boot(machine.device_tree(tree.file())).expect("it ends");
    assert!(
        !boot.lines_with(&["no", "host bridge"]).is_empty(),
        "{:?}",
        boot.console
    );
    assert_eq!(boot.accesses(), []);
    assert!(boot.outcome.is_some());
}

#[test]
fn without_a_console_the_same_work_is_done_in_silence() {
    let lab = Lab::new();
    let machine = lab.machine("switch");
    let tree = Tree::of(&machine, &lab);
    tree.set_string("/chosen", "stdout-path", "/nowhere");
    let silent = lab
        .boot_to_power_off(machine.device_tree(tree.file()))
        .expect("it powers off");
    assert_eq!(silent.console, Vec::<String>::new());

    let plain = booted("switch");
    assert_eq!(plain.outcome, Some(Outcome::Ok));
    assert_eq!(silent.query_pci, plain.query_pci);
    let counts = |boot: &Boot| trace::counts(&boot.accesses());
    assert_eq!(counts(&silent), counts(plain));
}

#[test]
fn a_tree_without_stdout_path_has_its_only_port_as_the_console() {
    let lab = Lab::new();
    let machine = lab.machine("small");
    let tree = Tree::of(&machine, &lab);
    tree.remove_property("/chosen", "stdout-path");
    let boot = lab.boot(machine.device_tree(tree.file()));
    prove::everything(&boot.expect("it boots"));
    // With earlycon= it need not be the only one.
    tree.add_node("/pl011@9040000")
        .set_string("/pl011@9040000", "compatible", "arm,pl011")
        .set_cells("/pl011@9040000", "reg", &[0, 0x904_0000, 0, 0x1000]);
    let machine = lab.machine("small").bootargs("earlycon=pl011,0x9000000");
    let boot = lab.boot(machine.device_tree(tree.file()));
    prove::everything(&boot.expect("it boots"));
}

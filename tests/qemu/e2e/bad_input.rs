//! Machines that are described wrongly: one clear line, and an end.

use std::fs;

use warmbus_boot::report::console::Outcome;
use warmbus_qemu_tests::boot::{Boot, Lab, image};
use warmbus_qemu_tests::simulated::{self, Flaw, Simulated};
use warmbus_qemu_tests::tree::{HOST_BRIDGE, Tree};
use warmbus_qemu_tests::{pci, prove};
use xtask::qemu::Machine;

/// Boots the topology `small` with a tree that `change` spoiled.
fn with_tree(change: impl FnOnce(&Tree)) -> Boot {
    let lab = Lab::new();
    let machine = lab.machine("small");
    let tree = Tree::of(&machine, &lab);
    change(&tree);
    lab.boot(machine.device_tree(tree.file())).expect("it ends")
}

/// The console has at least one line with all of `words`.
fn reports(boot: &Boot, words: &[&str]) {
    assert!(
        !boot.lines_with(words).is_empty(),
        "no line with {words:?} in\n{}\n{:?}",
        boot.console.join("\n"),
        boot.outcome
    );
}

#[test]
fn a_host_bridge_of_another_kind_is_not_touched() {
    let boot = with_tree(|tree| {
        tree.set_string(HOST_BRIDGE, "compatible", "example,other-host-bridge");
    });
    reports(&boot, &["no", "host bridge"]);
    assert_eq!(boot.accesses(), []);
}

#[test]
fn buses_beyond_the_ecam_window_are_never_accessed() {
    let boot = with_tree(|tree| {
        // 2 MiB are 2 buses; bus-range says 256.
        let mut reg = tree.cells(HOST_BRIDGE, "reg");
        assert_eq!(reg.len(), 4);
        (reg[2], reg[3]) = (0, 2 << 20);
        tree.set_cells(HOST_BRIDGE, "reg", &reg);
    });
    reports(&boot, &["window has room for buses 00-01 of 00-ff"]);
    assert!(boot.accesses().iter().all(|access| access.bus < 2));
}

#[test]
fn two_host_bridges_on_one_ecam_window_are_distinguished() {
    let boot = with_tree(|tree| {
        let twin = "/pcie@20000000";
        tree.add_node(twin);
        tree.set_string(twin, "compatible", "pci-host-ecam-generic");
        tree.set_string(twin, "device_type", "pci");
        for property in [
            "reg",
            "bus-range",
            "ranges",
            "#address-cells",
            "#size-cells",
        ] {
            tree.set_cells(twin, property, &tree.cells(HOST_BRIDGE, property));
        }
    });
    reports(&boot, &["overlap", "/pcie@"]);
    // One of them was used, and whatever was done was done once.
    let names = |functions: Vec<pci::Function>| -> Vec<_> {
        let one = |function: pci::Function| function.name()[5..].to_owned();
        functions.into_iter().map(one).collect()
    };
    assert_eq!(names(pci::of_report(&boot.report())), names(boot.pci()));
    prove::same_counts(&boot);
}

#[test]
fn what_does_not_fit_is_left_disabled_and_named() {
    let boot = with_tree(|tree| {
        // Of the windows only one is left, the 32-bit one, with 1 MiB.
        let ranges = tree.cells(HOST_BRIDGE, "ranges");
        let window = ranges.chunks(7).find(|window| window[0] >> 24 & 3 == 2);
        let mut window = window.expect("there is a 32-bit window").to_vec();
        (window[5], window[6]) = (0, 1 << 20);
        tree.set_cells(HOST_BRIDGE, "ranges", &window);
    });
    let names: Vec<_> = boot.pci().iter().map(pci::Function::name).collect();
    let (ours, theirs) = (pci::of_report(&boot.report()), boot.pci());
    assert_eq!(
        ours.iter().map(pci::Function::name).collect::<Vec<_>>(),
        names
    );
    let mut left = 0;
    for (our, their) in ours.iter().zip(&theirs) {
        for (index, region) in our
            .regions
            .iter()
            .filter(|(_, region)| region.address.is_none())
        {
            left += 1;
            assert_eq!(
                their.regions[index].address,
                None,
                "{} BAR {index} is off",
                our.name()
            );
            assert_eq!(
                their.regions[index].size,
                region.size,
                "{} BAR {index}",
                our.name()
            );
        }
    }
    assert!(left > 0, "something did not fit");
    reports(&boot, &["0x"]);
}

/// Where the boot loader that is not there puts things: image, device tree and
/// the few instructions that set x0.
const IMAGE: u64 = 0x4020_0000;
pub(crate) const TREE: u64 = 0x4800_0000;
const JUMP: u64 = 0x4900_0000;

/// A machine that enters the firmware with the address `x0` in register x0,
/// and nothing else prepared.
pub(crate) fn entered_with(lab: &Lab, x0: u64, topology: &str) -> Machine {
    // ldr x0, #16; ldr x1, #20; br x1; nop; x0; x1
    let mut code: Vec<u8> = [0x5800_0080_u32, 0x5800_00a1, 0xd61f_0020, 0xd503_201f]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    code.extend([x0, IMAGE].into_iter().flat_map(u64::to_le_bytes));
    fs::write(lab.file("jump"), code).unwrap();
    Machine::bare(JUMP)
        .load(&lab.file("jump"), JUMP)
        .load(image(), IMAGE)
        .topology(&warmbus_qemu_tests::boot::topology(topology))
}

/// The device tree of QEMU with the console's boot arguments in it.
fn tree_of(lab: &Lab) -> Tree {
    let tree = Tree::of(&lab.machine("small"), lab);
    tree.set_string("/chosen", "bootargs", "warmbus.report warmbus.lspci");
    tree
}

#[test]
fn a_boot_loader_that_only_sets_x0_is_enough() {
    let lab = Lab::new();
    let tree = tree_of(&lab);
    let machine = entered_with(&lab, TREE, "small").load(tree.file(), TREE);
    prove::everything(&lab.boot(machine).expect("it boots"));
}

#[test]
fn a_device_tree_that_is_cut_off_ends_the_boot_and_touches_nothing() {
    let lab = Lab::new();
    let tree = tree_of(&lab);
    let whole = tree.bytes();
    // QEMU's trees have room to grow at their end: cut where there is text.
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    for part in [20, used / 4, used / 2, 3 * used / 4] {
        fs::write(lab.file("part"), &whole[..part]).unwrap();
        let machine = entered_with(&lab, TREE, "small").load(&lab.file("part"), TREE);
        let boot = lab.boot_to_rest(machine).expect("it ends");
        assert_eq!(boot.accesses(), [], "cut off after {part} bytes");
    }
}

#[test]
fn a_device_tree_without_memory_is_reported_and_pci_is_not_touched() {
    let lab = Lab::new();
    let tree = tree_of(&lab);
    tree.remove_node("/memory@40000000");
    let machine = entered_with(&lab, TREE, "small").load(tree.file(), TREE);
    let boot = lab.boot(machine).expect("it ends");
    assert!(matches!(boot.outcome, Some(Outcome::Failed(_))));
    reports(&boot, &["no memory"]);
    assert_eq!(boot.accesses(), []);
}

#[test]
fn without_a_device_tree_the_machine_is_powered_off_and_nothing_is_touched() {
    // No address, none of a tree, none of memory, and none that there can be. At EL2
    // PSCI is called by SMC, and at EL1 by HVC, which nothing says.
    for (x0, el2) in [
        (0, false),
        (0, true),
        (7, false),
        (IMAGE + 0x1000, true),
        (0x3f00_0000, false),
        (0x3f00_0000, true),
        (1 << 55, false),
    ] {
        let lab = Lab::new();
        let machine = entered_with(&lab, x0, "small");
        let machine = if el2 { machine.el2() } else { machine };
        let boot = lab.boot_to_power_off(machine);
        let boot = boot.unwrap_or_else(|error| panic!("{x0:#x}, {el2}: {error:?}"));
        assert_eq!(boot.accesses(), [], "{x0:#x}");
    }
}

#[test]
fn psci_that_is_disabled_is_not_called_at_the_end() {
    for (status, is_off) in [("okay", true), ("disabled", false)] {
        let lab = Lab::new();
        let tree = tree_of(&lab);
        tree.remove_node("/memory@40000000");
        tree.set_string("/psci", "status", status);
        let machine = entered_with(&lab, TREE, "small").load(tree.file(), TREE);
        let boot = lab.boot_to_rest(machine).expect("it ends");
        reports(&boot, &["no memory"]);
        assert_eq!(boot.ended.is_some(), is_off, "{status}");
        assert_eq!(boot.accesses(), []);
    }
}

#[test]
fn a_machine_that_refuses_to_power_off_is_reset() {
    for (flaws, ended) in [
        (&[][..], "guest-shutdown"),
        (&[Flaw::RefusesOff], "guest-reset"),
    ] {
        let (fabric, _) = simulated::fabric();
        let mut simulated = Simulated::new(fabric);
        simulated.flaws.extend(flaws);
        // Without a kernel to start, the firmware powers off.
        let boot = simulated.boot_to_power_off(&Lab::new()).expect("it ends");
        assert_eq!(boot.ended.as_deref(), Some(ended));
    }
}

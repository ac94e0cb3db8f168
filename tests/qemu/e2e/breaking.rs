//! The firmware itself breaks: Linux starts all the same.

use warmbus_boot::report::console::Outcome;
use warmbus_qemu_tests::boot::{Boot, Lab};
use warmbus_qemu_tests::tree::Tree;

use crate::bad_input::{TREE, entered_with};
use crate::start::{COMMAND_LINE, additions, testimony, with_kernel_at};

const MEMORY: &str = "/memory@40000000";

/// Boots the witness, loaded at `kernel`, on a machine whose tree says that
/// its memory is `memory`, and shows that the firmware breaks with a sentence
/// that has `why` in it, and that the witness starts without the cache and with an
/// untouched tree after that.
fn breaks(topology: &str, kernel: u64, memory: [u32; 4], why: &str) {
    let lab = Lab::new();
    // Seeds would make every tree another one.
    let described = lab.machine(topology).machine_option("dtb-randomness=off");
    let tree = Tree::of(&with_kernel_at(&lab, described, kernel, |_| ()), &lab);
    // QEMU describes memory as it is in every tree that it loads itself.
    tree.set_cells(MEMORY, "reg", &memory);
    let machine = entered_with(&lab, TREE, topology)
        .load(tree.file(), TREE)
        .load(&lab.file("kernel"), kernel);
    let boot = lab.boot(machine).expect("it boots");

    let Some(Outcome::Failed(reason)) = &boot.outcome else {
        panic!("{:#?}", boot.console)
    };
    assert!(reason.contains(why), "{reason}");
    assert_starts_again_once(&boot, reason);
    let mut added = additions(&lab, tree.file(), &testimony(&boot).tree);
    let command_line = format!("bootargs = \"{COMMAND_LINE}\";");
    added.retain(|line| *line != command_line);
    assert_eq!(added, [""; 0]);
}

/// One line says that it starts again and why, and another that Linux starts
/// without the cache.
fn assert_starts_again_once(boot: &Boot, reason: &str) {
    let again = boot.lines_with(&["starting again without pci"]);
    assert_eq!(again.len(), 1, "{:#?}", boot.console);
    assert!(again[0].contains(reason), "{again:?}");
    let starts = boot.lines_with(&["warmbus: starting linux at", ", without the cache"]);
    assert_eq!(starts.len(), 1, "{:#?}", boot.console);
}

#[test]
fn linux_starts_where_the_heap_is_too_small_for_the_machine() {
    // 7 MiB of memory, of which the firmware can have 256 KiB.
    breaks(
        "fan",
        0x4050_0000,
        [0, 0x4000_0000, 0, 0x70_0000],
        "panicked at",
    );
}

#[test]
fn linux_starts_where_memory_is_described_that_is_not_there() {
    // Twice as much as there is, and the heap goes to the end of it.
    breaks(
        "small",
        0x4a00_0000,
        [0, 0x4000_0000, 0, 0x8000_0000],
        "abort at image+",
    );
}

/// Boots the witness on a machine whose tree has the console at an address where
/// every access ends in an abort, and `memory`. The witness has its own console.
fn starts_without_a_word(memory: [u32; 4]) {
    const KERNEL: u64 = 0x4a00_0000;
    let lab = Lab::new();
    let described = lab.machine("small").machine_option("dtb-randomness=off");
    let tree = Tree::of(&with_kernel_at(&lab, described, KERNEL, |_| ()), &lab);
    tree.set_cells("/pl011@9000000", "reg", &[0x60, 0, 0, 0x1000])
        .set_cells(MEMORY, "reg", &memory);
    let machine = entered_with(&lab, TREE, "small")
        .load(tree.file(), TREE)
        .load(&lab.file("kernel"), KERNEL);
    let boot = lab.boot_to_power_off(machine).expect("it powers off");
    // The registers of the witness, and the tree that it got.
    assert_eq!(boot.console.len(), 2, "{:#?}", boot.console);
    assert!(boot.console[1].starts_with("d00dfeed"));
}

#[test]
fn linux_starts_where_the_console_answers_with_aborts() {
    starts_without_a_word([0, 0x4000_0000, 0, 0x4000_0000]);
}

#[test]
fn linux_starts_where_the_console_answers_with_aborts_and_the_firmware_breaks() {
    starts_without_a_word([0, 0x4000_0000, 0, 0x8000_0000]);
}

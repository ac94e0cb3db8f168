//! Memory that the firmware cannot map costs the firmware that memory, and not the
//! boot: Linux may reach it.

use std::fs;

use warmbus_boot::report::console::Outcome;
use warmbus_qemu_tests::boot::{Boot, Lab};
use warmbus_qemu_tests::consumer;
use warmbus_qemu_tests::linux::payload;
use warmbus_qemu_tests::tree::Tree;
use xtask::qemu::{self, Machine};

use crate::bad_input::{TREE, entered_with};
use crate::start::testimony;

use super::linux as proofs;

const WITNESS: &[u8] = include_bytes!("../../fixtures/kernels/witness.img");
const KERNEL_AT: u64 = 0x4a00_0000;
const MEMORY: &str = "/memory@40000000";

/// A machine that enters the firmware with `tree`. QEMU writes memory into the tree
/// of a kernel that it loads itself.
fn with_tree(lab: &Lab, tree: &Tree) -> Machine {
    entered_with(lab, TREE, "small").load(tree.file(), TREE)
}

/// Boots the witness on a processor of the model `cpu`, with memory at `start`
/// beside the memory that there is.
fn boot_with(cpu: &str, start: u64, size: u32) -> Boot {
    let lab = Lab::new();
    let kernel = format!("warmbus.kernel={KERNEL_AT:#x},{}", WITNESS.len());
    let machine = lab.machine("small").cpu(cpu).bootargs(&kernel);
    let tree = Tree::of(&machine, &lab);
    let node = format!("/memory@{start:x}");
    let halves = [(start >> 32) as u32, start as u32];
    tree.add_node(&node)
        .set_string(&node, "device_type", "memory")
        .set_cells(&node, "reg", &[halves[0], halves[1], 0, size]);
    let file = lab.file("kernel");
    fs::write(&file, WITNESS).expect("the kernel can be written");
    let machine = with_tree(&lab, &tree).cpu(cpu).load(&file, KERNEL_AT);
    lab.boot(machine).expect("it boots")
}

/// Linux is started with the cache, and there is one warning, with `words`.
#[track_caller]
fn costs_itself_only(boot: &Boot, words: &[&str]) {
    assert_eq!(boot.outcome, Some(Outcome::Ok), "{:#?}", boot.console);
    let warnings = boot.lines_with(&["warning", "is not used"]);
    assert_eq!(warnings.len(), 1, "{:#?}", boot.console);
    for word in words {
        assert!(warnings[0].contains(word), "{warnings:?}");
    }
    let start = ["starting linux at", ", with the cache"];
    assert_eq!(boot.lines_with(&start).len(), 1, "{:#?}", boot.console);
    testimony(boot);
}

#[test]
fn memory_above_the_addresses_of_the_processor_costs_itself_only() {
    // Above 48 bits, where some processors have addresses, and above the 40 bits of
    // another one.
    for (cpu, start, bits) in [
        ("max", 1 << 49, "48 address bits"),
        ("cortex-a53", 1 << 40, "40 address bits"),
    ] {
        let boot = boot_with(cpu, start, 1 << 30);
        costs_itself_only(&boot, &[&format!("{start:#x}"), "0x40000000 bytes", bits]);
    }
}

#[test]
fn a_console_within_memory_costs_its_page_only() {
    let boot = boot_with("cortex-a72", 0x8ff_f000, 0x3000);
    costs_itself_only(&boot, &["0x9000000-0x9000fff", "0x1000 bytes"]);
}

#[test]
fn memory_in_more_pieces_than_there_are_tables_for_is_used_in_part() {
    /// Holes of a page each, and where the first one is.
    const HOLES: u64 = 140;
    const FIRST: u64 = 0x8000_0000;
    const APART: u64 = 20 << 20;
    let lab = Lab::new();
    let steps = "summary,sections,compare,cache";
    let linux = payload(consumer::kernel(), steps);
    let tree = Tree::of(&lab.machine("small").payload(linux.clone()), &lab);
    let mut pieces = vec![[0x4000_0000, FIRST - 0x4000_0000]];
    pieces.extend((0..HOLES).map(|number| [FIRST + number * APART + 0x1000, APART - 0x1000]));
    let cells = pieces.as_flattened().iter();
    let cells: Vec<u32> = cells
        .flat_map(|number| [(number >> 32) as u32, *number as u32])
        .collect();
    tree.set_cells(MEMORY, "reg", &cells);
    let mut machine = with_tree(&lab, &tree).memory("4G");
    for (file, module) in [
        (Some(linux.kernel), qemu::KERNEL_AT),
        (linux.initrd, qemu::INITRD_AT),
    ] {
        machine = machine.load(&file.expect("there are both"), module);
    }
    let linux = lab.boot_linux(machine).expect("it boots");
    proofs::ended_well(&linux);
    let console = linux.boot.console.join("\n");
    let start = ["starting linux at", ", with the cache"];
    assert_eq!(linux.boot.lines_with(&start).len(), 1, "{console}");
    let single = ["warning", "is not used", "translation tables are used up"];
    assert_eq!(linux.boot.lines_with(&single).len(), 4, "{console}");
    let rest = ["more ranges of memory", "are not used"];
    assert_eq!(linux.boot.lines_with(&rest).len(), 1, "{console}");
    consumer::matches_hardware(&linux, 1);
}

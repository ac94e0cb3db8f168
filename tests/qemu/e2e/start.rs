//! Starting a kernel, with one that prints how it was entered and what it was
//! given: `tests/fixtures/kernels/witness.S`.

use std::fs;
use std::path::Path;
use std::process::Command;

use warmbus_boot::report::console::Outcome;
use warmbus_qemu_tests::boot::{Boot, Lab};
use warmbus_qemu_tests::tree::Tree;
use xtask::process;
use xtask::qemu::Machine;

const WITNESS: &[u8] = include_bytes!("../../fixtures/kernels/witness.img");
const KERNEL_AT: u64 = 0x4a00_0000;
pub(crate) const COMMAND_LINE: &str = "console=ttyAMA0 witness=1";

/// What the witness says.
pub(crate) struct Testimony {
    /// x0 to x3, `CurrentEL`, `SCTLR_ELx`, DAIF, `SPSel`.
    registers: Vec<u64>,
    pub(crate) tree: Vec<u8>,
}

/// The witness with `change`, as a module of `machine`.
fn with_kernel(lab: &Lab, machine: Machine, change: impl FnOnce(&mut Vec<u8>)) -> Machine {
    with_kernel_at(lab, machine, KERNEL_AT, change)
}

/// The same, at an address.
pub(crate) fn with_kernel_at(
    lab: &Lab,
    machine: Machine,
    address: u64,
    change: impl FnOnce(&mut Vec<u8>),
) -> Machine {
    let mut kernel = WITNESS.to_vec();
    change(&mut kernel);
    let file = lab.file("kernel");
    fs::write(&file, kernel).expect("the kernel can be written");
    let loader = format!(
        "guest-loader,addr={address:#x},kernel={},bootargs={COMMAND_LINE}",
        file.display()
    );
    machine.arguments(["-device", &loader])
}

fn small(lab: &Lab) -> Machine {
    // Seeds would make every tree another one.
    lab.machine("small").machine_option("dtb-randomness=off")
}

/// Boots the witness with `change` on the topology `small`.
fn boot_with(change: impl FnOnce(&mut Vec<u8>)) -> Boot {
    let lab = Lab::new();
    let machine = with_kernel(&lab, small(&lab), change);
    lab.boot(machine).expect("it boots")
}

/// The line that says that a kernel is started.
fn start_of(boot: &Boot) -> Option<usize> {
    let starts = |line: &String| line.starts_with("warmbus: starting Linux at 0x");
    boot.console.iter().position(starts)
}

pub(crate) fn testimony(boot: &Boot) -> Testimony {
    let start = start_of(boot).unwrap_or_else(|| panic!("{:#?}", boot.console));
    let hexadecimal = |digits| u64::from_str_radix(digits, 16).expect("hexadecimal");
    let registers = boot.console[start + 1].split_whitespace();
    let tree = boot.console[start + 2].as_bytes().chunks(2);
    Testimony {
        registers: registers.map(hexadecimal).collect(),
        tree: tree
            .map(|pair| hexadecimal(std::str::from_utf8(pair).expect("digits")) as u8)
            .collect(),
    }
}

/// The lines that dtc has for `changed` and not for `tree`.
pub(crate) fn additions(lab: &Lab, tree: &Path, changed: &[u8]) -> Vec<String> {
    let file = lab.file("changed.dtb");
    fs::write(&file, changed).expect("the tree can be written");
    let [before, after] = [tree, &file].map(|file| {
        let mut dtc = Command::new("dtc");
        dtc.args(["-q", "-s", "-I", "dtb", "-O", "dts"]).arg(file);
        process::output(&mut dtc).expect("dtc reads the tree")
    });
    let mut rest = before.lines();
    // Nothing may be gone or in another order.
    let mut expected = rest.next();
    let mut added = Vec::new();
    for line in after.lines() {
        if expected == Some(line) {
            expected = rest.next();
        } else {
            added.push(line.trim().to_owned());
        }
    }
    assert_eq!(expected, None, "{added:#?}");
    added
}

/// Boots, and says whether the cache was handed over and what was said to
/// Linux beside its command line.
fn start(change_kernel: impl FnOnce(&mut Vec<u8>), words: &str) -> (Boot, Vec<String>) {
    let lab = Lab::new();
    let machine = with_kernel(&lab, small(&lab).bootargs(words), change_kernel);
    // What asks for sections comes along with the boot and is no difference.
    let described = machine
        .clone()
        .section(warmbus_boot::report::console::Section::Report)
        .section(warmbus_boot::report::console::Section::Lspci);
    let tree = Tree::of(&described, &lab);
    let boot = lab.boot(machine).expect("it boots");
    let command_line = format!("bootargs = \"{COMMAND_LINE}\";");
    tree.remove_property("/chosen", "bootargs");
    let mut added = additions(&lab, tree.file(), &testimony(&boot).tree);
    let place = added.iter().position(|line| *line == command_line);
    added.remove(place.expect("Linux gets its command line"));
    (boot, added)
}

fn assert_plain(boot: &Boot, added: &[String], reason: &str) {
    assert_eq!(boot.outcome, Some(Outcome::Ok));
    assert_eq!(added, [""; 0]);
    let start = &boot.console[start_of(boot).expect("it starts")];
    assert!(start.ends_with(", without the cache"), "{start}");
    let lines = boot.console.iter();
    let why: Vec<_> = lines
        .filter(|line| line.contains("no cache handed over"))
        .collect();
    assert_eq!(why.len(), 1, "{:#?}", boot.console);
    assert!(why[0].contains(reason), "{why:?}");
}

fn assert_boot_protocol(boot: &Boot, level: u64) {
    let registers = testimony(boot).registers;
    assert!(registers[0].is_multiple_of(8));
    assert_eq!(registers[1..4], [0; 3]);
    assert_eq!(registers[4], level << 2);
    // SCTLR_ELx.{M, C, I}.
    assert_eq!(registers[5] & (1 | 1 << 2 | 1 << 12), 0);
    assert_eq!(registers[6], 0xf << 6, "DAIF");
}

#[test]
fn a_kernel_is_entered_as_the_boot_protocol_asks_at_either_exception_level() {
    assert_boot_protocol(&boot_with(|_| ()), 1);
    let lab = Lab::new();
    let machine = with_kernel(&lab, small(&lab).el2(), |_| ());
    assert_boot_protocol(&lab.boot(machine).expect("it boots"), 2);
}

#[test]
fn a_handover_adds_its_properties_to_the_tree_and_nothing_else() {
    let (boot, mut added) = start(|_| (), "");
    assert_eq!(boot.outcome, Some(Outcome::Ok));
    added.sort();
    let names: Vec<_> = added
        .iter()
        .map(|line| line.split(" = ").next().expect("a name"))
        .collect();
    assert_eq!(
        names,
        ["linux,kho-fdt", "linux,kho-scratch", "linux,pci-probe-only"]
    );
    assert!(added[2].ends_with("<0x01>;"), "{added:?}");
}

#[test]
fn without_a_handover_a_kernel_gets_the_tree_of_its_loader() {
    let (boot, added) = start(|_| (), "warmbus.kho=off");
    assert_plain(&boot, &added, "warmbus.kho=off");
}

/// Overwrites the version of the handover that the witness claims.
fn claim(kernel: &mut [u8], version: [u8; 6]) {
    let at = kernel
        .windows(6)
        .position(|bytes| bytes == b"kho-v4")
        .expect("the witness claims a version");
    kernel[at..at + 6].copy_from_slice(&version);
}

#[test]
fn a_kernel_that_wants_no_handover_or_an_unknown_one_is_started_without_one() {
    let (boot, added) = start(|kernel| claim(kernel, *b"KHO-v4"), "");
    assert_plain(&boot, &added, "no Kexec HandOver");
    let (boot, added) = start(|kernel| claim(kernel, *b"kho-v9"), "");
    assert_plain(&boot, &added, "'kho-v9'");
}

#[test]
fn a_handover_that_memory_has_no_place_for_is_not_made() {
    // 64 KiB pages want 512 MiB of scratch in one piece.
    let big_pages = |kernel: &mut Vec<u8>| kernel[24] = 0xe;
    let lab = Lab::new();
    let machine = with_kernel(&lab, small(&lab).memory("768M"), big_pages);
    let boot = lab.boot(machine).expect("it boots");
    assert_plain(&boot, &[], "512 MiB of scratch memory");
    testimony(&boot);
}

#[test]
fn an_assignment_with_gaps_is_not_handed_over_to_a_kernel_that_would_renumber() {
    let (boot, added) = start(|_| (), "warmbus.preserve");
    assert_plain(&boot, &added, "0000:00:01.0");
}

#[test]
fn a_kernel_that_cannot_be_started_ends_in_one_line_that_says_why() {
    for (change, why) in [
        ((|kernel| kernel[56] ^= 1) as fn(&mut Vec<u8>), "magic"),
        (|kernel| kernel[19] = 0x80, "no place for the 0x80010000"),
        (|kernel| kernel[18] = 0, "does not name its size"),
        (
            |kernel| kernel[17..19].copy_from_slice(&[1, 0]),
            "does not fit into the 0x100 ",
        ),
        (|kernel| kernel.truncate(32), "less than the 64"),
        (|kernel| kernel[..2].copy_from_slice(&[0x1f, 0x8b]), "gzip"),
    ] {
        let boot = boot_with(change);
        let Some(Outcome::Failed(reason)) = &boot.outcome else {
            panic!("{why}: {:#?}", boot.console)
        };
        assert!(reason.contains(why), "{reason}");
        assert_eq!(start_of(&boot), None);
    }
}

#[test]
fn an_initrd_that_is_not_in_memory_ends_in_a_line_that_says_where() {
    let lab = Lab::new();
    let machine = with_kernel(&lab, small(&lab), |_| ());
    let tree = Tree::of(&machine, &lab);
    tree.set_cells("/chosen", "linux,initrd-start", &[0xf000_0000]);
    tree.set_cells("/chosen", "linux,initrd-end", &[0xf000_1000]);
    let machine = small(&lab)
        .load(&lab.file("kernel"), KERNEL_AT)
        .device_tree(tree.file());
    let boot = lab.boot(machine).expect("it boots");
    let Some(Outcome::Failed(reason)) = &boot.outcome else {
        panic!("{:#?}", boot.console)
    };
    assert!(reason.contains("0xf0000000"), "{reason}");
}

#[test]
fn probe_only_stops_before_a_kernel() {
    let lab = Lab::new();
    let machine = with_kernel(&lab, small(&lab).bootargs("warmbus.probe_only"), |_| ());
    let boot = lab.boot(machine).expect("it boots");
    assert_eq!(boot.outcome, Some(Outcome::Ok));
    assert_eq!(start_of(&boot), None);
}

//! Device trees up to the 2 MiB that the boot protocol of arm64 allows, and
//! trees that would take more memory than there is before it is known.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use warmbus_boot::report::console::Outcome;
use warmbus_qemu_tests::boot::{Boot, Lab};
use warmbus_qemu_tests::tree::Tree;
use xtask::process;

use crate::bad_input::{TREE, entered_with};

const WITNESS: &[u8] = include_bytes!("../../fixtures/kernels/witness.img");
const KERNEL_AT: u64 = 0x4a00_0000;
/// The largest tree that is a multiple of a page and not more than 2 MiB.
const LARGEST: usize = 2 << 20;

/// QEMU's tree with the kernel in its command line, `content` in its root and
/// `size` bytes, the rest of which is padding; as dtc makes it.
fn tree(lab: &Lab, content: &str, size: usize) -> PathBuf {
    let tree = Tree::of(&lab.machine("small"), lab);
    let kernel = format!("warmbus.kernel={KERNEL_AT:#x},{}", WITNESS.len());
    tree.set_string("/chosen", "bootargs", &kernel);
    let (source, padded) = (lab.file("tree.dts"), lab.file("padded.dtb"));
    let mut dtc = Command::new("dtc");
    dtc.args(["-q", "-I", "dtb", "-O", "dts"]).arg(tree.file());
    let mut text = process::output(&mut dtc).expect("dtc reads the tree");
    let end = text.rfind("};").expect("the root ends");
    text.insert_str(end, content);
    fs::write(&source, text).unwrap();
    let mut dtc = Command::new("dtc");
    dtc.args(["-q", "-I", "dts", "-O", "dtb", "-S", &size.to_string()])
        .arg("-o")
        .args([&padded, &source]);
    process::output(&mut dtc).expect("dtc writes the tree");
    assert_eq!(fs::metadata(&padded).unwrap().len(), size as u64);
    padded
}

fn boot(lab: &Lab, tree: &std::path::Path) -> Boot {
    let kernel = lab.file("kernel");
    fs::write(&kernel, WITNESS).unwrap();
    let machine = entered_with(lab, TREE, "small")
        .load(tree, TREE)
        .load(&kernel, KERNEL_AT);
    lab.boot(machine).expect("it ends")
}

fn assert_starts_linux_with_the_cache(boot: &Boot) {
    assert_eq!(boot.outcome, Some(Outcome::Ok), "{:#?}", boot.console);
    let starts = boot.lines_with(&["warmbus: starting Linux at 0x"]);
    assert_eq!(starts.len(), 1, "{:#?}", boot.console);
    assert!(!starts[0].contains("without the cache"), "{starts:?}");
    assert!(boot.lines_with(&["stays without"]).is_empty());
}

#[test]
fn a_padded_tree_of_two_mebibytes_starts_linux_with_the_cache() {
    let lab = Lab::new();
    let tree = tree(&lab, "", LARGEST);
    assert_starts_linux_with_the_cache(&boot(&lab, &tree));
}

#[test]
fn a_tree_with_a_mebibyte_of_nodes_starts_linux_with_the_cache() {
    let lab = Lab::new();
    let mut nodes = String::new();
    for number in 0..1024 {
        let data = "00112233445566778899aabbccddeeff".repeat(60);
        writeln!(
            nodes,
            "device@{number:x} {{ compatible = \"example,device\"; data = [{data}]; }};"
        )
        .unwrap();
    }
    let tree = tree(&lab, &nodes, LARGEST);
    assert_starts_linux_with_the_cache(&boot(&lab, &tree));
}

#[test]
fn more_memory_than_any_machine_has_ranges_of_ends_in_one_line() {
    let lab = Lab::new();
    let mut ranges = String::new();
    for number in 0..60_000 {
        write!(ranges, "{number:#x} 0 0 0x1000 ").unwrap();
    }
    let node = format!("memory@0 {{ device_type = \"memory\"; reg = <{ranges}>; }};");
    let boot = boot(&lab, &tree(&lab, &node, LARGEST));
    let Some(Outcome::Failed(reason)) = &boot.outcome else {
        panic!("{:#?}", boot.console)
    };
    assert!(reason.contains("more than 1024 memory ranges"), "{reason}");
    assert_eq!(boot.accesses(), []);
}

#[test]
fn a_kernel_that_the_command_line_names_wrongly_is_no_success() {
    let lab = Lab::new();
    let machine = lab.machine("small").bootargs("warmbus.kernel=0x4a000000");
    let boot = lab.boot(machine).expect("it ends");
    let Some(Outcome::Failed(reason)) = &boot.outcome else {
        panic!("{:#?}", boot.console)
    };
    assert!(reason.contains("no Linux is started"), "{reason}");
}

//! `warmbus status` on trees as a kernel with the series shows them.

use serde_json::{Value, json};

use crate::sysfs::Tree;
use crate::{Ran, warmbus};

/// A subtree `pcsc` with nodes for these functions (docs/pcsc-format.md).
fn subtree(functions: &[&str]) -> Vec<u8> {
    let mut tree = warmbus_fdt::FdtWriter::new();
    tree.begin_node("");
    tree.property_string("compatible", "pcsc-v1");
    tree.property("pv", &1_u32.to_le_bytes());
    for (number, function) in functions.iter().enumerate() {
        tree.begin_node(&format!("dev_{}", function.replace([':', '.'], "_")));
        let address = 0x7e00_0000 + 0x2000 * number as u64;
        tree.property("da", &address.to_le_bytes());
        tree.end_node();
    }
    tree.end_node();
    tree.finish().unwrap()
}

/// The machine `small` with a kernel that uses a handover of three functions.
fn machine() -> Tree {
    let tree = Tree::small(64);
    tree.write("kernel/debug/kho/in/sub_fdts/pcsc", subtree(&HANDED_OVER));
    let counters =
        "mode on\nrestored 2\nrejected 1\nhits 120\npassed 480\nverified 0\ndifferences 0\n";
    tree.write("kernel/debug/pcsc", counters);
    tree.write("proc/cmdline", "console=ttyAMA0 kho=on pcsc=on quiet\n");
    tree.write("proc/sys/kernel/osrelease", "7.3.4-consumer\n");
    tree.write(
        "log",
        "[    0.1] pcsc: 2 functions handed over\n\
         [    0.2] pcsc: 0000:03:00.0: what was handed over is not what the device has: it is not used\n\
         [    0.3] pci 0000:01:00.0: BAR 0 [mem 0x10000000-0x10003fff]\n",
    );
    tree
}

const HANDED_OVER: [&str; 3] = ["0000:00:01.0", "0000:01:00.0", "0000:03:00.0"];

fn status(tree: &Tree, options: &[&str]) -> Ran {
    let at = |name: &str| tree.at(name).display().to_string();
    let (proc, log) = (at("proc"), at("log"));
    let sysfs = tree.path();
    let places = ["status", "--sysfs", &sysfs, "--proc", &proc, "--log", &log];
    warmbus(&[&places, options].concat())
}

fn state<'a>(found: &'a Value, sbdf: &str) -> &'a Value {
    let functions = found["functions"].as_array().unwrap();
    functions.iter().find(|one| one["sbdf"] == sbdf).unwrap()
}

#[test]
fn each_function_is_used_dropped_with_its_reason_or_not_handed_over() {
    let tree = machine();
    let found = status(&tree, &["--json"]).ended(0).json();
    assert_eq!(found["schema"], "warmbus-status/1");
    assert_eq!(found["release"], "7.3.4-consumer");
    assert_eq!(found["command_line"], json!(["kho=on", "pcsc=on"]));
    assert_eq!(found["handed_over"], 3);
    assert_eq!(found["counters"]["hits"], 120);
    assert_eq!(found["counters"]["mode"], "on");
    assert_eq!(found["needs_root"], json!([]));
    assert_eq!(found["functions"].as_array().unwrap().len(), 9);
    assert_eq!(state(&found, "0000:01:00.0")["state"], "used");
    assert_eq!(state(&found, "0000:05:00.0")["state"], "not-handed-over");
    let dropped = state(&found, "0000:03:00.0");
    assert_eq!(dropped["state"], "dropped");
    assert_eq!(
        dropped["reason"],
        "what was handed over is not what the device has"
    );

    let text = status(&tree, &[]).ended(0).out;
    for line in [
        "handover       received, with 3 functions",
        "cache          mode on, 2 functions restored, 1 rejected",
        "reads          120 served, 480 passed on",
        "log            2 functions handed over",
        "functions          2 used",
        "functions          6 not handed over",
        "dropped        0000:03:00.0: what was handed over is not what the device has",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
}

#[test]
fn virtual_functions_are_left_to_their_physical_function() {
    let tree = machine();
    tree.attribute("0000:01:00.0", "physfn", "");
    let found = status(&tree, &["--json"]).json();
    assert_eq!(state(&found, "0000:01:00.0")["state"], "virtual");
}

#[test]
fn a_kernel_that_uses_nothing_ends_with_status_1() {
    let tree = machine();
    tree.write(
        "kernel/debug/pcsc",
        "mode off\nrestored 2\nrejected 0\nhits 0\npassed 0\n",
    );
    status(&tree, &[]).ended(1);

    let tree = Tree::small(64);
    tree.write("kernel/debug/x", "");
    tree.write("log", "");
    let text = status(&tree, &[]).ended(1).out;
    assert!(text.contains("handover       none"), "{text}");
    assert!(
        text.contains("this kernel does not read the cache"),
        "{text}"
    );
    assert!(!text.contains("root adds"), "{text}");
}

#[test]
fn a_damaged_subtree_is_named_and_hides_nothing_else() {
    let tree = machine();
    tree.write("kernel/debug/kho/in/sub_fdts/pcsc", "no tree");
    let found = status(&tree, &["--json"]).ended(1).json();
    assert!(
        found["handover"].as_str().unwrap().starts_with("damaged: "),
        "{found}"
    );
    assert_eq!(state(&found, "0000:01:00.0")["state"], "unknown");
    assert_eq!(state(&found, "0000:03:00.0")["state"], "dropped");
}

/// Without root debugfs may not be entered; the boot tree is for everybody.
#[test]
fn without_root_the_boot_tree_shows_that_there_is_a_handover() {
    let tree = machine();
    tree.write("firmware/devicetree/base/chosen/linux,kho-fdt", [0; 8]);
    let debug = tree.at("kernel/debug");
    let locked = crate::Locked::new(&debug);
    if locked.is_ignored() {
        eprintln!("skipped: root may enter every folder");
        return;
    }
    let text = status(&tree, &[]).ended(1).out;
    assert!(text.contains("handover       there is one"), "{text}");
    assert!(
        text.contains("root adds      the mode and the counters"),
        "{text}"
    );
}

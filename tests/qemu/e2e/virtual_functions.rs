//! SR-IOV virtual functions: enabled to be captured, and left enabled.

use std::collections::BTreeSet;

use serde_json::Value;
use warmbus_cli::trace;
use warmbus_qemu_tests::boot::{Boot, Lab};
use warmbus_qemu_tests::pci::Function;
use warmbus_qemu_tests::prove;

/// VFs of the topology `sriov`.
const VFS: usize = 4 * 127;

fn boot(words: &str) -> Boot {
    let lab = Lab::new();
    lab.boot_without_dump(lab.machine("sriov").bootargs(words))
        .expect("it boots")
}

fn virtual_functions(report: &Value) -> Vec<&Value> {
    let functions = report["functions"].as_array().into_iter().flatten();
    functions
        .filter(|function| function["virtual_function"].is_object())
        .collect()
}

#[test]
fn all_virtual_functions_that_qemu_has_are_captured() {
    let boot = boot("warmbus.vfs=all,keep warmbus.verify");
    prove::ended_well(&boot);
    let report = boot.report();
    let vfs = virtual_functions(&report);
    assert_eq!(vfs.len(), VFS);
    // They are still enabled, so that QEMU lists them with all others.
    let ours: BTreeSet<String> = report["functions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|function| function["sbdf"].as_str().map(str::to_owned))
        .collect();
    let theirs: BTreeSet<String> = boot.pci().iter().map(Function::name).collect();
    assert_eq!(ours, theirs);
    for vf in vfs {
        assert_eq!(vf["cached_bytes"], vf["cacheable_bytes"], "{vf}");
        assert_eq!(vf["anomalies"].as_array().map(Vec::len), Some(0), "{vf}");
        assert_eq!(vf["vendor_id"].as_u64(), Some(0x1b36), "{vf}");
        assert_eq!(vf["device_id"].as_u64(), Some(0x10), "{vf}");
    }
    // What the specification fixes in them was not read, and is true.
    let check = &report["self_check"];
    assert_eq!(
        check["differences"].as_array().map(Vec::len),
        Some(0),
        "{check}"
    );
    let cached = report["functions"].as_array().into_iter().flatten();
    let cached = cached.filter_map(|function| function["cached_bytes"].as_u64());
    assert_eq!(check["bytes"].as_u64(), Some(cached.sum()));
}

#[test]
fn virtual_functions_are_disabled_again_and_cost_less_than_one_read_of_each_dword() {
    let boot = boot("warmbus.vfs=all");
    prove::ended_well(&boot);
    prove::same_counts(&boot);
    assert_eq!(boot.number("/accesses/most_reads_of_one_dword"), 1);
    let report = boot.report();
    assert_eq!(virtual_functions(&report).len(), VFS);
    assert_eq!(
        boot.pci().len(),
        9,
        "QEMU has no virtual functions any more"
    );
    let counts = trace::counts(&boot.accesses());
    let dwords = boot.number("/accesses/cacheable_dwords");
    assert!(counts.reads < dwords, "{counts:?}, {dwords} dwords");
}

//! `warmbus survey`, on a machine that QEMU recorded and on this one.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::sysfs::Tree;
use crate::{Ran, data, warmbus};

fn survey(tree: &Tree, options: &[&str]) -> Ran {
    warmbus(&[&["survey", "--sysfs", &tree.path()], options].concat())
}

fn described(tree: &Tree) -> Value {
    let ran = survey(tree, &["--json"]).ended(0);
    let found = ran.json();
    assert_eq!(found["schema"], "warmbus-survey/1");
    found
}

/// The functions in the report of the firmware for the same machine.
fn reported() -> Vec<Value> {
    let report: Value = serde_json::from_slice(&fs::read(data("small.json")).unwrap()).unwrap();
    report["functions"].as_array().unwrap().clone()
}

#[test]
fn kinds_and_cacheable_bytes_are_those_of_the_firmware_on_the_same_machine() {
    let found = described(&Tree::small(4096));
    let kind = |function: &Value| match function["port_type"].as_str() {
        Some("root-port") => "root-port",
        Some("endpoint") => "endpoint",
        None if function["class_code"] == 0x06_0000 => "host-bridge",
        Some("root-complex-integrated-endpoint") | None => "other",
        Some(another) => panic!("{another}"),
    };
    let functions = found["functions"].as_array().unwrap();
    assert_eq!(functions.len(), reported().len());
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for (function, reported) in functions.iter().zip(&reported()) {
        let expected = kind(reported);
        *kinds.entry(expected).or_default() += 1;
        assert_eq!(function["kind"], expected, "{function}");
        assert_eq!(function["kind_from"], "capabilities");
        for key in ["sbdf", "class_code", "vendor_id", "config_bytes"] {
            assert_eq!(function[key], reported[key], "{key} of {function}");
        }
        let bytes = function["cacheable_bytes"].as_u64().unwrap();
        let of_firmware = reported["cacheable_bytes"].as_u64().unwrap();
        // The dump has 0 in registers that were not captured, and the rule for
        // some depends on them.
        assert!(bytes.abs_diff(of_firmware) <= 2, "{function}");
    }
    assert_eq!(found["kinds"], json!(kinds));
    assert_eq!(found["needs_root"], json!([]));
}

#[test]
fn without_root_kinds_come_from_the_places_and_the_rest_needs_root() {
    let with_root = described(&Tree::small(4096));
    let tree = Tree::small(64);
    let found = described(&tree);
    assert_eq!(found["kinds"], with_root["kinds"]);
    assert_eq!(found["cacheable_bytes"], Value::Null);
    assert_eq!(found["needs_root"].as_array().unwrap().len(), 1);
    assert!(found["time"]["median_nanoseconds"].is_u64());
    assert!(found["forecast_microseconds"]["boot"]["middle"].is_i64());
    let text = survey(&tree, &[]).out;
    assert!(
        text.contains("root adds      the share of cacheable bytes"),
        "{text}"
    );
    assert!(!survey(&Tree::small(4096), &[]).out.contains("root adds"));
}

#[test]
fn a_host_bridge_of_a_device_tree_is_judged_by_the_rules_of_the_firmware() {
    let of = |file: &str, host: &str| described(&Tree::small(4096).arm64().device_tree(file, host));
    let found = of("qemu-virt.dtb", "/pcie@10000000");
    assert_eq!(
        found["host_bridges"],
        json!([{ "name": "/pcie@10000000", "root_bus": "0000:00", "handed_over": true, "reason": null }])
    );
    assert_eq!(found["functions"][0]["handed_over"], true);

    // What becomes of these is in tests/fixtures/device-trees/mixed-hosts.dts.
    let found = of("mixed-hosts.dtb", "/pcie@10000000");
    let hosts = found["host_bridges"].as_array().unwrap();
    let reasons: Vec<_> = hosts
        .iter()
        .filter_map(|host| host["reason"].as_str())
        .collect();
    assert!(hosts.len() > 5, "{hosts:?}");
    for expected in ["its driver in Linux resets it", "Linux starts"] {
        assert!(
            reasons.iter().any(|reason| reason.contains(expected)),
            "{reasons:?}"
        );
    }
    assert!(
        hosts.iter().any(|host| host["handed_over"] == true),
        "{hosts:?}"
    );
}

#[test]
fn functions_below_a_host_bridge_that_is_not_handed_over_save_nothing() {
    let tree = Tree::small(4096)
        .arm64()
        .device_tree("mixed-hosts.dtb", "/chosen");
    let ran = survey(&tree, &["--json"]).ended(0);
    let found = ran.json();
    assert_eq!(found["worth_it"], false);
    assert_eq!(found["functions"][0]["handed_over"], false);
    assert_eq!(found["forecast_microseconds"]["boot"]["middle"], 0);
    assert_eq!(
        found["verdict"],
        "not worth it: no host bridge would be handed over"
    );
}

#[test]
fn a_host_bridge_of_acpi_is_judged_by_its_mcfg() {
    let found = described(&Tree::small(4096).arm64().mcfg(|_| {}));
    let host = &found["host_bridges"][0];
    assert_eq!(
        (&host["name"], &host["handed_over"]),
        (&json!("acpi 0000:00"), &json!(true))
    );

    // The OEM ID and OEM Table ID of a machine in the table of quirks of Linux.
    let graviton = |mcfg: &mut [u8]| {
        mcfg[10..16].copy_from_slice(b"AMAZON");
        mcfg[16..24].copy_from_slice(b"GRAVITON");
        mcfg[24..28].fill(0);
    };
    let found = described(&Tree::small(4096).arm64().mcfg(graviton));
    let host = &found["host_bridges"][0];
    assert_eq!(host["handed_over"], false);
    assert!(
        host["reason"].as_str().unwrap().contains("GRAVITON"),
        "{host}"
    );

    let elsewhere = |mcfg: &mut [u8]| mcfg[44 + 8] = 1;
    let found = described(&Tree::small(4096).arm64().mcfg(elsewhere));
    let reason = found["host_bridges"][0]["reason"].as_str().unwrap();
    assert!(
        reason.contains("no entry of the MCFG has its buses"),
        "{reason}"
    );

    let tree = Tree::small(4096).arm64();
    tree.write("firmware/acpi/tables/DSDT", "");
    let found = described(&tree);
    let unknown = found["host_bridges_unknown"].as_str().unwrap();
    assert!(unknown.contains("MCFG"), "{unknown}");
}

#[test]
fn a_machine_that_uefi_describes_by_a_device_tree_is_not_handled() {
    let tree = Tree::small(4096)
        .arm64()
        .device_tree("qemu-virt.dtb", "/pcie@10000000");
    tree.write(
        "firmware/devicetree/base/chosen/linux,uefi-system-table",
        [0; 8],
    );
    let found = described(&tree);
    let unknown = found["host_bridges_unknown"].as_str().unwrap();
    assert!(unknown.contains("UEFI describes this machine"), "{unknown}");
}

#[test]
fn what_a_read_would_wake_is_not_read() {
    let tree = Tree::small(4096);
    tree.attribute("0000:00:04.0", "power_state", "D3cold\n");
    tree.attribute("0000:00:01.0", "power/runtime_status", "suspended\n");
    let found = described(&tree);
    let unread: BTreeMap<&str, &str> = found["functions"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| Some((one["sbdf"].as_str()?, one["not_read"].as_str()?)))
        .collect();
    assert_eq!(
        unread,
        BTreeMap::from([
            ("0000:00:04.0", "it is in D3cold"),
            ("0000:01:00.0", "the bridge above it is suspended"),
        ])
    );
    for one in found["functions"].as_array().unwrap() {
        assert_eq!(one["time"].is_null(), one["not_read"].is_string(), "{one}");
    }
    let text = survey(&tree, &[]).out;
    assert!(
        text.contains("not read       0000:00:04.0: it is in D3cold"),
        "{text}"
    );
}

#[test]
fn the_verdict_says_when_it_is_not_worth_it() {
    let verdict = |tree: &Tree| {
        let text = survey(tree, &[]).ended(0).out;
        text.lines().last().unwrap().to_owned()
    };
    let line = verdict(&Tree::small(4096));
    assert!(
        line.starts_with("verdict        not for this machine: Warmbus is for arm64"),
        "{line}"
    );
    // Reads of a file take next to nothing.
    let arm64 = Tree::small(4096)
        .arm64()
        .device_tree("qemu-virt.dtb", "/pcie@10000000");
    let line = verdict(&arm64);
    assert!(
        line.starts_with("verdict        not worth it for a boot"),
        "{line}"
    );
}

#[test]
fn the_progress_ends_at_100_percent_and_is_not_in_the_result() {
    let tree = Tree::small(64);
    let ran = survey(&tree, &["--progress", "always", "--json"]);
    assert!(ran.json().is_object());
    let last = ran.err.trim_end().rsplit('\r').next().unwrap();
    assert!(
        last.ends_with("100 %") && !last.contains('-'),
        "{:?}",
        ran.err
    );
    assert!(ran.err.contains(" 11 %"), "{:?}", ran.err);
    assert_eq!(survey(&tree, &[]).err, "", "no terminal, no progress");
}

#[test]
fn virtual_functions_are_counted_and_forecast() {
    let tree = Tree::small(4096);
    tree.attribute("0000:03:00.0", "sriov_totalvfs", "127\n");
    tree.attribute("0000:03:00.0", "sriov_numvfs", "2\n");
    let found = described(&tree);
    assert_eq!(
        (&found["possible_vfs"], &found["vfs"]),
        (&json!(127), &json!(127))
    );
    let text = survey(&tree, &["--vfs", "64"]).out;
    assert!(
        text.contains("VFs            127 possible, 2 enabled"),
        "{text}"
    );
    assert!(text.contains("saved for 64 of them"), "{text}");
}

/// Linux numbers the domains of Intel VMD from 0x10000 on.
#[test]
fn a_function_of_a_segment_of_more_than_16_bits_is_named_and_skipped() {
    let tree = Tree::small(64);
    tree.write("bus/pci/devices/10000:e1:00.0/class", "0x010802\n");
    let found = described(&tree);
    assert_eq!(found["skipped"], json!(["10000:e1:00.0"]));
    assert_eq!(found["functions"].as_array().unwrap().len(), 9);
    let text = survey(&tree, &[]).out;
    assert!(
        text.contains("not read       10000:e1:00.0: its segment"),
        "{text}"
    );
    tree.write("bus/pci/devices/other/class", "0x010802\n");
    assert!(survey(&tree, &[]).ended(2).err.contains("\"other\""));
}

#[test]
fn a_tree_without_pci_is_an_error_that_names_the_folder() {
    let folder = crate::Folder::new();
    let path = folder.0.path().display().to_string();
    let ran = warmbus(&["survey", "--sysfs", &path]).ended(2);
    assert!(ran.err.contains("bus/pci/devices"), "{}", ran.err);
}

/// The functions of the machine that runs the test are those of `lspci`.
#[test]
fn this_machine_is_surveyed() {
    let Ok(entries) = fs::read_dir("/sys/bus/pci/devices") else {
        return;
    };
    let listed: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    let ran = warmbus(&["survey", "--samples", "5", "--json"]).ended(0);
    let found = ran.json();
    let functions = found["functions"].as_array().unwrap();
    assert_eq!(functions.len(), listed.len());
    for function in functions {
        let name = function["sbdf"].as_str().unwrap();
        assert!(listed.iter().any(|listed| listed == name), "{name}");
        let id = fs::read_to_string(format!("/sys/bus/pci/devices/{name}/vendor")).unwrap();
        let vendor = function["vendor_id"].as_u64().unwrap();
        assert_eq!(id.trim(), format!("{vendor:#06x}"));
    }
}

//! `warmbus lspci` and `warmbus diff`.

use std::process::Command;

use warmbus_kho::KhoAbi;
use warmbus_pci::{ConfigAccess, ConfigOffset, Sbdf, Width};
use warmbus_pcie_sim::topologies;

use crate::machine::Machine;
use crate::{Folder, data, warmbus};

/// What `lspci` makes of a dump.
fn lspci(dump: &str, options: &[&str]) -> String {
    let output = Command::new("lspci")
        .args(["-F", dump])
        .args(options)
        .output()
        .expect("the tests need lspci from the package pciutils");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The lines that name functions and capabilities.
fn structure(decoded: &str) -> Vec<String> {
    let lines = decoded.lines();
    lines
        .filter(|line| !line.starts_with('\t') || line.contains("Capabilities: ["))
        .map(|line| {
            // What a capability says may be volatile; where it is and what,
            // is not.
            let end = line
                .find("] ")
                .map_or(line.len(), |at| line.len().min(at + 12));
            line.get(..end).unwrap_or(line).to_owned()
        })
        .collect()
}

#[test]
fn lspci_sees_in_a_handover_the_tree_and_the_capabilities_that_the_fabric_has() {
    for fabric in [topologies::switch(), topologies::sriov(2, 16)] {
        let mut machine = Machine::boot(fabric);
        let folder = Folder::new();
        let truth = folder.file("truth", machine.truth());
        let (memory, _) = machine.memory(KhoAbi::V4);
        let memory = folder.file("memory", memory.bytes());
        let dump = folder.file("dump", warmbus(&["lspci", &memory]).ended(0).out);
        assert_eq!(lspci(&dump, &["-t"]), lspci(&truth, &["-t"]));
        assert_eq!(lspci(&dump, &["-Dn"]), lspci(&truth, &["-Dn"]));
        let (shown, wanted) = (lspci(&dump, &["-vvn"]), lspci(&truth, &["-vvn"]));
        let wanted = structure(&wanted);
        assert!(wanted.iter().any(|line| line.contains("Capabilities")));
        assert_eq!(structure(&shown), wanted);
    }
}

#[test]
fn a_console_with_a_dump_and_a_report_is_as_good_as_the_two_files() {
    let machine = Machine::boot(topologies::small());
    let folder = Folder::new();
    let console = format!(
        "[ 0.1] hello\r\n-----BEGIN WARMBUS REPORT-----\r\n{}-----END WARMBUS REPORT-----\r\n-----BEGIN WARMBUS LSPCI-----\r\n{}-----END WARMBUS LSPCI-----\r\nwarmbus: result: ok\r\n",
        machine.report().replace('\n', "\r\n"),
        machine.dump().replace('\n', "\r\n"),
    );
    let console = folder.file("console", console);
    let dump = folder.file("dump", machine.dump());
    let report = folder.file("report", machine.report());
    assert_eq!(
        warmbus(&["lspci", &console]).ended(0).out,
        warmbus(&["lspci", &dump]).ended(0).out
    );
    let printed = warmbus(&["inspect", &console]).ended(0).out;
    assert_eq!(printed, warmbus(&["inspect", &report]).ended(0).out);
    for function in machine.captured.topology.functions() {
        assert!(printed.contains(&function.sbdf.to_string()), "{printed}");
    }
    warmbus(&["diff", &console, &dump]).ended(0);
}

#[test]
fn captures_of_the_same_state_do_not_differ() {
    let mut machine = Machine::boot(topologies::switch());
    let folder = Folder::new();
    let (memory, _) = machine.memory(KhoAbi::V4);
    let memory = folder.file("memory", memory.bytes());
    let truth = folder.file("truth", machine.truth());
    let ran = warmbus(&["diff", &memory, &truth]).ended(0);
    assert_eq!(ran.out, "", "every cached byte is what the fabric returns");
    warmbus(&["diff", &memory, &memory]).ended(0);
    let report = folder.file("report", machine.report());
    warmbus(&["diff", &report, &report]).ended(0);
}

#[test]
fn a_write_shows_as_the_register_that_it_changed() {
    let mut machine = Machine::boot(topologies::small());
    let folder = Folder::new();
    let before = folder.file("before", machine.truth());
    let nvme = Sbdf::new(0, 3, 0, 0);
    let fabric = machine.captured.config.access_mut();
    let command = fabric.read(nvme, ConfigOffset::wrapping(4), Width::Word);
    fabric.write(nvme, ConfigOffset::wrapping(4), Width::Word, command ^ 4);
    fabric.write(nvme, ConfigOffset::wrapping(0x3c), Width::Byte, 0x5a);
    let after = folder.file("after", machine.truth());
    let ran = warmbus(&["diff", &before, &after]).ended(1);
    let wanted = format!(
        "{nvme}\n  004 Command: {command:04x} -> {:04x}\n  03c Interrupt Line: 00 -> 5a\n",
        command ^ 4
    );
    assert_eq!(ran.out, wanted);
    let value = warmbus(&["diff", "--json", &before, &after])
        .ended(1)
        .json();
    assert_eq!(value["schema"], "warmbus-diff/1");
    assert_eq!(value["registers"][1]["name"], "Interrupt Line");
    assert_eq!(value["registers"][1]["b"], serde_json::json!([0x5a]));
}

#[test]
fn added_and_removed_functions_and_changed_report_values_are_listed() {
    let folder = Folder::new();
    let small = Machine::boot(topologies::small());
    let dump = small.dump();
    let last = dump.rfind("\n\n0000:").expect("more than one function");
    let (whole, cut) = (
        folder.file("whole", &dump),
        folder.file("cut", &dump[..last + 2]),
    );
    let gone = &dump[last + 2..last + 14];
    assert_eq!(
        warmbus(&["diff", &whole, &cut]).ended(1).out,
        format!("- {gone}\n")
    );
    assert_eq!(
        warmbus(&["diff", &cut, &whole]).ended(1).out,
        format!("+ {gone}\n")
    );

    let a = folder.file("a", small.report());
    let b = small.report();
    let b = b.replacen("\"class_code\":67586", "\"class_code\":67587", 1);
    let b = folder.file("b", b);
    let ran = warmbus(&["diff", &a, &b]).ended(1);
    assert_eq!(ran.out, "0000:03:00.0 class_code: 67586 -> 67587\n");
}

#[test]
fn a_dump_that_the_firmware_wrote_survives_a_round() {
    let folder = Folder::new();
    let again = warmbus(&["lspci", &data("small.dump")]).ended(0).out;
    let again = folder.file("again", again);
    warmbus(&["diff", &data("small.dump"), &again]).ended(0);
}

//! What holds on every topology of the board.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use warmbus_cli::trace::{self, Kind};
use warmbus_qemu_tests::boot::{Boot, Lab, booted, u_boot_alone};
use warmbus_qemu_tests::pci::Function;
use warmbus_qemu_tests::prove;
use xtask::paths;

/// One module of the same tests for each topology, so that each has a name.
macro_rules! on {
    ($topology:ident, $functions:literal) => {
        mod $topology {
            use super::*;

            fn boot() -> &'static Boot {
                booted(stringify!($topology))
            }

            #[test]
            fn the_firmware_reports_success() {
                prove::ended_well(boot());
            }

            #[test]
            fn the_report_lists_what_qemu_lists() {
                assert_eq!(boot().pci().len(), $functions, "functions of the topology");
                prove::same_functions(boot());
            }

            #[test]
            fn the_report_counts_the_accesses_that_qemu_counts() {
                prove::same_counts(boot());
            }

            #[test]
            fn no_dword_is_read_twice() {
                assert_eq!(boot().number("/accesses/most_reads_of_one_dword"), 1);
                prove::no_constant_is_read_twice(boot());
            }

            #[test]
            fn lspci_decodes_every_function_of_the_dump() {
                lspci_decodes(boot());
            }

            #[test]
            fn every_cached_byte_is_what_the_hardware_returns() {
                every_byte_is_true(stringify!($topology));
            }
        }
    };
}

on!(small, 9);
on!(switch, 17);
on!(fan, 65);
on!(sriov, 9);

// Not on `sriov`: there U-Boot leaves BARs without an address, which is less
// work than to assign them.
#[test]
fn it_takes_fewer_accesses_than_u_boot() {
    for name in ["small", "switch", "fan"] {
        let total = |boot: &Boot| trace::counts(&boot.accesses()).total();
        let (ours, theirs) = (total(booted(name)), total(u_boot_alone(name)));
        assert!(0 < ours && ours < theirs, "{name}: {ours}, U-Boot {theirs}");
    }
}

/// What no enumeration that captures the whole cache can do without: absent
/// functions are asked for, every cacheable dword is read, every BAR is sized
/// and given an address, bridges get their numbers and windows, and those that
/// stand beside others are asked for the numbers that they have.
fn lower_bound(boot: &Boot) -> u64 {
    let bridges: BTreeSet<String> = boot
        .pci()
        .iter()
        .filter(|function| function.bridge.is_some())
        .map(Function::name)
        .collect();
    let bridge_writes = boot.accesses().into_iter().filter(|access| {
        let (device, function) = (access.devfn >> 3, access.devfn & 7);
        let name = format!("0000:{:02x}:{device:02x}.{function}", access.bus);
        let numbers_and_windows = 0x18..0x34;
        access.kind == Kind::Write
            && numbers_and_windows.contains(&access.offset)
            && bridges.contains(&name)
    });
    let report = boot.report();
    let registers: u64 = report["functions"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|function| function["bars"].as_array().into_iter().flatten())
        .map(|bar| {
            if bar["kind"].as_str().is_some_and(|kind| kind.contains("64")) {
                2
            } else {
                1
            }
        })
        .sum();
    // A loader may have given a bridge the numbers that its neighbour gets.
    let buses: BTreeSet<&str> = bridges.iter().map(|name| &name[..7]).collect();
    let neighbours = bridges.len() - buses.len();
    boot.number("/accesses/absent_probes")
        + boot.number("/accesses/cacheable_dwords")
        + 3 * registers
        + bridge_writes.count() as u64
        + neighbours as u64
}

#[test]
fn the_benchmark_page_states_what_qemu_and_u_boot_count() {
    let page = fs::read_to_string(paths::root().join("docs/benchmark.md")).expect("the page");
    for name in ["small", "switch", "fan", "sriov"] {
        let boot = booted(name);
        let counts = trace::counts(&boot.accesses());
        let bound = lower_bound(boot);
        assert!(
            counts.total() <= bound + bound / 10,
            "{name}: bound {bound}"
        );
        let row = format!(
            "| {name} | {} | {} + {} = {} | {bound} | {} | {} |",
            boot.pci().len(),
            counts.reads,
            counts.writes,
            counts.total(),
            counts.total() - bound,
            trace::counts(&u_boot_alone(name).accesses()).total(),
        );
        assert!(page.contains(&row), "docs/benchmark.md has no line {row}");
    }
}

pub(crate) fn lspci(lab: &Lab, arguments: &[&str]) -> String {
    let output = Command::new("lspci")
        .arg("-F")
        .arg(lab.file("dump"))
        .args(arguments)
        .output()
        .expect("lspci starts");
    assert!(
        output.status.success(),
        "lspci {arguments:?}: {}",
        output.status
    );
    let complaints: Vec<_> = std::str::from_utf8(&output.stderr)
        .expect("lspci writes UTF-8")
        .lines()
        // About the modules of the kernel that runs the test, not the dump.
        .filter(|line| !line.contains("libkmod"))
        .collect();
    assert_eq!(complaints, Vec::<&str>::new(), "lspci {arguments:?}");
    String::from_utf8(output.stdout).expect("lspci writes UTF-8")
}

fn lspci_decodes(boot: &Boot) {
    let lab = Lab::new();
    fs::write(
        lab.file("dump"),
        boot.lspci.as_deref().expect("a dump came"),
    )
    .unwrap();
    let there: BTreeSet<String> = boot.pci().iter().map(Function::name).collect();

    let text = lspci(&lab, &["-D", "-vvvnn"]);
    let decoded: BTreeSet<String> = text
        .lines()
        .filter(|line| line.starts_with("0000:"))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    assert_eq!(decoded, there);
    for function in boot.pci() {
        let [vendor, device] = function.ids;
        let ids = format!("[{vendor:04x}:{device:04x}]");
        let line = text.lines().find(|line| line.starts_with(&function.name()));
        assert!(
            line.is_some_and(|line| line.contains(&ids)),
            "{ids} in {line:?}"
        );
    }
    for complaint in ["<access denied>", "!!!", "Unknown header type"] {
        assert!(!text.contains(complaint), "lspci says {complaint}");
    }
    // The tree names every function of bus 0 and every secondary bus.
    let tree = lspci(&lab, &["-tv"]);
    for bridge in boot.pci().iter().filter_map(|function| function.bridge) {
        let bus = format!("[{:02x}", bridge.buses[1]);
        assert!(tree.contains(&bus), "bus {bus} in\n{tree}");
    }
}

fn every_byte_is_true(topology: &str) {
    let lab = Lab::new();
    let boot = lab
        .boot(lab.machine(topology).bootargs("warmbus.verify"))
        .expect("it boots");
    prove::ended_well(&boot);
    prove::same_functions(&boot);
    let report = boot.report();
    let check = &report["self_check"];
    assert_eq!(
        check["differences"].as_array().map(Vec::len),
        Some(0),
        "{check}"
    );
    let cached: u64 = report["functions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|function| function["cached_bytes"].as_u64())
        .sum();
    assert!(cached > 0);
    assert_eq!(check["bytes"].as_u64(), Some(cached), "all were compared");

    // They came from the hardware once more, by QEMU's count, and the report
    // counts what was read before.
    let counted = trace::counts(&boot.accesses());
    let again = counted.reads - boot.number("/accesses/reads");
    assert!(
        again >= cached / 4 && again <= cached,
        "{again} reads of {cached} bytes"
    );
    assert_eq!(counted.writes, boot.number("/accesses/writes"));
}

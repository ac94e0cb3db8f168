//! `warmbus survey` in a Linux without Warmbus. What it finds is compared with
//! QEMU's list of devices and with `lspci`, what it does with QEMU's trace, and
//! what it forecasts with what the benchmark has counted.
//!
//! The guest is that of the benchmark of times: QEMU counts instructions, which
//! are its time, so that a read takes as long in every run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use serde_json::Value;
use warmbus_cli::trace::{self, Access, Kind};
use warmbus_pci::HexDump;
use warmbus_qemu_tests::boot::{Lab, topology};
use warmbus_qemu_tests::linux::{LinuxBoot, alone, command, kernel, with_command};
use warmbus_qemu_tests::{consumer, pci};
use xtask::paths;
use xtask::test::is_long;

use crate::topologies::lspci;

/// What the benchmark of times keeps out of a boot, too: the drivers of `NVMe` and
/// virtio, which make accesses when their devices answer.
const WITHOUT_DRIVERS: &str = "initcall_blacklist=nvme_init,virtio_pci_driver_init";
/// Two nanoseconds an instruction.
const INSTRUCTION_TIME: u8 = 1;
/// How many reads of each function are timed where nothing else is said.
const SAMPLES: usize = 100;

/// Boots Linux on `name` and surveys it; `None` where the command cannot be
/// built for the guest.
fn surveyed(lab: &Lab, name: &str) -> Option<(LinuxBoot, Value)> {
    let command = command()?;
    let steps = "sections,wait,mark:1,survey,mark:2";
    let machine = alone(kernel(), steps)
        .arguments(["-initrd".into(), with_command(lab, command)])
        .bootargs(WITHOUT_DRIVERS)
        .topology(&topology(name))
        .instruction_time(INSTRUCTION_TIME)
        .trace();
    let linux = lab.follow_alone(machine).expect("it boots");
    assert!(linux.ran_to_the_end(), "{}", linux.boot.console.join("\n"));
    let (survey, status) = linux.of_command("survey");
    assert_eq!(status, 0, "{survey}");
    Some((linux, survey))
}

/// One function, as `lspci` decodes what Linux read of it.
struct Decoded {
    kind: &'static str,
    total_vfs: u64,
    /// The names of the capabilities, by the offset of each.
    capabilities: BTreeMap<u16, String>,
}

/// What `lspci` makes of the configuration space that Linux has shown.
fn decoded(lab: &Lab, linux: &LinuxBoot) -> BTreeMap<String, Decoded> {
    let mut dump = String::new();
    for (name, function) in linux.functions().expect("Linux lists them") {
        writeln!(dump, "{name} function\n{}", HexDump(&function.config)).unwrap();
    }
    fs::write(lab.file("dump"), dump).unwrap();
    let text = lspci(lab, &["-D", "-vvn"]);
    let blocks = text
        .split("\n\n")
        .map(str::trim)
        .filter(|block| !block.is_empty());
    blocks
        .map(|block| (block[..12].to_owned(), Decoded::of(block)))
        .collect()
}

impl Decoded {
    fn of(block: &str) -> Self {
        let number_after = |words: &str| -> u64 {
            let rest = block.split(words).nth(1);
            let digits = rest.and_then(|rest| rest.split([',', '\n']).next());
            digits.map_or(0, |digits| digits.trim().parse().expect(digits))
        };
        let kinds = [
            ("Root Port", "root-port"),
            ("Upstream Port", "upstream-port"),
            ("Downstream Port", "downstream-port"),
            ("\tBus: primary", "bridge"),
            ("Single Root I/O Virtualization", "physical-function"),
            (") Endpoint", "endpoint"),
            (") Legacy Endpoint", "endpoint"),
            (" 0600: ", "host-bridge"),
        ];
        let kind = kinds.into_iter().find(|(words, _)| block.contains(words));
        let capabilities = block.lines().filter_map(|line| {
            let (offset, name) = line
                .trim()
                .strip_prefix("Capabilities: [")?
                .split_once("] ")?;
            let offset = offset.split(' ').next()?;
            Some((u16::from_str_radix(offset, 16).ok()?, name.to_owned()))
        });
        Self {
            kind: kind.map_or("other", |(_, kind)| kind),
            total_vfs: number_after("Total VFs: "),
            capabilities: capabilities.collect(),
        }
    }
}

/// The functions of the survey are those of QEMU, and are what `lspci` says.
fn finds_what_is_there(lab: &Lab, linux: &LinuxBoot, survey: &Value) {
    let there = pci::flatten(&linux.boot.query_pci);
    let decoded = decoded(lab, linux);
    let functions = survey["functions"].as_array().expect("functions");
    assert_eq!(functions.len(), there.len());
    assert_eq!(functions.len(), decoded.len());
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for (function, there) in functions.iter().zip(&there) {
        let name = there.name();
        let ids = ["vendor_id", "device_id"].map(|id| function[id].as_u64().expect("an ID"));
        assert_eq!((function["sbdf"].as_str(), ids), (Some(&*name), there.ids));
        let decoded = &decoded[&name];
        *kinds.entry(decoded.kind).or_default() += 1;
        assert_eq!(function["kind"], decoded.kind, "{name}");
        assert_eq!(function["kind_from"], "capabilities", "{name}");
        assert_eq!(function["total_vfs"], decoded.total_vfs, "{name}");
    }
    assert_eq!(survey["kinds"], serde_json::json!(kinds));
    let hosts = survey["host_bridges"].as_array().expect("host bridges");
    assert_eq!(hosts.len(), 1, "{hosts:?}");
    assert_eq!(hosts[0]["handed_over"], true, "{hosts:?}");
}

/// Capabilities of which more is read than where the next one is: registers that
/// say what the function is or how large the capability is. None of them changes
/// by a read (PCIe 7.5.3, 7.7.2, 7.7.11, 9.3.3).
const READ_FURTHER: [&str; 4] = [
    "Access Control Services",
    "Express ",
    "MSI-X: ",
    "Single Root I/O Virtualization",
];

/// Nothing is written, only functions that are there are read, and of each the
/// header and its capability lists.
fn only_reads_without_effect(lab: &Lab, linux: &LinuxBoot) {
    let accesses = linux.boot.accesses();
    let accesses = consumer::between(&accesses, 1, 2);
    let writes = accesses.iter().filter(|access| access.kind == Kind::Write);
    assert_eq!(writes.collect::<Vec<_>>(), Vec::<&Access>::new());
    let decoded = decoded(lab, linux);
    let mut reads: BTreeMap<String, usize> = BTreeMap::new();
    for access in accesses {
        let (device, number) = (access.devfn >> 3, access.devfn & 7);
        let name = format!("0000:{:02x}:{device:02x}.{number}", access.bus);
        let function = decoded.get(&name);
        let function = function.unwrap_or_else(|| panic!("{name} is not there: {access:?}"));
        *reads.entry(name.clone()).or_default() += 1;
        // Behind the header is the first extended capability as well, if any.
        let at = access.offset & !3;
        if at < 0x40 || at == 0x100 {
            continue;
        }
        let capability = function.capabilities.range(..=at).next_back();
        let (start, what) = capability.unwrap_or_else(|| panic!("{name}: {access:?}"));
        let further = READ_FURTHER.iter().any(|name| what.starts_with(name));
        assert!(
            *start == at || further,
            "{name}: {access:?} in {what} at {start:#x}"
        );
    }
    assert_eq!(reads.len(), decoded.len());
    assert!(reads.values().all(|count| *count > SAMPLES), "{reads:?}");
}

/// What is forecast for this machine is what the benchmark has counted on it,
/// as far as `within`, with the time of a read here.
fn forecasts_what_was_counted(name: &str, survey: &Value) {
    let file = paths::root().join("bench/results/time.json");
    let counted: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let accesses = |peer: &str| -> f64 {
        let phases = counted["topologies"][name][peer].as_object();
        let phases = phases.unwrap_or_else(|| panic!("no {peer} on {name}"));
        let phases = phases.values().filter(|phase| phase.is_object());
        phases
            .map(|phase| phase["accesses"].as_f64().expect("a count"))
            .sum()
    };
    let number = |path: &str| {
        let number = survey.pointer(path).and_then(Value::as_f64);
        number.unwrap_or_else(|| panic!("the survey has a number {path}"))
    };
    let read = number("/time/median_nanoseconds") / 1000.0;
    assert!(read > 0.0, "{survey}");
    let stock = accesses("linux-stock");
    for (what, expected) in [
        ("boot", stock),
        ("boot_saved", stock - accesses("warmbus-linux")),
        ("kexec_saved", stock - accesses("kexec-linux")),
    ] {
        let found = number(&format!("/forecast_microseconds/{what}/middle")) / read;
        println!("{name}: {what}: forecast {found:.0} accesses, counted {expected:.0}");
        assert!(
            (found / expected - 1.0).abs() < 0.1,
            "{name}: {what}: forecast {found:.0} accesses, counted {expected:.0}"
        );
    }
}

/// Everything on one topology, with one boot.
fn is_right(name: &str, is_forecast_exact: bool) {
    let lab = Lab::new();
    let Some((linux, survey)) = surveyed(&lab, name) else {
        return;
    };
    finds_what_is_there(&lab, &linux, &survey);
    only_reads_without_effect(&lab, &linux);
    if is_forecast_exact {
        forecasts_what_was_counted(name, &survey);
    }
    let counts = trace::counts(consumer::between(&linux.boot.accesses(), 1, 2));
    println!("{name}: a survey makes {} reads", counts.reads);
}

#[test]
fn a_survey_of_a_switch_counts_writes_nothing_and_forecasts_a_boot() {
    is_right("switch", true);
}

#[test]
fn a_survey_of_physical_functions_counts_and_writes_nothing() {
    is_right("sriov", false);
}

/// The other topologies.
#[test]
fn a_survey_of_every_machine_counts_and_writes_nothing() {
    if is_long() {
        is_right("small", false);
        is_right("fan", true);
    }
}

//! The report as programs, people and `lspci` see it.

mod arbitrary;
mod classes;
#[path = "../recorded/lspci.rs"]
mod lspci;
mod sample;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use warmbus_boot::report::{self, Report};
use warmbus_pci::{BarKind, PortType, Topology};

fn json_text(report: &Report) -> String {
    let mut text = String::new();
    report::json::write(report, &mut text).expect("a string takes it");
    text
}

fn tree(report: &Report) -> String {
    let mut text = String::new();
    report::tree::write(report, &mut text).expect("a string takes it");
    text
}

fn summary(report: &Report) -> String {
    let mut text = String::new();
    report::summary::write(report, &mut text).expect("a string takes it");
    text
}

#[test]
fn the_keys_that_other_programs_rely_on_are_there() {
    let report: Value = serde_json::from_str(&json_text(&sample::report())).unwrap();
    assert_eq!(report["schema"], "warmbus-report/1");
    assert_eq!(report["result"], "ok");
    let nvme = &report["functions"][4];
    assert_eq!(nvme["sbdf"], "0000:03:00.0");
    assert_eq!(nvme["vendor_id"], 0x1b36);
    assert_eq!(nvme["device_id"], 0x0010);
    assert_eq!(nvme["class_code"], 0x01_0802);
    assert_eq!(nvme["header_type"], 0);
    assert_eq!(nvme["port_type"], "endpoint");
    assert_eq!(
        nvme["subsystem"],
        json!({"vendor_id": 0x1af4, "device_id": 0x1100})
    );
    let bar = &nvme["bars"][0];
    assert_eq!(bar["index"], 0);
    assert_eq!(bar["kind"], "mem64");
    assert_eq!(bar["address"], 0x1000_0000);
    assert_eq!(bar["size"], 0x4000);
    assert_eq!(nvme["bars"][1]["kind"], "rom");
    assert_eq!(nvme["bars"][1]["address"], Value::Null);
    assert_eq!(nvme["capabilities"][2], json!({"id": 0x11, "offset": 0x40}));
    assert_eq!(
        nvme["extended_capabilities"][1],
        json!({"id": 3, "offset": 0x150, "version": 1})
    );
    assert_eq!(nvme["cacheable_bytes"], 700);
    assert_eq!(nvme["cached_bytes"], 690);
    assert_eq!(nvme["bridge"], Value::Null);
    let bridge = &report["functions"][1]["bridge"];
    assert_eq!(bridge["primary"], 0);
    assert_eq!(bridge["secondary"], 1);
    assert_eq!(bridge["subordinate"], 4);
    assert_eq!(bridge["io"], json!({"base": 0x1000, "limit": 0x1fff}));
    assert_eq!(
        report["functions"][8]["anomalies"],
        json!(["capability list leads from 41 back to 40"])
    );
    assert_eq!(
        report["accesses"],
        json!({"reads": 900, "writes": 120, "absent_probes": 33,
            "most_reads_of_one_dword": 1, "read_backs": 20, "cacheable_dwords": 640})
    );
    assert_eq!(
        report["cache"],
        json!({"hits": 400, "misses": 700, "uncacheable": 50,
            "writes": 120, "invalidations": 480})
    );
    assert_eq!(
        report["phases"][2],
        json!({"name": "capture", "ticks": 40_000, "nanoseconds": 640_000, "config_ticks": 39_000})
    );
    assert_eq!(report["machine"]["bytes_per_function"], 11_112);
    assert_eq!(report["anomalies"][0]["sbdf"], Value::from("0000:00:03.0"));
}

/// All keys of the objects in `value`, however deep.
fn keys(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                found.insert(key.clone());
                keys(value, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

#[test]
fn the_format_page_names_every_key_and_its_example_is_what_is_written() {
    let page = include_str!("../../docs/report-format.md");
    let (text, example) = page.split_once("```json\n").expect("an example");
    let (example, _) = example.split_once("```").expect("the end of the example");
    let report: Report = serde_json::from_str(example).unwrap();
    assert_eq!(json_text(&report), example);
    let mut found = BTreeSet::new();
    keys(&serde_json::to_value(sample::report()).unwrap(), &mut found);
    assert!(found.len() > 80, "{found:?}");
    for key in found {
        assert!(text.contains(&format!("`{key}`")), "{key} is not explained");
    }
}

#[test]
fn what_failed_is_the_result_and_what_concerns_no_function_is_an_anomaly() {
    let topology = Topology::default();
    let mut facts = sample::facts(&topology);
    facts.result = Err("no host bridge in the device tree".into());
    facts.anomalies = vec!["two host bridges overlap".into()];
    let report = Report::new(facts, &|_| None);
    assert_eq!(report.result, "no host bridge in the device tree");
    assert_eq!(report.anomalies[0].sbdf, None);
    assert_eq!(report.machine.bytes_per_function, 0);
    let parsed: Report = serde_json::from_str(&json_text(&report)).unwrap();
    assert_eq!(parsed, report);
    assert!(summary(&report).contains("\nanomalies    two host bridges overlap\n"));
    assert_eq!(tree(&report), "");
}

#[test]
fn keys_that_a_later_version_adds_do_no_harm() {
    let mut report = serde_json::to_value(sample::report()).unwrap();
    report["later"] = json!({"a": 1});
    report["functions"][0]["later"] = json!([1]);
    let parsed: Report = serde_json::from_value(report).unwrap();
    assert_eq!(parsed, sample::report());
}

#[test]
fn the_tree_shows_the_hierarchy_in_columns() {
    let expected = "\
/pcie@10000000: segment 0000, buses 00-06 of 00-ff, ECAM 0x4010000000 (256 MiB)
  io     0x0000000000-0x000000ffff    64 KiB  at 0x3eff0000
  mem32  0x0010000000-0x003efeffff 751.9 MiB
  mem64  0x8000000000-0xffffffffff   512 GiB
0000:00:00.0  1b36:0008  |- Host bridge
0000:00:01.0  1b36:000c  |- PCI bridge, root port, buses 01-04
                         |  |  io   0x1000-0x1fff 4 KiB          mem  0x10000000-0x101fffff 2 MiB
                         |  |  pref 0x8000000000-0x80000fffff 1 MiB
0000:01:00.0  1b36:000c  |  `- PCI bridge, upstream port, buses 02-04
                         |     |  mem  0x10000000-0x101fffff 2 MiB
0000:02:00.0  1b36:000c  |     |- PCI bridge, downstream port, bus 03
                         |     |  |  mem  0x10000000-0x101fffff 2 MiB
0000:03:00.0  1b36:0010  |     |  `- NVMe controller, endpoint
                         |     |        bar0 mem64p   0x10000000  16 KiB
                         |     |        rom  mem32      disabled 256 KiB
0000:02:01.0  1b36:000c  |     `- PCI bridge, downstream port, bus 04, link down, hot-plug
0000:00:02.0  1b36:000c  `- PCI bridge, root port, buses 05-06
                            |  mem  0x10400000-0x104fffff 1 MiB
0000:05:00.0  8086:10c9     |- Ethernet controller, endpoint
                            |     bar0 mem32    0x10400000 128 KiB  bar2 io       0x00002000    32 B
                            |     vf0  mem64p 0x8000100000  16 KiB  SR-IOV 8 VFs 8086:10ca to bus 06
0000:05:00.1  1234:5678     `- Unassigned class ! 1 anomaly
";
    let printed = tree(&sample::report());
    assert_eq!(printed, expected, "got:\n{printed}");
}

#[test]
fn the_tree_is_in_the_order_of_the_tree_whatever_that_of_the_numbers_is() {
    let mut by_number = sample::report();
    by_number.functions.sort_by_key(|function| function.sbdf);
    assert_ne!(by_number, sample::report());
    assert_eq!(tree(&by_number), tree(&sample::report()));
}

#[test]
fn in_brief_there_is_how_much_and_what_was_wrong_on_a_few_lines() {
    let brief = |report: &Report| {
        let mut text = String::new();
        report::summary::write_brief(report, &mut text).expect("a string takes it");
        text
    };
    let expected = "\
functions    9: 5 bridges and 4 others, on 5 buses below 1 host bridge
cache        690 of 700 cacheable bytes (98.5%)
self-check   1234 bytes compared with the hardware, 1 difference
anomalies    0000:05:00.1: capability list leads from 41 back to 40
             0000:00:03.0: not ready after 1000 ms, excluded
";
    let mut report = sample::report();
    assert_eq!(brief(&report), expected);
    for _ in 0..500 {
        report.anomalies.push(report.anomalies[0].clone());
    }
    let printed = brief(&report);
    assert!(printed.lines().count() <= 8, "{printed}");
    assert!(printed.contains("and 500 more"), "{printed}");
}

#[test]
fn the_summary_gives_every_total_and_every_anomaly() {
    let expected = "\
machine      linux,dummy-virt, EL1, 4 cores, 2 GiB of RAM, timer 62.500 MHz
functions    9: 5 bridges and 4 others, on 5 buses below 1 host bridge
BARs         4 assigned (160.0 KiB), 1 disabled
hardware     900 reads (absent functions 33, read-backs 20), 120 writes; most reads of one dword 1
cache        690 of 700 cacheable bytes (98.5%)
             400 hits, 700 misses, 50 uncacheable, 120 writes, 480 invalidations
memory       image 185.5 KiB, heap at most 97.6 KiB, 11112 bytes a function
time         enumerate             1.600 ms   52.6%   80.0% in configuration accesses
             assign                0.800 ms   26.3%   40.0% in configuration accesses
             capture               0.640 ms   21.0%   97.5% in configuration accesses
             total                 3.040 ms  100.0%   73.1% in configuration accesses
self-check   1234 bytes compared with the hardware, 1 difference
             0000:03:00.0 offset 044: cached 01, hardware 1f
anomalies    0000:05:00.1: capability list leads from 41 back to 40
             0000:00:03.0: not ready after 1000 ms, excluded
result       ok
";
    let printed = summary(&sample::report());
    assert_eq!(printed, expected, "got:\n{printed}");
}

#[test]
fn a_tree_of_65_functions_stays_within_100_columns() {
    let mut functions = vec![sample::function("00:00.0", (0x1b36, 8), 0x06_0000, None)];
    for port in 0..32_u8 {
        let (device, function) = (1 + port / 8, port % 8);
        let parent = functions.len();
        let base = 0x1000_0000 + (u64::from(port) << 20);
        functions.push(sample::bridge(
            &format!("00:{device:02x}.{function}"),
            PortType::RootPort,
            (port + 1, port + 1),
            Some((base, base + 0xf_ffff)),
            None,
        ));
        let mut endpoint = sample::function(
            &format!("{:02x}:00.0", port + 1),
            (0x1af4, 0x1041),
            0x02_0000,
            Some(parent),
        );
        endpoint.port_type = Some(PortType::Endpoint);
        endpoint.bars = vec![
            sample::bar(1, BarKind::Memory32, Some(base), 0x1000),
            sample::bar(4, BarKind::Memory64, Some(0x80_0000_0000 + base), 0x4000),
            sample::bar(6, BarKind::Rom, None, 0x4_0000),
        ];
        functions.push(endpoint);
    }
    let topology = Topology::new(vec![sample::host()], functions);
    let report = Report::new(sample::facts(&topology), &|_| None);
    let printed = tree(&report) + &summary(&report);
    for line in printed.lines() {
        assert!(line.len() <= 100, "{} columns: {line}", line.len());
        assert!(line.is_ascii(), "{line}");
        assert_eq!(line.trim_end(), line);
    }
    assert_eq!(topology.functions().len(), 65);
}

#[test]
fn names_from_the_device_tree_cannot_command_the_terminal() {
    let mut hosts = sample::topology().hosts().to_vec();
    hosts[0].0.name = "/pcie\u{1b}[2J\n\u{e9}".into();
    let topology = Topology::new(hosts, sample::topology().functions().to_vec());
    let mut facts = sample::facts(&topology);
    facts.machine.model = Some("\u{7}model\r".into());
    facts.result = Err("bad\ntree".into());
    let report = Report::new(facts, &|_| None);
    let printed = tree(&report) + &summary(&report);
    assert!(printed.chars().all(|c| c == '\n' || matches!(c, ' '..='~')));
    assert!(printed.starts_with("/pcie?[2J??: segment"));
    assert!(printed.contains("\nresult       bad?tree\n"));
}

#[test]
fn lspci_draws_the_hierarchy_that_enumeration_found() {
    let mut dump = String::new();
    report::lspci::write(&sample::topology(), &|_| None, &mut dump).unwrap();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sample.txt");
    fs::write(&path, dump).unwrap();
    let expected = r"-[0000:00]-+-00.0
           +-01.0-[01-04]----00.0-[02-04]--+-00.0-[03]----00.0
           |                               \-01.0-[04]--
           \-02.0-[05-06]--+-00.0
                           \-00.1
";
    let drawn = lspci::lspci(&path, &["-t"]);
    assert_eq!(drawn, expected, "got:\n{drawn}");
    let nvme = lspci::lspci(&path, &["-s", "03:00.0", "-n", "-vvv"]);
    let decoded = lspci::Decoded::new(&nvme);
    let topology = sample::topology();
    let found = &topology.functions()[4];
    let missing = lspci::differences(&decoded, &found.capabilities, &found.extended_capabilities);
    assert!(missing.is_empty(), "{missing:#?}\n{nvme}");
    assert!(nvme.starts_with("03:00.0 0108: 1b36:0010 (prog-if 02"));
}

#[test]
fn the_format_page_names_every_phase() {
    let page = include_str!("../../docs/report-format.md");
    let phases = include_str!("../../crates/boot/src/phase.rs");
    let arms = phases.lines().filter_map(|line| line.split_once(" => \""));
    let names: Vec<_> = arms
        .map(|(_, name)| name.trim_end_matches("\",").to_owned())
        .collect();
    assert!(names.contains(&"late-ports".to_owned()), "{names:?}");
    let (_, table) = page
        .split_once("| `name` | phase |\n|---|---|\n")
        .expect("the table");
    let rows = table.lines().map_while(|row| row.strip_prefix("| `"));
    let rows: Vec<_> = rows
        .filter_map(|row| Some(row.split_once('`')?.0.to_owned()))
        .collect();
    assert_eq!(rows, names);
}

#[test]
fn a_function_below_one_without_a_line_has_its_line() {
    let mut report = sample::report();
    let below = report.functions[4].sbdf;
    let above = report.functions[4].parent.expect("it is below a bridge");
    let mut functions = report.functions.iter_mut();
    let above = functions
        .find(|one| one.sbdf == above)
        .expect("it is there");
    above.anomalies.clear();
    above.virtual_function = Some(report::VirtualFunction {
        physical: above.sbdf,
        number: 1,
    });
    assert!(tree(&report).contains(&format!("{below}  ")));
}

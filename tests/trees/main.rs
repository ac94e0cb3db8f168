//! The host bridges of all arm64 boards that Linux has a device tree of: what the
//! firmware makes of each is what Linux' drivers allow, and the page of host
//! bridges says so.
//!
//! `cargo xtask test --long trees` compiles the trees.

mod blob;
mod linux;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{env, fs};

use blob::Blob;
use linux::{Host, Linux, Window};
use warmbus_fdt::FdtWriter;
use warmbus_machine::Machine;
use warmbus_pci::{HostBridge, WindowKind};

/// Where no board has anything.
const FILL: u64 = 0xe00_0000_0000;
/// What precedes the table in the page.
const HEADER: &str = "| `compatible` | boards | handed over | shown only | excluded |\n\
                      | --- | --- | --- | --- | --- |\n";

/// What becomes of a host bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    HandedOver,
    /// On request, and never handed over.
    Shown,
    /// With its line.
    Excluded,
}

/// How often each fate is that of a host bridge with one name, and on how many
/// boards there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Row {
    boards: usize,
    fates: [usize; 3],
}

fn fate(machine: &Machine, path: &str) -> Option<Fate> {
    let lines = machine.warnings.iter();
    let line = format!("{path} is excluded: ");
    let excluded = lines.filter(|warning| warning.starts_with(&line)).count();
    let host = machine.hosts.iter().find(|host| host.name == path);
    match (host, excluded) {
        (Some(host), 0) if host.survives_linux_driver => Some(Fate::HandedOver),
        (Some(_), 0) => Some(Fate::Shown),
        (None, 1) => Some(Fate::Excluded),
        _ => None,
    }
}

/// What is wrong with what the firmware makes of a host bridge.
fn faults(machine: &Machine, tree: &Blob, host: &Host) -> Vec<String> {
    let mut faults = Vec::new();
    let mut wrong = |text: String| faults.push(format!("{}: {text}", host.path));
    let Some(fate) = fate(machine, &host.path) else {
        return vec![format!("{}: is not spoken of", host.path)];
    };
    if fate == Fate::HandedOver && !host.is_kept {
        wrong(format!("{} is handed over", host.compatible));
    }
    if fate == Fate::Shown && host.is_free {
        wrong(format!("{} could be handed over", host.compatible));
    }
    let mut found = machine.hosts.iter();
    let Some(ours) = found.find(|found| found.name == host.path) else {
        return faults;
    };
    if let Some(shift) = host.bus_shift {
        if host.region != Some((ours.ecam_base.0, ours.ecam_size)) {
            wrong(format!("{:x?}, not {:x?}", ours.ecam_base, host.region));
        }
        let room = host.region.map_or(0, |region| (region.1 >> shift) as u32);
        let last = host.buses.1.min((host.buses.0 + room).saturating_sub(1));
        let buses = (ours.buses.first.into(), ours.buses.last.into());
        if buses != (host.buses.0, last) {
            wrong(format!("{buses:?}, not {:?}", host.buses));
        }
    }
    let taken = || {
        let is_pci = |node: &&blob::Node| node.strings("device_type") == ["pci"];
        let nodes = tree.0.iter().filter(is_pci);
        nodes
            .filter_map(|node| node.cell("linux,pci-domain"))
            .any(|domain| domain as u16 == ours.segment)
    };
    match host.domain {
        Some(domain) if domain != ours.segment => wrong(format!("segment {}", ours.segment)),
        None if taken() => wrong(format!("segment {} is that of another", ours.segment)),
        _ => {}
    }
    let windows: BTreeSet<Window> = ours.windows.iter().map(window).collect();
    for other in windows.difference(&host.windows) {
        wrong(format!("there is no window {other:x?}"));
    }
    let missing = host.windows.difference(&windows).count();
    let named = machine.warnings.iter().filter(|warning| {
        warning.starts_with(&format!("{}: ", host.path)) && warning.contains("window at")
    });
    if named.count() != missing {
        wrong(format!("{missing} windows are missing without a line"));
    }
    faults
}

fn window(window: &warmbus_pci::HostWindow) -> Window {
    (
        window.pci_address,
        window.cpu_address.0,
        window.size,
        window.kind == WindowKind::Io,
        window.prefetchable,
    )
}

/// The machine of a tree; with memory where the board has left it to its loader.
fn machine(bytes: &[u8]) -> Machine {
    let filled = || Machine::from_device_tree(&blob::with_memory(bytes, FILL));
    Machine::from_device_tree(bytes)
        .or_else(|_| filled())
        .unwrap_or_else(|error| panic!("{error}"))
}

fn page() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/host-bridges.md");
    fs::read_to_string(page).expect("the page can be read")
}

/// The rows of the table in the page.
fn documented() -> BTreeMap<String, Row> {
    let page = page();
    let (_, table) = page.split_once(HEADER).expect("the page has the table");
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let number = |at: usize| cells[at].parse().expect("a number");
        let row = Row {
            boards: number(2),
            fates: [3, 4, 5].map(number),
        };
        (cells[1].trim_matches('`').to_owned(), row)
    })
    .collect()
}

#[test]
#[ignore = "needs `--long trees`"]
fn host_bridges_of_all_boards_are_used_as_linux_uses_them() {
    let folder = |name| PathBuf::from(env::var_os(name).expect("`--long trees` names it"));
    let linux = Linux::new(&folder("WARMBUS_LINUX_SOURCE"));
    let mut boards: Vec<PathBuf> = fs::read_dir(folder("WARMBUS_TREES"))
        .expect("there are trees")
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.extension().is_some_and(|end| end == "dtb"))
        .collect();
    boards.sort();
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut with_host = 0;
    for board in &boards {
        let bytes = fs::read(board).expect("it can be read");
        let tree = Blob::new(&bytes);
        let machine = machine(&bytes);
        let hosts = linux.hosts(&tree);
        with_host += usize::from(!hosts.is_empty());
        let mut names = BTreeSet::new();
        for host in &hosts {
            let name = board.file_name().expect("a name").to_string_lossy();
            let faults = faults(&machine, &tree, host);
            wrong.extend(faults.iter().map(|fault| format!("{name} {fault}")));
            if let Some(fate) = fate(&machine, &host.path) {
                rows.entry(host.compatible.clone()).or_default().fates[fate as usize] += 1;
                names.insert(host.compatible.clone());
            }
        }
        // The firmware uses none that Linux does not have.
        let is_known = |found: &&HostBridge| hosts.iter().any(|host| host.path == found.name);
        let others = machine.hosts.iter().filter(|found| !is_known(found));
        wrong.extend(others.map(|host| format!("{}: not for Linux", host.name)));
        for name in names {
            rows.entry(name).or_default().boards += 1;
        }
    }
    println!("{} trees, {with_host} with a host bridge", boards.len());
    assert_eq!(wrong, [""; 0]);
    assert!(boards.len() > 1500 && with_host > 500);
    let mut table = HEADER.to_owned();
    for (name, Row { boards, fates }) in &rows {
        let [kept, shown, excluded] = fates;
        let row = [boards, kept, shown, excluded].map(usize::to_string);
        table.extend([&format!("| `{name}` | "), &row.join(" | "), " |\n"]);
    }
    assert_eq!(documented(), rows, "the table should be\n{table}");
}

/// A tree with one host bridge of this name.
fn one_host(compatible: &str) -> Vec<u8> {
    let cells = |cells: &[u32]| -> Vec<u8> {
        let bytes = cells.iter().flat_map(|cell| cell.to_be_bytes());
        bytes.collect()
    };
    let mut tree = FdtWriter::new();
    tree.begin_node("");
    tree.property_u32("#address-cells", 2);
    tree.property_u32("#size-cells", 2);
    tree.begin_node("memory@80000000");
    tree.property_string("device_type", "memory");
    tree.property("reg", &cells(&[0, 0x8000_0000, 0, 0x4000_0000]));
    tree.end_node();
    tree.begin_node("pcie@40000000");
    let own = [compatible].into_iter().filter(|&name| name != "(none)");
    // The name by which the firmware finds the boards of Amlogic.
    let second = compatible.starts_with("amlogic,").then_some("snps,dw-pcie");
    let names: Vec<&str> = own.chain(second).collect();
    if !names.is_empty() {
        tree.property_strings("compatible", &names);
    }
    tree.property_string("device_type", "pci");
    tree.property(
        "reg",
        &cells(&[0, 0x4000_0000, 0, 0x1000_0000, 0, 0x6000_0000, 0, 0x10_0000]),
    );
    let registers = if compatible.starts_with("marvell") {
        "ctrl"
    } else {
        "dbi"
    };
    tree.property_strings("reg-names", &[registers, "config"]);
    tree.end_node();
    tree.end_node();
    tree.finish().expect("it is a tree")
}

#[test]
fn the_page_says_of_each_host_bridge_what_becomes_of_it() {
    let rows = documented();
    assert!(rows.len() > 50, "{}", rows.len());
    for (name, row) in rows {
        let machine = machine(&one_host(&name));
        let fate = fate(&machine, "/pcie@40000000").expect("it is spoken of");
        // On boards it may be below clocks, or have a segment of another one.
        assert!(row.fates[fate as usize] > 0, "{name}: {fate:?}, {row:?}");
        assert!(row.fates[..fate as usize].iter().all(|&count| count == 0));
        if fate == Fate::Excluded {
            let name = match &*name {
                "(none)" => "a host bridge without a compatible property",
                name => name,
            };
            let line = format!("/pcie@40000000 is excluded: {name} is not supported");
            assert!(machine.warnings.contains(&line), "{:?}", machine.warnings);
        }
    }
}

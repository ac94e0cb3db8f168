//! What Linux does with the host bridges of a tree, by its source: which drivers
//! there are, which buses it makes devices below of, and how it translates
//! addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::blob::{Blob, Node};

/// The driver that finds everything set up and resets nothing.
const GENERIC: &str = "pci-host-generic.c";

/// What its source says.
#[derive(Debug)]
pub(crate) struct Linux {
    /// The file of the driver of each `compatible` of a host bridge.
    drivers: BTreeMap<String, String>,
    /// Buses below which it makes devices at once.
    buses: BTreeSet<String>,
}

/// A host bridge as Linux has it.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) path: String,
    /// The name by which a driver is found; the first one where none is.
    pub(crate) compatible: String,
    /// Its driver resets nothing, and it can be probed without another driver.
    pub(crate) is_kept: bool,
    /// Besides, nothing above it has clocks, resets or a power domain.
    pub(crate) is_free: bool,
    /// Where its first region is, with the size.
    pub(crate) region: Option<(u64, u64)>,
    /// Bits of the offset in that region below those of the bus number; `None` where
    /// it is something else than configuration space.
    pub(crate) bus_shift: Option<u32>,
    pub(crate) buses: (u32, u32),
    pub(crate) domain: Option<u16>,
    pub(crate) windows: BTreeSet<Window>,
}

/// PCI address, CPU address, size, whether it is I/O space, and whether it is
/// prefetchable.
pub(crate) type Window = (u64, u64, u64, bool, bool);

/// All strings after `key` in `source`, in its order.
fn quoted<'s>(source: &'s str, key: &'s str) -> impl Iterator<Item = &'s str> {
    source.split(key).skip(1).filter_map(|rest| {
        let (before, rest) = rest.split_once('"')?;
        let is_value = before.chars().all(|one| one == '=' || one.is_whitespace());
        is_value.then(|| rest.split('"').next().unwrap_or_default())
    })
}

impl Linux {
    /// Reads the source in `folder`.
    pub(crate) fn new(folder: &Path) -> Self {
        let mut drivers = BTreeMap::new();
        let mut folders = vec![folder.join("drivers/pci/controller")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("the source has drivers") {
                let path = entry.expect("it can be listed").path();
                let name = path.file_name().expect("a name").to_string_lossy();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let is_other = name.ends_with("-ep.c") || name.contains("-msi.c");
                if !name.ends_with(".c") || is_other {
                    continue;
                }
                let text = fs::read_to_string(&path).expect("it is text");
                for compatible in quoted(&text, ".compatible") {
                    // Endpoints have no devices below.
                    if !compatible.ends_with("-ep") {
                        drivers.insert(compatible.to_owned(), name.clone().into_owned());
                    }
                }
            }
        }
        let platform = folder.join("drivers/of/platform.c");
        let platform = fs::read_to_string(platform).expect("the source is whole");
        let (_, table) = platform
            .split_once("of_device_id match_table[] = {")
            .expect("it has the table of buses");
        let (table, _) = table.split_once("};").expect("the table ends");
        let mut buses: BTreeSet<String> = quoted(table, ".compatible").map(str::to_owned).collect();
        // `drivers/bus/simple-pm-bus.c` starts nothing but clocks and power.
        buses.insert("simple-pm-bus".into());
        assert!(buses.contains("simple-bus"), "{buses:?}");
        assert!(drivers.len() > 100, "{}", drivers.len());
        Self { drivers, buses }
    }

    /// The host bridges of a tree that Linux may use, by their drivers or by their
    /// type.
    pub(crate) fn hosts(&self, tree: &Blob) -> Vec<Host> {
        (0..tree.0.len())
            .filter_map(|index| self.host(tree, index))
            .collect()
    }

    fn driver(&self, node: &Node) -> Option<(String, &str)> {
        let mut names = node.strings("compatible").into_iter();
        names.find_map(|name| {
            let driver = self.drivers.get(&name)?;
            Some((name, driver.as_str()))
        })
    }

    fn host(&self, tree: &Blob, index: usize) -> Option<Host> {
        let node = &tree.0[index];
        let is_pci = |node: &Node| node.strings("device_type") == ["pci"];
        let driver = self.driver(node);
        let parent = &tree.0[node.parent?];
        if (driver.is_none() && !is_pci(node)) || is_pci(parent) {
            return None;
        }
        if !tree.upwards(index).all(Node::is_okay) {
            return None;
        }
        let (compatible, file) = driver.unwrap_or_else(|| {
            let first = node.strings("compatible").into_iter().next();
            (first.unwrap_or_else(|| "(none)".into()), "")
        });
        let above: Vec<&Node> = tree
            .upwards(index)
            .skip(1)
            .filter(|node| node.parent.is_some())
            .collect();
        let is_bus = |node: &&Node| {
            let mut names = node.strings("compatible").into_iter();
            names.any(|name| self.buses.contains(&name))
        };
        let has = |node: &Node, names: &[&str]| {
            names.iter().any(|name| node.properties.contains_key(*name))
        };
        let started = ["clocks", "resets", "power-domains"];
        let is_kept = file == GENERIC && above.iter().all(is_bus);
        let is_free = is_kept
            && !has(node, &["power-domains"])
            && !above.iter().any(|node| has(node, &started));
        let shift = if compatible.contains("-cam-") { 16 } else { 20 };
        let buses = node.cells("bus-range").unwrap_or_else(|| vec![0, 255]);
        Some(Host {
            path: node.path.clone(),
            bus_shift: (file == GENERIC).then_some(shift),
            compatible,
            is_kept,
            is_free,
            region: region(tree, index),
            buses: (buses[0], buses[1]),
            domain: node.cell("linux,pci-domain").map(|domain| domain as u16),
            windows: windows(tree, index),
        })
    }
}

fn number(cells: &[u32]) -> u64 {
    cells
        .iter()
        .fold(0, |number, &cell| number << 32 | u64::from(cell))
}

/// The first region of a node, on the CPU side.
fn region(tree: &Blob, index: usize) -> Option<(u64, u64)> {
    let node = &tree.0[index];
    let parent = node.parent?;
    let (address_cells, size_cells) = tree.0[parent].counts();
    let reg = node.cells("reg")?;
    let entry = reg.get(..address_cells + size_cells)?;
    let (address, size) = entry.split_at(address_cells);
    Some((translate(tree, parent, number(address))?, number(size)))
}

/// The CPU address of an address on the bus `bus`.
fn translate(tree: &Blob, bus: usize, mut address: u64) -> Option<u64> {
    let mut at = bus;
    while let Some(parent) = tree.0[at].parent {
        let ranges = tree.0[at].cells("ranges")?;
        let (own, size_cells) = tree.0[at].counts();
        let (above, _) = tree.0[parent].counts();
        if !ranges.is_empty() {
            let found = ranges
                .chunks_exact(own + above + size_cells)
                .find_map(|entry| {
                    let first = number(&entry[..own]);
                    let size = number(&entry[own + above..]);
                    let offset = address.checked_sub(first)?;
                    let base = number(&entry[own..own + above]);
                    (offset < size).then_some(base + offset)
                });
            address = found?;
        }
        at = parent;
    }
    Some(address)
}

/// The windows in `ranges` that are I/O space or memory.
fn windows(tree: &Blob, index: usize) -> BTreeSet<Window> {
    let node = &tree.0[index];
    let Some((ranges, parent)) = node.cells("ranges").zip(node.parent) else {
        return BTreeSet::new();
    };
    let (above, _) = tree.0[parent].counts();
    let (own, size_cells) = node.counts();
    if own != 3 {
        return BTreeSet::new();
    }
    let entries = ranges.chunks_exact(3 + above + size_cells);
    entries
        .filter_map(|entry| {
            let space = entry[0] >> 24 & 3;
            let size = number(&entry[3 + above..]);
            let cpu = translate(tree, parent, number(&entry[3..3 + above]))?;
            let prefetchable = entry[0] >> 30 & 1 != 0;
            (space != 0 && size != 0)
                .then(|| (number(&entry[1..3]), cpu, size, space == 1, prefetchable))
        })
        .collect()
}

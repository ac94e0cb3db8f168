//! The hierarchy for people: one line a function, then its resources.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use super::units::{bytes, count};
use super::{Bar, Function, HostBridge, Report, Window, names};

/// Columns that the lines keep to, where names allow.
const WIDTH: usize = 100;
/// Columns of address and ids, which the branches follow.
const MARGIN: usize = 25;
/// Resources are aligned to columns so far apart.
const CELL: usize = 34;

/// Prints the host bridges and below each what hangs on it. Plain ASCII, for
/// any console.
///
/// # Errors
///
/// When `to` fails.
pub fn write(report: &Report, to: &mut dyn Write) -> fmt::Result {
    let places = Places::new(report);
    for (index, host) in report.host_bridges.iter().enumerate() {
        if index > 0 {
            to.write_char('\n')?;
        }
        write_host(host, to)?;
        for position in places.below_host(index) {
            write_function(&places, position, &report.functions[position], to)?;
        }
    }
    Ok(())
}

/// Whether a function has a line of its own. Virtual functions come by the
/// thousands and are alike: their physical function lists them.
fn has_line(function: &Function) -> bool {
    function.virtual_function.is_none() || !function.anomalies.is_empty()
}

/// Where each function stands in the tree, by its position in the report.
struct Places {
    parents: Vec<Option<usize>>,
    /// The functions directly below each.
    children: Vec<Vec<usize>>,
    /// The functions directly below each host bridge.
    roots: Vec<Vec<usize>>,
    /// Whether no other function with the same parent follows.
    last: Vec<bool>,
}

impl Places {
    fn new(report: &Report) -> Self {
        let functions = &report.functions;
        let mut children = vec![Vec::new(); functions.len()];
        let mut roots = vec![Vec::new(); report.host_bridges.len()];
        let mut last = vec![true; functions.len()];
        let mut parents = Vec::with_capacity(functions.len());
        let mut before = BTreeMap::new();
        for (position, function) in functions.iter().enumerate() {
            // Only functions before this one can be above it: a report that
            // puts a function below itself makes no endless walk.
            let parent = function
                .parent
                .and_then(|parent| before.get(&(function.host_bridge, parent)).copied());
            // What has no line has nothing below it.
            if has_line(function) {
                before.insert((function.host_bridge, function.sbdf), position);
            }
            parents.push(parent);
            let siblings = match parent {
                Some(parent) => children.get_mut(parent),
                None => roots.get_mut(function.host_bridge as usize),
            };
            if let Some(siblings) = siblings.filter(|_| has_line(function)) {
                if let Some(&before) = siblings.last() {
                    last[before] = false;
                }
                siblings.push(position);
            }
        }
        Self {
            parents,
            children,
            roots,
            last,
        }
    }

    /// The functions below a host bridge, each followed by all below it.
    fn below_host(&self, host: usize) -> Vec<usize> {
        let mut order = Vec::new();
        let mut next: Vec<_> = self.roots[host].iter().rev().copied().collect();
        while let Some(position) = next.pop() {
            order.push(position);
            next.extend(self.children[position].iter().rev());
        }
        order
    }

    /// The branches left of what is below `position`.
    fn branches_below(&self, position: usize) -> String {
        let mut path = Vec::new();
        let mut at = Some(position);
        while let Some(position) = at {
            path.push(if self.last[position] { "   " } else { "|  " });
            at = self.parents[position];
        }
        path.into_iter().rev().collect()
    }
}

fn write_host(host: &HostBridge, to: &mut dyn Write) -> fmt::Result {
    write!(
        to,
        "{}: segment {:04x}, buses {:02x}-{:02x} of {:02x}-{:02x}",
        plain(&host.name),
        host.segment,
        host.buses_in_use.first,
        host.buses_in_use.last,
        host.buses.first,
        host.buses.last,
    )?;
    // A capture knows the functions, not where their window is; and not every
    // host bridge has one.
    if host.ecam_size > 0 {
        write!(
            to,
            ", ECAM {:#x} ({})",
            host.ecam_base,
            bytes(host.ecam_size)
        )?;
    }
    to.write_str(if host.preserve { ", preserved\n" } else { "\n" })?;
    for window in &host.windows {
        let last = window.pci_address.saturating_add(window.size.max(1) - 1);
        write!(
            to,
            "  {:<6} {:#012x}-{:#012x} {:>9}",
            kind(&window.kind, window.prefetchable),
            window.pci_address,
            last,
            bytes(window.size),
        )?;
        if window.cpu_address != window.pci_address {
            write!(to, "  at {:#x}", window.cpu_address)?;
        }
        to.write_char('\n')?;
    }
    Ok(())
}

fn write_function(
    places: &Places,
    position: usize,
    function: &Function,
    to: &mut dyn Write,
) -> fmt::Result {
    let mut branch = places.branches_below(position);
    let resources_at = branch.clone();
    branch.truncate(branch.len() - 3);
    branch += if places.last[position] { "`- " } else { "|- " };
    write!(
        to,
        "{}  {:04x}:{:04x}  {branch}{}",
        function.sbdf,
        function.vendor_id,
        function.device_id,
        names::class(function.class_code),
    )?;
    if let Some(vf) = &function.virtual_function {
        write!(to, ", VF {} of {}", vf.number, vf.physical)?;
    }
    if let Some(port) = &function.port_type {
        to.write_str(",")?;
        for word in plain(port).split('-') {
            write!(to, " {word}")?;
        }
    }
    if let Some(bridge) = &function.bridge {
        if bridge.secondary == bridge.subordinate {
            write!(to, ", bus {:02x}", bridge.secondary)?;
        } else {
            write!(
                to,
                ", buses {:02x}-{:02x}",
                bridge.secondary, bridge.subordinate
            )?;
        }
        if bridge.link_up == Some(false) {
            to.write_str(", link down")?;
        }
        if bridge.hot_plug {
            to.write_str(", hot-plug")?;
        }
        if bridge.ari_forwarding {
            to.write_str(", ARI")?;
        }
    }
    if !function.anomalies.is_empty() {
        let anomalies = count(function.anomalies.len(), "anomaly", "anomalies");
        write!(to, " ! {anomalies}")?;
    }
    to.write_char('\n')?;
    let below = if places.children[position].is_empty() {
        "   "
    } else {
        "|  "
    };
    write_cells(&format!("{resources_at}{below}"), &resources(function), to)
}

/// Windows, BARs and VFs of a function, each as one cell.
fn resources(function: &Function) -> Vec<String> {
    let mut cells = Vec::new();
    if let Some(bridge) = &function.bridge {
        let windows = [
            ("io", bridge.io),
            ("mem", bridge.memory),
            ("pref", bridge.prefetchable),
        ];
        for (name, window) in windows {
            let Some(Window { base, limit }) = window else {
                continue;
            };
            let size = bytes(limit.saturating_sub(base).saturating_add(1));
            cells.push(format!("{name:<4} {base:#x}-{limit:#x} {size}"));
        }
    }
    cells.extend(function.bars.iter().map(bar));
    if let Some(sriov) = &function.sriov {
        cells.push(format!(
            "SR-IOV {} {:04x}:{:04x} to bus {:02x}",
            count(sriov.total_vfs.into(), "VF", "VFs"),
            function.vendor_id,
            sriov.vf_device_id,
            sriov.last_bus,
        ));
        if sriov.num_vfs > 0 {
            cells.push(format!(
                "captured with NumVFs {}, {}",
                sriov.num_vfs,
                if sriov.vfs_enabled {
                    "enabled"
                } else {
                    "disabled again"
                },
            ));
        }
    }
    cells
}

fn bar(bar: &Bar) -> String {
    let register = match bar.index {
        0..=5 => format!("bar{}", bar.index),
        6 => String::from("rom "),
        _ => format!("vf{}", bar.index - 7),
    };
    let kind = match &*bar.kind {
        "rom" => "mem32",
        kind => kind.strip_prefix("vf-").unwrap_or(kind),
    };
    let address = match bar.address {
        Some(address) => format!("{address:#010x}"),
        None => String::from("disabled"),
    };
    let size = bar.size.map_or_else(|| String::from("size ?"), bytes);
    format!(
        "{register:<4} {:<6} {address:>12} {size:>7}{}",
        self::kind(kind, bar.prefetchable),
        if bar.fixed { " fixed" } else { "" },
    )
}

/// The kind of a BAR or window, with a `p` for prefetchable memory.
fn kind(kind: &str, prefetchable: bool) -> String {
    format!("{kind}{}", if prefetchable { "p" } else { "" })
}

/// Writes as many cells a line as fit, each in its column.
fn write_cells(branches: &str, cells: &[String], to: &mut dyn Write) -> fmt::Result {
    let mut used: usize = 0;
    for cell in cells {
        let column = used.div_ceil(CELL) * CELL;
        if used > 0 && MARGIN + branches.len() + column + cell.len() <= WIDTH {
            write!(to, "{:1$}{cell}", "", column - used)?;
            used = column + cell.len();
        } else {
            let end = if used > 0 { "\n" } else { "" };
            write!(to, "{end}{:MARGIN$}{branches}{cell}", "")?;
            used = cell.len();
        }
    }
    if used > 0 {
        to.write_char('\n')?;
    }
    Ok(())
}

/// `text` in printable ASCII: names come from outside and must not command the
/// terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            ' '..='~' => c,
            _ => '?',
        })
        .collect()
}

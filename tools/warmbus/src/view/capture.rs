//! The page for a report, a dump, a console or memory with a handover.

use std::collections::BTreeMap;

use warmbus_boot::report::{self, Report};
use warmbus_pci::Sbdf;

use super::model::{Amount, Bar, Function, Host, Page, Scale, Window, fact, hex};
use super::space;
use crate::hierarchy::Hierarchy;
use crate::input::Capture;

/// The page for `capture`.
pub(super) fn page(capture: &Capture) -> Page {
    let hierarchy = Hierarchy::new(capture);
    let report = match &capture.report {
        Some(report) => report.clone(),
        None => hierarchy.report(capture),
    };
    let mut page = Page {
        title: format!("Warmbus: {}", capture.file),
        facts: facts(capture, &report),
        anomalies: capture.problems.clone(),
        ..Page::default()
    };
    let spaces = space::add(&mut page, &hierarchy, &capture.spaces);
    let host_bridges = report.host_bridges.iter();
    page.hosts = host_bridges.map(host).collect();
    page.functions = report
        .functions
        .iter()
        .map(|found| function(found, &spaces))
        .collect();
    page.scales = scales(&report);
    if capture.report.is_some() {
        for anomaly in &report.anomalies {
            let place = anomaly
                .sbdf
                .map_or(String::new(), |sbdf| format!("{sbdf}: "));
            page.anomalies.push(place + &anomaly.text);
        }
        page.phases = report.phases.iter().map(phase).collect();
        page.amounts = amounts(&report);
    }
    page
}

fn facts(capture: &Capture, report: &Report) -> Vec<(String, String)> {
    let sum = |of: fn(&report::Function) -> u16| -> u64 {
        report.functions.iter().map(|f| u64::from(of(f))).sum()
    };
    let mut facts = vec![fact("kind of file", capture.kind.name())];
    if capture.report.is_some() {
        let machine = &report.machine;
        facts.extend(machine.model.iter().map(|model| fact("machine", model)));
        facts.push(fact("result", &report.result));
    }
    facts.push(fact("functions", report.functions.len()));
    facts.push(fact(
        "cached",
        format!(
            "{} of {} cacheable bytes",
            sum(|function| function.cached_bytes),
            sum(|function| function.cacheable_bytes)
        ),
    ));
    if let Some(handover) = capture.handover {
        facts.push(fact("handover", format!("tree at {:#x}", handover.tree)));
    }
    facts
}

fn host(found: &report::HostBridge) -> Host {
    let mut facts = vec![
        fact("segment", format!("{:04x}", found.segment)),
        fact(
            "buses in use",
            format!(
                "{:02x}-{:02x}",
                found.buses_in_use.first, found.buses_in_use.last
            ),
        ),
        fact("preserved", if found.preserve { "yes" } else { "no" }),
    ];
    if found.ecam_size != 0 {
        facts.push(fact(
            "ECAM",
            format!("{:#x}, {:#x} bytes", found.ecam_base, found.ecam_size),
        ));
    }
    Host {
        name: found.name.clone(),
        facts,
    }
}

fn function(found: &report::Function, spaces: &BTreeMap<Sbdf, usize>) -> Function {
    let mut facts = vec![
        fact("revision", format!("{:02x}", found.revision)),
        fact("class code", format!("{:06x}", found.class_code)),
    ];
    if let Some(subsystem) = found.subsystem {
        facts.push(fact(
            "subsystem",
            format!("{:04x}:{:04x}", subsystem.vendor_id, subsystem.device_id),
        ));
    }
    let mut windows = Vec::new();
    if let Some(bridge) = &found.bridge {
        facts.push(fact(
            "buses",
            format!(
                "{:02x}, below it {:02x}-{:02x}",
                bridge.primary, bridge.secondary, bridge.subordinate
            ),
        ));
        if let Some(up) = bridge.link_up {
            facts.push(fact("link", if up { "up" } else { "down" }));
        }
        let all = [
            ("io", bridge.io),
            ("memory", bridge.memory),
            ("prefetchable", bridge.prefetchable),
        ];
        windows.extend(all.into_iter().filter_map(|(kind, window)| {
            window.map(|window| Window {
                kind,
                base: hex(window.base),
                limit: hex(window.limit),
            })
        }));
    }
    if let Some(sriov) = &found.sriov {
        facts.push(fact(
            "SR-IOV",
            format!(
                "{} VFs, {} captured, offset {}, stride {}",
                sriov.total_vfs, sriov.num_vfs, sriov.first_vf_offset, sriov.vf_stride
            ),
        ));
    }
    facts.push(fact(
        "bytes",
        format!(
            "{}, {} cacheable, {} cached",
            found.config_bytes, found.cacheable_bytes, found.cached_bytes
        ),
    ));
    if found.retries != 0 {
        facts.push(fact("looked for again", format!("{} times", found.retries)));
    }
    let bars = found.bars.iter().map(|bar| Bar {
        index: bar.index,
        kind: bar.kind.to_string(),
        address: bar.address.map(hex),
        size: bar.size.map(hex),
    });
    Function {
        sbdf: found.sbdf.to_string(),
        parent: found.parent.map(|parent| parent.to_string()),
        physical: found.virtual_function.map(|vf| vf.physical.to_string()),
        host: found.host_bridge as usize,
        vendor: format!("{:04x}", found.vendor_id),
        device: format!("{:04x}", found.device_id),
        name: report::names::class(found.class_code).to_string(),
        kind: found.port_type.as_ref().map(|port| port.replace('-', " ")),
        note: found
            .virtual_function
            .map_or(String::new(), |vf| format!("VF {}", vf.number)),
        facts,
        bars: bars.collect(),
        windows,
        anomalies: found.anomalies.clone(),
        space: spaces.get(&found.sbdf).copied(),
    }
}

/// The windows of the host bridges; of one without, as in a dump, all addresses.
fn scales(report: &Report) -> Vec<Scale> {
    const BELOW_4_GIB: u64 = u32::MAX as u64;
    let mut scales = Vec::new();
    for (number, host) in report.host_bridges.iter().enumerate() {
        let mut add = |what: &str, is_io: bool, base: u64, limit: u64| {
            scales.push(Scale {
                name: format!("{}: {what}", host.name),
                host: number,
                window: !host.windows.is_empty(),
                space: if is_io { "io" } else { "mem" },
                base: hex(base),
                limit: hex(limit),
            });
        };
        if host.windows.is_empty() {
            add("I/O", true, 0, BELOW_4_GIB);
            add("memory below 4 GiB", false, 0, BELOW_4_GIB);
            add("memory above 4 GiB", false, BELOW_4_GIB + 1, u64::MAX);
        }
        for window in &host.windows {
            let limit = window
                .pci_address
                .saturating_add(window.size.saturating_sub(1));
            add(&window.kind, window.kind == "io", window.pci_address, limit);
        }
    }
    scales
}

/// A phase, with the nanoseconds of it in configuration accesses.
fn phase(phase: &report::Phase) -> Amount {
    let part = u128::from(phase.nanoseconds) * u128::from(phase.config_ticks)
        / u128::from(phase.ticks.max(1));
    Amount {
        name: phase.name.to_string(),
        value: phase.nanoseconds,
        part: u64::try_from(part)
            .unwrap_or(u64::MAX)
            .min(phase.nanoseconds),
    }
}

fn amounts(report: &Report) -> Vec<Amount> {
    let (accesses, cache) = (&report.accesses, &report.cache);
    let rows = [
        ("reads", accesses.reads),
        ("of absent functions", accesses.absent_probes),
        ("read-backs", accesses.read_backs),
        ("writes", accesses.writes),
        ("cacheable dwords", accesses.cacheable_dwords),
        ("cache hits", cache.hits),
        ("cache misses", cache.misses),
        ("uncacheable", cache.uncacheable),
        ("invalidations", cache.invalidations),
    ];
    let rows = rows.into_iter().map(|(name, value)| Amount {
        name: name.to_owned(),
        value,
        part: 0,
    });
    rows.collect()
}

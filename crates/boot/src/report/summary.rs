//! The totals, for people.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use core::fmt::{self, Display, Write};

use super::tree::plain;
use super::units::{bytes, count, milliseconds, percent};
use super::{Function, Phase, Report, SelfCheck};

/// Columns of the name that each line starts with.
const LABEL: usize = 13;

/// Prints how much there is, what it cost, and every anomaly on a line.
///
/// # Errors
///
/// When `to` fails.
pub fn write(report: &Report, to: &mut dyn Write) -> fmt::Result {
    write_machine(report, to)?;
    write_count(&report.functions, report.host_bridges.len(), to)?;
    write_bars(&report.functions, to)?;
    write_costs(report, to)?;
    write_phases(report, to)?;
    if let Some(check) = &report.self_check {
        write_check(check, to)?;
        for difference in &check.differences {
            line(
                to,
                "",
                format_args!(
                    "{} offset {:03x}: cached {:02x}, hardware {:02x}",
                    difference.sbdf, difference.offset, difference.cached, difference.hardware
                ),
            )?;
        }
    }
    write_anomalies(report, usize::MAX, to)?;
    line(to, "result", format_args!("{}", plain(&report.result)))
}

/// Anomalies that [`write_brief`] prints in full.
const BRIEF_ANOMALIES: usize = 2;

/// Prints how many functions there are, how much of them is cached, and what
/// was wrong, in a few lines whatever there is.
///
/// # Errors
///
/// When `to` fails.
pub fn write_brief(report: &Report, to: &mut dyn Write) -> fmt::Result {
    write_count(&report.functions, report.host_bridges.len(), to)?;
    write_cached(report, to)?;
    if let Some(check) = &report.self_check {
        write_check(check, to)?;
    }
    write_anomalies(report, BRIEF_ANOMALIES, to)
}

fn line(to: &mut dyn Write, label: &str, text: impl Display) -> fmt::Result {
    writeln!(to, "{label:<LABEL$}{text}")
}

fn write_machine(report: &Report, to: &mut dyn Write) -> fmt::Result {
    let machine = &report.machine;
    let model = machine.model.as_deref().map_or_else(String::new, plain);
    line(
        to,
        "machine",
        format_args!(
            "{model}{}EL{}, {}, {} of RAM, timer {}.{:03} MHz",
            if model.is_empty() { "" } else { ", " },
            machine.exception_level,
            count(machine.cores as usize, "core", "cores"),
            bytes(machine.memory_bytes),
            machine.timer_hz / 1_000_000,
            machine.timer_hz / 1000 % 1000,
        ),
    )
}

fn write_check(check: &SelfCheck, to: &mut dyn Write) -> fmt::Result {
    line(
        to,
        "self-check",
        format_args!(
            "{} bytes compared with the hardware, {}",
            check.bytes,
            count(check.differences.len(), "difference", "differences")
        ),
    )
}

/// How many functions there are, and of which kind.
fn write_count(functions: &[Function], hosts: usize, to: &mut dyn Write) -> fmt::Result {
    let bridges = functions.iter().filter(|f| f.bridge.is_some()).count();
    let buses: BTreeSet<_> = functions
        .iter()
        .map(|function| (function.sbdf.segment(), function.sbdf.bus()))
        .collect();
    let vfs = functions
        .iter()
        .filter(|function| function.virtual_function.is_some())
        .count();
    let vfs_too = if vfs > 0 {
        format!(", {} of them virtual,", count(vfs, "function", "functions"))
    } else {
        String::from(",")
    };
    line(
        to,
        "functions",
        format_args!(
            "{}: {} and {}{vfs_too} on {} below {}",
            functions.len(),
            count(bridges, "bridge", "bridges"),
            count(functions.len() - bridges, "other", "others"),
            count(buses.len(), "bus", "buses"),
            count(hosts, "host bridge", "host bridges"),
        ),
    )
}

fn write_bars(functions: &[Function], to: &mut dyn Write) -> fmt::Result {
    let bars = || functions.iter().flat_map(|function| &function.bars);
    let assigned = || bars().filter(|bar| bar.address.is_some());
    let in_all = assigned()
        .filter_map(|bar| bar.size)
        .fold(0, u64::saturating_add);
    line(
        to,
        "BARs",
        format_args!(
            "{} assigned ({}), {} disabled",
            assigned().count(),
            bytes(in_all),
            bars().count() - assigned().count(),
        ),
    )
}

fn write_costs(report: &Report, to: &mut dyn Write) -> fmt::Result {
    let accesses = &report.accesses;
    line(
        to,
        "hardware",
        format_args!(
            "{} reads (absent functions {}, read-backs {}), {} writes; most reads of one dword {}",
            accesses.reads,
            accesses.absent_probes,
            accesses.read_backs,
            accesses.writes,
            accesses.most_reads_of_one_dword,
        ),
    )?;
    write_cached(report, to)?;
    let cache = &report.cache;
    line(
        to,
        "",
        format_args!(
            "{} hits, {} misses, {} uncacheable, {} writes, {} invalidations",
            cache.hits, cache.misses, cache.uncacheable, cache.writes, cache.invalidations,
        ),
    )?;
    let machine = &report.machine;
    line(
        to,
        "memory",
        format_args!(
            "image {}, heap at most {}, {} bytes a function",
            bytes(machine.image_bytes),
            bytes(machine.heap_peak_bytes),
            machine.bytes_per_function,
        ),
    )
}

/// How many of the cacheable bytes are cached.
fn write_cached(report: &Report, to: &mut dyn Write) -> fmt::Result {
    let sum = |of: fn(&Function) -> u16| -> u64 {
        report.functions.iter().map(|f| u64::from(of(f))).sum()
    };
    let cacheable = sum(|function| function.cacheable_bytes);
    let cached = sum(|function| function.cached_bytes);
    line(
        to,
        "cache",
        format_args!(
            "{cached} of {cacheable} cacheable bytes ({})",
            percent(cached, cacheable),
        ),
    )
}

/// One line a phase: time, its share, and how much of it went into
/// configuration accesses.
fn write_phases(report: &Report, to: &mut dyn Write) -> fmt::Result {
    let total = |of: fn(&Phase) -> u64| report.phases.iter().map(of).fold(0, u64::saturating_add);
    let ticks = total(|phase| phase.ticks);
    let nanoseconds = total(|phase| phase.nanoseconds);
    let row = |name: &str, time: u64, spent: u64, config: u64| {
        format!(
            "{:<16} {:>13} {:>7} {:>7} in configuration accesses",
            plain(name),
            milliseconds(time),
            percent(spent, ticks),
            percent(config, spent),
        )
    };
    let mut label = "time";
    for phase in &report.phases {
        let text = row(
            &phase.name,
            phase.nanoseconds,
            phase.ticks,
            phase.config_ticks,
        );
        line(to, label, text)?;
        label = "";
    }
    let config = total(|phase| phase.config_ticks);
    line(to, label, row("total", nanoseconds, ticks, config))
}

/// At most `most` anomalies, a line each, and how many more there are.
fn write_anomalies(report: &Report, most: usize, to: &mut dyn Write) -> fmt::Result {
    let of_functions = report.functions.iter().flat_map(|function| {
        function
            .anomalies
            .iter()
            .map(|text| (Some(function.sbdf), text))
    });
    let others = report.anomalies.iter().map(|a| (a.sbdf, &a.text));
    let all = of_functions.chain(others);
    let more = all.clone().count().saturating_sub(most);
    let mut label = "anomalies";
    for (sbdf, text) in all.take(most) {
        match sbdf {
            Some(sbdf) => line(to, label, format_args!("{sbdf}: {}", plain(text)))?,
            None => line(to, label, format_args!("{}", plain(text)))?,
        }
        label = "";
    }
    if more > 0 {
        return line(
            to,
            label,
            format_args!("and {more} more (warmbus.show=summary)"),
        );
    }
    if label.is_empty() {
        Ok(())
    } else {
        line(to, label, "none")
    }
}

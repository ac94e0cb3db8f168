//! A survey as text and as JSON, schema `warmbus-survey/1`.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use super::forecast::Span;
use super::hosts::Hosts;
use super::kind::Kind;
use super::{Conclusion, Survey, Surveyed, Time, Worth};

/// The sum of what can be had with root only.
fn needs_root(survey: &Survey) -> Vec<&'static str> {
    let mut missing = Vec::new();
    if survey.is_cut {
        missing.push("the share of cacheable bytes, and exact kinds of functions");
    }
    if let Hosts::Unknown(reason) = &survey.hosts
        && reason.ends_with("only root may read it")
    {
        missing.push("which host bridges would be handed over");
    }
    missing
}

/// Cacheable bytes, and all bytes, of the functions that were read; `None`
/// where they are not known of all of these.
fn bytes(survey: &Survey) -> Option<(u64, u64)> {
    if survey.is_cut {
        return None;
    }
    let known = survey.functions.iter().filter_map(|one| one.bytes);
    let sum = known.fold((0, 0), |(cacheable, all), bytes| {
        (
            cacheable + u64::from(bytes.cacheable),
            all + u64::from(bytes.all),
        )
    });
    (sum.1 != 0).then_some(sum)
}

fn by_kind(survey: &Survey) -> BTreeMap<Kind, Vec<&Surveyed>> {
    let mut kinds: BTreeMap<Kind, Vec<&Surveyed>> = BTreeMap::new();
    for function in &survey.functions {
        kinds.entry(function.kind).or_default().push(function);
    }
    kinds
}

/// Nanoseconds in words.
fn time(nanoseconds: u64) -> String {
    if nanoseconds < 1000 {
        format!("{nanoseconds} ns")
    } else {
        format!("{}.{} us", nanoseconds / 1000, nanoseconds % 1000 / 100)
    }
}

fn span(span: Span) -> String {
    format!(
        "{:.1} ms ({:.1} to {:.1})",
        span.middle, span.low, span.high
    )
}

pub(super) fn text(survey: &Survey, conclusion: &Conclusion) -> String {
    let mut out = String::new();
    let mut row = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name:<14} {value}");
    };
    row("functions", &survey.functions.len().to_string());
    for (kind, functions) in by_kind(survey) {
        row(
            "",
            &format!("{:<20} {:>5}", kind.to_string(), functions.len()),
        );
    }
    row(
        "VFs",
        &format!(
            "{} possible, {} enabled",
            survey.possible_vfs,
            survey
                .functions
                .iter()
                .map(|one| one.found.enabled_vfs)
                .sum::<u64>()
        ),
    );
    match &survey.hosts {
        Hosts::Unknown(reason) => row("host bridges", &format!("not known: {reason}")),
        Hosts::Known(hosts) => {
            for host in hosts {
                let what = host.refusal.as_ref().map_or_else(
                    || "handed over".to_owned(),
                    |reason| format!("not handed over: {reason}"),
                );
                row("host bridge", &format!("{}: {what}", host.name));
            }
        }
    }
    match survey.time {
        None => row("a read", "not known"),
        Some(of) => row(
            "a read",
            &format!(
                "{} (median), {} (99 %); a system call, which is subtracted, {}",
                time(of.median),
                time(of.slow),
                time(of.call)
            ),
        ),
    }
    slowest(survey, &mut row);
    if let Some((cacheable, all)) = bytes(survey) {
        let tenths = 1000 * cacheable / all;
        row(
            "cacheable",
            &format!(
                "{cacheable} of {all} bytes ({}.{} %)",
                tenths / 10,
                tenths % 10
            ),
        );
    }
    let unread = survey.functions.iter().filter_map(|one| {
        let reason = one.unread.as_ref()?;
        Some(format!("{}: {reason}", one.found.sbdf))
    });
    for line in unread {
        row("not read", &line);
    }
    for name in &survey.machine.skipped {
        row(
            "not read",
            &format!("{name}: its segment has more than 16 bits"),
        );
    }
    forecast(survey, &mut row);
    for missing in needs_root(survey) {
        row("root adds", missing);
    }
    row("verdict", &conclusion.sentence);
    out
}

/// The functions whose reads take longest, where they are not all alike.
fn slowest(survey: &Survey, row: &mut impl FnMut(&str, &str)) {
    const SHOWN: usize = 3;
    let Some(usual) = survey.time else {
        return;
    };
    let mut timed: Vec<(u64, &Surveyed)> = survey
        .functions
        .iter()
        .filter_map(|one| Some((one.time?.median, one)))
        .filter(|(median, _)| *median > 2 * usual.median)
        .collect();
    timed.sort_by_key(|(median, one)| (std::cmp::Reverse(*median), one.found.sbdf));
    for (median, one) in timed.iter().take(SHOWN) {
        row(
            "slow",
            &format!("{} {}: {}", one.found.sbdf, one.kind, time(*median)),
        );
    }
}

fn forecast(survey: &Survey, row: &mut impl FnMut(&str, &str)) {
    let forecast = &survey.forecast;
    row(
        "a boot",
        &format!(
            "{} of configuration accesses by a stock Linux",
            span(forecast.boot)
        ),
    );
    row(
        "",
        &format!(
            "{} saved by Warmbus, its own accesses subtracted",
            span(forecast.boot_saved)
        ),
    );
    row(
        "",
        &format!(
            "{} million instructions more, of Warmbus",
            forecast.instructions.div_ceil(1_000_000)
        ),
    );
    row("a kexec", &format!("{} saved", span(forecast.kexec_saved)));
    if let Some(saved) = forecast.machine_saved {
        row(
            "a VM start",
            &format!("{} saved for each function", span(saved)),
        );
    }
    if let Some(saved) = forecast.vf_saved {
        row(
            "VFs created",
            &format!(
                "{} saved for {} of them",
                span(saved.times(survey.vfs)),
                survey.vfs
            ),
        );
    }
    row(
        "counts",
        &format!(
            "of Linux {} in QEMU, for a kernel with the series of linux/patches",
            survey.counted
        ),
    );
}

pub(super) fn json(survey: &Survey, conclusion: &Conclusion) -> Value {
    let times = |time: Option<Time>| {
        time.map(|time| {
            json!({
                "median_nanoseconds": time.median,
                "p99_nanoseconds": time.slow,
                "system_call_nanoseconds": time.call,
            })
        })
    };
    let span = |span: Span| json!({ "low": micros(span.low), "middle": micros(span.middle), "high": micros(span.high) });
    let hosts = match &survey.hosts {
        Hosts::Unknown(_) => Vec::new(),
        Hosts::Known(hosts) => hosts
            .iter()
            .map(|host| {
                json!({
                    "name": host.name,
                    "root_bus": host.root.map(|(segment, bus)| format!("{segment:04x}:{bus:02x}")),
                    "handed_over": host.refusal.is_none(),
                    "reason": host.refusal,
                })
            })
            .collect(),
    };
    let unknown = match &survey.hosts {
        Hosts::Unknown(reason) => Some(reason),
        Hosts::Known(_) => None,
    };
    let functions = survey.functions.iter().map(|one| {
        json!({
            "sbdf": one.found.sbdf.to_string(),
            "parent": one.found.above.last().map(ToString::to_string),
            "vendor_id": one.found.ids.0,
            "device_id": one.found.ids.1,
            "class_code": one.found.class_code,
            "kind": one.kind.name(),
            "kind_from": if one.is_kind_read { "capabilities" } else { "place" },
            "total_vfs": one.found.total_vfs,
            "driver": one.found.driver,
            "enabled_vfs": one.found.enabled_vfs,
            "handed_over": one.is_handed_over,
            "time": times(one.time),
            "config_bytes": one.bytes.map(|bytes| bytes.all),
            "cacheable_bytes": one.bytes.map(|bytes| bytes.cacheable),
            "not_read": one.unread,
        })
    });
    let kinds: BTreeMap<&str, usize> = by_kind(survey)
        .into_iter()
        .map(|(kind, functions)| (kind.name(), functions.len()))
        .collect();
    let forecast = &survey.forecast;
    json!({
        "schema": "warmbus-survey/1",
        "arm64": survey.machine.is_arm64,
        "kinds": kinds,
        "possible_vfs": survey.possible_vfs,
        "host_bridges": hosts,
        "host_bridges_unknown": unknown,
        "time": times(survey.time),
        "cacheable_bytes": bytes(survey).map(|(cacheable, _)| cacheable),
        "config_bytes": bytes(survey).map(|(_, all)| all),
        "forecast_microseconds": {
            "boot": span(forecast.boot),
            "boot_saved": span(forecast.boot_saved),
            "kexec_saved": span(forecast.kexec_saved),
            "virtual_machine_saved": forecast.machine_saved.map(span),
            "vfs_saved": forecast.vf_saved.map(|saved| span(saved.times(survey.vfs))),
        },
        "vfs": survey.vfs,
        "instructions": forecast.instructions,
        "counts_of_linux": survey.counted,
        "needs_root": needs_root(survey),
        "skipped": survey.machine.skipped,
        "worth_it": conclusion.worth == Worth::Yes,
        "verdict": conclusion.sentence,
        "functions": functions.collect::<Vec<_>>(),
    })
}

/// Milliseconds as whole microseconds: numbers in JSON are integers.
#[expect(clippy::cast_possible_truncation, reason = "far below 2^63")]
const fn micros(milliseconds: f64) -> i64 {
    (milliseconds * 1000.0).round() as i64
}

//! The status as text and as JSON, schema `warmbus-status/1`.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::{Fate, Known, Status};

impl Fate {
    /// The name in text and in JSON, and the reason.
    fn words(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::Used => ("used", None),
            Self::Virtual => ("virtual", None),
            Self::Dropped(reason) => ("dropped", Some(reason)),
            Self::NotHandedOver => ("not-handed-over", None),
            Self::Unknown => ("unknown", None),
        }
    }
}

/// What root would add.
fn needs_root(status: &Status) -> Vec<&'static str> {
    let mut missing = Vec::new();
    if status.subtree == Known::NeedsRoot {
        missing.push("which functions were handed over");
    }
    if status.counters == Known::NeedsRoot {
        missing.push("the mode and the counters of the kernel");
    }
    if !status.has_log {
        missing.push("what is not used and why, from the log of the kernel");
    }
    missing
}

fn handover(status: &Status) -> String {
    match &status.subtree {
        Known::Yes(subtree) => format!("received, with {} functions", subtree.nodes().len()),
        Known::Damaged(reason) => format!("damaged: {reason}"),
        Known::Absent | Known::NeedsRoot if status.in_boot_tree => {
            "there is one: the boot tree names it".into()
        }
        Known::Absent => "none".into(),
        Known::NeedsRoot => "not known without root".into(),
    }
}

fn consumer(status: &Status) -> String {
    match &status.counters {
        Known::Absent => {
            "this kernel does not read the cache (no series B of linux/patches)".into()
        }
        Known::NeedsRoot => "not known without root".into(),
        Known::Damaged(reason) => format!("damaged: {reason}"),
        Known::Yes(_) => {
            let counter = |name| status.counter(name).unwrap_or("?").to_owned();
            format!(
                "mode {}, {} functions restored, {} rejected",
                counter("mode"),
                counter("restored"),
                counter("rejected")
            )
        }
    }
}

pub(super) fn text(status: &Status) -> String {
    let mut out = String::new();
    let mut row = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name:<14} {value}");
    };
    row("kernel", &status.release);
    if !status.words.is_empty() {
        row("command line", &status.words.join(" "));
    }
    row("handover", &handover(status));
    row("cache", &consumer(status));
    if let (Some(hits), Some(passed)) = (status.counter("hits"), status.counter("passed")) {
        row("reads", &format!("{hits} served, {passed} passed on"));
    }
    if let Some(differences) = status.counter("differences").filter(|count| *count != "0") {
        row(
            "differences",
            &format!("{differences} between cache and hardware"),
        );
    }
    let setup = if status.probe_only {
        "kept as handed over (probe only)"
    } else {
        "done by Linux"
    };
    row("PCI set-up", setup);
    for remark in &status.remarks {
        row("log", remark);
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for fate in status.functions.values() {
        *counts.entry(fate.words().0).or_default() += 1;
    }
    for (name, count) in counts {
        row(
            "functions",
            &format!("{count:>5} {}", name.replace('-', " ")),
        );
    }
    for (sbdf, fate) in &status.functions {
        if let (name, Some(reason)) = fate.words() {
            row(name, &format!("{sbdf}: {reason}"));
        }
    }
    for missing in needs_root(status) {
        row("root adds", missing);
    }
    out
}

pub(super) fn json(status: &Status) -> Value {
    let counters = status.counters.value().map(|counters| {
        let counters = counters.iter().map(|(name, value)| {
            let number = value.parse::<u64>();
            let value = number.map_or_else(|_| json!(value), |number| json!(number));
            (name.clone(), value)
        });
        counters.collect::<Map<_, _>>()
    });
    let functions = status.functions.iter().map(|(sbdf, fate)| {
        let (state, reason) = fate.words();
        json!({ "sbdf": sbdf.to_string(), "state": state, "reason": reason })
    });
    json!({
        "schema": "warmbus-status/1",
        "release": status.release,
        "command_line": status.words,
        "probe_only": status.probe_only,
        "handover": handover(status),
        "handed_over": status.subtree.value().map(|subtree| subtree.nodes().len()),
        "cache": consumer(status),
        "counters": counters,
        "remarks": status.remarks,
        "needs_root": needs_root(status),
        "functions": functions.collect::<Vec<_>>(),
    })
}

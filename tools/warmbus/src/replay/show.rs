//! The result of a replay, as text and as JSON.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::outcome::{Outcome, Run, Tally};
use crate::input::Capture;

/// Stale hits that are listed for people.
const STALE_SHOWN: usize = 10;

pub(super) fn text(capture: &Capture, cold: &Run, warm: &Run, top: usize) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "trace      {} reads, {} writes, {} functions that responded",
        cold.total.reads,
        cold.writes,
        cold.functions.len()
    );
    for (name, run) in [("cold", cold), ("warm", warm)] {
        let _ = writeln!(
            text,
            "{name:<10} {} hits ({}); {} reads reach the hardware, and {} more of the cache's own; {} bytes invalidated; {} stale",
            run.total.hits(),
            percent(run.total.hits(), run.total.reads),
            run.total.remaining(),
            run.own_reads,
            run.invalidations,
            run.stale.len(),
        );
    }
    let unknown: Vec<String> = warm
        .functions
        .iter()
        .filter(|sbdf| !capture.spaces.contains_key(sbdf))
        .map(ToString::to_string)
        .collect();
    if !unknown.is_empty() {
        let _ = writeln!(text, "not in the capture: {}", unknown.join(", "));
    }
    stale(&mut text, warm);

    text += "\nby register, most remaining reads first:\n   reads   cold   warm   left  register: why\n";
    let mut registers: Vec<(&String, &Tally)> = warm.registers.iter().collect();
    registers.sort_by_key(|(name, tally)| (std::cmp::Reverse(tally.remaining()), *name));
    for (name, tally) in registers.iter().take(top) {
        let cold_hits = cold.registers.get(*name).map_or(0, Tally::hits);
        let _ = writeln!(
            text,
            "{:>8} {:>6} {:>6} {:>6}  {name}{}",
            tally.reads,
            percent(cold_hits, tally.reads),
            percent(tally.hits(), tally.reads),
            tally.remaining(),
            why(tally)
        );
    }
    if registers.len() > top {
        let rest = &registers[top..];
        let left: u64 = rest.iter().map(|(_, tally)| tally.remaining()).sum();
        let _ = writeln!(text, "{:>30}  in {} more registers", left, rest.len());
    }

    text += "\nremedies (warm):\n   reads     to  why: what would serve them\n";
    let mut outcomes: Vec<(&Outcome, &u64)> = warm.total.outcomes.iter().collect();
    outcomes.retain(|(outcome, _)| **outcome != Outcome::Hit);
    outcomes.sort_by_key(|(_, reads)| std::cmp::Reverse(**reads));
    for (outcome, reads) in outcomes {
        let _ = writeln!(
            text,
            "{reads:>8} {:>6}  {}: {}",
            percent(warm.total.hits() + reads, warm.total.reads),
            outcome.name(),
            outcome.remedy()
        );
    }
    text
}

/// Lists hits that the trace contradicts.
fn stale(text: &mut String, run: &Run) {
    if run.stale.is_empty() {
        return;
    }
    *text += "\nhits that differ from the trace (the capture shows another state than the\nstart of the trace, or the cache is wrong):\n";
    for stale in run.stale.iter().take(STALE_SHOWN) {
        let _ = writeln!(
            text,
            "  line {}: {} {}: cached {:x}, recorded {:x}",
            stale.line, stale.function, stale.register, stale.cached, stale.recorded
        );
    }
    if let Some(more) = run.stale.len().checked_sub(STALE_SHOWN).filter(|n| *n > 0) {
        let _ = writeln!(text, "  and {more} more");
    }
}

/// The reasons of the remaining reads of a register.
fn why(tally: &Tally) -> String {
    let mut reasons: Vec<String> = tally
        .outcomes
        .iter()
        .filter(|(outcome, _)| **outcome != Outcome::Hit)
        .map(|(outcome, reads)| format!("{} {reads}", outcome.name()))
        .collect();
    let mut causes: Vec<(&String, &u64)> = tally.invalidated_by.iter().collect();
    causes.sort_by_key(|(_, reads)| std::cmp::Reverse(**reads));
    if let Some((register, reads)) = causes.first() {
        reasons.push(format!("invalidated by {register} {reads}"));
    }
    if reasons.is_empty() {
        return String::new();
    }
    format!(": {}", reasons.join(", "))
}

/// A share, rounded down to tenths of a percent.
fn percent(part: u64, whole: u64) -> String {
    match (part * 1000).checked_div(whole) {
        Some(tenths) => format!("{}.{}%", tenths / 10, tenths % 10),
        None => "-".into(),
    }
}

pub(super) fn json(capture: &Capture, cold: &Run, warm: &Run) -> String {
    let names: BTreeSet<&String> = cold.registers.keys().chain(warm.registers.keys()).collect();
    let registers: Vec<Value> = names
        .into_iter()
        .map(|name| {
            json!({
                "register": name,
                "cold": cold.registers.get(name).map(tally),
                "warm": warm.registers.get(name).map(tally),
            })
        })
        .collect();
    let remedies: Vec<Value> = warm
        .total
        .outcomes
        .iter()
        .filter(|(outcome, _)| **outcome != Outcome::Hit)
        .map(|(outcome, reads)| {
            json!({ "why": outcome.name(), "reads": reads, "remedy": outcome.remedy() })
        })
        .collect();
    let value = json!({
        "schema": "warmbus-replay/1",
        "cache": capture.file,
        "writes": cold.writes,
        "cold": run(cold),
        "warm": run(warm),
        "registers": registers,
        "remedies": remedies,
    });
    format!("{value:#}\n")
}

fn tally(tally: &Tally) -> Value {
    let outcomes: serde_json::Map<String, Value> = tally
        .outcomes
        .iter()
        .map(|(outcome, reads)| (outcome.name().to_owned(), json!(reads)))
        .collect();
    json!({
        "reads": tally.reads,
        "hits": tally.hits(),
        "outcomes": outcomes,
        "dropped_by": tally.invalidated_by,
    })
}

fn run(run: &Run) -> Value {
    let stale: Vec<Value> = run
        .stale
        .iter()
        .map(|stale| {
            json!({
                "line": stale.line,
                "sbdf": stale.function.to_string(),
                "register": stale.register,
                "cached": stale.cached,
                "recorded": stale.recorded,
            })
        })
        .collect();
    let functions: Vec<String> = run.functions.iter().map(ToString::to_string).collect();
    let mut value = tally(&run.total);
    value["own_reads"] = json!(run.own_reads);
    value["invalidations"] = json!(run.invalidations);
    value["functions"] = json!(functions);
    value["stale"] = json!(stale);
    value
}

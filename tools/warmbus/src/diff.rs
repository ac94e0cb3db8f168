//! `warmbus diff`: what changed between two captures.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};
use warmbus_pci::Sbdf;
use warmbus_pcsc::names::RegisterMap;

use crate::Verdict;
use crate::hierarchy::Hierarchy;
use crate::input::{Capture, Space};

/// A register that differs.
struct Change {
    sbdf: Sbdf,
    offset: u16,
    name: String,
    /// Its bytes in either capture; `None` is one that is not known there.
    a: Vec<Option<u8>>,
    b: Vec<Option<u8>>,
}

/// A value of the reports that differs.
struct Fact {
    path: String,
    a: Value,
    b: Value,
}

/// Lists the differences between `a` and `b`: functions, registers, and the
/// values of their reports.
#[must_use]
pub fn run(a: &Capture, b: &Capture, json: bool) -> (String, Verdict) {
    let (in_a, in_b) = (functions(a), functions(b));
    let removed: Vec<Sbdf> = in_a.difference(&in_b).copied().collect();
    let added: Vec<Sbdf> = in_b.difference(&in_a).copied().collect();
    let (names_a, names_b) = (Hierarchy::new(a), Hierarchy::new(b));
    let mut changes = Vec::new();
    for sbdf in in_a.intersection(&in_b) {
        if let (Some(before), Some(after)) = (a.spaces.get(sbdf), b.spaces.get(sbdf)) {
            let names = [names_b.names(*sbdf), names_a.names(*sbdf)];
            registers(*sbdf, before, after, names, &mut changes);
        }
    }
    let mut facts = Vec::new();
    // With the bytes of both, the registers show the differences.
    if a.spaces.is_empty() || b.spaces.is_empty() {
        reports(
            &described(a, &names_a),
            &described(b, &names_b),
            &in_a,
            &in_b,
            &mut facts,
        );
    }
    let is_equal = removed.is_empty() && added.is_empty() && changes.is_empty() && facts.is_empty();
    let verdict = if is_equal {
        Verdict::Good
    } else {
        Verdict::Bad
    };
    let text = if json {
        let value = to_json(a, b, &removed, &added, &changes, &facts);
        format!("{value:#}\n")
    } else {
        to_text(&removed, &added, &changes, &facts)
    };
    (text, verdict)
}

fn functions(capture: &Capture) -> BTreeSet<Sbdf> {
    let reported = capture.report.iter().flat_map(|report| &report.functions);
    let reported = reported.map(|function| function.sbdf);
    capture.spaces.keys().copied().chain(reported).collect()
}

/// Whether the byte at `offset` differs. A byte that only one of the captures
/// has counts only if both are handovers.
fn differs(before: &Space, after: &Space, offset: u16) -> bool {
    match (before.byte(offset), after.byte(offset)) {
        (Some(before), Some(after)) => before != after,
        (None, None) => false,
        _ => before.extension.is_some() && after.extension.is_some(),
    }
}

/// Adds the registers of one function that differ.
fn registers(
    sbdf: Sbdf,
    before: &Space,
    after: &Space,
    names: [Option<&RegisterMap>; 2],
    changes: &mut Vec<Change>,
) {
    let end = before.bytes.len().max(after.bytes.len()) as u16;
    let mut at = 0;
    while at < end {
        if !differs(before, after, at) {
            at += 1;
            continue;
        }
        let register = names.into_iter().flatten().find_map(|map| map.at(at));
        let (offset, len, name) = match register {
            Some(found) => (found.offset, found.len, found.to_string()),
            None => {
                let map = names.into_iter().flatten().next();
                let name = map.map_or_else(|| format!("offset {at:#x}"), |map| map.describe(at, 1));
                (at, 1, name)
            }
        };
        let bytes = |space: &Space| (offset..offset + len).map(|at| space.byte(at)).collect();
        changes.push(Change {
            sbdf,
            offset,
            name,
            a: bytes(before),
            b: bytes(after),
        });
        at = offset + len;
    }
}

/// The report as JSON; one made of the bytes where there is none.
fn described(capture: &Capture, hierarchy: &Hierarchy) -> Value {
    let report = match &capture.report {
        Some(report) => report.clone(),
        None => hierarchy.report(capture),
    };
    serde_json::to_value(report).unwrap_or_default()
}

/// Adds the differences in the reports of functions that both have.
fn reports(
    a: &Value,
    b: &Value,
    in_a: &BTreeSet<Sbdf>,
    in_b: &BTreeSet<Sbdf>,
    facts: &mut Vec<Fact>,
) {
    let function = |report: &Value, sbdf: &str| {
        report["functions"]
            .as_array()?
            .iter()
            .find(|function| function["sbdf"] == sbdf)
            .cloned()
    };
    for sbdf in in_a.intersection(in_b) {
        let sbdf = sbdf.to_string();
        if let (Some(a), Some(b)) = (function(a, &sbdf), function(b, &sbdf)) {
            values(&sbdf, &a, &b, facts);
        }
    }
}

/// Adds the innermost values that differ, each with the way to it.
fn values(path: &str, a: &Value, b: &Value, facts: &mut Vec<Fact>) {
    match (a, b) {
        (Value::Object(before), Value::Object(after)) => {
            let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for key in keys {
                let (a, b) = (&a[key.as_str()], &b[key.as_str()]);
                values(&format!("{path} {key}"), a, b, facts);
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (index, (a, b)) in before.iter().zip(after).enumerate() {
                values(&format!("{path}[{index}]"), a, b, facts);
            }
        }
        _ if a != b => facts.push(Fact {
            path: path.to_owned(),
            a: a.clone(),
            b: b.clone(),
        }),
        _ => {}
    }
}

/// Bytes as a number, `--` for what is not known.
fn shown(bytes: &[Option<u8>]) -> String {
    let digits = |byte: &Option<u8>| byte.map_or("--".into(), |byte| format!("{byte:02x}"));
    bytes.iter().rev().map(digits).collect()
}

fn to_text(removed: &[Sbdf], added: &[Sbdf], changes: &[Change], facts: &[Fact]) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    for (sign, list) in [('-', removed), ('+', added)] {
        for sbdf in list {
            let _ = writeln!(text, "{sign} {sbdf}");
        }
    }
    let mut last = None;
    for change in changes {
        if last != Some(change.sbdf) {
            let _ = writeln!(text, "{}", change.sbdf);
            last = Some(change.sbdf);
        }
        let _ = writeln!(
            text,
            "  {:03x} {}: {} -> {}",
            change.offset,
            change.name,
            shown(&change.a),
            shown(&change.b)
        );
    }
    for fact in facts {
        let _ = writeln!(text, "{}: {} -> {}", fact.path, fact.a, fact.b);
    }
    text
}

fn to_json(
    a: &Capture,
    b: &Capture,
    removed: &[Sbdf],
    added: &[Sbdf],
    changes: &[Change],
    facts: &[Fact],
) -> Value {
    let names = |list: &[Sbdf]| -> Vec<String> { list.iter().map(ToString::to_string).collect() };
    let changes: Vec<Value> = changes
        .iter()
        .map(|change| {
            json!({
                "sbdf": change.sbdf.to_string(),
                "offset": change.offset,
                "name": change.name,
                "a": change.a,
                "b": change.b,
            })
        })
        .collect();
    let facts: Vec<Value> = facts
        .iter()
        .map(|fact| json!({ "path": fact.path, "a": fact.a, "b": fact.b }))
        .collect();
    json!({
        "schema": "warmbus-diff/1",
        "a": a.file,
        "b": b.file,
        "removed": names(removed),
        "added": names(added),
        "registers": changes,
        "reports": facts,
    })
}

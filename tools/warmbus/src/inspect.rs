//! `warmbus inspect`: the tree, or one function with its registers.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use warmbus_boot::report::{self, Report};
use warmbus_pci::{ConfigOffset, Sbdf};
use warmbus_pcsc::names::{Register, RegisterMap};
use warmbus_pcsc::{ByteClass, FunctionCache};
use warmbus_pcsc_format::MaskRecord;

use crate::Verdict;
use crate::hierarchy::Hierarchy;
use crate::input::{Capture, Space};

/// A register of a function as it was captured.
struct Row<'a> {
    register: Register,
    class: ByteClass,
    /// What is known of its bytes.
    bytes: Vec<Option<u8>>,
    /// What is known about writes to its dword.
    mask: Option<&'a MaskRecord>,
}

/// Shows `capture`, or only `function` of it.
pub fn run(capture: &Capture, function: Option<Sbdf>, json: bool) -> Result<(String, Verdict)> {
    let hierarchy = Hierarchy::new(capture);
    let report = match &capture.report {
        Some(report) => report.clone(),
        None => hierarchy.report(capture),
    };
    if let Some(sbdf) = function {
        let is_known = report.functions.iter().any(|found| found.sbdf == sbdf);
        (is_known || capture.spaces.contains_key(&sbdf))
            .then_some(())
            .with_context(|| {
                let count = report.functions.len();
                format!(
                    "there is no {sbdf} among the {count} functions of {}",
                    capture.file
                )
            })?;
    }
    let text = if json {
        let value = to_json(capture, &hierarchy, &report, function);
        format!("{value:#}\n")
    } else if let Some(sbdf) = function {
        one_function(capture, &hierarchy, &report, sbdf)?
    } else {
        overview(capture, &report)?
    };
    let verdict = if capture.problems.is_empty() {
        Verdict::Good
    } else {
        Verdict::Bad
    };
    Ok((text, verdict))
}

fn overview(capture: &Capture, report: &Report) -> Result<String> {
    let mut text = String::new();
    report::tree::write(report, &mut text)?;
    text += "\n";
    if capture.report.is_some() {
        report::summary::write(report, &mut text)?;
        return Ok(text);
    }
    let sum = |of: fn(&report::Function) -> u16| -> u64 {
        report.functions.iter().map(|f| u64::from(of(f))).sum()
    };
    writeln!(
        text,
        "functions    {}\ncache        {} of {} cacheable bytes",
        report.functions.len(),
        sum(|function| function.cached_bytes),
        sum(|function| function.cacheable_bytes),
    )?;
    if let Some(handover) = capture.handover {
        write!(text, "handover     tree at {:#x}", handover.tree)?;
        match (handover.index, handover.generation) {
            (Some(index), Some(generation)) => {
                writeln!(text, ", index at {index:#x}, generation {generation:#x}")?;
            }
            _ => text += ", without extension\n",
        }
    }
    for function in &report.functions {
        for anomaly in &function.anomalies {
            writeln!(text, "anomaly      {}: {anomaly}", function.sbdf)?;
        }
    }
    for problem in &capture.problems {
        writeln!(text, "damaged      {problem}")?;
    }
    Ok(text)
}

fn one_function(
    capture: &Capture,
    hierarchy: &Hierarchy,
    report: &Report,
    sbdf: Sbdf,
) -> Result<String> {
    let mut text = String::new();
    if let Some(found) = report.functions.iter().find(|found| found.sbdf == sbdf) {
        write!(
            text,
            "{sbdf} {:04x}:{:04x} rev {:02x}, {}",
            found.vendor_id,
            found.device_id,
            found.revision,
            report::names::class(found.class_code),
        )?;
        if let Some(port) = &found.port_type {
            write!(text, ", {}", port.replace('-', " "))?;
        }
        if let Some(parent) = found.parent {
            write!(text, ", below {parent}")?;
        }
        writeln!(
            text,
            "\n{} bytes of configuration space, {} cacheable, {} cached",
            found.config_bytes, found.cacheable_bytes, found.cached_bytes
        )?;
        for bar in &found.bars {
            write!(text, "BAR {} {}", bar.index, bar.kind)?;
            match bar.address {
                Some(address) => write!(text, " at {address:#x}")?,
                None => text += " disabled",
            }
            match bar.size {
                Some(size) => writeln!(text, ", {size:#x} bytes")?,
                None => text += ", size not known\n",
            }
        }
        for anomaly in &found.anomalies {
            writeln!(text, "anomaly: {anomaly}")?;
        }
        if !capture.spaces.contains_key(&sbdf) {
            for found in &found.capabilities {
                writeln!(text, "capability {:#04x} at {:02x}", found.id, found.offset)?;
            }
            for found in &found.extended_capabilities {
                let (id, version) = (found.id, found.version);
                let offset = found.offset;
                writeln!(
                    text,
                    "extended capability {id:#06x} version {version} at {offset:03x}"
                )?;
            }
        }
    }
    let Some(space) = capture.spaces.get(&sbdf) else {
        text += "the file has no registers, only the report\n";
        return Ok(text);
    };
    text += "\noffset  value                    class        register\n";
    for row in rows(hierarchy, sbdf, space) {
        write!(
            text,
            "{:03x}     {:<24} {:<12} {}",
            row.register.offset,
            shown(&row.bytes),
            class_name(row.class),
            row.register
        )?;
        if let Some(mask) = row.mask {
            write!(
                text,
                " [writable {:08x}, fixed {:08x}]",
                mask.writable, mask.fixed
            )?;
        }
        text += "\n";
    }
    Ok(text)
}

/// The registers of a function within its configuration space.
fn rows<'a>(hierarchy: &'a Hierarchy, sbdf: Sbdf, space: &'a Space) -> Vec<Row<'a>> {
    let block = hierarchy.block(sbdf);
    let names = hierarchy.names(sbdf);
    let mut rows: Vec<Row<'a>> = Vec::new();
    for register in names.into_iter().flat_map(RegisterMap::iter) {
        let range = register.offset..register.offset + register.len;
        if usize::from(range.end) > space.bytes.len() {
            continue;
        }
        let mask = space.extension.as_ref().and_then(|extension| {
            extension
                .masks
                .iter()
                .find(|mask| mask.offset == register.offset)
        });
        rows.push(Row {
            register: *register,
            class: range
                .clone()
                .map(|offset| class(block, offset))
                .find(|class| !class.is_cacheable())
                .unwrap_or_else(|| class(block, register.offset)),
            bytes: range.map(|offset| space.byte(offset)).collect(),
            mask,
        });
    }
    rows
}

fn class(block: Option<&FunctionCache>, offset: u16) -> ByteClass {
    block.map_or(ByteClass::Unknown, |block| {
        block.class(ConfigOffset::wrapping(offset))
    })
}

/// The name of a class.
#[must_use]
pub fn class_name(class: ByteClass) -> &'static str {
    match class {
        ByteClass::Unknown => "unknown",
        ByteClass::Static => "static",
        ByteClass::Software => "software",
        ByteClass::Volatile => "volatile",
        ByteClass::SideEffect => "side-effect",
        ByteClass::PassThrough => "pass",
    }
}

/// Up to eight bytes as a number, more of them in their order; `--` for what
/// is not known.
fn shown(bytes: &[Option<u8>]) -> String {
    let digits = |byte: &Option<u8>| byte.map_or("--".into(), |byte| format!("{byte:02x}"));
    if bytes.len() <= 8 {
        return bytes.iter().rev().map(digits).collect();
    }
    let head: Vec<String> = bytes.iter().take(8).map(digits).collect();
    format!("{} ..", head.join(" "))
}

/// The value of up to eight bytes that are all known.
fn number(bytes: &[Option<u8>]) -> Option<u64> {
    if bytes.len() > 8 {
        return None;
    }
    bytes
        .iter()
        .rev()
        .try_fold(0, |value: u64, byte| Some(value << 8 | u64::from((*byte)?)))
}

fn to_json(
    capture: &Capture,
    hierarchy: &Hierarchy,
    report: &Report,
    function: Option<Sbdf>,
) -> Value {
    let functions: Vec<Value> = capture
        .spaces
        .iter()
        .filter(|(sbdf, _)| function.is_none_or(|wanted| wanted == **sbdf))
        .map(|(&sbdf, space)| {
            let registers: Vec<Value> = rows(hierarchy, sbdf, space)
                .iter()
                .map(|row| {
                    json!({
                        "offset": row.register.offset,
                        "name": row.register.to_string(),
                        "class": class_name(row.class),
                        "value": number(&row.bytes),
                        "bytes": row.bytes,
                        "writable": row.mask.map(|mask| mask.writable),
                        "fixed": row.mask.map(|mask| mask.fixed),
                    })
                })
                .collect();
            json!({ "sbdf": sbdf.to_string(), "registers": registers })
        })
        .collect();
    let report = serde_json::to_value(report).unwrap_or_default();
    json!({
        "schema": "warmbus-inspect/1",
        "file": capture.file,
        "kind": capture.kind.name(),
        "handover": capture.handover.map(|handover| json!({
            "tree": handover.tree,
            "index": handover.index,
            "generation": handover.generation,
        })),
        "report": report,
        "functions": functions,
        "problems": capture.problems,
    })
}

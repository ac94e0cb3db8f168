//! Reports, dumps, and consoles that show either.

use anyhow::{Result, anyhow, bail, ensure};
use warmbus_boot::report::console::{Event, Reader, Section};
use warmbus_boot::report::{Report, SCHEMA};
use warmbus_pci::DumpedConfigSpace;

use super::{Capture, Kind, Space};

/// Whether `bytes` are one of the texts that are read here.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok()
}

pub(super) fn read(name: &str, text: &str) -> Result<Capture> {
    if text.trim_start().starts_with('{') {
        let mut capture = Capture::new(name, Kind::Report);
        capture.report = Some(report(text, 0)?);
        return Ok(capture);
    }
    if text.contains("-----BEGIN WARMBUS ") {
        return console(name, text);
    }
    let mut capture = Capture::new(name, Kind::Dump);
    take_dump(&mut capture, text, 0)?;
    ensure!(
        !capture.spaces.is_empty(),
        "neither a report, nor a dump of configuration space, nor a console with either of them, nor memory: {} lines without a byte",
        text.lines().count()
    );
    Ok(capture)
}

fn console(name: &str, text: &str) -> Result<Capture> {
    let mut capture = Capture::new(name, Kind::Console);
    let mut reader = Reader::default();
    for (index, line) in text.lines().enumerate() {
        let event = reader
            .push(line.trim_end_matches('\r'))
            .map_err(|cut| anyhow!("line {}: {cut}", index + 1))?;
        let Event::Complete(section, body) = event else {
            continue;
        };
        // The line that ends the section is `index`, counted from 0.
        let before = index - body.lines().count();
        match section {
            Section::Report => capture.report = Some(report(&body, before)?),
            Section::Lspci => take_dump(&mut capture, &body, before)?,
            // Linux prints these after the firmware.
            Section::LinuxPci | Section::Subtree | Section::LinuxLog => {}
        }
    }
    let lines = text.lines().count();
    reader
        .finish()
        .map_err(|cut| anyhow!("line {lines}: {cut}"))?;
    ensure!(
        capture.report.is_some() || !capture.spaces.is_empty(),
        "a console of {lines} lines with neither a report nor a dump: the firmware prints them with warmbus.report and warmbus.lspci"
    );
    Ok(capture)
}

/// Reads a report that `before` lines stand above.
fn report(text: &str, before: usize) -> Result<Report> {
    let report: Report = serde_json::from_str(text).map_err(|error| {
        let line = before + error.line();
        let what = error.to_string();
        // serde_json puts the place behind what is wrong.
        let what = what.split(" at line ").next().unwrap_or_default();
        anyhow!("line {line}, column {}: {what}", error.column())
    })?;
    if report.schema != SCHEMA {
        bail!(
            "line {}: the schema is {:?} instead of {SCHEMA:?}",
            before + 1,
            report.schema
        );
    }
    Ok(report)
}

fn take_dump(capture: &mut Capture, text: &str, before: usize) -> Result<()> {
    let recorded = DumpedConfigSpace::parse(text).map_err(|mut error| {
        error.line += before;
        error
    })?;
    capture.spaces = recorded
        .functions()
        .filter_map(|sbdf| Some((sbdf, Space::whole(recorded.bytes(sbdf)?))))
        .collect();
    Ok(())
}

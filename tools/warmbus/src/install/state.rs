//! `warmbus status --boot`: what is installed.

use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result};

use super::manifest::Manifest;
use super::{Loader, Place, numbered, target};
use crate::Verdict;

/// The variables of Warmbus itself (docs/uefi.md).
const OWN: [(&str, &str); 2] = [
    (
        "WarmbusDisable",
        "Warmbus does nothing: the variable is set",
    ),
    (
        "WarmbusAttempt",
        "the last start of Warmbus did not end: the next boot skips it",
    ),
];
const OWN_GUID: &str = "8e5a6f0c-1c55-4d6b-9d0f-5b2f4d0a7c31";

/// Describes what is installed. The verdict is bad where nothing is, or where
/// something is not as it was installed.
///
/// # Errors
///
/// If there is no EFI system partition and no folder, or the list of what was made is
/// damaged.
pub fn state(place: &Place<'_>) -> Result<(String, Verdict)> {
    let target = target(place, false)?;
    let file = target.list();
    let mut out = String::new();
    let Ok(text) = fs::read(&file) else {
        writeln!(out, "installed      no: {} does not exist", file.display())?;
        return Ok((out, Verdict::Bad));
    };
    let made: Manifest =
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))?;
    let mut verdict = Verdict::Good;
    writeln!(
        out,
        "installed      {}, by version {}",
        made.way, made.version
    )?;
    for made in &made.files {
        let state = match fs::read(target.file(&made.name)) {
            Ok(bytes) if made.is(&bytes) => "as installed",
            Ok(_) => "changed",
            Err(_) => "missing",
        };
        if state != "as installed" {
            verdict = Verdict::Bad;
        }
        writeln!(out, "file           {}: {state}", made.name)?;
    }
    let Loader::Uefi { efivars, .. } = place.loader else {
        return Ok((out, verdict));
    };
    let variables = super::Variables::open(efivars);
    for made in &made.variables {
        let (kind, number) = numbered(&made.name)?;
        let variables = variables
            .as_ref()
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        let value = variables.get(&made.name)?;
        let order = variables.order(kind)?;
        let place = order.iter().position(|other| *other == number);
        let state = match (value, place) {
            (None, _) => "missing".to_owned(),
            (Some(value), _) if !made.is(&value) => "changed".to_owned(),
            (Some(_), None) => format!("as installed, but not in {kind}Order"),
            (Some(_), Some(place)) => format!("as installed, number {} of {kind}Order", place + 1),
        };
        if !state.starts_with("as installed, number") {
            verdict = Verdict::Bad;
        }
        writeln!(out, "entry          {}: {state}", made.name)?;
    }
    for (name, meaning) in OWN {
        if efivars.join(format!("{name}-{OWN_GUID}")).exists() {
            verdict = Verdict::Bad;
            writeln!(out, "variable       {name}: {meaning}")?;
        }
    }
    Ok((out, verdict))
}

//! `warmbus view`: one page that shows a capture or a survey, with everything in
//! it. It loads nothing.

mod capture;
mod model;
mod space;
mod survey;

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::input::{Capture, Place};
use model::Page;

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page for `file`: a capture, or a survey in JSON.
///
/// # Errors
///
/// If it is neither.
pub fn run(file: &Path, place: Place) -> Result<String> {
    let name = file.display().to_string();
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {name}"))?;
    let page = match survey_in(&bytes) {
        Some(survey) => survey::page(&name, &survey).with_context(|| name.clone())?,
        None => capture::page(&Capture::from_bytes(&name, &bytes, place).context(name.clone())?),
    };
    render(&page)
}

/// The survey that `bytes` are, if they are one.
fn survey_in(bytes: &[u8]) -> Option<Value> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let schema = value["schema"].as_str()?;
    schema.starts_with("warmbus-survey/").then_some(value)
}

fn render(page: &Page) -> Result<String> {
    // Within a script element nothing may look like the end of it.
    let data = serde_json::to_string(page)?.replace('<', "\\u003c");
    let parts = [
        ("{{TITLE}}", escaped(&page.title)),
        ("{{STYLE}}", STYLE.to_owned()),
        ("{{SCRIPT}}", SCRIPT.to_owned()),
        ("{{DATA}}", data),
    ];
    // What was put in is not searched again.
    let mut out = String::new();
    let mut rest = TEMPLATE;
    while let Some(at) = rest.find("{{") {
        let (before, after) = rest.split_at(at);
        out += before;
        let found = parts.iter().find(|(mark, _)| after.starts_with(mark));
        let (mark, text) = found.context("the template has an unknown mark")?;
        out += text;
        rest = &after[mark.len()..];
    }
    Ok(out + rest)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

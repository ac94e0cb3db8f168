//! `warmbus replay`: the hit rates of a recorded trace.

mod drive;
mod hardware;
mod outcome;
mod show;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use warmbus_pci::{ConfigOffset, Sbdf, Width};

pub use outcome::{Outcome, Run, Stale, Tally};

use crate::Verdict;
use crate::input::Capture;
use crate::trace::{self, Access, Kind};

/// One access of a trace and the line that it stands on, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traced {
    /// The line.
    pub line: usize,
    /// The access.
    pub access: Access,
}

/// An access in terms of functions.
#[derive(Clone, Copy, Debug)]
struct Step {
    line: usize,
    is_read: bool,
    function: Sbdf,
    offset: ConfigOffset,
    width: Width,
    value: u32,
}

/// Reads a trace of QEMU. Errors name the line.
pub fn read_trace(file: &Path) -> Result<Vec<Traced>> {
    let name = file.display();
    let bytes = fs::read(file).with_context(|| format!("cannot read {name}"))?;
    parse_trace(&String::from_utf8_lossy(&bytes)).with_context(|| name.to_string())
}

/// Reads the accesses to the ECAM window; other lines are passed over.
pub fn parse_trace(text: &str) -> Result<Vec<Traced>> {
    let mut accesses = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        let Some(access) = Access::parse(line) else {
            if trace::is_trace(line) && line.contains("pcie-mmcfg-mmio") {
                bail!("line {line_number}: not a complete access to configuration space");
            }
            continue;
        };
        let size = u16::from(access.size);
        ensure!(
            matches!(size, 1 | 2 | 4) && access.offset.is_multiple_of(size),
            "line {line_number}: an access of {size} bytes at {:#x} is not valid in configuration space",
            access.offset
        );
        accesses.push(Traced {
            line: line_number,
            access,
        });
    }
    ensure!(
        !accesses.is_empty(),
        "no access to the region pcie-mmcfg-mmio in {} lines",
        text.lines().count()
    );
    Ok(accesses)
}

/// Replays `accesses` to the functions of `segment` with a cold cache and with
/// one that is filled from `capture`.
pub fn run(
    accesses: &[Traced],
    capture: &Capture,
    segment: u16,
    top: usize,
    json: bool,
) -> Result<(String, Verdict)> {
    let (cold, warm) = measure(accesses, capture, segment)?;
    let text = if json {
        show::json(capture, &cold, &warm)
    } else {
        show::text(capture, &cold, &warm, top)
    };
    Ok((text, Verdict::Good))
}

/// The two runs that [`run`] shows: cold and warm.
pub fn measure(accesses: &[Traced], capture: &Capture, segment: u16) -> Result<(Run, Run)> {
    ensure!(
        !capture.spaces.is_empty(),
        "{} has no configuration space to fill a cache with",
        capture.file
    );
    let steps: Vec<Step> = accesses
        .iter()
        .map(|traced| Step {
            line: traced.line,
            is_read: traced.access.kind == Kind::Read,
            function: Sbdf::from_devfn(segment, traced.access.bus, traced.access.devfn),
            offset: ConfigOffset::wrapping(traced.access.offset),
            width: match traced.access.size {
                1 => Width::Byte,
                2 => Width::Word,
                _ => Width::Dword,
            },
            value: traced.access.value as u32,
        })
        .collect();
    Ok((
        drive::replay(&steps, capture, false),
        drive::replay(&steps, capture, true),
    ))
}

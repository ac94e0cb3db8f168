//! `warmbus lspci`: a dump that `lspci -F` reads.

use anyhow::{Result, ensure};
use serde_json::json;
use warmbus_boot::report::{self, CachedBytes};

use crate::Verdict;
use crate::hierarchy::Hierarchy;
use crate::input::Capture;

/// Writes the configuration spaces of `capture`, as text or in a JSON string.
pub fn run(capture: &Capture, json: bool) -> Result<(String, Verdict)> {
    ensure!(
        !capture.spaces.is_empty(),
        "{} has no configuration space: a report lists functions without their bytes; the firmware prints a dump with --lspci or warmbus.lspci",
        capture.file
    );
    let hierarchy = Hierarchy::new(capture);
    let mut dump = String::new();
    let written = report::lspci::write(
        hierarchy.topology(),
        &|sbdf| {
            let bytes = &capture.spaces.get(&sbdf)?.bytes;
            Some(CachedBytes {
                size: bytes.len() as u16,
                data: bytes,
                cacheable: 0,
                cached: 0,
            })
        },
        &mut dump,
    );
    written?;
    for problem in &capture.problems {
        eprintln!("warning: {problem}");
    }
    let verdict = if capture.problems.is_empty() {
        Verdict::Good
    } else {
        Verdict::Bad
    };
    if json {
        let value = json!({
            "schema": "warmbus-lspci/1",
            "functions": capture.spaces.len(),
            "problems": capture.problems,
            "dump": dump,
        });
        return Ok((format!("{value:#}\n"), verdict));
    }
    Ok((dump, verdict))
}

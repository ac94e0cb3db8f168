//! The report as JSON, written line by line.

use core::fmt::{self, Write};

use serde::Serialize;

use super::Report;

/// Writes `report` as one JSON object in lines: every function, host bridge,
/// phase and anomaly has its own, so that the output of a serial console can be
/// followed and nothing larger than one of them is held in memory.
///
/// No line is empty, and none but the first starts with `{"schema"`.
///
/// # Errors
///
/// When `to` fails.
pub fn write(report: &Report, to: &mut dyn Write) -> fmt::Result {
    let Report {
        schema,
        result,
        machine,
        host_bridges,
        functions,
        accesses,
        cache,
        phases,
        self_check,
        anomalies,
    } = report;
    let mut out = Lines { to };
    out.to.write_char('{')?;
    out.member("schema", schema, ",\n")?;
    out.member("result", result, ",\n")?;
    out.member("machine", machine, ",\n")?;
    out.array("host_bridges", host_bridges)?;
    out.array("functions", functions)?;
    out.member("accesses", accesses, ",\n")?;
    out.member("cache", cache, ",\n")?;
    out.array("phases", phases)?;
    out.array("anomalies", anomalies)?;
    out.member("self_check", self_check, "}\n")
}

struct Lines<'a> {
    to: &'a mut dyn Write,
}

impl Lines<'_> {
    fn member(&mut self, key: &str, value: &impl Serialize, end: &str) -> fmt::Result {
        write!(self.to, "\"{key}\":")?;
        self.value(value)?;
        self.to.write_str(end)
    }

    fn array(&mut self, key: &str, values: &[impl Serialize]) -> fmt::Result {
        write!(self.to, "\"{key}\":[")?;
        for (index, value) in values.iter().enumerate() {
            self.to.write_str(if index == 0 { "\n" } else { ",\n" })?;
            self.value(value)?;
        }
        self.to.write_str("],\n")
    }

    fn value(&mut self, value: &impl Serialize) -> fmt::Result {
        let text = serde_json::to_string(value).map_err(|_| fmt::Error)?;
        self.to.write_str(&text)
    }
}

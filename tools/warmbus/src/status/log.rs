//! What the kernel logs about the handover.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use warmbus_pci::Sbdf;

/// The records of the running kernel.
const KMSG: &str = "/dev/kmsg";
/// The flag of `open` with which a read does not wait for the next record.
const O_NONBLOCK: i32 = 0x800;
/// Bytes of the longest record, and more records than the kernel keeps.
const RECORD: usize = 8192;
const MAX_RECORDS: usize = 1 << 20;

/// The lines of the log in `file`, or of the running kernel; `None` where it may
/// not be read.
pub(super) fn read(file: Option<&Path>) -> Option<Vec<String>> {
    if let Some(file) = file {
        let bytes = fs::read(file).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        return Some(text.lines().map(str::to_owned).collect());
    }
    let mut options = OpenOptions::new();
    let mut log = options
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(KMSG)
        .ok()?;
    let mut lines = Vec::new();
    let mut record = [0; RECORD];
    for _ in 0..MAX_RECORDS {
        match log.read(&mut record) {
            Ok(0) => break,
            Ok(length) => {
                let text = String::from_utf8_lossy(&record[..length]);
                let message = text.split_once(';').map_or(&*text, |(_, message)| message);
                lines.extend(message.lines().next().map(str::to_owned));
            }
            // Records were overwritten meanwhile.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(_) => break,
        }
    }
    Some(lines)
}

/// What follows `pcsc: ` in a line.
fn about_handover(line: &str) -> Option<&str> {
    let at = |mark: &str| line.find(mark).map(|at| &line[at + mark.len()..]);
    at("pcsc: ")
}

/// The function that a line says is not used, and the reason.
pub(super) fn dropped(line: &str) -> Option<(Sbdf, String)> {
    let rest = about_handover(line)?;
    let (function, rest) = rest.split_once(": ")?;
    let reason = rest.strip_prefix("what was handed over ")?;
    let reason = reason.strip_suffix(": it is not used")?;
    Some((
        function.parse().ok()?,
        format!("what was handed over {reason}"),
    ))
}

/// A line about the handover that is about no single function.
pub(super) fn remark(line: &str) -> Option<String> {
    about_handover(line).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_function_is_read_from_the_line_of_the_kernel() {
        let line = "[    0.31] pcsc: 0000:01:00.0: what was handed over is damaged: it is not used";
        let (function, reason) = dropped(line).unwrap();
        assert_eq!(function, Sbdf::new(0, 1, 0, 0));
        assert_eq!(reason, "what was handed over is damaged");
        assert_eq!(dropped("[ 0.3] pcsc: 17 functions handed over"), None);
        let remark = remark("[ 0.3] pcsc: 17 functions handed over");
        assert_eq!(remark.as_deref(), Some("17 functions handed over"));
        assert_eq!(super::remark("[ 0.3] pci 0000:01:00.0: BAR 0"), None);
    }
}

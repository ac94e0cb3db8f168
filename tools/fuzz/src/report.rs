//! A file for the host command: report, dump or console.

use warmbus_cli::input::{Capture, Place};
use warmbus_cli::{diff, inspect, lspci};
use warmbus_pci::DumpedConfigSpace;

/// Reads the file and shows all of it.
///
/// # Panics
///
/// If a function has a size that no dump has, or the output is empty.
pub fn report(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(recorded) = DumpedConfigSpace::parse(&text) {
        for function in recorded.functions() {
            let bytes = recorded.bytes(function).unwrap_or_default();
            assert!([64, 128, 256, 4096].contains(&bytes.len()));
        }
    }
    let Ok(capture) = Capture::from_bytes("file", data, Place::default()) else {
        return;
    };
    let functions = capture.spaces.keys().copied().map(Some).take(4);
    for function in functions.chain([None]) {
        for json in [false, true] {
            let _ = inspect::run(&capture, function, json);
        }
    }
    let _ = lspci::run(&capture, false);
    let (text, _) = diff::run(&capture, &capture, true);
    assert!(!text.is_empty());
}

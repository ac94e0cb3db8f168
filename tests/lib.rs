//! The tests of Warmbus that run on the host: one folder or file a subject.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// What `program` makes of `input`, from its standard input to its standard
/// output.
///
/// # Panics
///
/// If it is not installed or fails.
#[must_use]
pub fn filtered(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{program} {arguments:?} failed");
    output.stdout
}

/// What dtc, the device tree compiler, makes of `input`.
///
/// # Panics
///
/// As [`filtered`].
#[must_use]
pub fn dtc(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    filtered("dtc", &[&["-q"], arguments].concat(), input)
}

//! Running other programs.

use std::env;
use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::paths;

/// A child process that does not outlive this value.
pub struct Guard(
    /// The child.
    pub Child,
);

impl Drop for Guard {
    fn drop(&mut self) {
        // Both fail only where the child is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The cargo that runs this program, with `subcommand`, in the project.
#[must_use]
pub fn cargo(subcommand: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::root()).arg(subcommand);
    command
}

/// A command as messages show it: its arguments with spaces between.
#[must_use]
pub fn words(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs `command` and returns what it wrote to standard output. Fails with
/// what it wrote to standard error if its exit status is not 0.
pub fn output(command: &mut Command) -> Result<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", words(command)))?;
    if !status.success() {
        bail!(
            "{} failed ({status}): {}",
            words(command),
            String::from_utf8_lossy(&stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Runs `command` with its output on the terminal. Fails if its exit status
/// is not 0.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {}", words(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", words(command));
    }
    Ok(())
}

/// Whether `command` starts and ends with status 0; its output is dropped.
#[must_use]
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs `command`, hands each line of its output to `line`, and ends it after
/// `limit`. Fails with the last lines if it does not end with status 0.
pub fn watch(command: &mut Command, limit: Duration, mut line: impl FnMut(&str)) -> Result<()> {
    let name = words(command);
    let deadline = Instant::now() + limit;
    let mut child = Guard(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?,
    );
    let (sender, lines) = std::sync::mpsc::channel();
    if let Some(out) = child.0.stdout.take() {
        let sender = sender.clone();
        thread::spawn(move || for_each_line(out, |text| drop(sender.send(text))));
    }
    if let Some(err) = child.0.stderr.take() {
        thread::spawn(move || for_each_line(err, |text| drop(sender.send(text))));
    }
    let mut last: Vec<String> = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(text) => {
                line(&text);
                last.push(text);
                if last.len() > 40 {
                    last.remove(0);
                }
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                bail!("{name} did not end within {} seconds", limit.as_secs());
            }
        }
    }
    let status = child.0.wait()?;
    if !status.success() {
        bail!("{name} failed ({status}):\n{}", last.join("\n"));
    }
    Ok(())
}

/// Runs `command` without input, and ends it after `limit`. Returns how it
/// ended, whatever that is.
pub fn limited(command: &mut Command, limit: Duration) -> Result<ExitStatus> {
    let name = words(command);
    let started = command.stdin(Stdio::null()).spawn();
    let mut child = Guard(started.with_context(|| format!("cannot start {name}"))?);
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.0.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            bail!("{name} did not end within {} seconds", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Calls `line` with each line of `from`, without its line end. Bytes that are
/// not UTF-8 become U+FFFD. Ends at the end of the stream or at an error.
pub fn for_each_line(from: impl Read, mut line: impl FnMut(String)) {
    let mut from = io::BufReader::with_capacity(64 * 1024, from);
    let mut bytes = Vec::new();
    while let Ok(count) = io::BufRead::read_until(&mut from, b'\n', &mut bytes) {
        if count == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&bytes);
        line(text.trim_end_matches(['\n', '\r']).to_owned());
        bytes.clear();
    }
}

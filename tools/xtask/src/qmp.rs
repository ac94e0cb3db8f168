//! A client of QEMU's machine protocol (QMP), which reports the devices of the
//! machine.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// How long QEMU may take to answer.
const LIMIT: Duration = Duration::from_secs(30);
/// Polling interval of a state.
const INTERVAL: Duration = Duration::from_millis(20);

/// A connection to a running QEMU.
pub struct Client {
    stream: BufReader<UnixStream>,
    ended: Option<String>,
}

impl Client {
    /// Connects to the socket at `path` and ends the negotiation. Waits a
    /// moment for a QEMU that has just been started to open it.
    pub fn connect(path: &Path) -> Result<Self> {
        let deadline = Instant::now() + LIMIT;
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < deadline => thread::sleep(INTERVAL),
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("no QMP socket at {}", path.display()));
                }
            }
        };
        Self::negotiate(stream)
    }

    fn negotiate(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(LIMIT))?;
        let mut client = Self {
            stream: BufReader::new(stream),
            ended: None,
        };
        let greeting = client.message()?;
        if greeting.get("QMP").is_none() {
            bail!("this is no QMP socket: {greeting}");
        }
        client.execute("qmp_capabilities", &json!({}))?;
        Ok(client)
    }

    /// Runs `command` and returns what it returns. Of the events that arrive
    /// before the answer only the end of the guest is kept.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream.get_mut(), "{request}")
            .with_context(|| format!("cannot send {command} to QEMU"))?;
        loop {
            let mut message = self.message()?;
            if let Some(error) = message.get("error") {
                bail!("QEMU refused {command}: {}", error["desc"]);
            }
            if message["event"] == "SHUTDOWN" {
                self.ended = message["data"]["reason"].as_str().map(str::to_owned);
            }
            if let Some(answer) = message.get_mut("return") {
                return Ok(answer.take());
            }
        }
    }

    /// Whether the guest has powered off.
    pub fn is_off(&mut self) -> Result<bool> {
        let status = self.execute("query-status", &json!({}))?;
        Ok(status["status"] == "shutdown")
    }

    /// Whether the guest has powered off by itself: it neither reset the
    /// machine nor is it still running.
    pub fn has_powered_off(&mut self) -> Result<bool> {
        Ok(self.ended()? == Some("guest-shutdown"))
    }

    /// How the guest ended, in the word of QEMU: `guest-shutdown` or `guest-reset`;
    /// `None` while it runs.
    pub fn ended(&mut self) -> Result<Option<&str>> {
        // The event is sent before the state changes.
        Ok(if self.is_off()? {
            self.ended.as_deref()
        } else {
            None
        })
    }

    /// Instructions that the guest has executed, if QEMU counts them (`-icount`).
    pub fn instructions(&mut self) -> Result<u64> {
        let replay = self.execute("query-replay", &json!({}))?;
        replay["icount"]
            .as_u64()
            .context("no number of instructions")
    }

    /// Writes `size` bytes of guest memory from physical address `start` on to
    /// `file`.
    pub fn save_memory(&mut self, start: u64, size: u64, file: &Path) -> Result<()> {
        let arguments = json!({ "val": start, "size": size, "filename": file });
        self.execute("pmemsave", &arguments).map(drop)
    }

    /// Waits at most `limit` until `condition` holds, which the error names
    /// `what`.
    pub fn wait_until(
        &mut self,
        limit: Duration,
        what: &str,
        mut condition: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !condition(self)? {
            if Instant::now() >= deadline {
                bail!("the guest was not {what} after {} seconds", limit.as_secs());
            }
            thread::sleep(INTERVAL);
        }
        Ok(())
    }

    /// Waits at most `limit` until the guest has powered off; QEMU is to have
    /// been started so that it stays.
    pub fn wait_for_power_off(&mut self, limit: Duration) -> Result<()> {
        self.wait_until(limit, "off", Self::is_off)
    }

    /// Runs a command of the monitor for people and returns what it prints.
    pub fn monitor(&mut self, command: &str) -> Result<String> {
        let answer = self.execute("human-monitor-command", &json!({ "command-line": command }))?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    /// Whether the first processor has just executed `WFI`. With interrupts
    /// masked and nothing to wake it, it stays there.
    pub fn sleeps(&mut self) -> Result<bool> {
        let registers = self.monitor("info registers")?;
        let counter = registers
            .split_whitespace()
            .find_map(|word| u64::from_str_radix(word.strip_prefix("PC=")?, 16).ok())
            .context("QEMU prints no program counter")?;
        let before = self.monitor(&format!("xp /1wx {:#x}", counter.wrapping_sub(4)))?;
        Ok(before.contains("0xd503207f"))
    }

    /// The PCI devices as QEMU sees them, bridges with what is below them.
    pub fn query_pci(&mut self) -> Result<Value> {
        self.execute("query-pci", &json!({}))
    }

    /// Ends QEMU.
    pub fn quit(&mut self) -> Result<()> {
        self.execute("quit", &json!({})).map(drop)
    }

    fn message(&mut self) -> Result<Value> {
        let mut line = String::new();
        let count = self
            .stream
            .read_line(&mut line)
            .context("QEMU does not answer on its QMP socket")?;
        if count == 0 {
            bail!("QEMU closed its QMP socket");
        }
        serde_json::from_str(&line).with_context(|| format!("QEMU sent no JSON: {line:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A QEMU that sends `lines` whatever it receives, and what it received.
    fn scripted(
        lines: &'static [&'static str],
    ) -> (Result<Client>, thread::JoinHandle<Vec<String>>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let peer = thread::spawn(move || {
            let mut writer = &theirs;
            for line in lines {
                writeln!(writer, "{line}").unwrap();
            }
            theirs.shutdown(std::net::Shutdown::Write).unwrap();
            BufReader::new(&theirs)
                .lines()
                .map_while(Result::ok)
                .collect()
        });
        (Client::negotiate(ours), peer)
    }

    const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": []}}"#;
    const NOTHING: &str = r#"{"return": {}}"#;

    #[test]
    fn events_before_an_answer_are_passed_over() {
        let (client, peer) = scripted(&[
            GREETING,
            NOTHING,
            r#"{"event": "SHUTDOWN", "data": {"guest": true}}"#,
            r#"{"return": [{"bus": 0}]}"#,
        ]);
        let mut client = client.unwrap();
        assert_eq!(client.query_pci().unwrap(), json!([{ "bus": 0 }]));
        drop(client);
        let asked = peer.join().unwrap();
        assert!(asked[0].contains("qmp_capabilities") && asked[1].contains("query-pci"));
    }

    #[test]
    fn a_guest_that_resets_the_machine_has_not_powered_off() {
        const OFF: &str = r#"{"return": {"status": "shutdown"}}"#;
        for (event, powered_off) in [
            (
                r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}"#,
                true,
            ),
            (
                r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#,
                false,
            ),
        ] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            for line in [GREETING, NOTHING, event, OFF] {
                writeln!(&theirs, "{line}").unwrap();
            }
            let mut client = Client::negotiate(ours).unwrap();
            assert_eq!(client.has_powered_off().unwrap(), powered_off, "{event}");
        }
    }

    #[test]
    fn a_refusal_carries_what_qemu_said() {
        let (client, _peer) = scripted(&[
            GREETING,
            NOTHING,
            r#"{"error": {"class": "CommandNotFound", "desc": "no such command"}}"#,
        ]);
        let error = client.unwrap().execute("no-such", &json!({})).unwrap_err();
        assert!(error.to_string().contains("no such command"), "{error}");
    }

    #[test]
    fn a_socket_that_closes_or_speaks_something_else_is_an_error() {
        assert!(scripted(&[]).0.is_err());
        assert!(scripted(&["hello"]).0.is_err());
        assert!(scripted(&[r#"{"hello": 1}"#]).0.is_err());
        assert!(
            scripted(&[GREETING, NOTHING])
                .0
                .unwrap()
                .query_pci()
                .is_err()
        );
    }
}

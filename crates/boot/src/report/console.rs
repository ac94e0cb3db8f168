//! The console as a program reads it.
//!
//! Lines for people surround sections for programs. A section is between a line
//! `-----BEGIN WARMBUS <NAME>-----` and a line `-----END WARMBUS <NAME>-----`.
//! The firmware prints its result as `warmbus: result: ok` or `warmbus: result:
//! error: <reason>`, and its last line as `warmbus: starting Linux ...` where it
//! starts Linux by itself. The Linux of the tests starts its own lines with
//! `warmbus: linux: `.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::mem;

/// A section of the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// The report, JSON of the schema `warmbus-report/1`.
    Report,
    /// A dump of configuration space that `lspci -F` reads.
    Lspci,
    /// The PCI functions that Linux found: for each a line `function <address>`,
    /// `resource <first> <last> <flags>` lines and a line `config <hex>`.
    LinuxPci,
    /// The `pcsc` subtree as Linux received it, in Base64.
    Subtree,
    /// The log of the Linux kernel.
    LinuxLog,
}

impl Section {
    const ALL: [Self; 5] = [
        Self::Report,
        Self::Lspci,
        Self::LinuxPci,
        Self::Subtree,
        Self::LinuxLog,
    ];

    /// The kernel command-line parameter that makes the firmware print the
    /// section; `None` for a section that Linux prints.
    #[must_use]
    pub fn bootarg(self) -> Option<&'static str> {
        match self {
            Self::Report => Some("warmbus.report"),
            Self::Lspci => Some("warmbus.lspci"),
            Self::LinuxPci | Self::Subtree | Self::LinuxLog => None,
        }
    }

    /// The content of the section, as a noun for messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Lspci => "lspci dump",
            Self::LinuxPci => "list of functions from Linux",
            Self::Subtree => "subtree from Linux",
            Self::LinuxLog => "log of Linux",
        }
    }

    /// The line before the section.
    #[must_use]
    pub fn begin(self) -> &'static str {
        self.markers().0
    }

    /// The line behind the section.
    #[must_use]
    pub fn end(self) -> &'static str {
        self.markers().1
    }

    fn markers(self) -> (&'static str, &'static str) {
        match self {
            Self::Report => (
                "-----BEGIN WARMBUS REPORT-----",
                "-----END WARMBUS REPORT-----",
            ),
            Self::Lspci => (
                "-----BEGIN WARMBUS LSPCI-----",
                "-----END WARMBUS LSPCI-----",
            ),
            Self::LinuxPci => (
                "-----BEGIN WARMBUS LINUX PCI-----",
                "-----END WARMBUS LINUX PCI-----",
            ),
            Self::Subtree => (
                "-----BEGIN WARMBUS SUBTREE-----",
                "-----END WARMBUS SUBTREE-----",
            ),
            Self::LinuxLog => (
                "-----BEGIN WARMBUS LINUX LOG-----",
                "-----END WARMBUS LINUX LOG-----",
            ),
        }
    }
}

/// The result that the firmware printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `warmbus: result: ok`.
    Ok,
    /// `warmbus: result: error: <reason>`, or any other text than `ok`.
    Failed(String),
}

impl Outcome {
    /// The outcome as a result.
    ///
    /// # Errors
    ///
    /// [`FirmwareError`] with the reason that the firmware printed.
    pub fn into_result(self) -> Result<(), FirmwareError> {
        match self {
            Self::Ok => Ok(()),
            Self::Failed(reason) => Err(FirmwareError(reason)),
        }
    }
}

/// The firmware ended with an error; its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirmwareError(pub String);

impl fmt::Display for FirmwareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the firmware failed: {}", self.0)
    }
}

impl core::error::Error for FirmwareError {}

/// The meaning of one console line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A line for people.
    Text(String),
    /// A line of a section, which people need not see.
    Hidden,
    /// The line that ends a section; the text of the section.
    Complete(Section, String),
    /// The line with the result of the firmware.
    Result(Outcome),
    /// The last line before the first instruction of Linux.
    Starting(String),
    /// The Linux of the tests waits for a line of input.
    Waiting,
    /// The Linux of the tests has run all of its commands.
    Done,
}

/// A section without an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutOff {
    /// The section.
    pub section: Section,
    /// Lines of it that were received.
    pub lines: usize,
}

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the {} was cut off after {} lines",
            self.section.name(),
            self.lines
        )
    }
}

impl core::error::Error for CutOff {}

/// Separates the sections of a console from its lines, one line at a time.
#[derive(Debug, Default)]
pub struct Reader {
    open: Option<(Section, String)>,
}

impl Reader {
    /// Classifies `line`, which has no line end.
    ///
    /// # Errors
    ///
    /// If a section is open and `line` cannot be a part of it.
    pub fn push(&mut self, line: &str) -> Result<Event, CutOff> {
        if let Some((section, text)) = &mut self.open {
            if line == section.end() {
                let (section, text) = (*section, mem::take(text));
                self.open = None;
                return Ok(Event::Complete(section, text));
            }
            if !matches!(classify(line), Event::Text(_)) || begins(line).is_some() {
                self.finish()?;
            } else {
                text.push_str(line);
                text.push('\n');
                return Ok(Event::Hidden);
            }
        }
        if let Some(section) = begins(line) {
            self.open = Some((section, String::new()));
            return Ok(Event::Hidden);
        }
        Ok(classify(line))
    }

    /// Ends the console.
    ///
    /// # Errors
    ///
    /// If a section is still open.
    pub fn finish(&mut self) -> Result<(), CutOff> {
        match self.open.take() {
            None => Ok(()),
            Some((section, text)) => Err(CutOff {
                section,
                lines: text.lines().count(),
            }),
        }
    }
}

fn begins(line: &str) -> Option<Section> {
    Section::ALL
        .into_iter()
        .find(|section| line == section.begin())
}

/// What the last line before the first instruction of Linux starts with: that of
/// Warmbus where it starts Linux, and that of the EFI stub of Linux, which starts
/// it on a machine with UEFI.
pub const STARTING: [&str; 2] = ["warmbus: starting Linux", "EFI stub: Exiting boot services"];

/// Classifies a line outside of sections.
fn classify(line: &str) -> Event {
    match line {
        "warmbus: linux: waiting for a line" => Event::Waiting,
        "warmbus: linux: done" => Event::Done,
        _ if STARTING.iter().any(|start| line.starts_with(start)) => {
            Event::Starting(line.to_owned())
        }
        _ => result(line).map_or_else(|| Event::Text(line.to_owned()), Event::Result),
    }
}

fn result(line: &str) -> Option<Outcome> {
    let result = line.strip_prefix("warmbus: result: ")?;
    Some(match result.strip_prefix("error: ") {
        None if result == "ok" => Outcome::Ok,
        reason => Outcome::Failed(reason.unwrap_or(result).to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn read(text: &str) -> Result<Vec<Event>, CutOff> {
        let mut reader = Reader::default();
        let events = text
            .lines()
            .map(|line| reader.push(line))
            .collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(events)
    }

    #[test]
    fn a_section_is_separated_from_the_lines_around_it() {
        let events = read(
            "hello\n-----BEGIN WARMBUS REPORT-----\n{\n}\n-----END WARMBUS REPORT-----\nbye\nwarmbus: result: ok",
        );
        assert_eq!(
            events.unwrap(),
            [
                Event::Text("hello".into()),
                Event::Hidden,
                Event::Hidden,
                Event::Hidden,
                Event::Complete(Section::Report, "{\n}\n".into()),
                Event::Text("bye".into()),
                Event::Result(Outcome::Ok),
            ]
        );
    }

    #[test]
    fn a_section_that_does_not_end_is_an_error() {
        let cut = |section, lines| Err(CutOff { section, lines });
        assert_eq!(
            read("-----BEGIN WARMBUS LSPCI-----\n00: 12\n"),
            cut(Section::Lspci, 1)
        );
        assert_eq!(
            read("-----BEGIN WARMBUS LSPCI-----\nwarmbus: result: ok\n-----END WARMBUS LSPCI-----"),
            cut(Section::Lspci, 0),
            "the result is never a part of a section"
        );
        assert_eq!(
            read(
                "-----BEGIN WARMBUS REPORT-----\n-----BEGIN WARMBUS LSPCI-----\n-----END WARMBUS LSPCI-----"
            ),
            cut(Section::Report, 0)
        );
    }

    #[test]
    fn the_end_of_another_section_does_not_end_this_one() {
        let text = "-----BEGIN WARMBUS REPORT-----\n-----END WARMBUS LSPCI-----\n-----END WARMBUS REPORT-----";
        assert_eq!(
            read(text).unwrap()[2],
            Event::Complete(Section::Report, "-----END WARMBUS LSPCI-----\n".into())
        );
    }

    #[test]
    fn lines_of_linux_are_classified() {
        let events = read(
            "warmbus: result: ok\nwarmbus: starting Linux at 0x40200000\n-----BEGIN WARMBUS LINUX PCI-----\nfunction 0000:00:00.0\n-----END WARMBUS LINUX PCI-----\nwarmbus: linux: waiting for a line\nwarmbus: linux: done",
        );
        assert_eq!(
            events.unwrap(),
            [
                Event::Result(Outcome::Ok),
                Event::Starting("warmbus: starting Linux at 0x40200000".into()),
                Event::Hidden,
                Event::Hidden,
                Event::Complete(Section::LinuxPci, "function 0000:00:00.0\n".into()),
                Event::Waiting,
                Event::Done,
            ]
        );
    }

    #[test]
    fn only_ok_is_success() {
        let result = |line| read(line).map(|mut events| events.pop());
        for (line, why) in [
            ("warmbus: result: error: no room", "no room"),
            ("warmbus: result: okay", "okay"),
            ("warmbus: result: ", ""),
        ] {
            assert_eq!(
                result(line),
                Ok(Some(Event::Result(Outcome::Failed(why.into()))))
            );
        }
        let quoted = " warmbus: result: ok";
        assert_eq!(result(quoted), Ok(Some(Event::Text(quoted.into()))));
    }
}

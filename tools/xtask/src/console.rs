//! What the firmware, and the test Linux after it, say on the console.
//!
//! Between lines for people there are sections for programs, each between a
//! line `-----BEGIN WARMBUS <NAME>-----` and a line `-----END WARMBUS
//! <NAME>-----`. The firmware says how it ended with `warmbus: result: ok` or
//! `warmbus: result: error: <why>`, and what it does then with `warmbus:
//! starting Linux ...`. The lines of the test Linux start with `warmbus:
//! linux: `.

use std::fmt;

/// The sections that can be printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// The report, JSON of the schema `warmbus-report/1`.
    Report,
    /// A dump of configuration space that `lspci -F` reads.
    Lspci,
    /// What Linux sees on PCI: for each function a line `function <address>`,
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

    /// The bootarg that asks the firmware for the section; `None` where it is
    /// not the firmware that prints it.
    #[must_use]
    pub fn bootarg(self) -> Option<&'static str> {
        match self {
            Self::Report => Some("warmbus.report"),
            Self::Lspci => Some("warmbus.lspci"),
            Self::LinuxPci | Self::Subtree | Self::LinuxLog => None,
        }
    }

    /// What it holds, for messages.
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

    fn marker(self, edge: &str) -> String {
        let name = match self {
            Self::Report => "REPORT",
            Self::Lspci => "LSPCI",
            Self::LinuxPci => "LINUX PCI",
            Self::Subtree => "SUBTREE",
            Self::LinuxLog => "LINUX LOG",
        };
        format!("-----{edge} WARMBUS {name}-----")
    }
}

/// How the firmware says it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `warmbus: result: ok`.
    Ok,
    /// `warmbus: result: error: <why>`, or another word than `ok`.
    Failed(String),
}

impl Outcome {
    /// Fails with what the firmware said, unless it succeeded.
    pub fn into_result(self) -> anyhow::Result<()> {
        match self {
            Self::Ok => Ok(()),
            Self::Failed(why) => anyhow::bail!("the firmware failed: {why}"),
        }
    }
}

/// What one console line turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A line for people.
    Text(String),
    /// Part of a section: not for the terminal.
    Hidden,
    /// A section that is now complete.
    Complete(Section, String),
    /// The line that says how the firmware ended.
    Result(Outcome),
    /// The firmware's last line: it starts Linux.
    Starting(String),
    /// The test Linux holds still until a line is typed.
    Waiting,
    /// The test Linux has done all that it was told to.
    Done,
}

/// A section whose end never came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutOff {
    /// Which one.
    pub section: Section,
    /// Lines that arrived.
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

impl std::error::Error for CutOff {}

/// Takes a console apart, line by line.
#[derive(Debug, Default)]
pub struct Reader {
    open: Option<(Section, String)>,
}

impl Reader {
    /// Says what `line`, which comes without its line end, is.
    pub fn push(&mut self, line: &str) -> Result<Event, CutOff> {
        if let Some((section, text)) = &mut self.open {
            if line == section.marker("END") {
                let (section, text) = (*section, std::mem::take(text));
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

    /// Ends the console. Fails if a section is still open.
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
        .find(|section| line == section.marker("BEGIN"))
}

/// What a line outside of sections is.
fn classify(line: &str) -> Event {
    match line {
        "warmbus: linux: waiting for a line" => Event::Waiting,
        "warmbus: linux: done" => Event::Done,
        _ if line.starts_with("warmbus: starting Linux") => Event::Starting(line.to_owned()),
        _ => result(line).map_or_else(|| Event::Text(line.to_owned()), Event::Result),
    }
}

fn result(line: &str) -> Option<Outcome> {
    let said = line.strip_prefix("warmbus: result: ")?;
    Some(match said.strip_prefix("error: ") {
        None if said == "ok" => Outcome::Ok,
        why => Outcome::Failed(why.unwrap_or(said).to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_section_is_taken_out_of_the_stream_whole() {
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
            "the result never stands in a section"
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
    fn what_comes_after_the_firmware_is_told_apart() {
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

//! The load options of Warmbus as a UEFI driver or application.
//!
//! `next=` names a program that an application starts when it is ready, with
//! what follows ` -- ` as its own load options. `report` ends an application
//! after the report, `report=` names a file for it, `off` has nothing done. All
//! other words are boot arguments of Warmbus, which start with `warmbus.`.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

/// UTF-16 units that are read at most; Linux reads 2048 bytes.
const MAX_UNITS: usize = 4096;
/// What separates the words of Warmbus from those of the next program.
const NEXT: &str = "--";

/// What the load options ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Nothing is to be done.
    pub off: bool,
    /// The path of the program that is started next, with backslashes.
    pub next: Option<String>,
    /// The load options of that program.
    pub next_options: String,
    /// The machine is reported, and nothing else done.
    pub report_only: bool,
    /// The path of the file for the report, with backslashes.
    pub report_file: Option<String>,
    /// The other words, in their order, separated by one space.
    pub words: String,
}

impl LoadOptions {
    /// Reads load options as UEFI passes them: UTF-16, up to a NUL. `None`
    /// where there are none: firmware also stores data of its own there, and
    /// what is no text is none.
    #[must_use]
    pub fn from_utf16(raw: &[u8]) -> Option<Self> {
        let options = Self::from_text(&text(raw)?);
        (options != Self::default()).then_some(options)
    }

    /// Reads them from text, of a file for one: lines count as one line.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let text = text.trim_start_matches('\u{feff}');
        let mut options = Self::default();
        let mut words = text.split_whitespace().enumerate();
        while let Some((number, word)) = words.next() {
            if number == 0 && is_program(word) {
                continue;
            }
            match word.split_once('=') {
                None if word == NEXT => {
                    let rest: Vec<_> = words.map(|(_, word)| word).collect();
                    options.next_options = rest.join(" ");
                    break;
                }
                None if word == "off" => options.off = true,
                None if word == "report" => options.report_only = true,
                Some(("next", file)) => options.next = Some(path(file)),
                Some(("report", file)) => options.report_file = Some(path(file)),
                _ => {
                    if !options.words.is_empty() {
                        options.words.push(' ');
                    }
                    options.words.push_str(word);
                }
            }
        }
        options
    }
}

/// The text of load options, UTF-16 up to a NUL; `None` where they are no text.
#[must_use]
pub fn text(raw: &[u8]) -> Option<String> {
    let units = raw
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let units: Vec<u16> = units
        .take(MAX_UNITS)
        .take_while(|&unit| unit != 0)
        .collect();
    let text = String::from_utf16(&units).ok()?;
    let is_text = |letter: char| letter == '\t' || !letter.is_control();
    (raw.len().is_multiple_of(2) && text.chars().all(is_text)).then_some(text)
}

/// Whether the first word is the program, as the UEFI shell passes it.
fn is_program(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    let extension = lower.rsplit_once('.').map(|(_, extension)| extension);
    !word.contains('=') && matches!(extension, Some("efi" | "img"))
}

fn path(text: &str) -> String {
    let path = text.trim_matches('"').replace('/', "\\");
    if path.starts_with('\\') {
        path
    } else {
        "\\".to_owned() + &path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned;

    fn utf16(text: &str) -> Vec<u8> {
        let mut raw: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        raw.extend([0, 0]);
        raw
    }

    #[test]
    fn the_next_program_gets_what_follows_two_hyphens() {
        let text = "FS0:\\EFI\\warmbus\\warmbus.efi warmbus.verify next=/EFI/debian/grubaa64.efi \
                    cma=64M -- report next=x initrd=\\i  quiet";
        let expected = LoadOptions {
            next: Some("\\EFI\\debian\\grubaa64.efi".to_owned()),
            next_options: "report next=x initrd=\\i quiet".to_owned(),
            words: "warmbus.verify cma=64M".to_owned(),
            ..LoadOptions::default()
        };
        assert_eq!(
            LoadOptions::from_utf16(&utf16(text)),
            Some(expected.clone())
        );
        let lines = text.replace(' ', "\r\n");
        assert_eq!(
            LoadOptions::from_text(&("\u{feff}".to_owned() + &lines)),
            expected
        );
    }

    #[test]
    fn a_report_goes_to_a_file_or_is_all_that_is_done() {
        let options = LoadOptions::from_text("report=report.json");
        assert_eq!(options.report_file.as_deref(), Some("\\report.json"));
        assert!(!options.report_only);
        assert!(LoadOptions::from_text("warmbus.efi report").report_only);
        assert!(LoadOptions::from_text("off").off);
        assert_eq!(
            LoadOptions::from_text("warmbus.efi quiet x.efi").words,
            "quiet x.efi"
        );
    }

    #[test]
    fn options_that_are_no_text_are_none() {
        let guid = [
            0x9d, 0x6c, 0x01, 0x00, 0x4e, 0xac, 0x08, 0x00, 0xde, 0xd8, 0x12, 0x34, 0x56, 0x78,
            0x9a, 0xbc,
        ];
        for raw in [
            &guid[..],
            b"",
            b"a",
            b"abc",
            &[0x00, 0xd8, 0x41, 0x00],
            &[1, 0, 2, 0],
            &utf16("warmbus.efi"),
        ] {
            assert_eq!(LoadOptions::from_utf16(raw), None, "{raw:x?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_accepted(raw in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let _ = LoadOptions::from_utf16(&raw);
        }
    }
}

//! The load options of a UEFI application.
//!
//! The parameters `kernel=`, `initrd=` and `cmdline=` name files on the volume
//! that Warmbus was loaded from; all other parameters are for Linux, and those
//! that start with `warmbus.` for both.

use alloc::string::String;
use alloc::vec::Vec;

use crate::command_line::parameters;

/// UTF-16 units that are read at most; Linux reads 2048 bytes.
const MAX_UNITS: usize = 4096;

/// Load options, split into parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// The path of the kernel, with backslashes.
    pub kernel: Option<String>,
    /// The path of the initrd.
    pub initrd: Option<String>,
    /// The path of the file with the command line.
    pub command_line_file: Option<String>,
    /// The other parameters, in their order, separated by one space.
    pub parameters: String,
}

impl LoadOptions {
    /// Reads load options as UEFI passes them: UTF-16, up to a NUL. Firmware
    /// also stores data of its own there: what is no text is ignored.
    #[must_use]
    pub fn parse(raw: &[u8]) -> Self {
        let units = raw
            .chunks_exact(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        let units: Vec<u16> = units
            .take(MAX_UNITS)
            .take_while(|&unit| unit != 0)
            .collect();
        let text = String::from_utf16(&units).unwrap_or_default();
        let is_text = |letter: char| letter == '\t' || !letter.is_control();
        if !raw.len().is_multiple_of(2) || !text.chars().all(is_text) {
            return Self::default();
        }
        let mut options = Self::default();
        for (number, word) in parameters(&text).enumerate() {
            if number == 0 && is_program(word) {
                continue;
            }
            match word.split_once('=') {
                Some(("kernel", file)) => options.kernel = Some(path(file)),
                Some(("initrd", file)) => options.initrd = Some(path(file)),
                Some(("cmdline", file)) => options.command_line_file = Some(path(file)),
                _ => {
                    if !options.parameters.is_empty() {
                        options.parameters.push(' ');
                    }
                    options.parameters.push_str(word);
                }
            }
        }
        options
    }

    /// The command line for Linux: `file`, the text of the file that
    /// `cmdline=` names, on one line, then the other parameters.
    #[must_use]
    pub fn command_line(&self, file: &str) -> String {
        let file = file.trim_start_matches('\u{feff}');
        let from_file = file.split_whitespace();
        let parameters = Some(self.parameters.as_str()).filter(|text| !text.is_empty());
        from_file.chain(parameters).collect::<Vec<_>>().join(" ")
    }
}

/// Whether the first parameter is the program, as the UEFI shell passes it.
fn is_program(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    let extension = lower.rsplit_once('.').map(|(_, extension)| extension);
    !word.contains('=') && matches!(extension, Some("efi" | "img"))
}

fn path(text: &str) -> String {
    text.trim_matches('"').replace('/', "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> LoadOptions {
        let mut raw: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        raw.extend([0, 0]);
        LoadOptions::parse(&raw)
    }

    #[test]
    fn files_are_split_off_and_all_else_is_for_linux() {
        let options = parse(
            "FS0:\\EFI\\warmbus\\warmbus.efi kernel=/boot/Image initrd=\\initrd.img  root=/dev/vda warmbus.verify",
        );
        assert_eq!(options.kernel.as_deref(), Some("\\boot\\Image"));
        assert_eq!(options.initrd.as_deref(), Some("\\initrd.img"));
        assert_eq!(options.command_line_file, None);
        assert_eq!(options.parameters, "root=/dev/vda warmbus.verify");
        assert_eq!(parse("warmbus.img").parameters, "");
        assert_eq!(parse("quiet x.efi").parameters, "quiet x.efi");
        assert_eq!(
            parse("cmdline=\"\\my line.txt\"")
                .command_line_file
                .unwrap(),
            "\\my line.txt"
        );
    }

    #[test]
    fn the_file_comes_first_in_the_command_line_and_lines_are_joined() {
        let file = "\u{feff}console=ttyAMA0\r\n  root=/dev/vda\n";
        assert_eq!(
            parse("quiet").command_line(file),
            "console=ttyAMA0 root=/dev/vda quiet"
        );
        assert_eq!(
            parse("").command_line(file),
            "console=ttyAMA0 root=/dev/vda"
        );
        assert_eq!(parse("a b").command_line(""), "a b");
    }

    #[test]
    fn options_that_are_no_text_are_ignored() {
        let guid = [
            0x9d, 0x6c, 0x01, 0x00, 0x4e, 0xac, 0x08, 0x00, 0xde, 0xd8, 0x12, 0x34, 0x56, 0x78,
            0x9a, 0xbc,
        ];
        assert_eq!(LoadOptions::parse(&guid).kernel, None);
        for raw in [
            &b""[..],
            b"a",
            b"abc",
            &[0x00, 0xd8, 0x41, 0x00],
            &[1, 0, 2, 0],
        ] {
            assert_eq!(LoadOptions::parse(raw), LoadOptions::default(), "{raw:x?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_accepted(raw in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let options = LoadOptions::parse(&raw);
            proptest::prop_assert!(!options.parameters.contains('\0'));
        }
    }
}

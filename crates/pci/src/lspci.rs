//! Configuration spaces recorded from real machines.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use thiserror::Error;

use super::{ConfigAccess, ConfigOffset, Sbdf, Width};

/// What is wrong with a line of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DumpProblem {
    /// Bytes that no function line stands above.
    #[error("bytes, but no function before them")]
    BytesWithoutFunction,
    /// Something that is not a byte in two hexadecimal digits.
    #[error("not a byte of two hexadecimal digits")]
    NotAByte,
    /// The bytes do not start where the line before them ended.
    #[error("bytes at offset {found:#x} where {expected:#x} should follow")]
    NotInOrder {
        /// The offset that was due.
        expected: u16,
        /// The offset that the line starts with.
        found: u16,
    },
    /// Bytes beyond the 4096 of a configuration space.
    #[error("more than the 4096 bytes of a configuration space")]
    BeyondTheEnd,
    /// The function has bytes already.
    #[error("{0} was there already")]
    Twice(Sbdf),
    /// The function ends after a number of bytes that no `lspci` writes: 64,
    /// 128, 256 or 4096.
    #[error("{function} has {bytes} bytes instead of 64, 128, 256 or 4096")]
    OddSize {
        /// The function.
        function: Sbdf,
        /// How many bytes it has.
        bytes: usize,
    },
}

/// A text that is not a dump of configuration spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {problem}")]
#[non_exhaustive]
pub struct DumpError {
    /// The line, counted from 1; where a function is too short, its first.
    pub line: usize,
    /// What is wrong with it.
    pub problem: DumpProblem,
}

/// The configuration spaces of a dump as `lspci -x`, `-xxx` and `-xxxx` write
/// it, read only.
///
/// Reads return what was recorded, and all ones for functions and bytes that
/// were not. Writes change nothing but are counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DumpedConfigSpace {
    functions: BTreeMap<Sbdf, Vec<u8>>,
    writes: u64,
}

/// The function that a dump is in the middle of.
struct Open {
    function: Sbdf,
    line: usize,
    bytes: Vec<u8>,
}

impl DumpedConfigSpace {
    /// Reads a dump.
    ///
    /// A function is a line that starts with its address, then lines of bytes
    /// (`10: 00 00 ...`, offset and bytes in hexadecimal, without gaps), then
    /// an empty line. Other lines, such as those that `lspci -v` adds, are
    /// passed over, and so are functions without bytes.
    ///
    /// Linux numbers the PCI domains that are no segment of the firmware from
    /// 10000 on. Such a domain 10000 + n is taken as segment ffff - n.
    ///
    /// # Errors
    ///
    /// The first line that is not as above, and a function that is there twice
    /// or has a number of bytes that no `lspci` writes.
    pub fn parse(dump: &str) -> Result<Self, DumpError> {
        let mut recorded = Self::default();
        let mut open: Option<Open> = None;
        for (index, text) in dump.lines().enumerate() {
            let line = index + 1;
            let fail = |problem| Err(DumpError { line, problem });
            let text = text.trim_end();
            if text.is_empty() {
                recorded.close(open.take())?;
            } else if let Some(function) = function_of(text) {
                recorded.close(open.take())?;
                if recorded.functions.contains_key(&function) {
                    return fail(DumpProblem::Twice(function));
                }
                open = Some(Open {
                    function,
                    line,
                    bytes: Vec::new(),
                });
            } else if let Some((found, values)) = offset_of(text) {
                let Some(open) = &mut open else {
                    return fail(DumpProblem::BytesWithoutFunction);
                };
                let expected = open.bytes.len() as u16;
                if found != expected {
                    return fail(DumpProblem::NotInOrder { expected, found });
                }
                for value in values.split_ascii_whitespace() {
                    let Some(byte) = hex(value, 2..=2) else {
                        return fail(DumpProblem::NotAByte);
                    };
                    if open.bytes.len() == usize::from(ConfigOffset::END) {
                        return fail(DumpProblem::BeyondTheEnd);
                    }
                    open.bytes.push(byte as u8);
                }
            }
        }
        recorded.close(open)?;
        Ok(recorded)
    }

    fn close(&mut self, open: Option<Open>) -> Result<(), DumpError> {
        let Some(open) = open else { return Ok(()) };
        match open.bytes.len() {
            0 => {}
            64 | 128 | 256 | 4096 => {
                self.functions.insert(open.function, open.bytes);
            }
            bytes => {
                return Err(DumpError {
                    line: open.line,
                    problem: DumpProblem::OddSize {
                        function: open.function,
                        bytes,
                    },
                });
            }
        }
        Ok(())
    }

    /// The configuration spaces `functions`, whose bytes start at offset 0.
    /// Bytes from offset 4096 on are ignored.
    pub fn from_functions(functions: impl IntoIterator<Item = (Sbdf, Vec<u8>)>) -> Self {
        let cut = |(function, mut bytes): (Sbdf, Vec<u8>)| {
            bytes.truncate(ConfigOffset::END.into());
            (function, bytes)
        };
        Self {
            functions: functions.into_iter().map(cut).collect(),
            writes: 0,
        }
    }

    /// The functions, in ascending order.
    pub fn functions(&self) -> impl Iterator<Item = Sbdf> {
        self.functions.keys().copied()
    }

    /// The bytes of a function, from offset 0 on: 64, 128, 256 or 4096 of one
    /// that was read from a dump.
    pub fn bytes(&self, function: Sbdf) -> Option<&[u8]> {
        self.functions.get(&function).map(Vec::as_slice)
    }

    /// How many writes there were.
    pub fn writes(&self) -> u64 {
        self.writes
    }
}

impl ConfigAccess for DumpedConfigSpace {
    fn read(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
        let bytes = usize::from(width.bytes());
        let start = offset.index() & !(bytes - 1);
        let Some(found) = self
            .functions
            .get(&function)
            .and_then(|space| space.get(start..start + bytes))
        else {
            return width.ones();
        };
        let mut value = [0; 4];
        value[..bytes].copy_from_slice(found);
        u32::from_le_bytes(value)
    }

    fn write(&mut self, _: Sbdf, _: ConfigOffset, _: Width, _: u32) {
        self.writes += 1;
    }
}

/// Bytes in the lines that `lspci -x` writes for a function: the offset of the
/// first byte, a colon, and 16 bytes, all in hexadecimal.
#[derive(Clone, Copy, Debug)]
pub struct HexDump<'a>(pub &'a [u8]);

impl fmt::Display for HexDump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.0.chunks(16).enumerate() {
            write!(f, "{:02x}:", index * 16)?;
            for byte in line {
                write!(f, " {byte:02x}")?;
            }
            f.write_str("\n")?;
        }
        Ok(())
    }
}

/// The function whose address the line starts with.
fn function_of(line: &str) -> Option<Sbdf> {
    let address = line.split(' ').next()?;
    match address.split_once(':') {
        Some((domain, rest)) if rest.contains(':') => {
            let domain = hex(domain, 4..=8)?;
            let segment = u16::try_from(domain).unwrap_or(0xffff - domain as u16);
            let in_segment_0: Sbdf = rest.parse().ok()?;
            Some(Sbdf::from_routing_id(segment, in_segment_0.routing_id()))
        }
        _ => address.parse().ok(),
    }
}

/// The offset that a line of bytes starts with, and the bytes.
fn offset_of(line: &str) -> Option<(u16, &str)> {
    let (offset, bytes) = line.split_once(": ")?;
    Some((hex(offset, 2..=4)? as u16, bytes))
}

/// The value of `text`, if it is so many hexadecimal digits.
fn hex(text: &str, digits: core::ops::RangeInclusive<usize>) -> Option<u32> {
    let good = digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    good.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::{String, ToString};

    fn dump(address: &str, bytes: &[u8]) -> String {
        format!("{address} Class 0604\n{}\n", HexDump(bytes))
    }

    fn counting(size: u16) -> Vec<u8> {
        (0..size).map(|n| (n ^ (n >> 8)) as u8).collect()
    }

    #[test]
    fn a_function_reads_back_in_every_width_and_all_ones_beyond_its_end() {
        let sbdf = Sbdf::new(0, 1, 2, 3);
        let mut recorded = DumpedConfigSpace::parse(&dump("01:02.3", &counting(256))).unwrap();
        let mut read = |offset, width| recorded.read(sbdf, ConfigOffset::wrapping(offset), width);
        assert_eq!(read(0x10, Width::Dword), 0x1312_1110);
        assert_eq!(read(0x12, Width::Word), 0x1312);
        assert_eq!(read(0xff, Width::Byte), 0xff);
        assert_eq!(read(0x13, Width::Dword), 0x1312_1110);
        assert_eq!(read(0x100, Width::Dword), 0xffff_ffff);
        assert_eq!(read(0xffe, Width::Word), 0xffff);
        let absent = Sbdf::new(0, 1, 2, 4);
        assert_eq!(
            recorded.read(absent, ConfigOffset::wrapping(0), Width::Dword),
            0xffff_ffff
        );
    }

    #[test]
    fn a_hex_dump_has_the_lines_of_lspci() {
        let bytes: Vec<u8> = (0xf5..=0xff).chain(0..10).collect();
        let lines = "00: f5 f6 f7 f8 f9 fa fb fc fd fe ff 00 01 02 03 04\n10: 05 06 07 08 09\n";
        assert_eq!(HexDump(&bytes).to_string(), lines);
        let last = HexDump(&[0; 4096]).to_string();
        assert!(last.ends_with("\nff0: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00\n"));
        assert_eq!(HexDump(&[]).to_string(), "");
    }

    #[test]
    fn bytes_beyond_a_configuration_space_are_ignored() {
        let sbdf = Sbdf::new(0, 0, 0, 0);
        let space = DumpedConfigSpace::from_functions([(sbdf, counting(4100))]);
        assert_eq!(space.bytes(sbdf).map(<[u8]>::len), Some(4096));
    }

    #[test]
    fn a_write_is_counted_and_changes_nothing() {
        let sbdf = Sbdf::new(0, 0, 0, 0);
        let before = DumpedConfigSpace::parse(&dump("0000:00:00.0", &counting(4096))).unwrap();
        let mut after = before.clone();
        after.write(sbdf, ConfigOffset::wrapping(4), Width::Word, 7);
        assert_eq!(after.writes(), 1);
        assert_eq!(after.bytes(sbdf), before.bytes(sbdf));
    }

    #[test]
    fn domains_missing_long_and_beyond_a_segment_are_all_read() {
        let text = dump("00:1f.7", &counting(64))
            + &dump("abcd:00:00.0", &counting(64))
            + &dump("10000:e1:00.0", &counting(64));
        let recorded = DumpedConfigSpace::parse(&text).unwrap();
        let found: Vec<String> = recorded.functions().map(|sbdf| sbdf.to_string()).collect();
        assert_eq!(found, ["0000:00:1f.7", "abcd:00:00.0", "ffff:e1:00.0"]);
    }

    #[test]
    fn decoded_text_between_the_lines_and_dos_line_ends_do_no_harm() {
        let plain = dump("00:02.0", &counting(256));
        let mut noisy = String::from("$ lspci -vvvxxxx\r\n00:02.0 VGA\r\n\r\n");
        for line in plain.lines() {
            noisy += line;
            noisy += "\r\n";
            if line.starts_with("00:02.0") {
                noisy += "\tControl: I/O+ Mem+\r\npcilib: sysfs_read_vpd: failed\r\n";
            }
        }
        assert_eq!(
            DumpedConfigSpace::parse(&noisy),
            DumpedConfigSpace::parse(&plain)
        );
    }

    #[test]
    fn every_broken_dump_is_refused_with_the_line_that_breaks_it() {
        let good = dump("00:02.0", &counting(64));
        let cases = [
            (
                good.replace("10:", "20:"),
                "line 3: bytes at offset 0x20 where 0x10 should follow",
            ),
            (
                good.replace("2f\n", "2\n"),
                "line 4: not a byte of two hexadecimal digits",
            ),
            (
                good.replace("3f\n", "3f +0\n"),
                "line 5: not a byte of two hexadecimal digits",
            ),
            (
                good.replace("00:02.0", "00:42.0"),
                "line 2: bytes, but no function before them",
            ),
            (
                good.replace("20: 20", "\n20: 20"),
                "line 1: 0000:00:02.0 has 32 bytes instead of 64, 128, 256 or 4096",
            ),
            (
                good.clone() + &good,
                "line 7: 0000:00:02.0 was there already",
            ),
            (
                dump("00:02.0", &counting(4112)),
                "line 258: more than the 4096 bytes of a configuration space",
            ),
            (
                good.replace("00: 00", "fff0: 00"),
                "line 2: bytes at offset 0xfff0 where 0x0 should follow",
            ),
        ];
        for (text, message) in cases {
            let error = DumpedConfigSpace::parse(&text).expect_err(message);
            assert_eq!(error.to_string(), message);
        }
    }
}

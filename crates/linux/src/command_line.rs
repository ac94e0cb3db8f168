//! Splitting a kernel command line.

/// The parameters of a kernel command line: separated by white space, which double
/// quotes protect.
pub fn parameters(line: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    line.split(move |letter: char| {
        quoted ^= letter == '"';
        !quoted && letter.is_ascii_whitespace()
    })
    .filter(|parameter| !parameter.is_empty())
}

/// Whether a Linux with the patches of `linux/` is to use nothing that is handed
/// over to it: the last `pcsc=` of the command line is `off`.
#[must_use]
pub fn switches_cache_off(line: &str) -> bool {
    let words = parameters(line).take_while(|&word| word != "--");
    let modes = words.filter_map(|word| word.trim_matches('"').strip_prefix("pcsc="));
    modes
        .last()
        .is_some_and(|mode| mode.trim_matches('"') == "off")
}

/// The number that `text` starts with, as Linux reads one: decimal, with `0x`
/// hexadecimal, or with `0` octal; and what follows. `None` where there is no
/// digit, or the number has more than 64 bits.
pub(crate) fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let (digits, radix) = match text {
        [b'0', b'x' | b'X', digits @ ..] if digits.first().is_some_and(u8::is_ascii_hexdigit) => {
            (digits, 16)
        }
        [b'0', ..] => (text, 8),
        _ => (text, 10),
    };
    let is_digit = |byte: &u8| char::from(*byte).is_digit(radix);
    let length = digits.iter().take_while(|byte| is_digit(byte)).count();
    let (digits, rest) = digits.split_at(length);
    let number = u64::from_str_radix(core::str::from_utf8(digits).ok()?, radix).ok()?;
    Some((number, rest))
}

/// A size as Linux writes it (`memparse`): a [`number`] and perhaps a letter
/// from `K` to `E`. What follows is not looked at.
pub(crate) fn memory_size(text: &[u8]) -> Option<u64> {
    memory_size_and_rest(text).map(|(size, _)| size)
}

/// The same, and what follows.
pub(crate) fn memory_size_and_rest(text: &[u8]) -> Option<(u64, &[u8])> {
    const LETTERS: &[u8] = b"KMGTPE";

    let (number, rest) = number(text)?;
    let letter = rest.first().map(u8::to_ascii_uppercase);
    let power = letter.and_then(|letter| LETTERS.iter().position(|&known| known == letter));
    match power {
        None => Some((number, rest)),
        Some(power) => {
            let size = number.checked_mul(1 << (10 * (power as u32 + 1)))?;
            Some((size, &rest[1..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mode_of_the_cache_counts() {
        for (line, off) in [
            ("", false),
            ("quiet pcsc=off", true),
            ("pcsc=off pcsc=on", false),
            ("pcsc=verify \"pcsc=off\"", true),
            ("pcsc=\"off\"", true),
            ("pcsc=offended", false),
            ("xpcsc=off", false),
            ("init=\"/a pcsc=off\"", false),
            ("quiet -- pcsc=off", false),
        ] {
            assert_eq!(switches_cache_off(line), off, "{line}");
        }
    }

    #[test]
    fn sizes_are_read_as_linux_reads_them() {
        for (text, size) in [
            ("4096", Some((4096, ""))),
            ("0x20m@7", Some((32 << 20, "@7"))),
            ("010K", Some((8 << 10, ""))),
            ("0", Some((0, ""))),
            ("08", Some((0, "8"))),
            ("0x", Some((0, "x"))),
            ("2E,", Some((2 << 60, ","))),
            ("16E", None),
            ("99999999999999999999", None),
            ("", None),
            ("K", None),
        ] {
            let expected = size.map(|(size, rest): (u64, &str)| (size, rest.as_bytes()));
            assert_eq!(memory_size_and_rest(text.as_bytes()), expected, "{text}");
            assert_eq!(memory_size(text.as_bytes()), size.map(|(size, _)| size));
        }
    }
}

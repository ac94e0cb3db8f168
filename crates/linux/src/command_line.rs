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

//! Numbers in the units that people read. Integer arithmetic only.

use alloc::format;
use alloc::string::String;

/// A number of bytes, as `4 KiB` or, where that is not exact, `751.9 MiB`
/// (rounded down).
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = count.checked_ilog2().unwrap_or(0) / 10;
    let shift = unit * 10;
    let rest = count & ((1 << shift) - 1);
    let whole = count >> shift;
    let name = UNITS[unit as usize];
    match rest {
        0 => format!("{whole} {name}"),
        _ => format!("{whole}.{} {name}", (rest * 10) >> shift),
    }
}

/// Nanoseconds in milliseconds, as `12.345 ms` (rounded down).
pub(super) fn milliseconds(nanoseconds: u64) -> String {
    let micros = nanoseconds / 1000;
    format!("{}.{:03} ms", micros / 1000, micros % 1000)
}

/// The share of `part` in `whole`, as `80.2%` (rounded down), or `-` where
/// there is no whole.
pub(super) fn percent(part: u64, whole: u64) -> String {
    match part.saturating_mul(1000).checked_div(whole) {
        Some(tenths) => format!("{}.{}%", tenths / 10, tenths % 10),
        None => String::from("-"),
    }
}

/// `1 bus`, `2 buses`: the number with the word that goes with it.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_exact_or_have_one_decimal() {
        for (number, text) in [
            (0, "0 B"),
            (32, "32 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (0x2eff_0000, "751.9 MiB"),
            (1 << 39, "512 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn times_and_shares_have_fixed_decimals() {
        assert_eq!(milliseconds(12_345_678), "12.345 ms");
        assert_eq!(milliseconds(u64::MAX), "18446744073709.551 ms");
        assert_eq!(percent(2, 3), "66.6%");
        assert_eq!(percent(3, 3), "100.0%");
        assert_eq!(percent(0, 0), "-");
        assert_eq!(percent(u64::MAX, 1), "1844674407370955161.5%");
    }
}

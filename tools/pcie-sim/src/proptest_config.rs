//! How tests draw what they draw at random: the same every time, unless they
//! are asked for something else.
//!
//! `WARMBUS_SEED` (a number below 2^32, 0 where it is not set) chooses another series,
//! `WARMBUS_ITERATIONS` how many of it are tried. `cargo xtask test` sets both
//! by its options `--seed` and `--iterations`.

use core::ops::Range;
use std::env;

/// The variable that chooses the series.
pub const SEED: &str = "WARMBUS_SEED";
/// The variable that says how many cases each test tries.
pub const ITERATIONS: &str = "WARMBUS_ITERATIONS";

/// The series that is drawn from.
///
/// # Panics
///
/// If the variable holds something that is no number.
pub fn seed() -> u32 {
    number(SEED).unwrap_or(0)
}

/// How many cases a test tries that has `usual` of them by itself.
///
/// # Panics
///
/// If the variable holds something that is no number.
pub fn iterations(usual: u32) -> u32 {
    number(ITERATIONS).unwrap_or(usual)
}

/// The numbers of the cases of a test with `usual` of them. Two series have no
/// number in common.
///
/// # Panics
///
/// If a variable holds something that is no number.
pub fn cases(usual: u32) -> Range<u64> {
    let first = u64::from(seed()) << 32;
    first..first + u64::from(iterations(usual))
}

fn number<T: core::str::FromStr>(variable: &str) -> Option<T> {
    let text = env::var(variable).ok()?;
    let Ok(number) = text.parse() else {
        panic!("{variable} has to be a number, not {text:?}");
    };
    Some(number)
}

/// The settings of properties with `usual` cases each. A failing case is
/// printed in whole and not kept in a file.
#[cfg(feature = "proptest")]
pub fn properties(usual: u32) -> proptest::test_runner::Config {
    use proptest::test_runner::{Config, RngSeed};
    Config {
        cases: iterations(usual),
        rng_seed: RngSeed::Fixed(seed().into()),
        failure_persistence: None,
        ..Config::default()
    }
}

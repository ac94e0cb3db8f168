//! The configuration of randomized tests. Without it, every run has the same cases.
//!
//! `WARMBUS_SEED` is the seed (a number below 2^32, 0 if it is not set), and
//! `WARMBUS_ITERATIONS` the number of cases of each test. The options `--seed` and
//! `--iterations` of `cargo xtask test` set both.

use core::ops::Range;
use std::env;

/// The variable with the seed.
pub const SEED: &str = "WARMBUS_SEED";
/// The variable with the number of cases of each test.
pub const ITERATIONS: &str = "WARMBUS_ITERATIONS";

/// The seed of the random cases.
///
/// # Panics
///
/// If the variable is not a number.
pub fn seed() -> u32 {
    number(SEED).unwrap_or(0)
}

/// The number of cases of a test that has `usual` of them by default.
///
/// # Panics
///
/// If the variable is not a number.
pub fn iterations(usual: u32) -> u32 {
    number(ITERATIONS).unwrap_or(usual)
}

/// The case numbers of a test with `usual` cases by default. Two seeds have no
/// number in common.
///
/// # Panics
///
/// If a variable is not a number.
pub fn cases(usual: u32) -> Range<u64> {
    let first = u64::from(seed()) << 32;
    first..first + u64::from(iterations(usual))
}

fn number<T: core::str::FromStr>(variable: &str) -> Option<T> {
    let text = env::var(variable).ok()?;
    let Ok(number) = text.parse() else {
        panic!("{variable} must be a number, not {text:?}");
    };
    Some(number)
}

/// The configuration of properties with `usual` cases each by default. A failing
/// case is printed and not kept in a file.
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

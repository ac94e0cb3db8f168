//! The Linux that reads the cache: what it counts, and what QEMU counts.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use warmbus_cli::trace::{Access, Counts, counts};
use xtask::{linux, test};

use crate::linux::LinuxBoot;

/// The Linux of the project with our patches: the one that `cargo xtask test`
/// has built, or one that is built now.
#[must_use]
pub fn kernel() -> &'static Path {
    static KERNEL: OnceLock<PathBuf> = OnceLock::new();
    KERNEL.get_or_init(|| {
        env::var_os(test::CONSUMER).map_or_else(
            || linux::image(&linux::Options::consumer()).expect("Linux builds"),
            PathBuf::from,
        )
    })
}

/// Has the firmware hand over also to a Linux that is to use nothing, so that all
/// else is the same in each mode.
pub const IN_EACH_MODE: &str = "warmbus.kho=v4";

/// What the test init says after `warmbus: linux: ` in lines that start with
/// `word`.
pub fn said<'a>(linux: &'a LinuxBoot, word: &str) -> Vec<&'a str> {
    let lines = linux.boot.console.iter();
    lines
        .filter_map(|line| line.strip_prefix("warmbus: linux: ")?.strip_prefix(word))
        .map(str::trim)
        .collect()
}

/// The counters of the kernel, once for each step `cache`.
#[must_use]
pub fn counters(linux: &LinuxBoot) -> Vec<BTreeMap<String, u64>> {
    let mut all: Vec<BTreeMap<String, u64>> = Vec::new();
    for line in said(linux, "cache ") {
        let (name, value) = line.split_once(' ').expect("a counter has a value");
        // The mode is a word.
        let Ok(value) = value.parse() else {
            continue;
        };
        match all.last_mut() {
            Some(last) if !last.contains_key(name) => drop(last.insert(name.into(), value)),
            _ => all.push(BTreeMap::from([(name.into(), value)])),
        }
    }
    all
}

/// What the kernel said about the cache, as the steps `cache` showed it.
#[must_use]
pub fn log(linux: &LinuxBoot) -> Vec<&str> {
    said(linux, "log ")
}

/// Linux said each time the step `compare` asked, `times` times, what the
/// hardware said past it.
pub fn matches_hardware(linux: &LinuxBoot, times: usize) {
    assert_eq!(said(linux, "differs:"), Vec::<&str>::new());
    let compared = said(linux, "compared ");
    assert_eq!(compared.len(), times, "{compared:?}");
    for line in compared {
        let dwords: u64 = line
            .split(' ')
            .next()
            .and_then(|number| number.parse().ok())
            .expect("a number of dwords");
        assert!(dwords > 1000, "{line}");
        assert!(line.ends_with(": 0 differ"), "{line}");
    }
}

/// Whether an access is a mark that the test init left.
fn mark(access: &Access) -> Option<u16> {
    ((access.bus, access.devfn, access.size) == (0xff, 0xff, 1)).then_some(access.offset)
}

/// The accesses after the mark `from` and before the mark `to`.
#[must_use]
pub fn between(accesses: &[Access], from: u16, to: u16) -> &[Access] {
    let place = |number| {
        accesses
            .iter()
            .position(|access| mark(access) == Some(number))
            .unwrap_or_else(|| panic!("the mark {number} was left"))
    };
    &accesses[place(from) + 1..place(to)]
}

/// All accesses but those between the marks `from` and `to`, and these marks.
#[must_use]
pub fn without(accesses: &[Access], from: u16, to: u16) -> Counts {
    let all = counts(accesses);
    let inner = counts(between(accesses, from, to));
    Counts {
        reads: all.reads - inner.reads - 2,
        writes: all.writes - inner.writes,
    }
}

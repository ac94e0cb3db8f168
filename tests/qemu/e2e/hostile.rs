//! The firmware is entered in the worst state that the boot protocol allows, on
//! each processor model, at each exception level: all other memory and all registers
//! are junk, floating point is trapped, timers have expired and the counter is about
//! to wrap. Linux starts with the cache, and what it reads is true.

use std::process::Command;

use warmbus_boot::report::console::Outcome;
use warmbus_qemu_tests::boot::{self, Lab};
use warmbus_qemu_tests::consumer;
use warmbus_qemu_tests::linux::payload;
use warmbus_qemu_tests::simulated::hostile::{Hostile, Level};
use xtask::{process, programs, test};

/// Processor models, with whether they have `FEAT_VHE`.
const MODELS: [(&str, bool); 7] = [
    ("cortex-a53", false),
    ("cortex-a57", false),
    ("cortex-a72", false),
    ("cortex-a76", true),
    ("neoverse-n1", true),
    ("neoverse-v1", true),
    ("max", true),
];
/// Models of newer versions of QEMU only.
const NEWER: [(&str, bool); 2] = [("cortex-a710", true), ("neoverse-n2", true)];

/// The models that QEMU has.
fn models() -> impl Iterator<Item = (&'static str, bool)> {
    let mut qemu = Command::new(programs::find("qemu-system-aarch64").expect("there is QEMU"));
    let known = process::output(qemu.args(["-cpu", "help"])).expect("QEMU says its models");
    let known: Vec<String> = known.split_whitespace().map(String::from).collect();
    let is_known = move |(model, _): &(&str, bool)| known.iter().any(|known| known == model);
    MODELS.into_iter().chain(NEWER).filter(is_known)
}

/// Boots at `level` on every second model, so that each has its turn at EL1 or at EL2;
/// with `WARMBUS_LONG` on each, and in each way.
fn boot_at(level: Level) {
    let ways = [(0xff, false), (0xaa, true)].map(|(junk, is_unmasked)| Hostile {
        level,
        junk,
        is_unmasked,
        has_serror: level == Level::El1 && !is_unmasked,
    });
    let payload = payload(consumer::kernel(), "summary,sections,compare,cache");
    let mut count = 0;
    for (number, (model, has_vhe)) in models().enumerate() {
        let has_turn = number % 2 == usize::from(level != Level::El1);
        if level == Level::Vhe && !has_vhe || !(has_turn || test::is_long()) {
            continue;
        }
        let ways = match count % 2 {
            _ if test::is_long() => &ways[..],
            0 => &ways[..1],
            _ => &ways[1..],
        };
        for way in ways {
            let lab = Lab::new();
            let small = boot::topology("small");
            let linux = way
                .boot(&lab, model, &payload, |machine| machine.topology(&small))
                .unwrap_or_else(|error| panic!("{model}, {way:?}: {error:?}"));
            let console = format!("{model}, {way:?}:\n{}", linux.boot.console.join("\n"));
            assert_eq!(linux.boot.outcome, Some(Outcome::Ok), "{console}");
            assert!(linux.done && linux.powered_off, "{console}");
            let start = ["starting linux at", ", with the cache"];
            assert_eq!(linux.boot.lines_with(&start).len(), 1, "{console}");
            let serror = ["warning: an SError was pending at entry"];
            let serrors = linux.boot.lines_with(&serror).len();
            assert_eq!(serrors, usize::from(way.has_serror), "{console}");
            consumer::matches_hardware(&linux, 1);
            count += 1;
        }
    }
    assert!(count >= 2, "{count} boots");
}

#[test]
fn a_hostile_entry_at_el1_starts_linux_with_the_cache() {
    boot_at(Level::El1);
}

#[test]
fn a_hostile_entry_at_el2_starts_linux_with_the_cache() {
    boot_at(Level::El2);
}

#[test]
fn a_hostile_entry_at_el2_with_vhe_starts_linux_with_the_cache() {
    boot_at(Level::Vhe);
}

//! Machines made of random bytes. `WARMBUS_ITERATIONS` sets how many.

use std::time::Instant;

use warmbus::pci::ScanPolicy;
use warmbus_fabric::{Violation, random};

use crate::{boot, boot_with};

fn iterations() -> u64 {
    let set = std::env::var("WARMBUS_ITERATIONS").ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(3_000)
}

/// Accesses that one function can cost at the very most, by all stages: its
/// dwords, the lists that lead through them, and the polling.
const ACCESSES: u64 = 20_000;

#[test]
fn no_machine_makes_the_stages_panic_run_on_or_read_what_they_must_not() {
    let start = Instant::now();
    for seed in 0..iterations() {
        let fabric = random::from_seed(seed);
        let machine = boot(fabric);
        let log = machine.fabric().log();
        let accesses = log.reads() + log.writes();
        assert!(accesses < ACCESSES * 24, "seed {seed}: {accesses} accesses");
        for violation in log.violations() {
            let grave = matches!(
                violation,
                Violation::OutsideHosts { .. }
                    | Violation::Misaligned { .. }
                    | Violation::EarlyVf { .. }
            );
            assert!(!grave, "seed {seed}: {violation}");
        }
    }
    println!("{:?} each", start.elapsed() / iterations() as u32);
}

#[test]
fn no_machine_is_written_when_it_is_to_be_preserved() {
    for seed in 0..iterations() {
        let fabric = random::from_seed(seed);
        let machine = boot_with(fabric, &ScanPolicy::default(), |host| host.preserve = true);
        assert_eq!(machine.fabric().log().writes(), 0, "seed {seed}");
    }
}

//! Machines made of random bytes.

use warmbus_pci::{Sbdf, ScanPolicy};
use warmbus_pcie_sim::{ProtocolViolation, proptest_config, random};
use warmbus_pcsc::Difference;

use crate::{Machine, boot, boot_with};

/// Accesses that one function can cost at the very most, by all stages: its
/// dwords, the lists that lead through them, and the polling.
const ACCESSES: u64 = 20_000;

/// Bytes that the cache serves and the hardware would not, of functions that
/// keep to the rules.
fn stale(machine: &mut Machine) -> Vec<Difference> {
    let mut differences = machine.config.self_check().differences;
    if !differences.is_empty() {
        let fabric = machine.fabric();
        let reachable = fabric.reachable();
        let sound = |function: &Sbdf| {
            let node = reachable.get(function);
            node.is_some_and(|node| fabric.is_compliant(*node))
        };
        differences.retain(|d| sound(&d.function));
    }
    differences
}

#[test]
fn no_machine_makes_the_stages_panic_run_on_or_read_what_they_must_not() {
    for seed in proptest_config::cases(1_000) {
        let fabric = random::from_seed(seed);
        let mut machine = boot(fabric);
        let stale = stale(&mut machine);
        assert_eq!(stale, [], "seed {seed}");
        let log = machine.fabric().log();
        let accesses = log.reads() + log.writes();
        assert!(accesses < ACCESSES * 24, "seed {seed}: {accesses} accesses");
        for violation in log.violations() {
            let grave = matches!(
                violation,
                ProtocolViolation::OutsideHosts { .. }
                    | ProtocolViolation::Misaligned { .. }
                    | ProtocolViolation::EarlyVf { .. }
            );
            assert!(!grave, "seed {seed}: {violation}");
        }
    }
}

#[test]
fn no_machine_is_written_when_it_is_to_be_preserved() {
    for seed in proptest_config::cases(1_000) {
        let fabric = random::from_seed(seed);
        let machine = boot_with(fabric, &ScanPolicy::default(), |host| {
            host.preserve_config = true;
        });
        assert_eq!(machine.fabric().log().writes(), 0, "seed {seed}");
    }
}

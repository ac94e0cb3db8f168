//! The proofs that every good boot has to pass. The witness is always QEMU:
//! its list of devices and its trace of accesses.

use std::collections::BTreeMap;

use warmbus_boot::report::console::Outcome;
use warmbus_cli::trace::{self, Access, Kind};

use crate::Boot;
use crate::pci::{self, Function, Region};

/// All of them.
pub fn everything(boot: &Boot) {
    ended_well(boot);
    same_functions(boot);
    same_counts(boot);
}

/// The firmware says that it succeeded, on the console and in the report, and
/// QEMU has nothing to complain about.
pub fn ended_well(boot: &Boot) {
    assert_eq!(
        boot.outcome,
        Some(Outcome::Ok),
        "{}",
        boot.console.join("\n")
    );
    assert_eq!(boot.log.messages, Vec::<String>::new());
    let report = boot.report();
    assert_eq!(report["schema"], "warmbus-report/1");
    assert_eq!(report["result"], "ok");
}

/// The report lists the functions that QEMU lists, no more and no fewer, with
/// the same IDs, bus numbers, windows and BARs.
pub fn same_functions(boot: &Boot) {
    compare(boot, true);
}

/// The same for a boot in preserve mode, in which BAR sizes stay unknown:
/// finding them out takes writes.
pub fn same_functions_as_found(boot: &Boot) {
    compare(boot, false);
}

fn compare(boot: &Boot, sized: bool) {
    let (ours, theirs) = (pci::of_report(&boot.report()), boot.pci());
    let names = |functions: &[Function]| functions.iter().map(Function::name).collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs), "the functions that there are");

    let accesses = boot.accesses();
    for (our, their) in ours.iter().zip(&theirs) {
        let name = our.name();
        assert_eq!(
            (our.ids, our.class),
            (their.ids, their.class),
            "IDs and class of {name}"
        );
        assert_eq!(
            our.bridge, their.bridge,
            "bus numbers and windows of {name}"
        );
        let indices = |function: &Function| function.regions.keys().copied().collect::<Vec<_>>();
        assert_eq!(indices(our), indices(their), "BARs of {name}");
        for (index, region) in &our.regions {
            let what = format!("BAR {index} of {name}");
            let size = their.regions[index].size.filter(|_| sized);
            assert_eq!(region.size, size, "size of {what}");
            same_region(region, &their.regions[index], &what, || {
                written(&accesses, their, *index)
            });
        }
    }
}

/// `written` gives the address that QEMU saw written to the BAR last: where a
/// BAR is not decoded `query-pci` gives no address.
fn same_region(our: &Region, their: &Region, what: &str, written: impl FnOnce() -> Option<u64>) {
    let kind = |region: &Region| (region.io, region.wide, region.prefetchable);
    assert_eq!(kind(our), kind(their), "kind of {what}");
    match (our.address, their.address) {
        (our, Some(their)) => assert_eq!(our, Some(their), "address of {what}"),
        (Some(our), None) => assert_eq!(Some(our), written(), "address written to {what}"),
        (None, None) => {}
    }
}

fn written(accesses: &[Access], function: &Function, index: u64) -> Option<u64> {
    let register = function.register(index);
    let dword = |at| trace::last_written(accesses, function.bus, function.devfn, at);
    let region = &function.regions[&index];
    let flags = match (index, region.io) {
        (6, _) => 0x7ff,
        (_, true) => 0x3,
        (_, false) => 0xf,
    };
    let low = dword(register)? & !flags;
    let high = if region.wide { dword(register + 4)? } else { 0 };
    Some(high << 32 | low)
}

/// The report counts the accesses that QEMU counted.
pub fn same_counts(boot: &Boot) {
    let accesses = boot.accesses();
    let counted = trace::counts(&accesses);
    let absent = accesses
        .iter()
        .filter(|access| access.is_absent_probe())
        .count() as u64;
    assert_eq!(
        ["reads", "writes", "absent_probes"].map(|what| boot.number(&format!("/accesses/{what}"))),
        [counted.reads, counted.writes, absent],
        "reads, writes and reads of absent functions"
    );
}

/// By QEMU's count, no dword that never changes is read twice: vendor and
/// device ID, class and revision, and the head of the capability list.
pub fn no_constant_is_read_twice(boot: &Boot) {
    let mut reads: BTreeMap<_, u32> = BTreeMap::new();
    for access in boot.accesses() {
        let dword = access.offset & !3;
        if access.kind == Kind::Read
            && !access.is_absent_probe()
            && [0x00, 0x08, 0x34].contains(&dword)
        {
            *reads.entry((access.bus, access.devfn, dword)).or_default() += 1;
        }
    }
    assert!(!reads.is_empty());
    reads.retain(|_, count| *count > 1);
    assert_eq!(reads, BTreeMap::new());
}

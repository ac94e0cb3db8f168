//! Accesses to configuration space that end in an `SError`, which does not stop at
//! the instruction that caused it: each is named in the report, and Linux, which
//! stops with a panic where one is pending, starts.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use warmbus_boot::measured_access::MeasuredAccess;
use warmbus_boot::phase::{Observer, Phase};
use warmbus_boot::pipeline::Pipeline;
use warmbus_boot::report::console::Outcome;
use warmbus_pci::PortType;
use warmbus_pcie_sim::{BarModel, BridgeWindows, ExpressModel, Fabric, FunctionModel, SrIovModel};
use warmbus_pcsc::ConfigCache;
use warmbus_qemu_tests::boot::Lab;
use warmbus_qemu_tests::consumer;
use warmbus_qemu_tests::linux::{LinuxBoot, payload};
use warmbus_qemu_tests::simulated::{self, Access, Flaw, SErrors, Simulated};
use warmbus_qemu_tests::tree::Tree;
use xtask::qemu::Machine;
use xtask::test;

/// A port, the function below it, and those beside them that no test breaks.
const PORT: &str = "0000:00:01.0";
const BELOW: &str = "0000:01:00.0";
const SOUND: [&str; 2] = ["0000:00:1f.0", "0000:02:00.0"];
/// What implementations without `FEAT_RAS` say: nothing.
const NO_SYNDROME: u32 = 0;

/// Two ports with a function below each, one of them with virtual functions.
fn fabric() -> Fabric {
    let (mut fabric, host) = simulated::fabric();
    let port = || {
        let express = ExpressModel::new(PortType::RootPort)
            .ari_forwarding()
            .active_reporting();
        FunctionModel::bridge(0x1234, 0x0004, BridgeWindows::default())
            .express(express)
            .link_up()
    };
    let function = || {
        FunctionModel::endpoint(0x1234, 7, 0xff_0000)
            .express(ExpressModel::new(PortType::Endpoint).flr())
            .power_management(false, 0)
            .serial_number(1)
            .bar(0, BarModel::memory64(0x4000))
    };
    let virtual_functions = SrIovModel {
        total_vfs: 2,
        ..SrIovModel::default()
    };
    let virtual_function = FunctionModel::virtual_function(0xff_0000);
    let broken = fabric.add_root(host, 1, 0, port());
    fabric.add_below(
        broken,
        0,
        0,
        function().sriov(virtual_functions, virtual_function),
    );
    let sound = fabric.add_root(host, 0x1f, 0, port());
    fabric.add_below(sound, 0, 0, function());
    fabric
}

/// Boots Linux with these accesses ending in an `SError`.
fn boot(serrors: SErrors, cpu: &str, flaws: &[Flaw]) -> LinuxBoot {
    let lab = Lab::new();
    let mut simulated = Simulated::new(fabric());
    simulated.serrors = serrors;
    simulated.flaws = flaws.to_vec();
    let payload = payload(consumer::kernel(), "summary,sections,compare,cache");
    let machine = |machine: Machine| machine.cpu(cpu);
    let (linux, _) = simulated
        .boot(&lab, payload, machine, |_, _, _| Ok(()))
        .expect("it boots");
    let console = linux.boot.console.join("\n");
    assert!(linux.ran_to_the_end(), "{console}");
    let log = linux.kernel_log();
    for trouble in ["SError Interrupt", "Kernel panic", "BUG:", "Internal error"] {
        assert!(!log.contains(trouble), "{console}");
    }
    linux
}

/// The accesses that the firmware makes where nothing goes wrong.
fn accesses() -> Vec<Access> {
    let all = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&all);
    let none: SErrors = Box::new(move |access| {
        kept.lock().expect("no panic").push(*access);
        None
    });
    let linux = boot(none, "cortex-a72", &[]);
    with_the_cache(&linux);
    let report = linux.boot.report();
    let count = |object: &str, key: &str| report[object][key].as_u64().expect("a number");
    let firmware = count("accesses", "reads") + count("accesses", "writes");
    let mut all = all.lock().expect("no panic").clone();
    all.truncate(firmware as usize);
    all
}

#[track_caller]
fn with_the_cache(linux: &LinuxBoot) {
    assert_eq!(linux.boot.outcome, Some(Outcome::Ok));
    let line = ["starting linux at", ", with the cache"];
    assert_eq!(linux.boot.lines_with(&line).len(), 1);
    let counters = &consumer::counters(linux)[0];
    assert_eq!(counters["rejected"], 0, "{counters:?}");
    consumer::matches_hardware(linux, 1);
}

/// Boots with an `SError` of `syndrome` for the access number `index`, which is
/// `struck`.
fn boot_struck(index: usize, struck: Access, syndrome: u32, cpu: &str) -> LinuxBoot {
    let mut count = 0;
    let serrors: SErrors = Box::new(move |access| {
        count += 1;
        (count == index + 1).then(|| {
            assert_eq!(*access, struck, "the accesses are the same each time");
            syndrome
        })
    });
    boot(serrors, cpu, &[])
}

/// Indices of the first, the middle and the last of the accesses for which `is`.
fn sample(accesses: &[Access], is: impl Fn(&Access) -> bool) -> [usize; 3] {
    let all: Vec<usize> = (0..accesses.len()).filter(|i| is(&accesses[*i])).collect();
    [0, all.len() / 2, all.len() - 1].map(|number| all[number])
}

#[test]
fn an_serror_of_a_read_or_a_write_is_named_and_linux_starts() {
    let accesses = accesses();
    let of = |name, is_write| {
        let is = move |access: &Access| {
            access.is_write == is_write && access.function.to_string() == name
        };
        sample(&accesses, is)
    };
    let struck = [
        of(PORT, true),
        of(PORT, false),
        of(BELOW, true),
        of(BELOW, false),
    ];
    let struck = struck.into_iter().flat_map(|[first, middle, last]| {
        if test::is_long() {
            vec![first, middle, last]
        } else {
            vec![middle]
        }
    });
    for index in struck {
        let struck = accesses[index];
        let linux = boot_struck(index, struck, NO_SYNDROME, "cortex-a72");
        let Access {
            function, offset, ..
        } = struck;
        let text = format!("{function}: access to offset {offset} ended in an external abort");
        let console = &linux.boot.console;
        let context = format!("access {index}, {struck:?}: {console:#?}");
        assert!(!linux.boot.lines_with(&[&text]).is_empty(), "{context}");
        let functions = linux.functions().expect("Linux lists them");
        for sound in SOUND {
            assert!(functions.contains_key(sound), "{context}");
        }
        for name in [PORT, BELOW] {
            assert!(functions.contains_key(name), "{context}");
        }
        // The bus numbers and windows of the port may not be what they should,
        // unless it was only probed. Below it, Linux gets the cache of all others.
        if function.to_string() == PORT && offset.get() == 0 {
            assert!(linux.boot.lines_with(&["functions    4: "]).len() == 1);
        } else if function.to_string() == PORT {
            let refused = linux.boot.lines_with(&["no cache handed over", &text]);
            assert_eq!(refused.len(), 1, "{context}");
        } else if index > accesses.len() / 2 {
            with_the_cache(&linux);
            assert_eq!(consumer::counters(&linux)[0]["restored"], 3, "{context}");
        }
        consumer::matches_hardware(&linux, 1);
    }
}

/// Counts the accesses to configuration space before each phase of the pipeline.
#[derive(Default)]
struct Phases(Vec<(Phase, usize)>);

impl Observer<MeasuredAccess<Fabric, ()>> for Phases {
    fn phase_begins(
        &mut self,
        phase: Phase,
        config: Option<&ConfigCache<MeasuredAccess<Fabric, ()>>>,
    ) {
        let counts = config.map(|config| config.access().counts());
        let count = counts.map_or(0, |counts| counts.reads + counts.writes);
        self.0.push((phase, count as usize));
    }
}

/// The phases with the first access of each and the one behind its last, of `all`
/// accesses: those of the pipeline, as it is on the host, and what comes behind it.
fn phases(all: usize) -> Vec<(String, Range<usize>)> {
    let fabric = fabric();
    let hosts = fabric.host_bridges();
    let mut clock = fabric.clock();
    let access = MeasuredAccess::new(fabric, ());
    let mut phases = Phases::default();
    let captured = Pipeline::default().run(&hosts, access, &mut clock, &mut phases);
    let counts = captured.config.access().counts();
    let end = (counts.reads + counts.writes) as usize;
    let ends = phases.0.iter().skip(1).map(|(_, begin)| *begin);
    let mut ranges: Vec<_> = phases
        .0
        .iter()
        .zip(ends.chain([end]))
        .map(|((phase, begin), end)| (phase.name().to_owned(), *begin..end))
        .collect();
    ranges.push(("after the pipeline".into(), end..all));
    ranges
}

#[test]
fn an_serror_of_the_first_a_middle_and_the_last_access_of_each_phase_is_named() {
    let accesses = accesses();
    let mut struck = BTreeMap::new();
    for (phase, range) in phases(accesses.len()) {
        for is_write in [false, true] {
            let of_kind = range.clone().filter(|i| accesses[*i].is_write == is_write);
            let all: Vec<usize> = of_kind.collect();
            let places = match all.len() {
                0 => continue,
                count if test::is_long() => vec![0, count / 2, count - 1],
                count => vec![count / 2],
            };
            for place in places {
                struck.insert(
                    all[place],
                    format!("{phase}, access {place} of {}", all.len()),
                );
            }
        }
    }
    assert!(struck.len() >= 6, "{struck:?}");
    for (index, place) in struck {
        let access = accesses[index];
        let linux = boot_struck(index, access, NO_SYNDROME, "cortex-a72");
        let (function, offset) = (access.function, access.offset);
        let console = linux.boot.console.join("\n");
        let context = format!("{place}, {index}, {access:?}: {console}");
        let name = function.to_string();
        // A probe of a function that is not there, or of one that answers when it is
        // probed once more, is no anomaly.
        let text = format!("{function}: access to offset {offset} ended in an external abort");
        let is_named = !linux.boot.lines_with(&[&text]).is_empty();
        let is_there = [PORT, BELOW]
            .into_iter()
            .chain(SOUND)
            .any(|one| one == name);
        assert!(is_named || !is_there, "{context}");
        // Linux finds each function.
        let functions = linux.functions().expect("Linux lists them");
        for name in [PORT, BELOW].into_iter().chain(SOUND) {
            assert!(functions.contains_key(name), "{context}");
        }
        // All that depends on the function is not handed over, and no more.
        let is_bridge = name == PORT || name == SOUND[0];
        let counters = &consumer::counters(&linux)[0];
        assert_eq!(counters["rejected"], 0, "{context}");
        if !is_bridge {
            assert!(counters["restored"] >= 3, "{context}");
        }
        consumer::matches_hardware(&linux, 1);
    }
}

#[test]
fn a_processor_that_cannot_contain_an_serror_ends_in_a_start_without_pci() {
    /// `DFSC` of an asynchronous `SError`, with `AET` 0 for uncontainable and 3 for
    /// recoverable (Arm ARM D24.2.40).
    const UNCONTAINABLE: u32 = 0x11;
    const RECOVERABLE: u32 = 3 << 10 | 0x11;
    let accesses = accesses();
    let is_read = |access: &Access| !access.is_write && access.function.to_string() == BELOW;
    let [_, _, index] = sample(&accesses, is_read);
    let contained = boot_struck(index, accesses[index], RECOVERABLE, "neoverse-n1");
    with_the_cache(&contained);
    let uncontained = boot_struck(index, accesses[index], UNCONTAINABLE, "neoverse-n1");
    let lines = ["SError", "starting again without PCI"];
    assert_eq!(uncontained.boot.lines_with(&lines).len(), 1);
    let start = ["starting linux at", ", without the cache"];
    assert_eq!(uncontained.boot.lines_with(&start).len(), 1);
}

#[test]
fn an_serror_that_the_loader_left_is_named_and_no_access_is_blamed_for_it() {
    for cpu in ["cortex-a72", "neoverse-n1"] {
        let linux = boot(Box::new(|_| None), cpu, &[Flaw::SErrorAtEntry]);
        let named = ["warning: an SError was pending at entry"];
        assert_eq!(linux.boot.lines_with(&named).len(), 1);
        assert!(linux.boot.lines_with(&["external abort"]).is_empty());
        with_the_cache(&linux);
    }
}

/// Boots with a console that answers as `flaw` has it: it is silent, and Linux starts
/// with the cache.
/// Returns how many accesses the console had.
fn silent_console(flaw: Flaw) -> usize {
    // Where the hypervisor answers, and nothing is. Linux has no driver for it.
    const PORT: &str = "/serial@4030000000";
    let lab = Lab::new();
    let mut simulated = Simulated::new(fabric());
    simulated.flaws.push(flaw);
    let accesses = Arc::clone(&simulated.outside);
    let payload = payload(consumer::kernel(), "summary,sections,compare,cache");
    simulated.change_tree = |tree: &Tree| {
        tree.add_node(PORT)
            .set_string(PORT, "compatible", "ns16550a")
            .set_cells(PORT, "reg", &[0x40, 0x3000_0000, 0, 0x1000])
            .set_string("/chosen", "stdout-path", PORT);
    };
    let linux = simulated.boot_silent(&lab, payload).expect("it boots");
    let console = linux.boot.console.join("\n");
    assert!(linux.ran_to_the_end(), "{console}");
    assert!(
        linux.boot.lines_with(&["starting linux"]).is_empty(),
        "{console}"
    );
    assert!(
        !linux.kernel_log().contains("SError Interrupt"),
        "{console}"
    );
    let counters = &consumer::counters(&linux)[0];
    assert_eq!(
        (counters["rejected"], counters["restored"]),
        (0, 4),
        "{console}"
    );
    consumer::matches_hardware(&linux, 1);
    accesses.load(Ordering::Relaxed)
}

#[test]
fn a_console_whose_access_ends_in_an_serror_is_silent_and_linux_starts_with_the_cache() {
    // It is noticed behind the first line, a read and a write for each letter.
    let accesses = silent_console(Flaw::SErrorOutside);
    assert!((1..512).contains(&accesses), "{accesses} accesses");
}

#[test]
fn a_console_that_aborts_what_it_is_to_send_is_silent_and_linux_starts_with_the_cache() {
    // The status is read, and one letter is written.
    assert_eq!(silent_console(Flaw::WriteAbortOutside), 2);
}
